//! The limits of a driver and what quinn-proto is told of them.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn_proto::{Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};

use ring::hmac;

use super::cid::ShardCids;

/// Bidirectional streams a peer may have open. quinn-proto prepares all of them at each handshake.
const STREAMS_MAX: u32 = 64;
/// What a peer may send on one stream before it was read.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// What a peer may send on all streams before it was read, and what we keep unacknowledged.
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;
/// How long a connection lives without a word.
const IDLE_MS: u32 = 10_000;
/// Handshakes begun and not answered yet.
const INCOMING_MAX: usize = 1_024;
/// Bytes kept for one of those, and for all.
const INCOMING_BYTES_MAX: u64 = 16 * 1024;
const INCOMING_BYTES_TOTAL_MAX: u64 = 4 << 20;
/// What one system call sends: beyond this the kernel refuses.
pub(super) const TRANSMIT_BYTES_MAX: usize = 65_000;
/// The largest datagram that discovery (RFC 8899) tries, if it is not to look for jumbo frames. Connections begin with QUIC's
/// least of 1,200 bytes: a larger first guess costs a second where a tunnel carries less.
const MTU: u16 = 1_452;
/// The largest that it tries otherwise (docs/decisions/0013-large-datagrams.md).
const MTU_LARGE: u16 = 8_900;
/// How long after larger datagrams did not pass they are tried again. A client that has just moved may have sent too little for
/// any to pass ([`super::conn::Whereabouts`]).
const MTU_AGAIN: Duration = Duration::from_secs(60);

const _: () = assert!(STREAMS_MAX <= 128, "each allowed stream costs every handshake");
const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES, "one stream cannot exceed them all");
const _: () = assert!(
    STREAM_WINDOW_BYTES as usize >= jeton_wire::frame::REQUEST_BYTES_MAX,
    "a whole request fits into a stream's window"
);

/// What a driver lets happen.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections, those in handshake too.
    pub connections_max: usize,
    /// Handshakes under way past which a client has to prove its address first.
    pub handshakes_unproven_max: usize,
    /// Handshakes under way at most.
    pub handshakes_max: usize,
    /// Datagrams of handshakes that wait for their turn.
    pub handshake_steps_max: usize,
    /// Datagrams waiting that belong to no connection.
    pub stateless_max: usize,
    /// Datagrams in one transmit.
    pub segments_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            handshakes_unproven_max: 256,
            handshakes_max: 4_096,
            handshake_steps_max: 4_096,
            stateless_max: 256,
            segments_max: 32,
        }
    }
}

/// What to make a driver of.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// Whether and how to accept connections.
    pub server: Option<Arc<rustls::ServerConfig>>,
    /// What to let happen.
    pub limits: Limits,
    /// Which of the shards this is.
    pub shard: u8,
    /// How many shards there are.
    pub shards: u8,
    /// Whether to look for datagrams of up to 8,900 bytes, which loopback and jumbo frames carry, or of 1,452 at most.
    pub large_datagrams: bool,
    /// What stateless resets (RFC 9000, section 10.3) are made of. A server that is given the same after a restart
    /// tells clients of its predecessor at once that their connections are gone; they would find out by silence only.
    pub reset_key: Option<[u8; 32]>,
    /// Makes the driver's choices repeatable, for tests.
    pub seed: Option<[u8; 32]>,
}

/// A TLS configuration that QUIC cannot be done with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The initial packets' cipher suite is missing.
    #[error("the TLS configuration is not fit for QUIC: {0}")]
    Tls(#[from] NoInitialCipherSuite),
}

fn transport(large_datagrams: bool) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(if large_datagrams { MTU_LARGE } else { MTU }).interval(MTU_AGAIN);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MS).into()))
        .mtu_discovery_config(Some(discovery))
        .datagram_receive_buffer_size(None);
    transport
}

/// The transport of a client: the server's, kept alive, and with more room for answers.
#[must_use]
pub fn client_transport(large_datagrams: bool) -> TransportConfig {
    let mut transport = transport(large_datagrams);
    transport
        .keep_alive_interval(Some(Duration::from_millis(u64::from(IDLE_MS) / 3)))
        .stream_receive_window(VarInt::from_u32(4 * CONNECTION_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(8 * CONNECTION_WINDOW_BYTES));
    transport
}

impl DriverConfig {
    /// A driver that only connects.
    #[must_use]
    pub fn client() -> Self {
        Self {
            server: None,
            limits: Limits::default(),
            shard: 0,
            shards: 1,
            large_datagrams: true,
            reset_key: None,
            seed: None,
        }
    }

    /// A driver that accepts, as the only shard.
    #[must_use]
    pub fn server(tls: Arc<rustls::ServerConfig>) -> Self {
        Self { server: Some(tls), ..Self::client() }
    }

    pub(super) fn into_endpoint(self) -> Result<(Endpoint, Limits), ConfigError> {
        let mut config = match self.reset_key {
            Some(key) => EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &key))),
            None => EndpointConfig::default(),
        };
        let (shard, shards) = (self.shard, self.shards);
        config.cid_generator(move || Box::new(ShardCids::new(shard, shards)));
        config.rng_seed(self.seed);
        config.max_udp_payload_size(MTU_LARGE).expect("it is above the least that QUIC allows");
        let server = self.server.map(|tls| server_config(tls, self.large_datagrams)).transpose()?;
        Ok((Endpoint::new(Arc::new(config), server.map(Arc::new), true, self.seed), self.limits))
    }
}

fn server_config(tls: Arc<rustls::ServerConfig>, large_datagrams: bool) -> Result<ServerConfig, ConfigError> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(Arc::new(transport(large_datagrams)))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    Ok(config)
}
