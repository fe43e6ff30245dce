//! Attacks below QUIC's handshake: datagrams from sockets that never answer.
//!
//! Each [`Source`] is one address and port, as a spoofed sender would be to the server, and counts what comes back to
//! it: that is the amplification a victim at that address would see (RFC 9000, section 8.1: three times at most).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::Context as _;

use crate::sim::rng::Rng;

/// The least that a first datagram of a client has (RFC 9000, section 14.1).
pub const INITIAL_BYTES_MIN: usize = 1_200;
/// A version that nobody speaks (RFC 9000, section 15).
const NO_VERSION: u32 = 0x1a2a_3a4a;
const VERSION_1: u32 = 1;

/// What came back, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes, without IP and UDP headers.
    pub bytes: u64,
    /// Demands to prove the address.
    pub retries: u64,
    /// Answers to an unknown version.
    pub negotiations: u64,
    /// Datagrams with a short header: stateless resets, as there is no connection.
    pub resets: u64,
}

impl Received {
    fn take(&mut self, datagram: &[u8]) {
        self.datagrams += 1;
        self.bytes += datagram.len() as u64;
        match datagram {
            [first, 0, 0, 0, 0, ..] if first & 0x80 != 0 => self.negotiations += 1,
            [first, ..] if first & 0xf0 == 0xf0 => self.retries += 1,
            [first, ..] if first & 0x80 == 0 => self.resets += 1,
            _ => {}
        }
    }
}

/// One sender.
#[derive(Debug)]
pub struct Source {
    socket: UdpSocket,
    sent: u64,
    received: Received,
}

/// Many senders.
#[derive(Debug)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// So many senders, at as many addresses of 127.0.0.0/8 as there are, a port each.
    ///
    /// # Errors
    /// If the system gives no socket.
    pub fn new(target: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let source = |at: usize| {
            let ip = Ipv4Addr::new(127, 1, (at >> 8) as u8, at as u8);
            let socket = UdpSocket::bind((ip, 0)).context("a socket at an address of 127.0.0.0/8")?;
            socket.connect(target)?;
            socket.set_nonblocking(true)?;
            Ok(Source { socket, sent: 0, received: Received::default() })
        };
        Ok(Self((0..count).map(source).collect::<anyhow::Result<_>>()?))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends from one of them. What the system does not take was not sent.
    pub fn send(&mut self, from: usize, datagram: &[u8]) {
        let at = from % self.0.len();
        let source = &mut self.0[at];
        if source.socket.send(datagram).is_ok() {
            source.sent += datagram.len() as u64;
        }
    }

    /// Takes what has come back to one of them.
    pub fn drain(&mut self, of: usize) {
        let mut buffer = [0; 2_048];
        let at = of % self.0.len();
        let source = &mut self.0[at];
        while let Ok(length) = source.socket.recv(&mut buffer) {
            source.received.take(&buffer[..length]);
        }
    }

    /// Takes what has come back to all of them.
    pub fn drain_all(&mut self) {
        (0..self.0.len()).for_each(|at| self.drain(at));
    }

    /// Bytes sent by all.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.iter().map(|source| source.sent).sum()
    }

    /// What came back to all.
    #[must_use]
    pub fn received(&self) -> Received {
        self.0.iter().fold(Received::default(), |all, source| Received {
            datagrams: all.datagrams + source.received.datagrams,
            bytes: all.bytes + source.received.bytes,
            retries: all.retries + source.received.retries,
            negotiations: all.negotiations + source.received.negotiations,
            resets: all.resets + source.received.resets,
        })
    }

    /// Bytes received for each sent, at the source where that is most.
    #[must_use]
    pub fn amplification_max(&self) -> f64 {
        let of = |source: &Source| source.received.bytes as f64 / source.sent.max(1) as f64;
        self.0.iter().map(of).fold(0.0, f64::max)
    }
}

/// A datagram that is no QUIC, or nearly is.
#[must_use]
pub fn garbage(random: &mut Rng) -> Vec<u8> {
    let length = random.below(1_452) as usize + 1;
    let mut bytes = random.bytes(length);
    match random.below(4) {
        0 => {}
        1 => bytes[0] = bytes[0] & 0x3f | 0x40, // a short header of a connection that is not
        2 => long_header(&mut bytes, VERSION_1, random),
        _ => {
            bytes.resize(INITIAL_BYTES_MIN, 0);
            long_header(&mut bytes, VERSION_1, random);
        }
    }
    bytes
}

/// A first datagram of a version that nobody speaks.
#[must_use]
pub fn unknown_version(random: &mut Rng) -> Vec<u8> {
    let mut bytes = random.bytes(INITIAL_BYTES_MIN);
    long_header(&mut bytes, NO_VERSION, random);
    bytes
}

/// Writes the beginning of an Initial with two connection ids of 8 bytes (RFC 9000, section 17.2), as far as there is
/// room for it.
fn long_header(bytes: &mut [u8], version: u32, random: &mut Rng) {
    let mut header = vec![0xc0 | (random.next() & 0x0f) as u8];
    header.extend_from_slice(&version.to_be_bytes());
    for _ in 0..2 {
        header.push(8);
        header.extend_from_slice(&random.next().to_le_bytes());
    }
    let length = header.len().min(bytes.len());
    bytes[..length].copy_from_slice(&header[..length]);
}
