//! Jeton over QUIC: the server's own sans-IO driver from the other side, on one socket for all connections of a worker.

mod link;
mod question;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jeton_core::verdict::Verdict;
use jeton_net::driver::{ClientCrypto, ConnId, Driver, DriverConfig, DriverEvent, Read, Transmit};
use jeton_net::socket::{ReceiveBuffer, Received, Socket};
use jeton_net::tls::{Credentials, client_config};

use self::link::{Link, Taken};
use self::question::Templates;
use super::{Peer, Question, Reply, TokenBytes};
use crate::workload::kind::Kind;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Receives in one turn, so that sending gets its turn too.
const RECEIVES_PER_TURN: usize = 8;

/// Where a server is and how to speak to it.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) address: SocketAddr,
    pub(crate) server_name: String,
    tls: Arc<ClientCrypto>,
    large_datagrams: bool,
}

impl Address {
    pub(crate) fn new(
        address: SocketAddr,
        server_name: String,
        credentials: Credentials,
        large_datagrams: bool,
    ) -> anyhow::Result<Self> {
        let tls = Driver::client_crypto(Arc::new(client_config(credentials)?))?;
        Ok(Self { address, server_name, tls, large_datagrams })
    }
}

/// The connections of one worker.
pub(crate) struct JetonPeer {
    to: Address,
    driver: Driver,
    socket: Socket,
    receive: ReceiveBuffer,
    links: Vec<Link>,
    by_conn: HashMap<ConnId, usize>,
    streams: usize,
    /// Connections that have something to send.
    dirty: Vec<usize>,
    /// Until when none of them has to send, if all of them wait for company.
    waits_until: Option<Instant>,
    buffer: Vec<u8>,
    unsent: Option<Transmit>,
    templates: Templates,
    /// Room for answers while they are handed on.
    verdicts: Vec<Verdict>,
    issued: Vec<TokenBytes>,
    log: Option<String>,
    /// When the last connection was opened, and has to be by.
    connect_until: Instant,
}

impl JetonPeer {
    /// Connects `count` times, with so many streams each, and says hello.
    pub(crate) fn connect(to: &Address, count: usize, streams: u16) -> anyhow::Result<Self> {
        let local: SocketAddr = if to.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
        let mut peer = Self {
            to: to.clone(),
            driver: Driver::new(DriverConfig {
                large_datagrams: to.large_datagrams,
                ..DriverConfig::client()
            })?,
            socket: Socket::bind(local, false).context("a UDP socket")?,
            receive: ReceiveBuffer::default(),
            links: (0..count).map(|_| Link::default()).collect(),
            by_conn: HashMap::new(),
            streams: usize::from(streams),
            dirty: Vec::with_capacity(count),
            waits_until: None,
            buffer: Vec::with_capacity(64 << 10),
            unsent: None,
            templates: Templates::new()?,
            verdicts: Vec::with_capacity(usize::from(crate::workload::BATCH_MAX)),
            issued: Vec::with_capacity(usize::from(crate::workload::ISSUE_BATCH_MAX)),
            log: None,
            connect_until: Instant::now(),
        };
        for link in 0..count {
            peer.open(link)?;
        }
        while !(0..count).all(|link| peer.is_ready(link)) {
            if !peer.turn(&mut |_, _, _| {})? {
                peer.wait(Instant::now() + Duration::from_millis(1))?;
            }
        }
        Ok(peer)
    }

    fn open(&mut self, link: usize) -> anyhow::Result<()> {
        let now = Instant::now();
        let conn =
            self.driver.connect(now, Arc::clone(&self.to.tls), self.to.address, &self.to.server_name)?;
        self.by_conn.insert(conn, link);
        self.links[link] = Link::opening(conn);
        self.connect_until = now + CONNECT;
        Ok(())
    }

    fn mark(&mut self, link: usize) {
        if !std::mem::replace(&mut self.links[link].is_dirty, true) {
            self.dirty.push(link);
        }
    }

    /// Hands waiting frames to the driver, as much as it takes.
    fn flush(&mut self, now: Instant) {
        let mut dirty = std::mem::take(&mut self.dirty);
        self.waits_until = None;
        dirty.retain(|number| {
            let link = &mut self.links[*number];
            let path = link.conn.and_then(|conn| self.driver.path(conn));
            if let Some(until) = path.and_then(|path| link.waits_until(path, now)) {
                self.waits_until = Some(self.waits_until.map_or(until, |first| first.min(until)));
                return true;
            }
            link.is_dirty = link.flush(&mut self.driver);
            link.is_dirty
        });
        self.dirty = dirty;
    }

    fn transmit(&mut self, now: Instant) -> anyhow::Result<bool> {
        let mut has_sent = false;
        loop {
            let transmit = match self.unsent.take() {
                Some(transmit) => transmit,
                None => {
                    self.buffer.clear();
                    match self.driver.poll_transmit(now, &mut self.buffer) {
                        Some(transmit) => transmit,
                        None => return Ok(has_sent),
                    }
                }
            };
            if !self.socket.send(&transmit, &self.buffer[..transmit.size])? {
                self.unsent = Some(transmit);
                return Ok(has_sent);
            }
            has_sent = true;
        }
    }

    fn handle(
        &mut self,
        event: DriverEvent,
        take: &mut dyn FnMut(Instant, u64, Reply<'_>),
    ) -> anyhow::Result<()> {
        match event {
            DriverEvent::Connected(conn) => {
                let Some(link) = self.by_conn.get(&conn).copied() else { return Ok(()) };
                self.links[link].greet(&mut self.driver, self.streams)?;
                self.mark(link);
            }
            DriverEvent::Readable(conn, stream) => {
                let Some(link) = self.by_conn.get(&conn).copied() else { return Ok(()) };
                self.read(link, conn, stream, take)?;
            }
            DriverEvent::Writable(..) | DriverEvent::Stopped(..) => {}
            // Of a connection that was closed here nobody knows any more.
            DriverEvent::Lost(conn, reason) => {
                if let Some(link) = self.by_conn.remove(&conn) {
                    bail!("{}", link::words_for_loss(&reason, self.links[link].is_ready, self.to.address));
                }
            }
        }
        Ok(())
    }

    fn read(
        &mut self,
        link: usize,
        conn: ConnId,
        stream: u64,
        take: &mut dyn FnMut(Instant, u64, Reply<'_>),
    ) -> anyhow::Result<()> {
        let at = Instant::now();
        loop {
            match self.driver.read(conn, stream) {
                Read::Data(data) => self.links[link].receive(stream, &data),
                Read::Blocked => break,
                Read::Finished | Read::Gone => bail!("the server ended a stream"),
            }
        }
        let room = Taken { verdicts: &mut self.verdicts, issued: &mut self.issued };
        if let Some(log) = self.links[link].take(stream, at, room, take)? {
            self.log = Some(log);
        }
        Ok(())
    }
}

impl Peer for JetonPeer {
    fn identity(&self) -> String {
        self.log.clone().unwrap_or_default()
    }

    fn connections(&self) -> usize {
        self.links.len()
    }

    fn is_ready(&self, connection: usize) -> bool {
        self.links[connection].is_ready
    }

    fn ask(&mut self, connection: usize, id: u64, question: &Question<'_>) -> anyhow::Result<()> {
        let is_validate = matches!(question, Question::Validate { .. });
        let into = self.links[connection].outgoing(id as usize % self.streams, id, is_validate);
        self.templates.encode(id, question, into)?;
        self.mark(connection);
        Ok(())
    }

    fn turn(&mut self, take: &mut dyn FnMut(Instant, u64, Reply<'_>)) -> anyhow::Result<bool> {
        let now = Instant::now();
        self.flush(now);
        let mut is_moved = self.transmit(now)?;
        for _ in 0..RECEIVES_PER_TURN {
            let driver = &mut self.driver;
            let received = self
                .socket
                .receive(&mut self.receive, |origin, data| driver.handle_datagram(now, origin, data))?;
            is_moved |= received != Received::Nothing;
            if received != Received::Part {
                break;
            }
        }
        if self.driver.poll_timeout().is_some_and(|at| at <= now) {
            self.driver.handle_timeout(now);
        }
        while let Some(event) = self.driver.poll_event() {
            self.handle(event, take)?;
        }
        if now > self.connect_until && self.links.iter().any(|link| !link.is_ready) {
            bail!("nobody answers at {}", self.to.address);
        }
        Ok(self.transmit(now)? || is_moved)
    }

    fn wait(&mut self, until: Instant) -> anyhow::Result<()> {
        let until =
            [self.driver.poll_timeout(), self.waits_until].into_iter().flatten().fold(until, Instant::min);
        super::wait_for(self.socket.as_fd(), until)
    }

    fn reconnect(&mut self, connection: usize) -> anyhow::Result<()> {
        if let Some(conn) = self.links[connection].conn {
            self.by_conn.remove(&conn);
            self.driver.close(Instant::now(), conn, 0, "done");
        }
        self.open(connection)
    }

    fn lacks(&self, _kind: Kind) -> bool {
        false
    }

    fn has_checks(&self) -> bool {
        true
    }
}
