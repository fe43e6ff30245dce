//! Redis, in the clear or over TLS, pipelined: what a token store made of it would do.
//!
//! One command for each token, as Jeton answers for each: an issue is `SET id secret EX ttl`, a validate `GET id` and a
//! comparison of what comes back with the secret, a revoke `DEL id`, a renewal `EXPIRE id ttl`. A batch is so many commands
//! sent together. Answers come in the order of the commands, so a queue says whose they are.

mod connection;
mod resp;

use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context as _, bail};
use jeton_core::verdict::Verdict;
use rustix::event::epoll;

use self::connection::Connection;
pub(crate) use self::connection::{RedisAddress, Tls};
use self::resp::Value;
use super::{Peer, Question, Reply, TokenBytes};
use crate::fill::{EXPIRED_TTL_S, TTL_S};
use crate::layout::Role;
use crate::workload::kind::Kind;

/// Connections that are told of by one look at what is readable.
const EVENTS_MAX: usize = 64;

/// The connections of one worker.
pub(crate) struct RedisPeer {
    connections: Vec<Connection>,
    address: RedisAddress,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    /// Connections that have something to send.
    dirty: Vec<usize>,
    identity: String,
    verdicts: Vec<Verdict>,
    issued: Vec<TokenBytes>,
}

impl RedisPeer {
    /// Connects so many times.
    pub(crate) fn connect(address: &RedisAddress, count: usize) -> anyhow::Result<Self> {
        let mut peer = Self {
            connections: Vec::with_capacity(count),
            address: address.clone(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
            dirty: Vec::with_capacity(count),
            identity: String::new(),
            verdicts: Vec::new(),
            issued: Vec::new(),
        };
        for number in 0..count {
            let (connection, identity) = Connection::open(address)?;
            peer.identity = identity;
            peer.watch(number, &connection)?;
            peer.connections.push(connection);
        }
        Ok(peer)
    }

    fn watch(&self, number: usize, connection: &Connection) -> anyhow::Result<()> {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, connection.stream(), data, epoll::EventFlags::IN)?;
        Ok(())
    }

    /// Takes what has come on a connection.
    fn take(&mut self, number: usize, take: &mut dyn FnMut(Instant, u64, Reply<'_>)) -> anyhow::Result<()> {
        let connection = &mut self.connections[number];
        connection.receive()?;
        let at = Instant::now();
        let mut consumed = 0;
        while let Some((value, length)) = resp::parse(&connection.incoming[consumed..])
            .with_context(|| format!("the peer at {} does not speak RESP", self.address))?
        {
            consumed += length;
            let Some(asked) = connection.asked.front_mut() else {
                bail!("the peer at {} answers what nobody asked", self.address);
            };
            let reply = match (asked.kind, value) {
                (_, Value::Error(words)) => asked.note_error(words),
                (Kind::Validate, Value::Bulk(found)) => {
                    let secret = connection.secrets.pop_front().unwrap_or_default();
                    self.verdicts.push(match found {
                        None => Verdict::Unknown,
                        Some(found) if found == secret => Verdict::Valid,
                        Some(_) => Verdict::WrongSecret,
                    });
                    true
                }
                (Kind::Issue, Value::Simple(b"OK")) => {
                    self.issued.extend(connection.fresh.pop_front());
                    true
                }
                (Kind::Revoke | Kind::Renew, Value::Int(count)) => {
                    asked.count += u64::try_from(count).unwrap_or(0);
                    true
                }
                (_, other) => asked.note_error(format!("{other:?}").as_bytes()),
            };
            if !reply {
                // What an erroneous answer was about is no longer waited for.
                match asked.kind {
                    Kind::Validate => drop(connection.secrets.pop_front()),
                    Kind::Issue => drop(connection.fresh.pop_front()),
                    _ => {}
                }
            }
            asked.left -= 1;
            if asked.left > 0 {
                continue;
            }
            let Some(done) = connection.asked.pop_front() else { continue };
            let reply = match (done.failed, done.kind) {
                (Some(words), _) if resp::is_refusal(&words) => Reply::Refused,
                (Some(words), _) => Reply::Failed(words),
                (None, Kind::Validate) => Reply::Verdicts(&self.verdicts),
                (None, Kind::Issue) => Reply::Issued(&self.issued),
                (None, Kind::Renew) => Reply::Renewed { expires_s: u32::from(done.count == 1) },
                (None, _) => Reply::Revoked(done.count),
            };
            take(at, done.id, reply);
            self.verdicts.clear();
            self.issued.clear();
        }
        connection.incoming.drain(..consumed);
        // A batch may have come in part: its answers so far are kept with the connection until the rest is there.
        connection.keep(&mut self.verdicts, &mut self.issued);
        Ok(())
    }
}

impl Peer for RedisPeer {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn connections(&self) -> usize {
        self.connections.len()
    }

    fn is_ready(&self, _connection: usize) -> bool {
        true
    }

    fn ask(&mut self, number: usize, id: u64, question: &Question<'_>) -> anyhow::Result<()> {
        let connection = &mut self.connections[number];
        let out = &mut connection.outgoing;
        let (kind, count) = match question {
            Question::Validate { tokens, .. } => {
                for token in *tokens {
                    let (name, secret) = halves(token);
                    resp::command(&[b"GET", name], out);
                    connection.secrets.push_back(*secret);
                }
                (Kind::Validate, tokens.len())
            }
            Question::Issue { role, fresh, .. } => {
                let ttl_s: &[u8] = if *role == Role::Expired { EXPIRED_TTL } else { TTL };
                for token in *fresh {
                    let (name, secret) = halves(token);
                    resp::command(&[b"SET", name, secret, b"EX", ttl_s], out);
                    connection.fresh.push_back(*token);
                }
                (Kind::Issue, fresh.len())
            }
            Question::Revoke(token) => {
                resp::command(&[b"DEL", halves(token).0], out);
                (Kind::Revoke, 1)
            }
            Question::Renew(token) => {
                resp::command(&[b"EXPIRE", halves(token).0, TTL], out);
                (Kind::Renew, 1)
            }
            Question::RevokeSubject(_) | Question::Consume(_) => bail!("Redis has no counterpart of that"),
        };
        connection.expect(id, kind, count);
        if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(number);
        }
        Ok(())
    }

    fn turn(&mut self, take: &mut dyn FnMut(Instant, u64, Reply<'_>)) -> anyhow::Result<bool> {
        let mut is_moved = false;
        let mut dirty = std::mem::take(&mut self.dirty);
        for number in &dirty {
            let connection = &mut self.connections[*number];
            is_moved |= connection.send()?;
            connection.is_dirty = connection.has_unsent();
        }
        dirty.retain(|number| self.connections[*number].is_dirty);
        self.dirty = dirty;
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        self.events.clear();
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&now))?;
        for at in 0..self.events.len() {
            let number = self.events[at].data.u64() as usize;
            self.verdicts.clear();
            self.issued.clear();
            self.connections[number].take_back(&mut self.verdicts, &mut self.issued);
            self.take(number, take)?;
            is_moved = true;
        }
        Ok(is_moved)
    }

    fn wait(&mut self, until: Instant) -> anyhow::Result<()> {
        // What could not be sent is tried again soon: only what is readable wakes.
        if self.dirty.is_empty() {
            super::wait_for(std::os::fd::AsFd::as_fd(&self.epoll), until)
        } else {
            Ok(())
        }
    }

    fn reconnect(&mut self, number: usize) -> anyhow::Result<()> {
        // The old one leaves the set of those watched when it is closed.
        let (connection, _) = Connection::open(&self.address)?;
        self.watch(number, &connection)?;
        self.connections[number] = connection;
        Ok(())
    }

    fn lacks(&self, kind: Kind) -> bool {
        matches!(kind, Kind::RevokeSubject | Kind::Consume)
    }

    fn takes_tokens(&self) -> bool {
        true
    }

    fn has_checks(&self) -> bool {
        false
    }
}

/// Lifetimes as Redis reads them.
const TTL: &[u8] = b"86400";
const EXPIRED_TTL: &[u8] = b"1";
const _: () = assert!(TTL_S == 86_400 && EXPIRED_TTL_S == 1, "the texts are those of the numbers");

fn halves(token: &TokenBytes) -> (&[u8; 16], &[u8; 16]) {
    let (id, secret) = token.split_first_chunk().expect("32 bytes begin with 16");
    (id, secret.first_chunk().expect("and end with 16"))
}
