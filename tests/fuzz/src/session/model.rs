//! What a session must do, told by keeping everything: bytes, requests, streams.

use std::collections::BTreeMap;

use jeton_core::command::Command;
use jeton_core::rights::Rights;
use jeton_core::verdict::Verdict;
use jeton_wire::doors::Validate as _;
use jeton_wire::frame::{REQUEST_BYTES_MAX, split};
use jeton_wire::request::Request;
use jeton_wire::response::Response;
use jeton_wire::{Refusing, VERSION, WRITES_IN_FLIGHT_MAX, WireError};

use super::doors::{Doors, verdict};

/// docs/PROTOCOL.md, "Limits".
const OWED_BYTES_MAX: usize = 4 << 20;
const DELAYED_MAX: usize = 256;
const DELAYED_BYTES_MAX: usize = 1 << 20;
const DELAY_MS: u64 = 200;
const REQUEST_MS: u64 = 2_000;
/// The room that an answer to a write or a read of the log takes beside tokens and batches, at most.
const OUTCOME_BYTES: usize = 256;

/// An answer that is due.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) request: u64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    HelloAck,
    Answers(Vec<Verdict>),
    Behind,
    /// To a write or a read of the log, from behind the door.
    Written,
    Busy,
    NotAllowed,
    /// To one of the small questions.
    Told,
}

impl Expected {
    /// Whatever comes back from behind a door.
    pub(super) fn written(request: u64) -> Self {
        Self { request, kind: Kind::Written }
    }

    pub(super) fn fits(&self, response: &Response) -> bool {
        match (&self.kind, response) {
            (Kind::Answers(expected), Response::Answers { answers, .. }) => {
                answers.iter().map(|answer| answer.verdict).eq(expected.iter().copied())
            }
            (Kind::HelloAck, Response::HelloAck(ack)) => ack.version == VERSION,
            (Kind::Behind, Response::Behind { .. })
            | (Kind::Busy, Response::Busy { .. })
            | (Kind::NotAllowed, Response::NotAllowed) => true,
            (Kind::Written, response) => matches!(
                response,
                Response::Written { .. }
                    | Response::LogPage { .. }
                    | Response::Failed(_)
                    | Response::Busy { .. }
            ),
            (Kind::Told, response) => matches!(
                response,
                Response::Pong
                    | Response::Claims(None)
                    | Response::Subject(None)
                    | Response::Inspection(None)
                    | Response::Clients(_)
                    | Response::Stats(_)
            ),
            _ => false,
        }
    }
}

/// A write or a read of the log that went through a door.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// `None` once the stream was given up.
    pub(super) stream: Option<u64>,
    pub(super) request: u64,
    pub(super) is_read: bool,
    /// The tokens and batches in its answer, at most.
    bytes: usize,
}

/// A validate that waits for an event.
struct Delayed {
    stream: u64,
    until_ms: u64,
    min_sequence: u64,
    frame_bytes: usize,
    expected: Expected,
}

#[derive(Default)]
struct Stream {
    partial: Vec<u8>,
    since_ms: Option<u64>,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) now_ms: u64,
    pub(super) refusing: Refusing,
    pub(super) waiting: BTreeMap<u64, Waiting>,
    has_greeted: bool,
    streams: BTreeMap<u64, Stream>,
    delayed: Vec<Delayed>,
}

/// The tokens of the issue, or the bytes of the log, that an answer brings at most.
fn answer_bytes(request: &Request<'_>) -> usize {
    match request {
        Request::Write { command: Command::IssueTokens(issue), .. } => issue.subjects.len() * 32,
        Request::ReadLog { bytes_max, .. } => (*bytes_max as usize).min(512 * 1024),
        _ => 0,
    }
}

impl Model {
    /// Takes bytes of a stream; says which answers they bring at once, and how the connection goes on. Whether a write
    /// was handed on or answered `Busy` is read off what was `given` and `submitted`, and judged here.
    pub(super) fn receive(
        &mut self,
        stream: u64,
        data: &[u8],
        doors: &Doors,
        given: &[(u64, Response)],
        submitted: &[u64],
    ) -> (Vec<Expected>, Result<(), WireError>) {
        let Stream { mut partial, since_ms } = self.streams.remove(&stream).unwrap_or_default();
        let was_partial = !partial.is_empty();
        partial.extend_from_slice(data);
        let (mut at, mut expected, mut tickets) = (0, Vec::new(), submitted.iter().copied());
        loop {
            let (frame, length) = match split(&partial[at..], REQUEST_BYTES_MAX) {
                Ok(Some(whole)) => whole,
                Ok(None) => break,
                Err(error) => return (expected, Err(error)),
            };
            let request = match Request::decode(&frame) {
                Ok(request) => request,
                Err(error) => return (expected, Err(error)),
            };
            let kind = match self.kind(&request, doors) {
                Ok(Some(kind)) => Some(kind),
                Err(error) => return (expected, Err(error)),
                Ok(None) => match &request {
                    Request::Validate(validate) => {
                        let min_sequence = validate.min_sequence.0;
                        let verdicts = Kind::Answers(validate.tokens.iter().map(verdict).collect());
                        let later = Expected { request: frame.request, kind: verdicts };
                        self.delay(stream, min_sequence, length, later)
                    }
                    _ => {
                        let was_busy = matches!(given.get(expected.len()), Some((id, Response::Busy { .. })) if *id == frame.request);
                        self.hand_over(
                            stream,
                            frame.request,
                            &request,
                            doors,
                            (!was_busy).then(|| tickets.next()).flatten(),
                        )
                    }
                },
            };
            expected.extend(kind.map(|kind| Expected { request: frame.request, kind }));
            at += length;
        }
        assert_eq!(tickets.next(), None, "what was handed on was asked for");
        let since_ms = if was_partial && at == 0 { since_ms } else { Some(self.now_ms) };
        partial.drain(..at);
        self.streams.insert(stream, Stream { partial, since_ms });
        (expected, Ok(()))
    }

    /// The answer to a request that is answered at once; `None` if it waits for an event or a door.
    fn kind(&mut self, request: &Request<'_>, doors: &Doors) -> Result<Option<Kind>, WireError> {
        let rights = doors.rights.get();
        let if_allowed = |right, kind| if rights.contains(right) { kind } else { Kind::NotAllowed };
        if !self.has_greeted {
            let Request::Hello(hello) = request else { return Err(WireError::NotJeton) };
            if VERSION < hello.version_min || VERSION > hello.version_max {
                return Err(WireError::Version(hello.version_max));
            }
            self.has_greeted = true;
        }
        Ok(Some(match request {
            Request::Hello(_) => Kind::HelloAck,
            Request::Validate(validate) if validate.min_sequence > doors.published() => return Ok(None),
            Request::Validate(validate) => {
                if_allowed(Rights::VALIDATE, Kind::Answers(validate.tokens.iter().map(verdict).collect()))
            }
            Request::Write { .. } if rights.is_empty() => Kind::NotAllowed,
            Request::ReadLog { .. } if !rights.contains(Rights::AUDIT) => Kind::NotAllowed,
            Request::TakeSnapshot if !rights.contains(Rights::ADMIN) => Kind::NotAllowed,
            Request::Write { .. } | Request::ReadLog { .. } | Request::TakeSnapshot => return Ok(None),
            Request::Clients => if_allowed(Rights::ADMIN, Kind::Told),
            Request::Stats => if_allowed(Rights::AUDIT, Kind::Told),
            _ => Kind::Told,
        }))
    }

    fn delay(
        &mut self,
        stream: u64,
        min_sequence: u64,
        frame_bytes: usize,
        expected: Expected,
    ) -> Option<Kind> {
        let bytes: usize = self.delayed.iter().map(|delayed| delayed.frame_bytes).sum();
        if self.delayed.len() >= DELAYED_MAX || bytes + frame_bytes > DELAYED_BYTES_MAX {
            return Some(Kind::Busy);
        }
        let until_ms = self.now_ms + DELAY_MS;
        self.delayed.push(Delayed { stream, until_ms, min_sequence, frame_bytes, expected });
        None
    }

    /// A write that may go on does so, unless something is full.
    fn hand_over(
        &mut self,
        stream: u64,
        request: u64,
        what: &Request<'_>,
        doors: &Doors,
        ticket: Option<u64>,
    ) -> Option<Kind> {
        let takes = matches!(what, Request::Write { command, .. } if command.takes());
        let is_refused = match self.refusing {
            Refusing::Nothing => false,
            Refusing::AllButTaking => !takes,
            Refusing::All => true,
        };
        let is_full = is_refused || doors.is_full.get();
        let owed: usize = self.waiting.values().map(|waiting| waiting.bytes).sum();
        let bytes = answer_bytes(what);
        match ticket {
            Some(ticket) => {
                assert!(!is_full, "nothing goes through a door that is full");
                assert!(self.waiting.len() < WRITES_IN_FLIGHT_MAX, "writes under way are bounded");
                assert!(self.waiting.is_empty() || owed + bytes <= OWED_BYTES_MAX, "and what they are owed");
                let is_read = matches!(what, Request::ReadLog { .. });
                self.waiting.insert(ticket, Waiting { stream: Some(stream), request, is_read, bytes });
                None
            }
            None => {
                let most = owed + bytes + OUTCOME_BYTES * (self.waiting.len() + 1);
                let has_room = self.waiting.len() < WRITES_IN_FLIGHT_MAX && most <= OWED_BYTES_MAX;
                assert!(is_full || !has_room, "who is told that the server is busy finds it so");
                Some(Kind::Busy)
            }
        }
    }

    /// Validates that are answered now that so much is published, by the rights of now.
    pub(super) fn publish(&mut self, doors: &Doors) -> Vec<(u64, Expected)> {
        let (published, may) = (doors.published.get(), doors.rights.get().contains(Rights::VALIDATE));
        let (due, rest) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition::<Vec<_>, _>(|delayed| delayed.min_sequence <= published);
        self.delayed = rest;
        let answer = |delayed: Delayed| match delayed.expected {
            expected if may => (delayed.stream, expected),
            expected => (delayed.stream, Expected { kind: Kind::NotAllowed, ..expected }),
        };
        due.into_iter().map(answer).collect()
    }

    /// Validates that have waited long enough; `None` if a request took too long to arrive.
    pub(super) fn time_out(&mut self) -> Option<Vec<(u64, Expected)>> {
        if self.slow_at_ms().is_some_and(|at| at <= self.now_ms) {
            return None;
        }
        let now_ms = self.now_ms;
        let (due, rest) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition::<Vec<_>, _>(|delayed| delayed.until_ms <= now_ms);
        self.delayed = rest;
        let behind = |delayed: Delayed| (delayed.stream, Expected { kind: Kind::Behind, ..delayed.expected });
        Some(due.into_iter().map(behind).collect())
    }

    fn slow_at_ms(&self) -> Option<u64> {
        let partial = self.streams.values().filter(|stream| !stream.partial.is_empty());
        partial.filter_map(|stream| stream.since_ms).min().map(|since_ms| since_ms + REQUEST_MS)
    }

    pub(super) fn next_timeout_ms(&self) -> Option<u64> {
        let delayed = self.delayed.iter().map(|delayed| delayed.until_ms).min();
        self.slow_at_ms().into_iter().chain(delayed).min()
    }

    pub(super) fn waits_for_event(&self) -> bool {
        !self.delayed.is_empty()
    }

    /// The door has answered: whom that goes to.
    pub(super) fn answer(&mut self, ticket: u64) -> Waiting {
        self.waiting.remove(&ticket).expect("only tickets under way are answered")
    }

    pub(super) fn forget_stream(&mut self, stream: u64) {
        self.streams.remove(&stream);
        self.delayed.retain(|delayed| delayed.stream != stream);
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.stream == Some(stream)) {
            waiting.stream = None;
        }
    }

    pub(super) fn forget_partial(&mut self, stream: u64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.partial.clear();
        }
    }

    pub(super) fn is_partial(&self, stream: u64) -> bool {
        self.streams.get(&stream).is_some_and(|stream| !stream.partial.is_empty())
    }

    pub(super) fn turn_clock(&mut self, stream: u64, on: bool) {
        let now_ms = self.now_ms;
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.since_ms = on.then_some(now_ms);
        }
    }

    pub(super) fn is_settled(&self, stream: u64) -> bool {
        !self.waiting.values().any(|waiting| waiting.stream == Some(stream))
            && !self.delayed.iter().any(|delayed| delayed.stream == stream)
    }

    /// What a client can make a server keep for it.
    pub(super) fn check_bounds(&self) {
        assert!(self.delayed.len() <= DELAYED_MAX, "waiting validates are bounded in number");
        let bytes: usize = self.delayed.iter().map(|delayed| delayed.frame_bytes).sum();
        assert!(bytes <= DELAYED_BYTES_MAX, "and in bytes");
        assert!(
            self.streams.values().all(|stream| stream.partial.len() < REQUEST_BYTES_MAX),
            "one request is"
        );
    }
}
