//! One connection to Redis: a stream, TLS if asked for, and what is owed on it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jeton_core::verdict::Verdict;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::resp::{self, Value};
use crate::peer::TokenBytes;
use crate::workload::kind::Kind;

/// How long connecting, and each answer before a connection is ready, may take.
const PATIENCE: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 64 * 1_024;

/// How to speak TLS to a peer.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) server_name: ServerName<'static>,
}

/// Where a Redis is and how to get in.
#[derive(Clone, Debug)]
pub(crate) struct RedisAddress {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
    pub(crate) password: Option<String>,
}

impl std::fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.address, if self.tls.is_some() { " (TLS)" } else { "" })
    }
}

/// A request that is not answered yet.
pub(super) struct Asked {
    pub(super) id: u64,
    pub(super) kind: Kind,
    /// Answers that are still to come.
    pub(super) left: usize,
    /// The sum of those that are numbers.
    pub(super) count: u64,
    pub(super) failed: Option<String>,
}

impl Asked {
    /// Notes an error; returns that this was no answer.
    pub(super) fn note_error(&mut self, words: &[u8]) -> bool {
        self.failed.get_or_insert_with(|| String::from_utf8_lossy(words).into_owned());
        false
    }
}

/// A connection.
pub(super) struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    pub(super) outgoing: Vec<u8>,
    sent: usize,
    pub(super) incoming: Vec<u8>,
    pub(super) asked: VecDeque<Asked>,
    /// Secrets of the tokens that were asked about, and tokens that were set, each in the order of their answers.
    pub(super) secrets: VecDeque<[u8; 16]>,
    pub(super) fresh: VecDeque<TokenBytes>,
    pub(super) is_dirty: bool,
    /// Answers of a batch that has come in part.
    verdicts: Vec<Verdict>,
    issued: Vec<TokenBytes>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects, and asks who it is; returns that too.
    pub(super) fn open(address: &RedisAddress) -> anyhow::Result<(Self, String)> {
        let stream = TcpStream::connect_timeout(&address.address, PATIENCE)
            .with_context(|| format!("nobody answers at {}", address.address))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let tls = match &address.tls {
            None => None,
            Some(tls) => {
                Some(Box::new(ClientConnection::new(Arc::clone(&tls.config), tls.server_name.clone())?))
            }
        };
        let mut connection = Self {
            stream,
            tls,
            outgoing: Vec::with_capacity(READ_BYTES),
            sent: 0,
            incoming: Vec::with_capacity(READ_BYTES),
            asked: VecDeque::new(),
            secrets: VecDeque::new(),
            fresh: VecDeque::new(),
            is_dirty: false,
            verdicts: Vec::new(),
            issued: Vec::new(),
            buffer: vec![0; READ_BYTES],
        };
        if let Some(password) = &address.password {
            connection.demand(address, &[b"AUTH", password.as_bytes()])?;
        }
        let info = connection.demand(address, &[b"INFO", b"server"])?;
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        let identity = format!("redis {}", run.unwrap_or("without an id").trim());
        connection.stream.set_nonblocking(true)?;
        Ok((connection, identity))
    }

    /// Asks one thing and waits for its answer.
    fn demand(&mut self, address: &RedisAddress, parts: &[&[u8]]) -> anyhow::Result<String> {
        resp::command(parts, &mut self.outgoing);
        let failed = |error: anyhow::Error| {
            error.context(format!("the peer at {address} is no Redis that can be used"))
        };
        self.send().map_err(failed)?;
        loop {
            if let Some((value, length)) = resp::parse(&self.incoming).map_err(failed)? {
                let text = match value {
                    Value::Simple(text) | Value::Bulk(Some(text)) => {
                        String::from_utf8_lossy(text).into_owned()
                    }
                    Value::Error(words) => {
                        bail!("the Redis at {address} refused: {}", String::from_utf8_lossy(words))
                    }
                    other => bail!("the peer at {address} is no Redis: it answered {other:?}"),
                };
                self.incoming.drain(..length);
                return Ok(text);
            }
            if !self.receive().map_err(failed)? {
                bail!("the peer at {address} does not answer");
            }
        }
    }

    pub(super) fn stream(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Notes what is owed from now on.
    pub(super) fn expect(&mut self, id: u64, kind: Kind, answers: usize) {
        self.asked.push_back(Asked { id, kind, left: answers, count: 0, failed: None });
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.outgoing.len() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what waits, as much as the stream takes; returns whether that was anything.
    pub(super) fn send(&mut self) -> anyhow::Result<bool> {
        let mut is_moved = false;
        loop {
            let written = match &mut self.tls {
                None if self.sent == self.outgoing.len() => break,
                None => self.stream.write(&self.outgoing[self.sent..]).inspect(|count| self.sent += count),
                Some(tls) => {
                    // TLS takes no more than it has room for.
                    self.sent += tls.writer().write(&self.outgoing[self.sent..])?;
                    if !tls.wants_write() {
                        break;
                    }
                    tls.write_tls(&mut self.stream)
                }
            };
            match written {
                Ok(count) => is_moved |= count > 0,
                Err(error) if is_passing(&error) => break,
                Err(error) => return Err(error).context("the connection was lost"),
            }
        }
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        }
        Ok(is_moved)
    }

    /// Takes what is there; `false` if that is nothing.
    pub(super) fn receive(&mut self) -> anyhow::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return match self.stream.read(&mut self.buffer) {
                Ok(0) => bail!("the peer closed the connection"),
                Ok(count) => {
                    self.incoming.extend_from_slice(&self.buffer[..count]);
                    Ok(true)
                }
                Err(error) if is_passing(&error) => Ok(false),
                Err(error) => Err(error).context("the connection was lost"),
            };
        };
        match tls.read_tls(&mut self.stream) {
            Ok(0) => bail!("the peer closed the connection"),
            Ok(_) => {}
            Err(error) if is_passing(&error) => return Ok(false),
            Err(error) => return Err(error).context("the connection was lost"),
        }
        let state = tls.process_new_packets().context("the peer's TLS")?;
        let from = self.incoming.len();
        self.incoming.resize(from + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut self.incoming[from..])?;
        // A handshake goes on with what is to be sent now.
        if tls.wants_write() {
            self.send()?;
        }
        Ok(true)
    }

    /// Keeps the answers of a batch of which some are still to come.
    pub(super) fn keep(&mut self, verdicts: &mut Vec<Verdict>, issued: &mut Vec<TokenBytes>) {
        std::mem::swap(&mut self.verdicts, verdicts);
        std::mem::swap(&mut self.issued, issued);
    }

    /// Gives them back.
    pub(super) fn take_back(&mut self, verdicts: &mut Vec<Verdict>, issued: &mut Vec<TokenBytes>) {
        self.keep(verdicts, issued);
    }
}

fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::TimedOut)
}
