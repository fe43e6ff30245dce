//! One connection: requests out, answers back by request id, in any order.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jeton_wire::company::Company;
use jeton_wire::frame::{RESPONSE_BYTES_MAX, split};
use jeton_wire::request::{Hello, Request, is_prompt_validate};
use jeton_wire::response::{HelloAck, Response};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, SendStream,
    TransportConfig,
};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::config::Config;

/// Frames waiting to be written.
const OUTGOING_MAX: usize = 1_024;
/// Less than a third of the server's idle timeout of 10 s.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(3);
/// What one read takes.
const READ_BYTES: usize = 64 * 1024;

/// What tokio's timers can tell apart: a shorter wait would be as long.
const TIMER: Duration = Duration::from_millis(1);

/// The largest datagram taken, and the largest that discovery tries.
const LARGE_DATAGRAM_BYTES: u16 = 8_900;

/// Where a frame has its request id.
const REQUEST_ID: std::ops::Range<usize> = 8..16;

type Waiting = HashMap<u64, oneshot::Sender<Result<Response, Error>>>;

/// A connection that has said hello.
#[derive(Debug)]
pub(crate) struct Link {
    connection: Connection,
    outgoing: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
    next_id: AtomicU64,
    pub(crate) ack: HelloAck,
}

#[derive(Debug)]
struct Shared {
    /// `None` once the connection is lost.
    waiting: Mutex<Option<Waiting>>,
    /// When something last came from the server.
    heard: Mutex<Instant>,
    company: Mutex<Company>,
}

/// Frees the slot of a request that nobody waits for any more.
struct Slot<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.shared.with(|waiting| waiting.remove(&self.id));
    }
}

impl Shared {
    fn with<R>(&self, act: impl FnOnce(&mut Waiting) -> R) -> Option<R> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(act)
    }

    fn company(&self) -> MutexGuard<'_, Company> {
        self.company.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long this frame, which could be sent now, is to wait for others.
    fn wait_before(&self, frame: &[u8], round_trip: Duration) -> Duration {
        let unanswered = self.with(|waiting| waiting.len()).unwrap_or_default();
        let (mut company, now) = (self.company(), Instant::now());
        let id = frame.get(REQUEST_ID).and_then(|id| id.try_into().ok()).map(u64::from_le_bytes);
        if let Some(id) = id.filter(|_| is_prompt_validate(frame)) {
            company.asked(id, || now);
        }
        company.wait(round_trip, unanswered, now)
    }

    fn fail_all(&self, error: &Error) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        for (_, sender) in waiting.into_iter().flatten() {
            let _ = sender.send(Err(error.clone()));
        }
    }
}

/// Why a connection is gone. One that the server closed over what it was sent is not worth another try.
fn why_lost(connection: &Connection, otherwise: &str) -> Error {
    match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(close)) if is_final(close.error_code.into_inner()) => {
            Error::Protocol(ConnectionError::ApplicationClosed(close).to_string())
        }
        Some(reason) => Error::Closed(reason.to_string()),
        None => Error::Closed(otherwise.to_owned()),
    }
}

fn is_final(code: u64) -> bool {
    use jeton_wire::CloseCode::{Identity, Malformed, NotJeton, TooLarge, UnknownOpcode, Version};
    let all = [NotJeton, Version, Malformed, TooLarge, UnknownOpcode, Identity];
    all.into_iter().any(|known| u64::from(known.code()) == code)
}

/// A request as [`Link::call`] takes it.
pub(crate) fn encoded(request: &Request<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    request.encode(0, &mut frame);
    frame
}

/// An endpoint that connects as the identity of `config`.
pub(crate) fn endpoint(config: &Config) -> Result<Endpoint, Error> {
    let unusable = |error: &dyn std::fmt::Display| Error::Identity(error.to_string());
    let parts = config.identity.parts();
    let mut roots = rustls::RootCertStore::empty();
    for authority in &parts.authorities {
        roots.add(authority.clone()).map_err(|error| unusable(&error))?;
    }
    // AES-128-GCM first, as the server has it: the fastest, and as strong as a token's secret.
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let provider = Arc::new(CryptoProvider { cipher_suites, ..default_provider() });
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(parts.chain.clone(), parts.key.clone_key())
        .map_err(|error| unusable(&error))?;
    tls.alpn_protocols = vec![jeton_wire::ALPN.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| unusable(&error))?;
    let mut quic = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    if config.large_datagrams {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(LARGE_DATAGRAM_BYTES);
        transport.mtu_discovery_config(Some(discovery));
    }
    quic.transport_config(Arc::new(transport));
    let local = if config.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let failed =
        |error: std::io::Error| Error::Connect { address: config.address, reason: error.to_string() };
    let socket = UdpSocket::bind(local).map_err(failed)?;
    let mut take = EndpointConfig::default();
    take.max_udp_payload_size(LARGE_DATAGRAM_BYTES).map_err(|error| unusable(&error))?;
    let mut endpoint = Endpoint::new(take, None, socket, Arc::new(quinn::TokioRuntime)).map_err(failed)?;
    endpoint.set_default_client_config(quic);
    Ok(endpoint)
}

impl Link {
    /// Connects and says hello.
    pub(crate) async fn open(endpoint: &Endpoint, config: &Config) -> Result<Self, Error> {
        let failed = |reason: String| Error::Connect { address: config.address, reason };
        let connecting = endpoint
            .connect(config.address, &config.server_name)
            .map_err(|error| failed(error.to_string()))?;
        let connection = connecting.await.map_err(|error| failed(error.to_string()))?;
        let (send, receive) = connection.open_bi().await.map_err(|error| failed(error.to_string()))?;
        let (outgoing, frames) = mpsc::channel(OUTGOING_MAX);
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Some(HashMap::new())),
            heard: Mutex::new(Instant::now()),
            company: Mutex::default(),
        });
        tokio::spawn(write_frames(send, frames, connection.clone(), Arc::clone(&shared)));
        tokio::spawn(read_responses(receive, connection.clone(), Arc::clone(&shared)));
        let nothing = HelloAck {
            version: 0,
            features: 0,
            log: Default::default(),
            partition: Default::default(),
            published: Default::default(),
        };
        let mut link = Self { connection, outgoing, shared, next_id: AtomicU64::new(1), ack: nothing };
        let hello = Hello { version_min: jeton_wire::VERSION, version_max: jeton_wire::VERSION, features: 0 };
        match link.call(encoded(&Request::Hello(hello))).await {
            Ok(Response::HelloAck(ack)) => link.ack = ack,
            Ok(_) => return Err(Error::Protocol("the server did not answer the hello".to_owned())),
            // Whoever the server does not accept learns so only after the handshake (RFC 8446, section 4.4.2.4).
            Err(Error::Closed(reason)) => return Err(failed(reason)),
            Err(error) => return Err(error),
        }
        Ok(link)
    }

    /// Whether it is still there.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// How many requests wait for their answers.
    pub(crate) fn requests(&self) -> usize {
        self.shared.with(|waiting| waiting.len()).unwrap_or_default()
    }

    /// Ends the connection: everybody who waits on it hears so.
    pub(crate) fn give_up(&self) {
        self.connection.close(jeton_wire::CloseCode::NoError.code().into(), b"no answer");
    }

    /// Ends the connection, nothing being left to say.
    pub(crate) fn end(&self) {
        self.connection.close(jeton_wire::CloseCode::NoError.code().into(), b"done");
    }

    /// Whether anything came from the server in the last `span`.
    pub(crate) fn heard_within(&self, span: Duration) -> bool {
        self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < span
    }

    fn lost(&self) -> Error {
        why_lost(&self.connection, "the stream ended")
    }

    /// Sends one request, whatever id it has, under one of this connection's, and waits for its answer.
    pub(crate) async fn call(&self, mut frame: Vec<u8>) -> Result<Response, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.shared.with(|waiting| waiting.insert(id, sender)).ok_or_else(|| self.lost())?;
        let _slot = Slot { shared: &self.shared, id };
        frame[REQUEST_ID].copy_from_slice(&id.to_le_bytes());
        self.outgoing.send(frame).await.map_err(|_| self.lost())?;
        receiver.await.map_err(|_| self.lost())?
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end();
    }
}

async fn write_frames(
    mut send: SendStream,
    mut frames: mpsc::Receiver<Vec<u8>>,
    connection: Connection,
    shared: Arc<Shared>,
) {
    while let Some(mut bytes) = frames.recv().await {
        let wait = shared.wait_before(&bytes, connection.rtt());
        if wait >= TIMER {
            let datagram_bytes = connection.stats().path.current_mtu;
            wait_for_company(&mut bytes, &mut frames, wait, datagram_bytes.into()).await;
        }
        // Whatever else is waiting goes out in the same write.
        while let Ok(more) = frames.try_recv() {
            bytes.extend_from_slice(&more);
            if bytes.len() >= READ_BYTES {
                break;
            }
        }
        if send.write_all(&bytes).await.is_err() {
            return; // the reader says why
        }
    }
}

/// Takes what comes until there is a datagram of it, or the wait is over.
async fn wait_for_company(
    bytes: &mut Vec<u8>,
    frames: &mut mpsc::Receiver<Vec<u8>>,
    wait: Duration,
    datagram_bytes: usize,
) {
    let until = tokio::time::Instant::now() + wait;
    while bytes.len() < datagram_bytes {
        match tokio::time::timeout_at(until, frames.recv()).await {
            Ok(Some(more)) => bytes.extend_from_slice(&more),
            Ok(None) | Err(_) => return,
        }
    }
}

async fn read_responses(mut receive: RecvStream, connection: Connection, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    let error = loop {
        let at = match receive.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => {
                let at = Instant::now();
                *shared.heard.lock().unwrap_or_else(PoisonError::into_inner) = at;
                buffer.extend_from_slice(&chunk.bytes);
                at
            }
            Ok(None) => {
                // Nothing more will come: without this the connection would look open.
                connection.close(jeton_wire::CloseCode::NoError.code().into(), b"the stream ended");
                break Error::Closed("the server ended the stream".to_owned());
            }
            Err(error) => break why_lost(&connection, &error.to_string()),
        };
        match deliver(&buffer, &shared, at) {
            Ok(consumed) => drop(buffer.drain(..consumed)),
            Err(error) => {
                connection.close(jeton_wire::CloseCode::Malformed.code().into(), b"malformed response");
                break error;
            }
        }
    };
    shared.fail_all(&error);
}

/// Hands on every whole response, which came at `at`; returns how many bytes they took.
fn deliver(buffer: &[u8], shared: &Shared, at: Instant) -> Result<usize, Error> {
    let mut consumed = 0;
    while let Some((frame, length)) = split(buffer.get(consumed..).unwrap_or_default(), RESPONSE_BYTES_MAX)? {
        let response = Response::decode(&frame)?;
        let taken = shared.with(|waiting| (waiting.len(), waiting.remove(&frame.request)));
        if let Some((unanswered, sender)) = taken {
            shared.company().answered(frame.request, unanswered, at);
            if let Some(sender) = sender {
                let _ = sender.send(Ok(response));
            }
        }
        consumed += length;
    }
    Ok(consumed)
}

#[cfg(test)]
mod tests {
    use jeton_core::numbers::Sequence;
    use jeton_wire::request::encode_validate;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// What one write holds when frames of ten bytes come a quarter of a millisecond after one another, the last of them
    /// before the end of the stream.
    async fn written(frames: usize, wait: Duration, datagram_bytes: usize) -> (usize, Duration) {
        let (outgoing, mut waiting) = mpsc::channel(16);
        tokio::spawn(async move {
            for _ in 0..frames {
                tokio::time::sleep(MS / 4).await;
                let _ = outgoing.send(vec![0; 10]).await;
            }
            tokio::time::sleep(100 * MS).await;
        });
        let mut bytes = waiting.recv().await.unwrap();
        let began = tokio::time::Instant::now();
        wait_for_company(&mut bytes, &mut waiting, wait, datagram_bytes).await;
        (bytes.len(), began.elapsed())
    }

    /// A frame of a validate, under an id.
    fn validate(id: u64, min_sequence: u64) -> Vec<u8> {
        let mut frame = Vec::new();
        encode_validate(id, &[[0; 32]], &[], None, Sequence(min_sequence), true, &mut frame);
        frame
    }

    #[test]
    fn validates_are_timed_from_when_they_are_sent_until_they_are_answered() {
        for (min_sequence, expected) in [(0, MS), (7, Duration::ZERO)] {
            let shared = Shared {
                waiting: Mutex::new(Some((1_000..1_020).map(|id| (id, oneshot::channel().0)).collect())),
                heard: Mutex::new(Instant::now()),
                company: Mutex::default(),
            };
            let mut wait = Duration::ZERO;
            for (id, took) in (1..40).zip(std::iter::once(Duration::ZERO).chain(std::iter::repeat(80 * MS))) {
                wait = shared.wait_before(&validate(id, min_sequence), MS);
                shared.with(|waiting| waiting.insert(id, oneshot::channel().0));
                let mut answer = Vec::new();
                Response::Busy { retry_ms: 0 }.encode(id, &mut answer);
                assert_eq!(deliver(&answer, &shared, Instant::now() + took), Ok(answer.len()));
            }
            assert_eq!(wait, expected, "a validate that waits for an event tells nothing");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_wait_for_one_another_until_the_time_is_over_or_the_datagram_full() {
        let (bytes, took) = written(100, 5 * MS, 1_000).await;
        assert!((5 * MS..7 * MS).contains(&took) && bytes >= 50, "{bytes} bytes after {took:?}");
        let (bytes, took) = written(100, 50 * MS, 40).await;
        assert!(bytes == 40 && took < 10 * MS, "{bytes} bytes after {took:?}");
        assert_eq!(written(1, MS, 1_000).await.0, 10, "nobody came");
    }
}
