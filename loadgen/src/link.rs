//! Connections: the sans-IO driver, a socket, and responses cut out of streams.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jeton_net::driver::{ConnId, Driver, DriverConfig, DriverEvent, Read, Transmit};
use jeton_net::socket::{ReceiveBuffer, Socket};
use jeton_net::tls::{Credentials, client_config};
use jeton_wire::frame::{RESPONSE_BYTES_MAX, split};
use jeton_wire::request::{Hello, Request};
use jeton_wire::response::Response;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The name that development certificates have.
const SERVER_NAME: &str = "jeton";

/// All connections of the generator, on its one thread.
pub(crate) struct Links {
    driver: Driver,
    socket: Socket,
    receive: ReceiveBuffer,
    links: Vec<Link>,
    by_conn: HashMap<ConnId, usize>,
    buffer: Vec<u8>,
    unsent: Option<Transmit>,
}

#[derive(Default)]
struct Link {
    conn: Option<ConnId>,
    stream: u64,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    is_ready: bool,
}

impl Links {
    /// Connects `count` times and says hello on each.
    pub(crate) fn connect(
        address: SocketAddr,
        credentials: Credentials,
        count: usize,
    ) -> anyhow::Result<Self> {
        let local: SocketAddr = if address.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
        let tls = Driver::client_crypto(Arc::new(client_config(credentials)?))?;
        let mut links = Self {
            driver: Driver::new(DriverConfig::client())?,
            socket: Socket::bind(local, false).context("a UDP socket")?,
            receive: ReceiveBuffer::default(),
            links: Vec::new(),
            by_conn: HashMap::new(),
            buffer: Vec::with_capacity(64 << 10),
            unsent: None,
        };
        let now = Instant::now();
        for at in 0..count {
            let conn = links.driver.connect(now, Arc::clone(&tls), address, SERVER_NAME)?;
            links.by_conn.insert(conn, at);
            links.links.push(Link { conn: Some(conn), ..Link::default() });
        }
        let until = now + CONNECT;
        while !links.links.iter().all(|link| link.is_ready) {
            if Instant::now() > until {
                bail!("nobody answers at {address}");
            }
            links.turn(|_, _, _| {})?;
        }
        Ok(links)
    }

    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// Puts a frame on its way over one of the connections.
    pub(crate) fn send(&mut self, link: usize, put: impl FnOnce(&mut Vec<u8>)) {
        put(&mut self.links[link].outgoing);
    }

    /// One round: sends what waits, receives what is there, hands each response on with its link and request id.
    pub(crate) fn turn(&mut self, mut take: impl FnMut(usize, u64, Response)) -> anyhow::Result<()> {
        let now = Instant::now();
        self.flush();
        self.transmit(now)?;
        let driver = &mut self.driver;
        self.socket.receive(&mut self.receive, |origin, data| driver.handle_datagram(now, origin, data))?;
        if driver.poll_timeout().is_some_and(|at| at <= now) {
            driver.handle_timeout(now);
        }
        while let Some(event) = self.driver.poll_event() {
            match event {
                DriverEvent::Connected(conn) => self.greet(conn)?,
                DriverEvent::Readable(conn, stream) => self.read(conn, stream, &mut take)?,
                DriverEvent::Writable(..) | DriverEvent::Stopped(..) => {}
                DriverEvent::Lost(_, reason) => bail!("a connection was lost: {reason}"),
            }
        }
        self.transmit(now)
    }

    fn greet(&mut self, conn: ConnId) -> anyhow::Result<()> {
        let at = *self.by_conn.get(&conn).context("a connection of ours")?;
        let stream = self.driver.open(conn).context("the server allows no stream")?;
        self.links[at].stream = stream;
        let hello = Hello { version_min: jeton_wire::VERSION, version_max: jeton_wire::VERSION, features: 0 };
        Request::Hello(hello).encode(0, &mut self.links[at].outgoing);
        Ok(())
    }

    /// Hands waiting frames to the driver, as much as it takes.
    fn flush(&mut self) {
        for link in &mut self.links {
            let Some(conn) = link.conn.filter(|_| !link.outgoing.is_empty()) else { continue };
            let mut sent = 0;
            while sent < link.outgoing.len() {
                match self.driver.write(conn, link.stream, &link.outgoing[sent..]) {
                    None | Some(0) => break,
                    Some(taken) => sent += taken,
                }
            }
            link.outgoing.drain(..sent);
        }
    }

    fn transmit(&mut self, now: Instant) -> anyhow::Result<()> {
        loop {
            let transmit = match self.unsent.take() {
                Some(transmit) => transmit,
                None => {
                    self.buffer.clear();
                    match self.driver.poll_transmit(now, &mut self.buffer) {
                        Some(transmit) => transmit,
                        None => return Ok(()),
                    }
                }
            };
            if !self.socket.send(&transmit, &self.buffer[..transmit.size])? {
                self.unsent = Some(transmit);
                return Ok(());
            }
        }
    }

    fn read(
        &mut self,
        conn: ConnId,
        stream: u64,
        take: &mut impl FnMut(usize, u64, Response),
    ) -> anyhow::Result<()> {
        let at = *self.by_conn.get(&conn).context("a connection of ours")?;
        loop {
            match self.driver.read(conn, stream) {
                Read::Data(data) => self.links[at].incoming.extend_from_slice(&data),
                Read::Blocked => break,
                Read::Finished | Read::Gone => bail!("the server ended a stream"),
            }
        }
        let link = &mut self.links[at];
        let mut consumed = 0;
        while let Some((frame, length)) = split(&link.incoming[consumed..], RESPONSE_BYTES_MAX)? {
            match Response::decode(&frame)? {
                Response::HelloAck(_) => link.is_ready = true,
                response => take(at, frame.request, response),
            }
            consumed += length;
        }
        link.incoming.drain(..consumed);
        Ok(())
    }
}
