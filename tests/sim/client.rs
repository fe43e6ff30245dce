//! A client: speaks the wire format, repeats what it may repeat, and remembers what it asked when.

use std::collections::{BTreeMap, VecDeque};

use jeton_core::command::Command;
use jeton_core::numbers::{IdempotencyKey, Sequence};
use jeton_core::outcome::{Outcome, Rejection};
use jeton_wire::VERSION;
use jeton_wire::frame::{RESPONSE_BYTES_MAX, split};
use jeton_wire::request::{Hello, Request, encode_validate};
use jeton_wire::response::Response;

use super::rng::Rng;
use super::workload::{self, ADMIN, After, Ask, Pool};

/// Requests under way at a time.
const PENDING_MAX: usize = 6;
/// Keyed writes that are remembered, to be repeated on purpose.
const HISTORY_MAX: usize = 6;
/// How many times a client tries before it loses interest, while faults go on.
const ATTEMPTS_MAX: u32 = 12;

/// Streams of a connection; each keeps its order, between them there is none.
pub(super) const STREAMS: usize = 3;

/// A stream of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) connection: u64,
    pub(super) stream: u64,
}

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) ask: Ask,
    attempts: u32,
    stream: u64,
    /// When, in steps of the whole run.
    pub(super) step: u64,
    /// What the answers had to rest on.
    pub(super) min_sequence: Sequence,
    /// What any client knew to be published then.
    pub(super) floor: Sequence,
    /// It has been repeated under another number by now.
    was_given_up: bool,
}

/// An answer that arrived.
pub(super) struct Heard {
    pub(super) request: u64,
    pub(super) sent: Sent,
    pub(super) response: Response,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) identity: &'static str,
    pub(super) connection: Option<u64>,
    /// Whether the server has answered the hello: before that, only the first stream may be used.
    has_greeted: bool,
    inboxes: [Vec<u8>; STREAMS],
    next_request: u64,
    pending: BTreeMap<u64, Sent>,
    retries: VecDeque<(Ask, u32)>,
    history: Vec<Ask>,
    /// The last event that this client knows its writes to rest on.
    written: Sequence,
}

impl Client {
    pub(super) fn new(identity: &'static str) -> Self {
        Self {
            identity,
            connection: None,
            has_greeted: false,
            inboxes: Default::default(),
            next_request: 1,
            pending: BTreeMap::new(),
            retries: VecDeque::new(),
            history: Vec::new(),
            written: Sequence(0),
        }
    }

    /// Whether it waits for nothing and has nothing to repeat.
    pub(super) fn is_quiet(&self) -> bool {
        self.retries.is_empty() && self.pending.values().all(|sent| sent.was_given_up)
    }

    /// What it waits for, for people.
    pub(super) fn waits_for(&self) -> String {
        let pending = self.pending.values().filter(|sent| !sent.was_given_up).map(|sent| &sent.ask);
        let waiting: Vec<_> = pending.chain(self.retries.iter().map(|(ask, _)| ask)).collect();
        format!("{waiting:?}")
    }

    /// Begins on a connection: the first bytes.
    pub(super) fn connect(&mut self, connection: u64) -> Vec<u8> {
        self.connection = Some(connection);
        self.has_greeted = false;
        let mut out = Vec::new();
        let hello = Hello { version_min: VERSION, version_max: VERSION, features: 0 };
        Request::Hello(hello).encode(0, &mut out);
        out
    }

    /// Puts something first that no chance decides on.
    pub(super) fn begin_with(&mut self, command: Command) {
        let key = [0xfe - self.retries.len() as u8; 16];
        self.retries.push_back((Ask::Write(Some(key), command), 0));
    }

    /// Asks something: returns the number of the request, the stream it goes over and its bytes.
    pub(super) fn ask(
        &mut self,
        pool: &Pool,
        may_begin: bool,
        (step, floor): (u64, Sequence),
        rng: &mut Rng,
    ) -> Option<(u64, u64, Vec<u8>)> {
        if self.pending.values().filter(|sent| !sent.was_given_up).count() >= PENDING_MAX {
            return None;
        }
        let (ask, attempts) = match self.retries.pop_front() {
            Some(again) => again,
            None if may_begin => (self.choose(pool, rng), 0),
            None => return None,
        };
        if let Ask::Write(Some(_), _) = &ask
            && attempts == 0
        {
            if self.history.len() >= HISTORY_MAX {
                self.history.remove(0);
            }
            self.history.push(ask.clone());
        }
        let request = self.next_request;
        self.next_request += 1;
        let (bytes, min_sequence) = self.encode(request, &ask);
        let stream = if self.has_greeted { rng.below(STREAMS as u64) } else { 0 };
        let sent =
            Sent { ask, attempts: attempts + 1, stream, step, min_sequence, floor, was_given_up: false };
        self.pending.insert(request, sent);
        Some((request, stream, bytes))
    }

    fn choose(&self, pool: &Pool, rng: &mut Rng) -> Ask {
        if !self.history.is_empty() && rng.percent(12) {
            let again = rng.pick(&self.history).clone();
            if !rng.one_in(6) {
                return again;
            }
            // Another command under the same key.
            if let (Ask::Write(key, _), Ask::Write(_, other)) = (again, rng.pick(&self.history).clone()) {
                return Ask::Write(key, other);
            }
        }
        workload::next(pool, self.identity == ADMIN, rng)
    }

    fn encode(&self, request: u64, ask: &Ask) -> (Vec<u8>, Sequence) {
        let mut out = Vec::new();
        let mut min_sequence = Sequence(0);
        match ask {
            Ask::Write(key, command) => {
                let key = key.map(IdempotencyKey);
                Request::Write { key, command: command.clone() }.encode(request, &mut out);
            }
            Ask::Validate { tokens, checks, after, with_subjects } => {
                min_sequence = match after {
                    After::Anything => Sequence(0),
                    After::OwnWrites => self.written,
                    After::More(events) => Sequence(self.written.0 + events),
                };
                let table: Vec<_> = checks.iter().map(workload::Asking::check).collect();
                let indexes: Vec<u16> = (0..table.len() as u16).collect();
                let indexes = (table.len() == tokens.len() && table.len() > 1).then_some(&indexes[..]);
                encode_validate(request, tokens, &table, indexes, min_sequence, *with_subjects, &mut out);
            }
            Ask::Claims(number) => Request::Claims(*number).encode(request, &mut out),
            Ask::Subject(number) => Request::Subject(*number).encode(request, &mut out),
            Ask::Clients => Request::Clients.encode(request, &mut out),
            Ask::Inspect(id) => Request::Inspect(*id).encode(request, &mut out),
        }
        (out, min_sequence)
    }

    /// Takes bytes from the server.
    ///
    /// # Errors
    /// If they are no responses: the server broke its promise.
    pub(super) fn receive(&mut self, stream: u64, bytes: &[u8]) -> Result<Vec<Heard>, String> {
        let mut inbox = std::mem::take(&mut self.inboxes[stream as usize]);
        inbox.extend_from_slice(bytes);
        let mut heard = Vec::new();
        let mut rest = &inbox[..];
        while let Some((frame, length)) =
            split(rest, RESPONSE_BYTES_MAX).map_err(|error| format!("a response is no frame: {error}"))?
        {
            let response =
                Response::decode(&frame).map_err(|error| format!("a response does not decode: {error}"))?;
            rest = &rest[length..];
            if let Some(sent) = self.pending.remove(&frame.request) {
                if sent.stream != stream {
                    return Err("an answer came over another stream than the question".to_owned());
                }
                heard.push(Heard { request: frame.request, sent, response });
            } else if frame.request == 0 {
                self.has_greeted = true;
            } else {
                return Err(format!("request {} was answered twice", frame.request));
            }
        }
        self.inboxes[stream as usize] = rest.to_vec();
        heard.iter().for_each(|heard| self.note(heard));
        Ok(heard)
    }

    /// Draws conclusions from an answer.
    fn note(&mut self, heard: &Heard) {
        let nothing_was_done = match &heard.response {
            Response::Written { reply, .. } => match reply.result {
                Err(Rejection::Indeterminate) => {
                    self.repeat(heard);
                    false
                }
                Err(
                    Rejection::Busy { .. }
                    | Rejection::LogFailed
                    | Rejection::Stopping
                    | Rejection::DiskFull
                    | Rejection::ClockInDoubt,
                ) => true,
                _ => {
                    self.written = self.written.max(reply.sequence);
                    false
                }
            },
            Response::Busy { .. } => true,
            _ => false,
        };
        if nothing_was_done && !heard.sent.was_given_up {
            self.retries.push_back((heard.sent.ask.clone(), heard.sent.attempts));
        }
    }

    fn repeat(&mut self, heard: &Heard) {
        if !heard.sent.was_given_up && may_repeat(&heard.sent.ask) {
            self.retries.push_back((heard.sent.ask.clone(), heard.sent.attempts));
        }
    }

    /// The step at which a request was sent that is not answered yet.
    pub(super) fn asked_at(&self, request: u64) -> Option<u64> {
        self.pending.get(&request).map(|sent| sent.step)
    }

    /// Nothing came for too long. Returns whether it was still waited for.
    pub(super) fn give_up(&mut self, request: u64) -> bool {
        let Some(sent) = self.pending.get_mut(&request) else { return false };
        if std::mem::replace(&mut sent.was_given_up, true) {
            return false;
        }
        if may_repeat(&sent.ask) {
            self.retries.push_back((sent.ask.clone(), sent.attempts));
        }
        true
    }

    /// The connection is gone.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.inboxes.iter_mut().for_each(Vec::clear);
        for (_, sent) in std::mem::take(&mut self.pending) {
            if !sent.was_given_up && may_repeat(&sent.ask) {
                self.retries.push_back((sent.ask, sent.attempts));
            }
        }
    }

    /// Loses interest in what it has tried often.
    pub(super) fn lose_interest(&mut self) {
        self.retries.retain(|(_, attempts)| *attempts < ATTEMPTS_MAX);
    }
}

/// A write without a key is not repeated: nobody knows whether it was carried out.
fn may_repeat(ask: &Ask) -> bool {
    !matches!(ask, Ask::Write(None, _))
}

/// The tokens that an answer brings.
pub(super) fn issued(response: &Response) -> &[jeton_core::token::Token] {
    match response {
        Response::Written { reply, .. } => match &reply.result {
            Ok(Outcome::Issued { tokens, .. }) => tokens,
            _ => &[],
        },
        _ => &[],
    }
}
