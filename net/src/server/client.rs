//! One client's connection: its session, and the answers that its streams have not taken yet.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use jeton_wire::Session;
use rustc_hash::FxHashMap;

use super::shares::Share;
use crate::driver::{ConnId, Driver};

/// Bytes of answers that a connection may leave unread before its requests are no longer read.
const BACKLOG_BYTES: usize = 1 << 20;
/// Bytes at which it is closed: what answers under way when reading stopped may add, and then some.
const UNREAD_BYTES_MAX: usize = 16 << 20;
/// How long a client may take none of what waits for it.
const STALL: Duration = Duration::from_secs(10);

/// More waits for the client than may.
pub(super) struct NotReading;

/// One client's connection.
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) not_after_s: u64,
    share: Rc<Share>,
    /// By number: QUIC lets a client have only so many at a time.
    streams: FxHashMap<u64, Outgoing>,
    unsent_bytes: usize,
    /// When the client last took something, or nothing waited for it.
    progressed: Instant,
    /// Streams that are not read until the client has taken more, or its identity has less under way.
    held_back: BTreeSet<u64>,
    /// Streams on which something was refused because the identity has as much under way as it may.
    paused: BTreeSet<u64>,
    /// Whether the connection is in the line of those that wait for that.
    is_in_line: bool,
    is_ending: bool,
}

/// The sending side of a stream.
#[derive(Default)]
struct Outgoing {
    /// Answers that the driver did not take yet.
    unsent: Vec<u8>,
    /// The client has said all it will.
    peer_has_ended: bool,
}

impl Client {
    pub(super) fn new(session: Session, share: Rc<Share>, not_after_s: u64, now: Instant) -> Self {
        Self {
            session,
            not_after_s,
            share,
            streams: FxHashMap::default(),
            unsent_bytes: 0,
            progressed: now,
            held_back: BTreeSet::new(),
            paused: BTreeSet::new(),
            is_in_line: false,
            is_ending: false,
        }
    }

    /// What its identity has on this shard.
    pub(super) fn share(&self) -> &Rc<Share> {
        &self.share
    }

    /// The stream is not read until the identity has less under way: it was told so with what was refused, and to read on
    /// only to refuse the rest would cost everybody else the time. Whether the connection was not in line for that yet.
    pub(super) fn pause(&mut self, stream: u64) -> bool {
        self.paused.insert(stream);
        !std::mem::replace(&mut self.is_in_line, true)
    }

    /// The identity has less under way.
    pub(super) fn end_pause(&mut self) {
        self.paused.clear();
        self.is_in_line = false;
    }

    /// Whether the stream is not to be read for now; it is noted for [`Self::streams_to_read`].
    pub(super) fn holds_back(&mut self, stream: u64) -> bool {
        self.streams.entry(stream).or_default();
        let holds = !self.is_readable(stream);
        if holds {
            self.held_back.insert(stream);
            self.session.stop_clock(stream);
        }
        holds
    }

    fn is_readable(&self, stream: u64) -> bool {
        let is_taken = self.streams.get(&stream).is_none_or(|outgoing| outgoing.unsent.is_empty());
        is_taken && !self.paused.contains(&stream) && self.unsent_bytes <= BACKLOG_BYTES
    }

    /// Streams that were held back and may be read again.
    pub(super) fn streams_to_read(&mut self, now_ms: u64) -> Vec<u64> {
        let streams = std::mem::take(&mut self.held_back);
        let (ready, rest) =
            streams.into_iter().partition::<BTreeSet<_>, _>(|stream| self.is_readable(*stream));
        self.held_back = rest;
        ready.iter().for_each(|stream| self.session.start_clock(*stream, now_ms));
        ready.into_iter().collect()
    }

    /// Hands answers to the driver; what it does not take is kept.
    pub(super) fn send(
        &mut self,
        now: Instant,
        conn: ConnId,
        stream: u64,
        bytes: &[u8],
        driver: &mut Driver,
    ) -> Result<(), NotReading> {
        let Some(outgoing) = self.streams.get_mut(&stream) else { return Ok(()) }; // nobody wants to hear it
        let sent = if outgoing.unsent.is_empty() { write(conn, stream, bytes, driver) } else { Some(0) };
        match sent {
            None => self.handle_stopped(conn, stream, driver),
            Some(sent) if sent < bytes.len() => {
                if self.unsent_bytes == 0 {
                    self.progressed = now;
                }
                outgoing.unsent.extend_from_slice(&bytes[sent..]);
                self.unsent_bytes += bytes.len() - sent;
                if self.unsent_bytes > UNREAD_BYTES_MAX {
                    return Err(NotReading);
                }
            }
            Some(_) => self.end_if_settled(conn, stream, driver),
        }
        Ok(())
    }

    /// Hands the driver what waits for a stream.
    pub(super) fn flush(&mut self, now: Instant, conn: ConnId, stream: u64, driver: &mut Driver) {
        let Some(outgoing) = self.streams.get_mut(&stream) else { return };
        match write(conn, stream, &outgoing.unsent, driver) {
            None => self.handle_stopped(conn, stream, driver),
            Some(sent) => {
                outgoing.unsent.drain(..sent);
                self.unsent_bytes -= sent;
                if sent > 0 {
                    self.progressed = now;
                }
                self.end_if_settled(conn, stream, driver);
            }
        }
    }

    /// The client wants nothing more of a stream.
    pub(super) fn handle_stopped(&mut self, conn: ConnId, stream: u64, driver: &mut Driver) {
        driver.reset(conn, stream);
        self.session.forget_stream(stream);
        self.held_back.remove(&stream);
        self.paused.remove(&stream);
        if let Some(outgoing) = self.streams.remove(&stream) {
            self.unsent_bytes -= outgoing.unsent.len();
        }
    }

    /// The client has said all it will on a stream.
    pub(super) fn handle_end(&mut self, conn: ConnId, stream: u64, driver: &mut Driver) {
        self.streams.entry(stream).or_default().peer_has_ended = true;
        self.end_if_settled(conn, stream, driver);
    }

    /// Nothing more is read: every stream ends once what it is owed was sent.
    pub(super) fn end_all(&mut self, conn: ConnId, driver: &mut Driver) {
        self.is_ending = true;
        let streams: Vec<_> = self.streams.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.end_if_settled(conn, stream, driver));
    }

    fn end_if_settled(&mut self, conn: ConnId, stream: u64, driver: &mut Driver) {
        let Some(outgoing) = self.streams.get(&stream) else { return };
        let is_over = outgoing.peer_has_ended || self.is_ending;
        if is_over && outgoing.unsent.is_empty() && self.session.is_settled(stream) {
            driver.finish(conn, stream);
            self.streams.remove(&stream);
            self.session.forget_stream(stream);
        }
    }

    /// Whether every stream has ended.
    pub(super) fn is_settled(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether something waits for the client, and it takes none of it.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        self.unsent_bytes > 0 && now.saturating_duration_since(self.progressed) > STALL
    }
}

/// Gives a stream bytes until it takes no more; `None` if it never will.
fn write(conn: ConnId, stream: u64, bytes: &[u8], driver: &mut Driver) -> Option<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match driver.write(conn, stream, &bytes[sent..])? {
            0 => break,
            taken => sent += taken,
        }
    }
    Some(sent)
}
