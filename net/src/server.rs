//! The server on a shard: sessions over connections, answered through the doors.

mod answers;
mod client;
mod counters;
mod shares;

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_queue::SegQueue;
use jeton_core::numbers::Sequence;
use jeton_wire::WireError;
use jeton_wire::doors::{DoorReply, Submit, Ticket, Validate};
use jeton_wire::{CloseCode, Refusing, Session, WRITES_IN_FLIGHT_MAX};
use rustc_hash::FxHashMap;

pub use counters::{CounterValues, ShardCounters};
pub use shares::WRITES_PER_IDENTITY_MAX;

use self::answers::{Answer, Answers, Room};
use self::client::Client;
use self::shares::{Share, Shares};

use crate::driver::{ConnId, Driver, DriverEvent, Read};
use crate::identity::Identity;
use crate::shard::{Bell, Handler};

/// Answers that a shard's clients may have to come at a time, all together.
const REPLIES_MAX: usize = 1 << 17;
/// Answers delivered in one turn: a commit brings thousands, and with them as many writes that waited for room. Everybody's
/// datagrams have their turn in between.
const ANSWERS_PER_TURN: usize = 256;
/// How long a validate that waits for an event of another shard waits at most before it is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The way back to a shard for the doors: a queue and a bell.
///
/// The queue has no bound of its own: there is one answer for each ticket, and of those a shard has 131,072 out at most. A
/// ring of so many places would be gone through whole, and each place be cold when its turn comes
/// (docs/decisions/0021-queues-without-rings.md).
#[derive(Clone, Debug)]
pub struct ReplyQueue {
    queue: Arc<SegQueue<(Ticket, DoorReply)>>,
    bell: Arc<Bell>,
}

impl ReplyQueue {
    /// An empty queue to the shard with this bell.
    #[must_use]
    pub fn new(bell: Arc<Bell>) -> Self {
        Self { queue: Arc::new(SegQueue::new()), bell }
    }

    /// Sends an answer back, without waking the shard: [`Self::ring`] does, once for many.
    pub fn push(&self, ticket: Ticket, reply: DoorReply) {
        self.queue.push((ticket, reply));
    }

    /// Whether both lead to the same shard.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.queue, &other.queue)
    }

    /// Wakes the shard.
    pub fn ring(&self) {
        self.bell.ring();
    }
}

/// The handler of one shard.
pub struct Server<D> {
    doors: D,
    replies: ReplyQueue,
    counters: Arc<ShardCounters>,
    // Looked into for every datagram, by numbers that we give out ourselves: no client chooses where they collide.
    clients: FxHashMap<ConnId, Client>,
    /// Which connection waits for which ticket, and whose that is: also if the connection is gone, for what was handed on
    /// takes its place in the queues until it is answered.
    tickets: FxHashMap<Ticket, (ConnId, Rc<Share>)>,
    shares: Shares,
    /// What has come back and is to be delivered.
    answers: Answers,
    /// Connections with streams that wait until their identity has less under way, each once, in the order in which they
    /// came to wait.
    paused: VecDeque<ConnId>,
    next_ticket: Ticket,
    /// From which ticket on the taker of commands was not woken yet.
    unrung: Ticket,
    /// The zero of the sessions' clock.
    epoch: Instant,
    /// When sessions have to be looked at.
    deadline: Option<Instant>,
    /// Clients with a validate that waits for an event, and how far things were when they were looked at last.
    waiting: BTreeSet<ConnId>,
    published_seen: Sequence,
    looked_around: Instant,
    is_stopping: bool,
    out: Room,
}

/// How often connections are compared with the end of their certificates, and those that are not read noticed.
const LOOK_AROUND: Duration = Duration::from_secs(1);

impl<D> std::fmt::Debug for Server<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({} clients)", self.clients.len())
    }
}

impl<D: Validate + Submit> Server<D> {
    /// A server without clients. `replies` is the queue that `doors` answers to; an identity may have so many connections.
    pub fn new(
        doors: D,
        replies: ReplyQueue,
        counters: Arc<ShardCounters>,
        connections_per_identity_max: usize,
    ) -> Self {
        let epoch = Instant::now();
        Self {
            doors,
            replies,
            counters,
            clients: FxHashMap::default(),
            tickets: FxHashMap::default(),
            shares: Shares::new(connections_per_identity_max),
            answers: Answers::default(),
            paused: VecDeque::new(),
            next_ticket: 1,
            unrung: 1,
            epoch,
            deadline: None,
            waiting: BTreeSet::new(),
            published_seen: Sequence(0),
            looked_around: epoch,
            is_stopping: false,
            out: Room::default(),
        }
    }

    fn now_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    fn close(
        &mut self,
        now: Instant,
        conn: ConnId,
        code: CloseCode,
        reason: &'static str,
        driver: &mut Driver,
    ) {
        driver.close(now, conn, code.code(), reason);
        self.forget(conn);
    }

    fn forget(&mut self, conn: ConnId) {
        if let Some(client) = self.clients.remove(&conn) {
            self.shares.leave(client.share());
            self.waiting.remove(&conn);
            self.counters.set_connections(self.clients.len());
        }
    }

    fn greet(&mut self, now: Instant, conn: ConnId, driver: &mut Driver) {
        let certificates = driver.peer_certificates(conn);
        let identity = certificates.first().map(|own| Identity::from_certificate(own));
        match identity {
            Some(Ok(identity)) => {
                let Some(share) = self.shares.join(&identity.name) else {
                    tracing::info!(client = identity.name, "a client has as many connections as it may");
                    let code = CloseCode::TooManyConnections.code();
                    driver.close(now, conn, code, "too many connections of this identity");
                    return;
                };
                tracing::debug!(client = identity.name, "connected");
                let session = Session::new(identity.name);
                self.clients.insert(conn, Client::new(session, share, identity.not_after_s, now));
                self.counters.set_connections(self.clients.len());
            }
            Some(Err(error)) => {
                tracing::info!(%error, "a client certificate names nobody");
                driver.close(
                    now,
                    conn,
                    CloseCode::Identity.code(),
                    "the certificate needs exactly one URI SAN",
                );
            }
            None => driver.close(now, conn, CloseCode::Identity.code(), "no client certificate"),
        }
    }

    fn read(&mut self, now: Instant, conn: ConnId, stream: u64, driver: &mut Driver) {
        if self.is_stopping {
            return;
        }
        loop {
            // What is owed is taken first: reading goes on in `resume`.
            if self.clients.get_mut(&conn).is_none_or(|client| client.holds_back(stream)) {
                return;
            }
            match driver.read(conn, stream) {
                Read::Data(data) => self.answer(now, conn, stream, &data, driver),
                Read::Blocked => return,
                Read::Finished => {
                    let Some(client) = self.clients.get_mut(&conn) else { return };
                    match client.session.handle_end(stream) {
                        Ok(()) => client.handle_end(conn, stream, driver),
                        Err(error) => self.break_off(now, conn, &error, driver),
                    }
                    return;
                }
                Read::Gone => {
                    let Some(client) = self.clients.get_mut(&conn) else { return };
                    client.session.forget_partial(stream);
                    client.handle_end(conn, stream, driver);
                    return;
                }
            }
        }
    }

    fn answer(&mut self, now: Instant, conn: ConnId, stream: u64, data: &[u8], driver: &mut Driver) {
        let began = Instant::now();
        let now_ms = self.now_ms(now);
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let first_ticket = self.next_ticket;
        // One read brings no more writes than a session may have under way.
        let is_full = self.tickets.len() + self.answers.len() + WRITES_IN_FLIGHT_MAX > REPLIES_MAX;
        client.session.set_refusing(if is_full { Refusing::All } else { client.share().refusing() });
        let mut out = self.out.take();
        let handled =
            client.session.handle_data(stream, data, now_ms, &self.doors, &mut self.next_ticket, &mut out);
        for ticket in first_ticket..self.next_ticket {
            client.share().take_on();
            self.tickets.insert(ticket, (conn, Rc::clone(client.share())));
        }
        let tally = client.session.take_tally();
        self.counters.add(&tally, began.elapsed());
        if tally.busy > 0 && client.share().refusing() != Refusing::Nothing && client.pause(stream) {
            self.paused.push_back(conn);
        }
        if client.session.waits_for_event() {
            self.waiting.insert(conn);
        }
        if let Some(at) = client.session.next_timeout_ms() {
            let at = self.epoch + Duration::from_millis(at);
            self.deadline = Some(self.deadline.map_or(at, |known| known.min(at)));
        }
        self.send(now, conn, stream, &out, driver);
        self.out.give_back(out);
        if let Err(error) = handled {
            self.break_off(now, conn, &error, driver);
        }
    }

    /// Ends the conversation with a client that broke the protocol.
    fn break_off(&mut self, now: Instant, conn: ConnId, error: &WireError, driver: &mut Driver) {
        let client = self.clients.get(&conn).map(|client| client.session.identity());
        tracing::info!(%error, client, "a client broke the protocol");
        self.counters.count_protocol_error();
        self.close(now, conn, error.close_code(), "protocol error", driver);
    }

    /// Sends bytes of answers.
    fn send(&mut self, now: Instant, conn: ConnId, stream: u64, bytes: &[u8], driver: &mut Driver) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if client.send(now, conn, stream, bytes, driver).is_err() {
            self.close(now, conn, CloseCode::NotReading, "answers are not read", driver);
        }
    }

    /// The driver takes bytes of a stream again.
    fn resume(&mut self, now: Instant, conn: ConnId, stream: u64, driver: &mut Driver) {
        let now_ms = self.now_ms(now);
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.flush(now, conn, stream, driver);
        self.read_on(now, now_ms, conn, driver);
    }

    /// Reads streams that were held back, as far as there is room again.
    fn read_on(&mut self, now: Instant, now_ms: u64, conn: ConnId, driver: &mut Driver) {
        let streams = self.clients.get_mut(&conn).map(|client| client.streams_to_read(now_ms));
        for stream in streams.into_iter().flatten() {
            self.read(now, conn, stream, driver);
        }
    }

    /// Puts what has come back into the lines of their identities, and delivers a turn's worth of it.
    fn deliver_answers(&mut self, now: Instant, driver: &mut Driver) -> bool {
        while let Some((ticket, reply)) = self.replies.queue.pop() {
            let Some((conn, share)) = self.tickets.remove(&ticket) else { continue };
            self.answers.add(share, Answer { conn, ticket, reply });
        }
        let mut delivered = 0;
        while delivered < ANSWERS_PER_TURN {
            let Some((share, answers)) = self.answers.next_turn() else { break };
            delivered += answers.len();
            answers.iter().for_each(|_| self.shares.settle(&share));
            self.deliver(now, answers, driver);
        }
        delivered > 0
    }

    /// Sends answers; those that follow each other on one stream in one piece: QUIC keeps a list of the pieces of a stream,
    /// and goes through it for each datagram.
    fn deliver(&mut self, now: Instant, answers: Vec<Answer>, driver: &mut Driver) {
        let mut piece = self.out.take();
        let mut goes_to = None;
        for Answer { conn, ticket, reply } in answers {
            let Some(client) = self.clients.get_mut(&conn) else { continue };
            let length = piece.len();
            let Some(stream) = client.session.handle_reply(ticket, reply, &self.doors, &mut piece) else {
                continue;
            };
            let before = goes_to.replace((conn, stream));
            if let Some(other) = before.filter(|before| *before != (conn, stream)) {
                self.send(now, other.0, other.1, &piece[..length], driver);
                piece.drain(..length);
            }
        }
        if let Some((conn, stream)) = goes_to {
            self.send(now, conn, stream, &piece, driver);
        }
        self.out.give_back(piece);
    }

    /// Reads on where clients waited until they have less under way.
    fn read_paused(&mut self, now: Instant, driver: &mut Driver) {
        let now_ms = self.now_ms(now);
        // Each once: who has to wait again is behind the others then.
        for _ in 0..self.paused.len() {
            let Some(conn) = self.paused.pop_front() else { return };
            let Some(client) = self.clients.get_mut(&conn) else { continue };
            if client.share().refusing() == Refusing::Nothing {
                client.end_pause();
                self.read_on(now, now_ms, conn, driver);
            } else {
                self.paused.push_back(conn);
            }
        }
    }

    /// Answers validates whose event has come.
    fn answer_waiting(&mut self, now: Instant, driver: &mut Driver) {
        let published = self.doors.published();
        if self.waiting.is_empty() || published == self.published_seen {
            return;
        }
        self.published_seen = published;
        for conn in self.waiting.clone() {
            let Some(client) = self.clients.get_mut(&conn) else { continue };
            let mut sends = Vec::new();
            client.session.handle_published(&self.doors, |stream, bytes: &[u8]| {
                sends.push((stream, bytes.to_vec()));
            });
            if !client.session.waits_for_event() {
                self.waiting.remove(&conn);
            }
            sends.into_iter().for_each(|(stream, bytes)| self.send(now, conn, stream, &bytes, driver));
        }
    }

    /// Looks at sessions whose time has come, and at certificates whose end has.
    fn look_around(&mut self, now: Instant, driver: &mut Driver) {
        let now_ms = self.now_ms(now);
        let published = self.doors.published();
        let mut sends = Vec::new();
        let mut closes = Vec::new();
        for (conn, client) in &mut self.clients {
            let mut send = |stream, bytes: &[u8]| sends.push((*conn, stream, bytes.to_vec()));
            if let Err(code) = client.session.handle_timeout(now_ms, published, &mut send) {
                closes.push((*conn, code, "a request took too long to arrive"));
            }
            if self.doors.now().0 / 1_000 >= client.not_after_s {
                closes.push((*conn, CloseCode::Identity, "the client certificate has expired"));
            }
            if client.is_stalled(now) {
                closes.push((*conn, CloseCode::NotReading, "answers are not read"));
            }
            if !client.session.waits_for_event() {
                self.waiting.remove(conn);
            }
        }
        sends.into_iter().for_each(|(conn, stream, bytes)| self.send(now, conn, stream, &bytes, driver));
        closes.into_iter().for_each(|(conn, code, reason)| self.close(now, conn, code, reason, driver));
        let next = self.clients.values().filter_map(|client| client.session.next_timeout_ms()).min();
        self.deadline = next.map(|at| self.epoch + Duration::from_millis(at));
        let conns: Vec<_> = self.clients.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.read_on(now, now_ms, conn, driver));
        self.looked_around = now;
    }
}

impl<D: Validate + Submit> Handler for Server<D> {
    fn handle_event(&mut self, now: Instant, event: DriverEvent, driver: &mut Driver) {
        match event {
            DriverEvent::Connected(conn) => self.greet(now, conn, driver),
            DriverEvent::Readable(conn, stream) => self.read(now, conn, stream, driver),
            DriverEvent::Writable(conn, stream) => self.resume(now, conn, stream, driver),
            DriverEvent::Stopped(conn, stream) => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.handle_stopped(conn, stream, driver);
                    self.read_on(now, self.now_ms(now), conn, driver);
                }
            }
            DriverEvent::Lost(conn, reason) => {
                tracing::debug!(reason, "a connection ended");
                self.forget(conn);
            }
        }
    }

    fn handle_turn(&mut self, now: Instant, driver: &mut Driver) -> bool {
        let has_replies = self.deliver_answers(now, driver);
        if has_replies {
            self.read_paused(now, driver);
        }
        self.answer_waiting(now, driver);
        if self.deadline.is_some_and(|at| at <= now) || now - self.looked_around >= LOOK_AROUND {
            self.look_around(now, driver);
        }
        // Once a turn: woken for each command, another thread would take this core each time.
        if self.unrung < self.next_ticket {
            self.unrung = self.next_ticket;
            self.doors.ring();
        }
        has_replies
    }

    fn next_deadline(&self) -> Option<Instant> {
        // Another shard's writes ring no bell here.
        let look = (!self.waiting.is_empty()).then(|| Instant::now() + LOOK);
        [self.deadline, look, Some(self.looked_around + LOOK_AROUND)].into_iter().flatten().min()
    }

    fn waits_for_others(&self) -> bool {
        !self.tickets.is_empty()
    }

    fn handle_stop(&mut self, _now: Instant, driver: &mut Driver) {
        self.is_stopping = true;
        for (conn, client) in &mut self.clients {
            client.end_all(*conn, driver);
        }
    }

    fn is_drained(&self, driver: &mut Driver) -> bool {
        let is_answered = self.tickets.is_empty() && self.answers.len() == 0;
        is_answered && self.clients.values().all(Client::is_settled) && driver.is_flushed()
    }

    fn handle_close(&mut self, now: Instant, driver: &mut Driver) {
        let conns: Vec<_> = self.clients.keys().copied().collect();
        for conn in conns {
            self.close(now, conn, CloseCode::Stopping, "the server is stopping", driver);
        }
    }
}
