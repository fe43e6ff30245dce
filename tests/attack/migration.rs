//! A client that is at another address with every datagram: what a broken NAT does, or an attacker who has the client's
//! traffic sent on from elsewhere (RFC 9000, section 9.3).

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::BytesMut;
use jeton_net::driver::{ConnId, Driver, DriverConfig, DriverEvent, Origin};
use jeton_net::tls::{Credentials, client_config};
use jeton_wire::request::Request;

use super::initials::each_datagram;
use super::rig::{PATIENCE, Papers, SERVER_NAME, Stop, Target, hello};

/// Hosts whose addresses a wanderer has, in turn, all of them on loopback: a new host is a migration, not a rebinding.
const HOSTS: usize = 4;

/// What a wanderer saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wandering {
    /// Addresses that it has sent from.
    pub addresses: u64,
    /// What went to and fro, by host; an address on the first was proven by the handshake.
    pub hosts: [Traffic; HOSTS],
    /// Whether it was still connected in the end.
    pub is_connected: bool,
    /// How often something was answered.
    pub answers: u64,
    /// How long nothing had been answered by then.
    pub unanswered: Duration,
}

/// Bytes that were sent from a host, and that came to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From all its addresses.
    pub sent: u64,
    /// To all its addresses.
    pub received: u64,
}

impl Wandering {
    /// Bytes sent, from all hosts.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.hosts.iter().map(|host| host.sent).sum()
    }

    /// Bytes that came back, to all hosts.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.hosts.iter().map(|host| host.received).sum()
    }
}

struct Wanderer {
    target: Target,
    driver: Driver,
    sockets: Vec<UdpSocket>,
    at: usize,
    seen: Wandering,
}

impl Wanderer {
    fn transmit(&mut self, now: Instant, wanders: bool) {
        let Self { driver, sockets, target, at, seen } = self;
        each_datagram(driver, now, |datagram| {
            let number = *at % sockets.len();
            if sockets[number].send_to(datagram, target.address).is_ok() {
                seen.hosts[number % HOSTS].sent += datagram.len() as u64;
                *at += usize::from(wanders);
            }
        });
    }

    fn receive(&mut self, now: Instant) {
        let mut bytes = [0; 9_000]; // as large as the driver says that it takes
        for (number, socket) in self.sockets.iter().enumerate() {
            while let Ok((length, remote)) = socket.recv_from(&mut bytes) {
                self.seen.hosts[number % HOSTS].received += length as u64;
                let origin = Origin { remote, local_ip: None, ecn: None };
                self.driver.handle_datagram(now, origin, BytesMut::from(&bytes[..length]));
            }
        }
        if self.driver.poll_timeout().is_some_and(|at| at <= now) {
            self.driver.handle_timeout(now);
        }
    }

    fn turn(&mut self, wanders: bool) -> Vec<DriverEvent> {
        let now = Instant::now();
        self.transmit(now, wanders);
        self.receive(now);
        let events = std::iter::from_fn(|| self.driver.poll_event()).collect();
        std::thread::sleep(Duration::from_micros(200));
        events
    }

    fn connected(&mut self) -> anyhow::Result<ConnId> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            for event in self.turn(false) {
                match event {
                    DriverEvent::Connected(conn) => return Ok(conn),
                    DriverEvent::Lost(_, reason) => bail!(reason),
                    _ => {}
                }
            }
        }
        bail!("no handshake in time")
    }
}

/// Connects, then sends pings, each datagram from the next of `addresses` sockets, on the next host, until told to stop.
///
/// # Errors
/// If the server does not let it in.
pub fn wander(target: &Target, papers: &Papers, addresses: usize, stop: &Stop) -> anyhow::Result<Wandering> {
    let papers = papers.clone();
    let credentials = Credentials { chain: papers.chain, key: papers.key, authorities: papers.authorities };
    let tls = Driver::client_crypto(Arc::new(client_config(credentials)?))?;
    let mut driver = Driver::new(DriverConfig::client())?;
    driver.connect(Instant::now(), tls, target.address, SERVER_NAME)?;
    let socket = |number| {
        let host = Ipv4Addr::new(127, 0, 0, 1 + (number % HOSTS) as u8);
        let socket = UdpSocket::bind((host, 0))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let sockets = (0..addresses).map(socket).collect::<std::io::Result<Vec<_>>>()?;
    let mut wanderer =
        Wanderer { target: target.clone(), driver, sockets, at: 0, seen: Wandering::default() };
    let conn = wanderer.connected()?;
    wanderer.seen = Wandering { is_connected: true, ..Wandering::default() };
    let Some(stream) = wanderer.driver.open(conn) else { bail!("no stream") };
    wanderer.driver.write(conn, stream, &hello());
    let (mut id, mut answered) = (1, Instant::now());
    while !stop.is_over() && wanderer.seen.is_connected {
        let mut frame = Vec::new();
        Request::Ping.encode(id, &mut frame);
        id += 1;
        wanderer.driver.write(conn, stream, &frame);
        for event in wanderer.turn(true) {
            match event {
                DriverEvent::Lost(..) => wanderer.seen.is_connected = false,
                DriverEvent::Readable(conn, stream) => {
                    while let jeton_net::driver::Read::Data(_) = wanderer.driver.read(conn, stream) {
                        answered = Instant::now();
                        wanderer.seen.answers += 1;
                    }
                }
                _ => {}
            }
        }
    }
    wanderer.seen.addresses = wanderer.at.min(wanderer.sockets.len()) as u64;
    wanderer.seen.unanswered = answered.elapsed();
    Ok(wanderer.seen)
}
