//! Handshakes that stop once their address is proven: the most that whoever has real addresses can keep under way.
//!
//! The first two flights are the product's own driver's, from the client's side; of what comes back it is given the demand
//! for proof (RFC 9000, section 8.1.2) and nothing else, so that it never goes on.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use jeton_net::driver::{ClientCrypto, Driver, DriverConfig, Origin};
use jeton_net::tls::{Credentials, client_config};

use super::initials::each_datagram;
use super::rig::{Papers, SERVER_NAME, Stop, Target};

/// A driver has no place for more connections at some time, and these never end.
const EACH_DRIVER: u64 = 8_192;
/// A server's first flight is padded (RFC 9000, section 14.1); a refusal is not.
const FLIGHT_BYTES_MIN: usize = 1_200;

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalled {
    /// Handshakes begun.
    pub begun: u64,
    /// Times that proof was asked for, and given.
    pub proofs: u64,
    /// Handshakes that the server went on with.
    pub taken_on: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes that came back.
    pub received: u64,
}

struct Staller<'a> {
    target: &'a Target,
    crypto: Arc<ClientCrypto>,
    socket: UdpSocket,
    driver: Driver,
    taken_on: HashSet<Vec<u8>>,
    seen: Stalled,
}

impl Staller<'_> {
    fn begin(&mut self) -> anyhow::Result<()> {
        if self.seen.begun.is_multiple_of(EACH_DRIVER) {
            self.driver = Driver::new(DriverConfig::client())?;
        }
        let now = Instant::now();
        self.driver.connect(now, Arc::clone(&self.crypto), self.target.address, SERVER_NAME)?;
        self.seen.begun += 1;
        self.transmit(now);
        Ok(())
    }

    fn transmit(&mut self, now: Instant) {
        let Self { driver, socket, target, seen, .. } = self;
        each_datagram(driver, now, |datagram| {
            if socket.send_to(datagram, target.address).is_ok() {
                seen.sent += datagram.len() as u64;
            }
        });
    }

    fn receive(&mut self) {
        let mut bytes = [0; 9_000];
        while let Ok((length, remote)) = self.socket.recv_from(&mut bytes) {
            let datagram = &bytes[..length];
            self.seen.received += length as u64;
            // The second bit may say anything (RFC 9287).
            match datagram.first().map(|first| first & 0xb0) {
                Some(0xb0) => {
                    self.seen.proofs += 1;
                    let now = Instant::now();
                    let origin = Origin { remote, local_ip: None, ecn: None };
                    self.driver.handle_datagram(now, origin, BytesMut::from(datagram));
                    self.transmit(now);
                }
                // An Initial; behind the version is the connection id that the client chose (RFC 9000, section 17.2).
                Some(0x80) if length >= FLIGHT_BYTES_MIN => {
                    let id_bytes = usize::from(datagram[5]);
                    self.taken_on.insert(datagram[6..6 + id_bytes].to_vec());
                }
                _ => {}
            }
        }
    }
}

/// Begins `per_s` handshakes a second until told to stop.
///
/// # Errors
/// If the papers are no good for TLS at all, or the system gives no socket.
pub fn stall(target: &Target, papers: &Papers, per_s: u32, stop: &Stop) -> anyhow::Result<Stalled> {
    let papers = papers.clone();
    let credentials = Credentials { chain: papers.chain, key: papers.key, authorities: papers.authorities };
    let crypto = Driver::client_crypto(Arc::new(client_config(credentials)?))?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    let driver = Driver::new(DriverConfig::client())?;
    let mut staller =
        Staller { target, crypto, socket, driver, taken_on: HashSet::new(), seen: Stalled::default() };
    let began = Instant::now();
    while !stop.is_over() {
        let due = (began.elapsed().as_secs_f64() * f64::from(per_s)) as u64;
        while staller.seen.begun < due && !stop.is_over() {
            staller.begin()?;
            staller.receive();
        }
        std::thread::sleep(Duration::from_millis(1));
        staller.receive();
    }
    Ok(Stalled { taken_on: staller.taken_on.len() as u64, ..staller.seen })
}
