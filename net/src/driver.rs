//! QUIC without IO: quinn-proto's endpoint and connections, driven by whoever has a socket and a clock.
//!
//! Datagrams, times and commands go in; datagrams, deadlines and [`DriverEvent`]s come out. One driver is one UDP
//! socket's worth of connections, servers' and clients' alike. Only connections that something happened to are looked
//! at. Methods: `handle_*` take input, `poll_*` give output.

mod cid;
mod config;
mod conn;
mod io;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionEvent, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event,
    Incoming, ReadError, ReadableError, StreamEvent, StreamId, VarInt, WriteError,
};
use rustc_hash::FxHashMap;

use config::TRANSMIT_BYTES_MAX;
pub use config::{ConfigError, DriverConfig, Limits, client_transport};
use conn::{Conn, Whereabouts, lose, words_for};
pub use io::{ConnId, DriverEvent, Origin, Read, Transmit};

/// The client's side of TLS, ready for any number of connections.
pub type ClientCrypto = quinn_proto::crypto::rustls::QuicClientConfig;

/// How long a handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(3);

/// What moves a handshake of the server's on: up to a few hundred microseconds of public-key cryptography.
enum HandshakeStep {
    /// A client wants in.
    Begin(Incoming),
    /// A datagram of a client that is on its way, where it came from and how many bytes it has.
    GoOn(ConnectionHandle, ConnectionEvent, SocketAddr, usize),
}

/// All connections of one socket.
pub struct Driver {
    endpoint: Endpoint,
    limits: Limits,
    large_datagrams: bool,
    conns: FxHashMap<ConnectionHandle, Conn>,
    dirty: VecDeque<ConnectionHandle>,
    timers: BTreeSet<(Instant, ConnectionHandle)>,
    events: VecDeque<DriverEvent>,
    /// Datagrams that belong to no connection: retries, refusals, resets.
    stateless: VecDeque<(Transmit, Vec<u8>)>,
    handshaking: usize,
    /// Steps of handshakes that were not taken yet ([`Self::handle_handshake`]), and how many of them begin one.
    steps: VecDeque<HandshakeStep>,
    begins: usize,
    is_server: bool,
    accepts: bool,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Driver({} connections)", self.conns.len())
    }
}

impl Driver {
    /// A driver without connections.
    ///
    /// # Errors
    /// If the TLS configuration is not fit for QUIC.
    pub fn new(config: DriverConfig) -> Result<Self, config::ConfigError> {
        let (large_datagrams, is_server) = (config.large_datagrams, config.server.is_some());
        let (endpoint, limits) = config.into_endpoint()?;
        Ok(Self {
            endpoint,
            limits,
            large_datagrams,
            conns: FxHashMap::default(),
            dirty: VecDeque::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            stateless: VecDeque::new(),
            handshaking: 0,
            steps: VecDeque::new(),
            begins: 0,
            is_server,
            accepts: true,
        })
    }

    // ---- what it knows ----

    /// Connections, those in handshake and in closing too.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// The certificates the peer showed, its own first; empty before the handshake is done.
    #[must_use]
    pub fn peer_certificates(&self, conn: ConnId) -> Vec<rustls_pki_types::CertificateDer<'static>> {
        let identity =
            self.conns.get(&conn.handle()).and_then(|conn| conn.inner.crypto_session().peer_identity());
        identity.and_then(|any| any.downcast().ok()).map(|chain| *chain).unwrap_or_default()
    }

    /// Whether every stream was ended and every peer has acknowledged all of it.
    pub fn is_flushed(&mut self) -> bool {
        let mut open = self.conns.values_mut().filter(|conn| !conn.is_lost);
        open.all(|conn| conn.inner.streams().send_streams() == 0)
    }

    /// The peer's address.
    #[must_use]
    pub fn remote_address(&self, conn: ConnId) -> Option<SocketAddr> {
        self.conns.get(&conn.handle()).map(|conn| conn.inner.remote_address())
    }

    /// The smoothed round-trip time (RFC 9002, section 5) and the largest datagram that the path is known to carry, in bytes.
    #[must_use]
    pub fn path(&self, conn: ConnId) -> Option<(Duration, u16)> {
        self.conns.get(&conn.handle()).map(|conn| (conn.inner.rtt(), conn.inner.current_mtu()))
    }

    // ---- input ----

    /// Takes one datagram.
    pub fn handle_datagram(&mut self, now: Instant, origin: Origin, data: BytesMut) {
        let (mut response, bytes) = (Vec::new(), data.len());
        let ecn = origin.ecn.and_then(quinn_proto::EcnCodepoint::from_bits);
        match self.endpoint.handle(now, origin.remote, origin.local_ip, ecn, data, &mut response) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(conn) = self.conns.get_mut(&handle) else { return };
                if self.is_server && conn.handshake_until.is_some() {
                    // One too many is lost: QUIC sends it again.
                    if self.steps.len() < self.limits.handshake_steps_max {
                        self.steps.push_back(HandshakeStep::GoOn(handle, event, origin.remote, bytes));
                    }
                } else {
                    conn.handle_datagram(event, origin.remote, bytes);
                    self.touch(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.handle_incoming(incoming),
            Some(DatagramEvent::Response(transmit)) => self.respond(transmit, response),
            None => {}
        }
    }

    /// A client that wants in: turned away if there are too many, made to prove its address if many are on their way.
    fn handle_incoming(&mut self, incoming: Incoming) {
        let mut response = Vec::new();
        if !self.accepts || self.conns.len() + self.begins >= self.limits.connections_max {
            self.refuse(incoming);
            return;
        }
        let under_way = self.handshaking + self.begins;
        let is_under_pressure = under_way >= self.limits.handshakes_unproven_max;
        if is_under_pressure && !incoming.remote_address_validated() && incoming.may_retry() {
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut response) {
                self.respond(transmit, response);
            }
            return;
        }
        // Whoever has not shown a certificate yet may not keep out those who have.
        if under_way >= self.limits.handshakes_max || self.steps.len() >= self.limits.handshake_steps_max {
            self.refuse(incoming);
            return;
        }
        self.steps.push_back(HandshakeStep::Begin(incoming));
        self.begins += 1;
    }

    fn refuse(&mut self, incoming: Incoming) {
        let mut response = Vec::new();
        let transmit = self.endpoint.refuse(incoming, &mut response);
        self.respond(transmit, response);
    }

    fn begin_handshake(&mut self, now: Instant, incoming: Incoming) {
        let mut response = Vec::new();
        match self.endpoint.accept(incoming, now, &mut response, None) {
            Ok((handle, inner)) => self.add(now, handle, inner),
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(transmit, response);
                }
            }
        }
    }

    /// Takes one step of one handshake; returns whether there was one. A handshake costs as much as hundreds of requests:
    /// taking one step between two rounds of everything else keeps a crowd at the door from holding up those inside.
    pub fn handle_handshake(&mut self, now: Instant) -> bool {
        match self.steps.pop_front() {
            None => return false,
            Some(HandshakeStep::Begin(incoming)) => {
                self.begins -= 1;
                if self.accepts { self.begin_handshake(now, incoming) } else { self.refuse(incoming) }
            }
            Some(HandshakeStep::GoOn(handle, event, origin, bytes)) => {
                if let Some(conn) = self.conns.get_mut(&handle) {
                    conn.handle_datagram(event, origin, bytes);
                    self.touch(handle);
                }
            }
        }
        true
    }

    fn add(&mut self, now: Instant, handle: ConnectionHandle, inner: Connection) {
        let handshake_until = Some(now + HANDSHAKE);
        let whereabouts = Whereabouts::first(inner.remote_address());
        let conn =
            Conn { inner, whereabouts, deadline: None, handshake_until, is_dirty: false, is_lost: false };
        self.conns.insert(handle, conn);
        self.handshaking += 1;
        self.touch(handle);
    }

    fn respond(&mut self, transmit: quinn_proto::Transmit, bytes: Vec<u8>) {
        // Bounded: what cannot be sent at once is not worth keeping.
        if self.stateless.len() < self.limits.stateless_max {
            self.stateless.push_back((Transmit::of(&transmit), bytes));
        }
    }

    /// Lets time pass: call it when the deadline of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, handle)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(conn) = self.conns.get_mut(&handle) else { continue };
            conn.deadline = None;
            match conn.wants_to_be_woken() {
                Some(wanted) if wanted <= now => {}
                // Nothing else is done to it: one that has ended has to be reported before it is forgotten.
                Some(wanted) => {
                    conn.deadline = Some(wanted);
                    self.timers.insert((wanted, handle));
                    continue;
                }
                None => continue,
            }
            if conn.handshake_until.is_some_and(|until| until <= now) {
                conn.handshake_until = None;
                self.handshaking -= 1;
                conn.inner.close(now, VarInt::from_u32(0), Bytes::new());
                lose(&mut self.events, conn, handle, "the handshake took too long".to_owned());
            }
            conn.inner.handle_timeout(now);
            self.touch(handle);
        }
    }

    /// Sends at most so many datagrams at a time from now on, if that is fewer than configured.
    pub fn limit_segments(&mut self, segments_max: usize) {
        self.limits.segments_max = self.limits.segments_max.min(segments_max.max(1));
    }

    /// No more connections are taken from now on.
    pub fn stop_accepting(&mut self) {
        self.accepts = false;
    }

    // ---- commands ----

    /// What [`Self::connect`] encrypts with.
    ///
    /// # Errors
    /// If the TLS configuration is not fit for QUIC.
    pub fn client_crypto(tls: Arc<rustls::ClientConfig>) -> Result<Arc<ClientCrypto>, ConfigError> {
        Ok(Arc::new(quinn_proto::crypto::rustls::QuicClientConfig::try_from(tls)?))
    }

    /// Begins a connection to a server.
    ///
    /// # Errors
    /// What quinn-proto says of an address or name that cannot be connected to.
    pub fn connect(
        &mut self,
        now: Instant,
        tls: Arc<ClientCrypto>,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<ConnId, quinn_proto::ConnectError> {
        let mut config = ClientConfig::new(tls);
        config.transport_config(Arc::new(client_transport(self.large_datagrams)));
        let (handle, inner) = self.endpoint.connect(now, config, remote, server_name)?;
        self.add(now, handle, inner);
        Ok(ConnId::of(handle))
    }

    /// Opens a bidirectional stream; `None` if the peer allows no more for now.
    pub fn open(&mut self, conn: ConnId) -> Option<u64> {
        let inner = &mut self.conns.get_mut(&conn.handle())?.inner;
        inner.streams().open(Dir::Bi).map(u64::from)
    }

    /// Takes the next bytes of a stream, in order.
    pub fn read(&mut self, conn: ConnId, stream: u64) -> Read {
        let Some((inner, id)) = self.stream(conn, stream) else { return Read::Gone };
        let mut receiver = inner.recv_stream(id);
        let read = match receiver.read(true) {
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => return Read::Gone,
            Ok(mut chunks) => {
                let read = match chunks.next(usize::MAX) {
                    Ok(Some(chunk)) => Read::Data(chunk.bytes),
                    Ok(None) => Read::Finished,
                    Err(ReadError::Blocked) => Read::Blocked,
                    Err(ReadError::Reset(_)) => Read::Gone,
                };
                // What was read makes room: the peer has to be told, sooner or later.
                if chunks.finalize().should_transmit() { (read, true) } else { (read, false) }
            }
        };
        if read.1 {
            self.touch(conn.handle());
        }
        read.0
    }

    /// Gives a stream bytes to send and returns how many it took; `None` if it takes none any more.
    pub fn write(&mut self, conn: ConnId, stream: u64, data: &[u8]) -> Option<usize> {
        let (inner, id) = self.stream(conn, stream)?;
        let written = match inner.send_stream(id).write(data) {
            Ok(written) => Some(written),
            Err(WriteError::Blocked) => Some(0),
            Err(_) => None,
        };
        self.touch(conn.handle());
        written
    }

    /// Ends the sending side of a stream.
    pub fn finish(&mut self, conn: ConnId, stream: u64) {
        if let Some((inner, id)) = self.stream(conn, stream) {
            let _ = inner.send_stream(id).finish();
            self.touch(conn.handle());
        }
    }

    /// Gives up the sending side of a stream, with all that was not acknowledged.
    pub fn reset(&mut self, conn: ConnId, stream: u64) {
        if let Some((inner, id)) = self.stream(conn, stream) {
            let _ = inner.send_stream(id).reset(VarInt::from_u32(0));
            self.touch(conn.handle());
        }
    }

    /// Closes a connection with an application error code.
    pub fn close(&mut self, now: Instant, conn: ConnId, code: u32, reason: &'static str) {
        if let Some(state) = self.conns.get_mut(&conn.handle()) {
            state.inner.close(now, VarInt::from_u32(code), Bytes::from_static(reason.as_bytes()));
            lose(&mut self.events, state, conn.handle(), reason.to_owned());
            self.touch(conn.handle());
        }
    }

    fn stream(&mut self, conn: ConnId, stream: u64) -> Option<(&mut Connection, StreamId)> {
        let id = StreamId::from(VarInt::from_u64(stream).ok()?);
        Some((&mut self.conns.get_mut(&conn.handle())?.inner, id))
    }

    // ---- output ----

    fn touch(&mut self, handle: ConnectionHandle) {
        if let Some(conn) = self.conns.get_mut(&handle)
            && !conn.is_dirty
        {
            conn.is_dirty = true;
            self.dirty.push_back(handle);
        }
    }

    /// What happened since, in order. Takes the events of connections that something was done to.
    pub fn poll_event(&mut self) -> Option<DriverEvent> {
        if self.events.is_empty() {
            for at in 0..self.dirty.len() {
                let handle = self.dirty[at];
                self.collect_events(handle);
            }
        }
        self.events.pop_front()
    }

    fn collect_events(&mut self, handle: ConnectionHandle) {
        let Some(conn) = self.conns.get_mut(&handle) else { return };
        let id = ConnId::of(handle);
        while let Some(event) = conn.inner.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(handle, event) {
                conn.inner.handle_event(event);
            }
        }
        while let Some(event) = conn.inner.poll() {
            match event {
                Event::Connected => {
                    if conn.handshake_until.take().is_some() {
                        self.handshaking -= 1;
                    }
                    // It may have been given up in the very turn that it was done.
                    if !conn.is_lost {
                        self.events.push_back(DriverEvent::Connected(id));
                    }
                }
                Event::ConnectionLost { reason } => {
                    if conn.handshake_until.take().is_some() {
                        self.handshaking -= 1;
                    }
                    lose(&mut self.events, conn, handle, words_for(&reason));
                }
                Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    while let Some(stream) = conn.inner.streams().accept(Dir::Bi) {
                        self.events.push_back(DriverEvent::Readable(id, stream.into()));
                    }
                }
                Event::Stream(StreamEvent::Readable { id: stream }) => {
                    self.events.push_back(DriverEvent::Readable(id, stream.into()));
                }
                Event::Stream(StreamEvent::Writable { id: stream }) => {
                    self.events.push_back(DriverEvent::Writable(id, stream.into()));
                }
                Event::Stream(StreamEvent::Stopped { id: stream, .. }) => {
                    self.events.push_back(DriverEvent::Stopped(id, stream.into()));
                }
                _ => {}
            }
        }
    }

    /// The next datagrams to send, their bytes appended to `buffer`, which is empty.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        if let Some((transmit, bytes)) = self.stateless.pop_front() {
            buffer.extend_from_slice(&bytes);
            return Some(transmit);
        }
        while let Some(handle) = self.dirty.front().copied() {
            self.collect_events(handle);
            let Some(conn) = self.conns.get_mut(&handle) else {
                self.dirty.pop_front();
                continue;
            };
            let fitting = TRANSMIT_BYTES_MAX / usize::from(conn.inner.current_mtu());
            if let Some(transmit) =
                conn.inner.poll_transmit(now, self.limits.segments_max.clamp(1, fitting), buffer)
            {
                let transmit = Transmit::of(&transmit);
                if !conn.holds_back(&transmit) {
                    return Some(transmit);
                }
                buffer.clear();
                continue;
            }
            self.dirty.pop_front();
            conn.is_dirty = false;
            self.settle(handle);
        }
        None
    }

    /// Notes when a connection wants to be woken, or forgets it once it is drained.
    fn settle(&mut self, handle: ConnectionHandle) {
        let Some(conn) = self.conns.get_mut(&handle) else { return };
        // Each datagram moves the deadline, nearly always on: then the entry stays, and is moved once its time has come.
        if let Some(wanted) = conn.wants_to_be_woken()
            && conn.deadline.is_none_or(|entry| wanted < entry)
        {
            conn.deadline.map(|at| self.timers.remove(&(at, handle)));
            self.timers.insert((wanted, handle));
            conn.deadline = Some(wanted);
        }
        if conn.inner.is_drained() {
            conn.deadline.map(|at| self.timers.remove(&(at, handle)));
            self.handshaking -= usize::from(conn.handshake_until.is_some());
            self.conns.remove(&handle);
        }
    }

    /// When [`Self::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests;
