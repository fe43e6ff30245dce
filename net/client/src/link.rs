//! One connection: requests out, answers back by request id, in any order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jeton_wire::frame::{RESPONSE_BYTES_MAX, split};
use jeton_wire::request::{Hello, Request};
use jeton_wire::response::{HelloAck, Response};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::config::Config;

/// Frames waiting to be written.
const OUTGOING_MAX: usize = 1_024;
/// Less than a third of the server's idle timeout of 10 s.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(3);
/// What one read takes.
const READ_BYTES: usize = 64 * 1024;

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

#[derive(Debug, Default)]
struct Shared {
    /// `None` once the connection is lost.
    waiting: Mutex<Option<Waiting>>,
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

    fn fail_all(&self, error: &Error) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        for (_, sender) in waiting.into_iter().flatten() {
            let _ = sender.send(Err(error.clone()));
        }
    }
}

/// An endpoint that connects as the identity of `config`.
pub(crate) fn endpoint(config: &Config) -> Result<Endpoint, Error> {
    let unusable = |error: &dyn std::fmt::Display| Error::Identity(error.to_string());
    let parts = config.identity.parts();
    let mut roots = rustls::RootCertStore::empty();
    for authority in &parts.authorities {
        roots.add(authority.clone()).map_err(|error| unusable(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
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
    quic.transport_config(Arc::new(transport));
    let local = if config.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let local = local.parse().expect("an unspecified address is one");
    let mut endpoint = Endpoint::client(local)
        .map_err(|error| Error::Connect { address: config.address, reason: error.to_string() })?;
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
        let shared = Arc::new(Shared { waiting: Mutex::new(Some(HashMap::new())) });
        tokio::spawn(write_frames(send, frames));
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
        match link.call(|id, into| Request::Hello(hello).encode(id, into)).await {
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

    /// Ends the connection: everybody who waits on it hears so.
    pub(crate) fn give_up(&self) {
        self.connection.close(jeton_wire::CloseCode::NoError.code().into(), b"no answer");
    }

    fn lost(&self) -> Error {
        Error::Closed(
            self.connection.close_reason().map_or("the stream ended".to_owned(), |reason| reason.to_string()),
        )
    }

    /// Sends one request and waits for its answer.
    pub(crate) async fn call(&self, encode: impl FnOnce(u64, &mut Vec<u8>)) -> Result<Response, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.shared.with(|waiting| waiting.insert(id, sender)).ok_or_else(|| self.lost())?;
        let _slot = Slot { shared: &self.shared, id };
        let mut frame = Vec::new();
        encode(id, &mut frame);
        self.outgoing.send(frame).await.map_err(|_| self.lost())?;
        receiver.await.map_err(|_| self.lost())?
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close(jeton_wire::CloseCode::NoError.code().into(), b"done");
    }
}

async fn write_frames(mut send: SendStream, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut bytes) = frames.recv().await {
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

async fn read_responses(mut receive: RecvStream, connection: Connection, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    let error = loop {
        match receive.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => buffer.extend_from_slice(&chunk.bytes),
            Ok(None) => break Error::Closed("the server ended the stream".to_owned()),
            Err(error) => {
                let reason = connection.close_reason().map_or(error.to_string(), |reason| reason.to_string());
                break Error::Closed(reason);
            }
        }
        match deliver(&buffer, &shared) {
            Ok(consumed) => drop(buffer.drain(..consumed)),
            Err(error) => {
                connection.close(jeton_wire::CloseCode::Malformed.code().into(), b"malformed response");
                break error;
            }
        }
    };
    shared.fail_all(&error);
}

/// Hands on every whole response; returns how many bytes they took.
fn deliver(buffer: &[u8], shared: &Shared) -> Result<usize, Error> {
    let mut consumed = 0;
    while let Some((frame, length)) = split(buffer.get(consumed..).unwrap_or_default(), RESPONSE_BYTES_MAX)? {
        let response = Response::decode(&frame)?;
        if let Some(Some(sender)) = shared.with(|waiting| waiting.remove(&frame.request)) {
            let _ = sender.send(Ok(response));
        }
        consumed += length;
    }
    Ok(consumed)
}
