//! The server's side of one connection, without sockets, runtime or clock.
//!
//! Bytes of a stream go in, bytes of answers come out. Reads are answered at once through [`Validate`]; writes go out
//! through [`Submit`] with a ticket, and [`Session::handle_reply`] brings their answers back to the stream and request
//! they belong to. The rights of the caller are looked up anew for every request.

mod dispatch;
mod gather;

use jeton_core::command::Command;
use jeton_core::numbers::Sequence;
use jeton_core::outcome::{Rejection, Reply};
use jeton_core::verdict::Answer;
use rustc_hash::FxHashMap;

use self::gather::{Gathered, Room};
use crate::doors::{DoorReply, Submit, Ticket, Validate};
use crate::error::WireError;
use crate::frame::{REQUEST_BYTES_MAX, split};
use crate::request::{KnownClaims, Request, VALIDATE, ValidateRequest};
use crate::response::Response;

/// Writes and log reads of one connection that wait for their answers, and the bytes that these may take; past either
/// they are answered `Busy`.
pub const WRITES_IN_FLIGHT_MAX: usize = 4_096;
const OWED_BYTES_MAX: usize = 4 << 20;
/// Validates of one connection that wait for an event to be published, and the bytes that these may take: a validate is
/// up to 64 KiB large.
const DELAYED_MAX: usize = 256;
const DELAYED_BYTES_MAX: usize = 1 << 20;
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

/// What a session answers `Busy` for the time being: its shard or its identity has as much under way as it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusing {
    /// Nothing.
    #[default]
    Nothing,
    /// Writes and log reads, but for what takes something from somebody.
    AllButTaking,
    /// Writes and log reads.
    All,
}

/// A request on its way through a door.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Where the answer goes; `None` once that stream was given up.
    stream: Option<u64>,
    request: u64,
    /// What its answer may take.
    owed_bytes: usize,
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

/// One stream of the connection.
#[derive(Debug, Default)]
struct Stream {
    /// Bytes of a request that is not all there.
    partial: Vec<u8>,
    /// Since when that waits for its rest; `None` while nobody reads the stream.
    since_ms: Option<u64>,
    /// Requests that wait for an answer.
    owed: usize,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    identity: String,
    has_greeted: bool,
    // By numbers of which a client has only so many at a time, or that are not its own: it cannot make them collide.
    streams: FxHashMap<u64, Stream>,
    waiting: FxHashMap<Ticket, Waiting>,
    owed_bytes: usize,
    delayed: Vec<Delayed>,
    /// Of the frames in `delayed`.
    delayed_bytes: usize,
    answers: Vec<Answer>,
    known: KnownClaims,
    /// Frames that come together, and their tokens, kept for their memory.
    room: Room,
    tokens: Vec<[u8; 32]>,
    tally: Tally,
    refusing: Refusing,
}

impl Session {
    /// A session with the client of this identity.
    #[must_use]
    pub fn new(identity: String) -> Self {
        Self {
            identity,
            has_greeted: false,
            streams: FxHashMap::default(),
            waiting: FxHashMap::default(),
            owed_bytes: 0,
            delayed: Vec::new(),
            delayed_bytes: 0,
            answers: Vec::new(),
            known: KnownClaims::default(),
            room: Room::new(),
            tokens: Vec::new(),
            tally: Tally::default(),
            refusing: Refusing::Nothing,
        }
    }

    /// What is answered `Busy` from now on.
    pub fn set_refusing(&mut self, refusing: Refusing) {
        self.refusing = refusing;
    }

    /// What was done since this was asked last.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The identity of the client.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether nothing is owed to the client on this stream.
    #[must_use]
    pub fn is_settled(&self, stream: u64) -> bool {
        self.streams.get(&stream).is_none_or(|stream| stream.owed == 0)
    }

    /// The tickets whose answers this session waits for.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.waiting.keys().copied()
    }

    /// Whether a validate waits for an event ([`Self::handle_published`]).
    #[must_use]
    pub fn waits_for_event(&self) -> bool {
        !self.delayed.is_empty()
    }

    /// When [`Self::handle_timeout`] has to be called at the latest.
    #[must_use]
    pub fn next_timeout_ms(&self) -> Option<u64> {
        let slow = self.streams.values().filter_map(Stream::slow_at_ms).min();
        let delayed = self.delayed.iter().map(|delayed| delayed.until_ms).min();
        slow.into_iter().chain(delayed).min()
    }

    /// Nobody reads the stream for now: the time that its next request takes does not count.
    pub fn stop_clock(&mut self, stream: u64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.since_ms = None;
        }
    }

    /// The stream is read again.
    pub fn start_clock(&mut self, stream: u64, now_ms: u64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.since_ms = Some(now_ms);
        }
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
        let state = self.streams.entry(stream).or_default();
        if state.partial.is_empty() {
            // Whole frames are read from where they are; only what is cut by the end of the data is copied.
            let rest = self.handle_frames(stream, data, now_ms, doors, next_ticket, out)?;
            self.keep(stream, rest, now_ms);
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut state.partial);
        let since_ms = state.since_ms;
        bytes.extend_from_slice(data);
        let rest = self.handle_frames(stream, &bytes, now_ms, doors, next_ticket, out)?.len();
        let is_new = rest < bytes.len();
        bytes.drain(..bytes.len() - rest);
        let state = self.streams.entry(stream).or_default();
        (state.partial, state.since_ms) = (bytes, if is_new { Some(now_ms) } else { since_ms });
        Ok(())
    }

    fn keep(&mut self, stream: u64, rest: &[u8], now_ms: u64) {
        if !rest.is_empty() {
            let state = self.streams.entry(stream).or_default();
            (state.partial, state.since_ms) = (rest.to_vec(), Some(now_ms));
        }
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
        let mut gathered = Gathered::new(std::mem::take(&mut self.room));
        let result = self.handle_each(stream, &mut data, now_ms, doors, next_ticket, &mut gathered, out);
        self.validate_gathered(&mut gathered, doors, out);
        self.room = gathered.into_room();
        result.map(|()| data)
    }

    #[expect(clippy::too_many_arguments, reason = "what a request may need, and where answers go")]
    fn handle_each<'d, D: Validate + Submit>(
        &mut self,
        stream: u64,
        data: &mut &'d [u8],
        now_ms: u64,
        doors: &D,
        next_ticket: &mut Ticket,
        gathered: &mut Gathered<'d>,
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        while let Some((frame, length)) = split(data, REQUEST_BYTES_MAX)? {
            if self.has_greeted && frame.opcode == VALIDATE {
                let validate = ValidateRequest::in_frame(&frame)?;
                if validate.min_sequence > doors.published() {
                    self.validate_gathered(gathered, doors, out);
                    self.delay(stream, &validate, frame.request, &data[..length], now_ms, out);
                } else {
                    if !gathered.has_room(&validate) {
                        self.validate_gathered(gathered, doors, out);
                    }
                    gathered.add(frame.request, validate);
                }
            } else {
                let request = Request::decode_knowing(&frame, &mut self.known)?;
                // Answers are given in the order of the requests.
                self.validate_gathered(gathered, doors, out);
                if self.has_greeted {
                    let owed_bytes = answer_bytes_max(&request);
                    let from = Waiting { stream: Some(stream), request: frame.request, owed_bytes };
                    self.dispatch(from, request, doors, next_ticket, out);
                } else {
                    self.greet(&request, frame.request, doors, out)?;
                }
            }
            self.tally.requests += 1;
            *data = &data[length..];
        }
        Ok(())
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
        if self.delayed.len() >= DELAYED_MAX || self.delayed_bytes + frame.len() > DELAYED_BYTES_MAX {
            self.busy(request, out);
            return;
        }
        self.delayed_bytes += frame.len();
        self.streams.entry(stream).or_default().owed += 1;
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
            self.delayed_bytes -= delayed.frame.len();
            self.settle(delayed.stream);
            // It decoded when it came.
            let Ok(Some((frame, _))) = split(&delayed.frame, REQUEST_BYTES_MAX) else { continue };
            let Ok(validate) = ValidateRequest::in_frame(&frame) else { continue };
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
        let is_slow = |stream: &Stream| stream.slow_at_ms().is_some_and(|at| now_ms >= at);
        if self.streams.values().any(is_slow) {
            return Err(crate::CloseCode::TooSlow);
        }
        let (streams, delayed_bytes) = (&mut self.streams, &mut self.delayed_bytes);
        self.delayed.retain(|delayed| {
            if now_ms < delayed.until_ms {
                return true;
            }
            *delayed_bytes -= delayed.frame.len();
            if let Some(stream) = streams.get_mut(&delayed.stream) {
                stream.settle();
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
        self.owed_bytes -= waiting.owed_bytes;
        let stream = waiting.stream?;
        self.settle(stream);
        let (log, partition) = doors.log();
        let response = match reply {
            // One way to say it, wherever the queue was that was full.
            DoorReply::Command(Reply { result: Err(Rejection::Busy { retry_ms }), .. }) => {
                self.tally.busy += 1;
                Response::Busy { retry_ms }
            }
            DoorReply::Command(reply) => Response::Written { log, partition, reply },
            DoorReply::Log(Ok(page)) => {
                Response::LogPage { first: page.first, head: page.head, batches: page.batches }
            }
            DoorReply::Snapshot(Ok(taken)) => Response::Snapshot(taken),
            DoorReply::Log(Err(message)) | DoorReply::Snapshot(Err(message)) => Response::Failed(message),
        };
        response.encode(waiting.request, out);
        Some(stream)
    }

    /// The client has said all it will on this stream.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if that ended within a request: the connection is to be closed.
    pub fn handle_end(&mut self, stream: u64) -> Result<(), WireError> {
        let is_cut = self.streams.get(&stream).is_some_and(|stream| !stream.partial.is_empty());
        if is_cut { Err(WireError::Truncated) } else { Ok(()) }
    }

    /// Nothing more will come on a stream: what it sent half is forgotten. What it is owed is still sent.
    pub fn forget_partial(&mut self, stream: u64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.partial.clear();
        }
    }

    /// A stream is gone: what it sent half is forgotten, and nobody hears the answers, nor takes them for those of what
    /// a client sends on it all the same.
    pub fn forget_stream(&mut self, stream: u64) {
        let Some(Stream { owed: 1.., .. }) = self.streams.remove(&stream) else { return };
        let delayed_bytes = &mut self.delayed_bytes;
        self.delayed.retain(|delayed| {
            let is_kept = delayed.stream != stream;
            *delayed_bytes -= if is_kept { 0 } else { delayed.frame.len() };
            is_kept
        });
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.stream == Some(stream)) {
            waiting.stream = None;
        }
    }

    fn settle(&mut self, stream: u64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.settle();
        }
    }

    fn busy(&mut self, request: u64, out: &mut Vec<u8>) {
        self.tally.busy += 1;
        Response::Busy { retry_ms: BUSY_RETRY_MS }.encode(request, out);
    }
}

impl Stream {
    /// One answer less is owed.
    fn settle(&mut self) {
        self.owed = self.owed.saturating_sub(1);
    }

    /// When the request under way has taken too long.
    fn slow_at_ms(&self) -> Option<u64> {
        self.since_ms.filter(|_| !self.partial.is_empty()).map(|since_ms| since_ms + REQUEST_MS)
    }
}

/// What the answer to a request may take, at most: of those that are answered later.
fn answer_bytes_max(request: &Request<'_>) -> usize {
    const OUTCOME: usize = 256;
    const LOG_PAGE: usize = 512 * 1024;
    match request {
        Request::Write { command: Command::IssueTokens(issue), .. } => OUTCOME + issue.subjects.len() * 32,
        Request::ReadLog { bytes_max, .. } => (*bytes_max as usize).min(LOG_PAGE) + OUTCOME,
        _ => OUTCOME,
    }
}

#[cfg(test)]
mod tests;
