//! Where to connect, as whom, and how patiently.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;

/// A client certificate with its key, and the authority that the server's certificate must be of.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Parts>);

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
}

fn unusable(what: &str) -> impl Fn(String) -> Error + '_ {
    move |reason| Error::Identity(format!("{what}: {reason}"))
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| unusable(what)(error.to_string()))?;
    if all.is_empty() { Err(unusable(what)("holds no certificate".to_owned())) } else { Ok(all) }
}

impl Identity {
    /// Reads `ca.pem`, `client.pem` and `client.key` of a folder.
    ///
    /// # Errors
    /// [`Error::Identity`], with the file.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let read = |file: &str| {
            let path = dir.as_ref().join(file);
            std::fs::read(&path).map_err(|error| Error::Identity(format!("{}: {error}", path.display())))
        };
        Self::from_pem(&read("ca.pem")?, &read("client.pem")?, &read("client.key")?)
    }

    /// Reads PEM texts: the authority, the client's chain, its key.
    ///
    /// # Errors
    /// [`Error::Identity`], with which of them.
    pub fn from_pem(authority: &[u8], chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        Ok(Self(Arc::new(Parts {
            chain: certificates("the client certificate", chain)?,
            key: PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| unusable("the client key")(error.to_string()))?,
            authorities: certificates("the authority", authority)?,
        })))
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0
    }
}

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its address.
    pub address: SocketAddr,
    /// The name that its certificate must have.
    pub server_name: String,
    /// Who we are.
    pub identity: Identity,
    /// How long a request may take, connecting and repeating included.
    pub deadline: Duration,
    /// Requests under way at a time; more wait.
    pub in_flight_max: usize,
    /// Connections at most: one is made with the client, more once those that are open have several requests under way
    /// each. 1 at least.
    pub connections_max: usize,
    /// How single validates of many tasks are put together; `None` sends each in a frame of its own.
    pub coalesce: Option<Coalesce>,
    /// How often a busy server is asked again.
    pub busy_retries_max: u32,
    /// Claim sets and subjects remembered, each.
    pub cache_max: usize,
    /// Whether to look for datagrams of up to 8,900 bytes, which loopback and jumbo frames carry, or of 1,452 at most.
    pub large_datagrams: bool,
}

impl Config {
    /// The usual: 5 s a request, 1,024 requests at a time, two connections, single validates put together.
    #[must_use]
    pub fn new(address: SocketAddr, identity: Identity) -> Self {
        Self {
            address,
            server_name: "jeton".to_owned(),
            identity,
            deadline: Duration::from_secs(5),
            in_flight_max: 1_024,
            connections_max: 2,
            coalesce: Some(Coalesce::DEFAULT),
            busy_retries_max: 8,
            cache_max: 10_000,
            large_datagrams: true,
        }
    }
}

/// How calls of [`Client::validate`](crate::Client::validate) that are made at a time share frames. Values out of range
/// are taken as the nearest that are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coalesce {
    /// How long a call waits for others while frames are under way: microseconds, for what is gained by it is less than a
    /// round trip. With nothing under way there is no wait. Time that other tasks need is not counted against it: all
    /// that could run have done so before the frame leaves. Zero: never wait for company.
    pub linger: Duration,
    /// Tokens in one frame: 1 to 1,024. Fewer where checks are long, for a frame has 65,536 bytes at most.
    pub frame_tokens_max: usize,
    /// Frames under way at a time, over all connections: 1 at least. Those that ask for an event are counted by
    /// themselves.
    pub frames_in_flight_max: usize,
    /// Calls that wait for a frame; one more is answered [`Error::Busy`] at once. 1 at least.
    pub gathering_max: usize,
}

impl Coalesce {
    /// 20 us, 512 tokens, 4 frames, 16,384 calls.
    pub const DEFAULT: Self = Self {
        linger: Duration::from_micros(20),
        frame_tokens_max: 512,
        frames_in_flight_max: 4,
        gathering_max: 16_384,
    };

    pub(crate) fn within_bounds(self) -> Self {
        Self {
            linger: self.linger,
            frame_tokens_max: self.frame_tokens_max.clamp(1, jeton_wire::request::TOKENS_MAX),
            frames_in_flight_max: self.frames_in_flight_max.max(1),
            gathering_max: self.gathering_max.max(1),
        }
    }
}

impl Default for Coalesce {
    fn default() -> Self {
        Self::DEFAULT
    }
}
