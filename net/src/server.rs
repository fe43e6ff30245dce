//! The server on a shard: sessions over connections, answered through the doors.

mod counters;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use jeton_wire::doors::{DoorReply, Submit, Ticket, Validate};
use jeton_wire::{CloseCode, Session};

pub use counters::{CounterValues, ShardCounters};

use crate::driver::{ConnId, Driver, DriverEvent, Read};
use crate::identity::Identity;
use crate::shard::{Bell, Handler};

/// Answers on their way back to a shard.
pub const REPLIES_MAX: usize = 1 << 17;
/// Bytes of answers that one stream may leave unread; past that its connection is closed.
const UNREAD_BYTES_MAX: usize = 2 << 20;

/// The way back to a shard for the doors: a bounded queue and a bell.
#[derive(Clone, Debug)]
pub struct ReplyQueue {
    queue: Arc<ArrayQueue<(Ticket, DoorReply)>>,
    bell: Arc<Bell>,
}

impl ReplyQueue {
    /// An empty queue to the shard with this bell.
    #[must_use]
    pub fn new(bell: Arc<Bell>) -> Self {
        Self { queue: Arc::new(ArrayQueue::new(REPLIES_MAX)), bell }
    }

    /// Sends an answer back, without waking the shard: [`Self::ring`] does, once for many.
    ///
    /// The queue has room for every ticket that sessions may have out; if it is full all the same the shard is gone,
    /// and the answer with it.
    pub fn push(&self, ticket: Ticket, reply: DoorReply) {
        if self.queue.push((ticket, reply)).is_err() {
            tracing::error!(ticket, "an answer found no room on its way back");
        }
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

/// One client's connection.
struct Client {
    session: Session,
    /// Answers that the driver did not take yet, by stream.
    unsent: HashMap<u64, Vec<u8>>,
    not_after_s: u64,
}

/// The handler of one shard.
pub struct Server<D> {
    doors: D,
    replies: ReplyQueue,
    counters: Arc<ShardCounters>,
    clients: HashMap<ConnId, Client>,
    /// Which connection waits for which ticket.
    tickets: HashMap<Ticket, ConnId>,
    next_ticket: Ticket,
    /// The zero of the sessions' clock.
    epoch: Instant,
    /// When sessions have to be looked at.
    deadline: Option<Instant>,
    certificates_checked: Instant,
    out: Vec<u8>,
}

/// How often connections are compared with the end of their certificates.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(1);

impl<D> std::fmt::Debug for Server<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({} clients)", self.clients.len())
    }
}

impl<D: Validate + Submit> Server<D> {
    /// A server without clients. `replies` is the queue that `doors` answers to.
    pub fn new(doors: D, replies: ReplyQueue, counters: Arc<ShardCounters>) -> Self {
        let epoch = Instant::now();
        Self {
            doors,
            replies,
            counters,
            clients: HashMap::new(),
            tickets: HashMap::new(),
            next_ticket: 1,
            epoch,
            deadline: None,
            certificates_checked: epoch,
            out: Vec::new(),
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
        if self.clients.remove(&conn).is_some() {
            self.tickets.retain(|_, waiting| *waiting != conn);
            self.counters.set_connections(self.clients.len());
        }
    }

    fn greet(&mut self, now: Instant, conn: ConnId, driver: &mut Driver) {
        let certificates = driver.peer_certificates(conn);
        let identity = certificates.first().map(|own| Identity::from_certificate(own));
        match identity {
            Some(Ok(identity)) => {
                tracing::debug!(client = identity.name, "connected");
                let session = Session::new(identity.name);
                let client = Client { session, unsent: HashMap::new(), not_after_s: identity.not_after_s };
                self.clients.insert(conn, client);
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
        loop {
            let is_backed_up =
                self.clients.get(&conn).is_none_or(|client| client.unsent.contains_key(&stream));
            if is_backed_up {
                return; // goes on in `resume`, once what is owed was taken
            }
            match driver.read(conn, stream) {
                Read::Data(data) => self.answer(now, conn, stream, &data, driver),
                Read::Blocked => return,
                Read::Finished | Read::Gone => {
                    if let Some(client) = self.clients.get_mut(&conn) {
                        client.session.handle_stream_end(stream);
                        if client.session.is_idle() {
                            driver.finish(conn, stream);
                        }
                    }
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
        self.out.clear();
        let handled = client.session.handle_data(
            stream,
            data,
            now_ms,
            &self.doors,
            &mut self.next_ticket,
            &mut self.out,
        );
        for ticket in first_ticket..self.next_ticket {
            self.tickets.insert(ticket, conn);
        }
        self.counters.add(&client.session.take_tally(), began.elapsed());
        if let Some(at) = client.session.next_timeout_ms() {
            let at = self.epoch + Duration::from_millis(at);
            self.deadline = Some(self.deadline.map_or(at, |known| known.min(at)));
        }
        let out = std::mem::take(&mut self.out);
        self.send(now, conn, stream, &out, driver);
        self.out = out;
        if let Err(error) = handled {
            tracing::info!(%error, "a client broke the protocol");
            self.counters.count_protocol_error();
            self.close(now, conn, error.close_code(), "protocol error", driver);
        }
    }

    /// Hands bytes to the driver; what it does not take is kept, up to a bound.
    fn send(&mut self, now: Instant, conn: ConnId, stream: u64, bytes: &[u8], driver: &mut Driver) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if bytes.is_empty() {
            return;
        }
        let mut sent = 0;
        if !client.unsent.contains_key(&stream) {
            while sent < bytes.len() {
                match driver.write(conn, stream, &bytes[sent..]) {
                    Some(0) => break,
                    Some(taken) => sent += taken,
                    None => return, // the client does not want to hear it
                }
            }
        }
        if sent == bytes.len() {
            return;
        }
        let unsent = client.unsent.entry(stream).or_default();
        unsent.extend_from_slice(&bytes[sent..]);
        if unsent.len() > UNREAD_BYTES_MAX {
            self.close(now, conn, CloseCode::NotReading, "answers are not read", driver);
        }
    }

    /// The driver takes bytes of a stream again.
    fn resume(&mut self, now: Instant, conn: ConnId, stream: u64, driver: &mut Driver) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if let Some(unsent) = client.unsent.remove(&stream) {
            self.send(now, conn, stream, &unsent, driver);
        }
        self.read(now, conn, stream, driver);
    }

    fn deliver_replies(&mut self, now: Instant, driver: &mut Driver) -> bool {
        let mut has_any = false;
        let mut out = std::mem::take(&mut self.out);
        while let Some((ticket, reply)) = self.replies.queue.pop() {
            has_any = true;
            let Some(conn) = self.tickets.remove(&ticket) else { continue };
            let Some(client) = self.clients.get_mut(&conn) else { continue };
            out.clear();
            if let Some(stream) = client.session.handle_reply(ticket, reply, &self.doors, &mut out) {
                self.send(now, conn, stream, &out, driver);
            }
        }
        self.out = out;
        has_any
    }

    /// Looks at sessions whose time has come, and at certificates whose end has.
    fn look_around(&mut self, now: Instant, driver: &mut Driver) {
        let now_ms = self.now_ms(now);
        let published = self.doors.published();
        let mut sends = Vec::new();
        let mut closes = Vec::new();
        for (conn, client) in &mut self.clients {
            let mut send = |stream, bytes: &[u8]| sends.push((*conn, stream, bytes.to_vec()));
            client.session.handle_published(&self.doors, &mut send);
            if let Err(code) = client.session.handle_timeout(now_ms, published, &mut send) {
                closes.push((*conn, code, "a request took too long to arrive"));
            }
            if self.doors.now().0 / 1_000 >= client.not_after_s {
                closes.push((*conn, CloseCode::Identity, "the client certificate has expired"));
            }
        }
        sends.into_iter().for_each(|(conn, stream, bytes)| self.send(now, conn, stream, &bytes, driver));
        closes.into_iter().for_each(|(conn, code, reason)| self.close(now, conn, code, reason, driver));
        let next = self.clients.values().filter_map(|client| client.session.next_timeout_ms()).min();
        self.deadline = next.map(|at| self.epoch + Duration::from_millis(at));
        self.certificates_checked = now;
    }
}

impl<D: Validate + Submit> Handler for Server<D> {
    fn handle_event(&mut self, now: Instant, event: DriverEvent, driver: &mut Driver) {
        match event {
            DriverEvent::Connected(conn) => self.greet(now, conn, driver),
            DriverEvent::Readable(conn, stream) => self.read(now, conn, stream, driver),
            DriverEvent::Writable(conn, stream) => self.resume(now, conn, stream, driver),
            DriverEvent::Lost(conn, reason) => {
                tracing::debug!(reason, "a connection ended");
                self.forget(conn);
            }
        }
    }

    fn handle_turn(&mut self, now: Instant, driver: &mut Driver) -> bool {
        let has_replies = self.deliver_replies(now, driver);
        let is_due = self.deadline.is_some_and(|at| at <= now);
        // A reply means that something was published: validates may wait for it.
        let waits = has_replies && self.deadline.is_some();
        if is_due || waits || now - self.certificates_checked >= CERTIFICATE_CHECK {
            self.look_around(now, driver);
        }
        has_replies
    }

    fn next_deadline(&self) -> Option<Instant> {
        // Validates that wait for an event are looked at every few milliseconds.
        const LOOK: Duration = Duration::from_millis(5);
        let soon = self.deadline.map(|at| at.min(Instant::now() + LOOK));
        soon.into_iter().chain([self.certificates_checked + CERTIFICATE_CHECK]).min()
    }

    fn handle_stop(&mut self, _now: Instant, _driver: &mut Driver) {}

    fn is_drained(&self) -> bool {
        self.tickets.is_empty() && self.clients.values().all(|client| client.unsent.is_empty())
    }

    fn handle_close(&mut self, now: Instant, driver: &mut Driver) {
        let conns: Vec<_> = self.clients.keys().copied().collect();
        for conn in conns {
            self.close(now, conn, CloseCode::Stopping, "the server is stopping", driver);
        }
    }
}
