//! The server's side of one connection, without sockets, runtime or clock.
//!
//! Bytes of a stream go in, bytes of answers come out. Reads are answered at once through [`Validate`]; writes go out
//! through [`Submit`] with a ticket, and [`Session::handle_reply`] brings their answers back to the stream and request
//! they belong to. The rights of the caller are looked up anew for every request.

mod dispatch;

use std::collections::HashMap;

use jeton_core::numbers::Sequence;
use jeton_core::verdict::Answer;

use crate::doors::{DoorReply, Submit, Ticket, Validate};
use crate::error::WireError;
use crate::frame::{REQUEST_BYTES_MAX, split};
use crate::request::{Request, ValidateRequest};
use crate::response::Response;

/// Writes of one connection that wait for their answers; past that they are answered `Busy`.
const WRITES_IN_FLIGHT_MAX: usize = 4_096;
/// Validates of one connection that wait for an event to be published.
const WAITING_MAX: usize = 256;
/// How long a validate waits for its `min_sequence`.
const WAIT_MS: u64 = 200;
/// How long a whole request may take to arrive.
const REQUEST_MS: u64 = 2_000;
const BUSY_RETRY_MS: u32 = 5;

/// What a session did, for the counters of its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests of every kind.
    pub requests: u64,
    /// Tokens asked about.
    pub tokens: u64,
    /// Of those, answered `valid`.
    pub valid: u64,
    /// Writes handed on.
    pub writes: u64,
    /// Requests answered `Busy`.
    pub busy: u64,
    /// Requests refused for want of a right.
    pub not_allowed: u64,
}

/// A request on its way through a door.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    stream: u64,
    request: u64,
}

/// A validate that waits for an event.
#[derive(Debug)]
struct Delayed {
    stream: u64,
    until_ms: u64,
    min_sequence: Sequence,
    /// The frame, whole.
    frame: Vec<u8>,
}

/// Bytes of a request that is not all there.
#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    since_ms: u64,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    identity: String,
    has_greeted: bool,
    partial: HashMap<u64, Partial>,
    waiting: HashMap<Ticket, Waiting>,
    delayed: Vec<Delayed>,
    answers: Vec<Answer>,
    tally: Tally,
}

impl Session {
    /// A session with the client of this identity.
    #[must_use]
    pub fn new(identity: String) -> Self {
        Self {
            identity,
            has_greeted: false,
            partial: HashMap::new(),
            waiting: HashMap::new(),
            delayed: Vec::new(),
            answers: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// What was done since this was asked last.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Whether nothing is owed to the client.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.delayed.is_empty()
    }

    /// When [`Self::handle_timeout`] has to be called at the latest.
    #[must_use]
    pub fn next_timeout_ms(&self) -> Option<u64> {
        let partial = self.partial.values().filter(|partial| !partial.bytes.is_empty());
        let slow = partial.map(|partial| partial.since_ms + REQUEST_MS).min();
        let delayed = self.delayed.iter().map(|delayed| delayed.until_ms).min();
        slow.into_iter().chain(delayed).min()
    }

    /// Takes bytes of a stream and appends the answers that can be given at once.
    ///
    /// `next_ticket` makes a ticket that no other request of the shard has.
    ///
    /// # Errors
    /// [`WireError`]: the connection is to be closed with its code.
    pub fn handle_data<D: Validate + Submit>(
        &mut self,
        stream: u64,
        data: &[u8],
        now_ms: u64,
        doors: &D,
        next_ticket: &mut Ticket,
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let mut kept = self.partial.remove(&stream).unwrap_or_default();
        // Whole frames are read from where they are; only what is cut by the end of the data is copied.
        let rest = if kept.bytes.is_empty() {
            self.handle_frames(stream, data, now_ms, doors, next_ticket, out)?
        } else {
            kept.bytes.extend_from_slice(data);
            let bytes = std::mem::take(&mut kept.bytes);
            let rest = self.handle_frames(stream, &bytes, now_ms, doors, next_ticket, out)?;
            let consumed = bytes.len() - rest.len();
            kept.bytes = bytes;
            if consumed > 0 {
                kept.bytes.drain(..consumed);
                kept.since_ms = now_ms;
            }
            if !kept.bytes.is_empty() {
                self.partial.insert(stream, kept);
            }
            return Ok(());
        };
        if !rest.is_empty() {
            self.partial.insert(stream, Partial { bytes: rest.to_vec(), since_ms: now_ms });
        }
        Ok(())
    }

    /// Handles every whole frame and returns what is left.
    fn handle_frames<'d, D: Validate + Submit>(
        &mut self,
        stream: u64,
        mut data: &'d [u8],
        now_ms: u64,
        doors: &D,
        next_ticket: &mut Ticket,
        out: &mut Vec<u8>,
    ) -> Result<&'d [u8], WireError> {
        while let Some((frame, length)) = split(data, REQUEST_BYTES_MAX)? {
            let request = Request::decode(&frame)?;
            self.tally.requests += 1;
            if !self.has_greeted {
                self.greet(&request, frame.request, doors, out)?;
            } else if let Request::Validate(validate) = &request {
                if validate.min_sequence > doors.published() {
                    self.delay(stream, validate, frame.request, &data[..length], now_ms, out);
                } else {
                    self.validate(validate, frame.request, doors, out);
                }
            } else {
                self.dispatch(Waiting { stream, request: frame.request }, request, doors, next_ticket, out);
            }
            data = &data[length..];
        }
        Ok(data)
    }

    fn delay(
        &mut self,
        stream: u64,
        validate: &ValidateRequest<'_>,
        request: u64,
        frame: &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) {
        if self.delayed.len() >= WAITING_MAX {
            self.busy(request, out);
            return;
        }
        self.delayed.push(Delayed {
            stream,
            until_ms: now_ms + WAIT_MS,
            min_sequence: validate.min_sequence,
            frame: frame.to_vec(),
        });
    }

    /// Answers validates whose event is there by now; `send` gets the stream and the bytes of each answer.
    pub fn handle_published<D: Validate + Submit>(&mut self, doors: &D, mut send: impl FnMut(u64, &[u8])) {
        if self.delayed.is_empty() {
            return;
        }
        let published = doors.published();
        let (due, rest) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition(|delayed: &Delayed| delayed.min_sequence <= published);
        self.delayed = rest;
        for delayed in due {
            // It decoded when it came.
            let Ok(Some((frame, _))) = split(&delayed.frame, REQUEST_BYTES_MAX) else { continue };
            let Ok(Request::Validate(validate)) = Request::decode(&frame) else { continue };
            let mut out = Vec::new();
            self.validate(&validate, frame.request, doors, &mut out);
            send(delayed.stream, &out);
        }
    }

    /// Tells clients that have waited long enough so.
    ///
    /// # Errors
    /// [`crate::CloseCode::TooSlow`] if a request took too long to arrive: the connection is to be closed.
    pub fn handle_timeout(
        &mut self,
        now_ms: u64,
        published: Sequence,
        mut send: impl FnMut(u64, &[u8]),
    ) -> Result<(), crate::CloseCode> {
        let is_slow =
            |partial: &Partial| !partial.bytes.is_empty() && now_ms >= partial.since_ms + REQUEST_MS;
        if self.partial.values().any(is_slow) {
            return Err(crate::CloseCode::TooSlow);
        }
        self.delayed.retain(|delayed| {
            if now_ms < delayed.until_ms {
                return true;
            }
            if let Ok(Some((frame, _))) = split(&delayed.frame, REQUEST_BYTES_MAX) {
                let mut out = Vec::new();
                Response::Behind { published }.encode(frame.request, &mut out);
                send(delayed.stream, &out);
            }
            false
        });
        Ok(())
    }

    /// Appends the answer of a door and returns the stream it goes to; `None` if nobody waits for it.
    pub fn handle_reply<D: Validate>(
        &mut self,
        ticket: Ticket,
        reply: DoorReply,
        doors: &D,
        out: &mut Vec<u8>,
    ) -> Option<u64> {
        let waiting = self.waiting.remove(&ticket)?;
        let (log, partition) = doors.log();
        let response = match reply {
            DoorReply::Command(reply) => Response::Written { log, partition, reply },
            DoorReply::Log(Ok(page)) => {
                Response::LogPage { first: page.first, head: page.head, batches: page.batches }
            }
            DoorReply::Log(Err(message)) => Response::Failed(message),
        };
        response.encode(waiting.request, out);
        Some(waiting.stream)
    }

    /// A stream is gone: what it sent half is forgotten.
    pub fn handle_stream_end(&mut self, stream: u64) {
        self.partial.remove(&stream);
    }

    fn busy(&mut self, request: u64, out: &mut Vec<u8>) {
        self.tally.busy += 1;
        Response::Busy { retry_ms: BUSY_RETRY_MS }.encode(request, out);
    }
}

#[cfg(test)]
mod tests;
