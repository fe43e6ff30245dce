//! The network: streams in datagrams. In two runs of three these overtake one another, and in most of those some are lost and
//! some come twice; in the third they are only late and in pieces. Whoever sent one that was lost sends it again, as long as the connection is not closed
//! to it; at the other end each stream goes on where it was, in order, as QUIC's do (RFC 9000, section 2.2), and there is
//! no order between streams.

use std::collections::BTreeMap;

use super::super::Mistake;
use super::super::client::Route;
use super::super::rng::Rng;
use super::{Event, World};

/// Which way bytes go on a connection.
pub(super) const TO_SERVER: usize = 0;
pub(super) const TO_CLIENT: usize = 1;

/// Sets the chance of losses apart from all other; such that the seeds that once broke a promise are runs without them.
const NETWORK_SEEDS: u64 = 0x0046_0000_0046_0000;
/// How often a datagram is lost at most before it gets through.
const TRIES_MAX: u32 = 5;

/// A piece of a stream under way.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    on: Route,
    way: usize,
    /// Where in the stream it belongs.
    offset: u64,
    bytes: Vec<u8>,
    lost: u32,
}

impl Datagram {
    /// A number of it for the trace.
    pub(super) fn number(&self) -> u64 {
        self.on.connection << 8 | self.on.stream << 1 | self.way as u64
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// One way of one stream.
#[derive(Debug, Default)]
pub(super) struct Flow {
    sent: u64,
    /// When the last bytes sent so far arrive, where they keep their order.
    arrives: u64,
    heard: u64,
    /// What has overtaken bytes before it.
    early: BTreeMap<u64, Vec<u8>>,
}

impl Flow {
    /// What can be read now that a datagram is here.
    fn hear(&mut self, datagram: Datagram, reads_twice: bool) -> Heard {
        if datagram.offset < self.heard || self.early.contains_key(&datagram.offset) {
            return if reads_twice { Heard::Bytes(datagram.bytes) } else { Heard::Twice };
        }
        self.early.insert(datagram.offset, datagram.bytes);
        let mut bytes = Vec::new();
        while let Some(next) = self.early.remove(&self.heard) {
            self.heard += next.len() as u64;
            bytes.extend(next);
        }
        if bytes.is_empty() { Heard::Early } else { Heard::Bytes(bytes) }
    }
}

enum Heard {
    Bytes(Vec<u8>),
    Early,
    Twice,
}

/// What becomes of datagrams in this run.
#[derive(Debug)]
pub(super) struct Network {
    rng: Rng,
    is_in_order: bool,
    lost_percent: u64,
    twice_percent: u64,
    /// When one that was lost is sent again; longer each time.
    again_ms: u64,
}

impl Network {
    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ NETWORK_SEEDS);
        let is_in_order = rng.one_in(3);
        let mut percent = |of: &[u64]| if is_in_order { 0 } else { *rng.pick(of) };
        let (lost_percent, twice_percent) = (percent(&[0, 2, 10, 30]), percent(&[0, 2, 10]));
        let again_ms = *rng.pick(&[10, 40, 200]);
        Self { rng, is_in_order, lost_percent, twice_percent, again_ms }
    }

    /// Nothing is lost any more.
    pub(super) fn heal(&mut self) {
        (self.lost_percent, self.twice_percent) = (0, 0);
    }
}

impl World {
    /// Sends bytes, in pieces now and then.
    pub(super) fn send(&mut self, way: usize, on: Route, bytes: &[u8]) {
        let mut rest = bytes;
        let is_cut_up = self.rng.percent(self.faults.pieces_percent);
        while !rest.is_empty() {
            let length = match rest.len() as u64 {
                all if !is_cut_up => all,
                all if self.rng.one_in(3) => all.min(1),
                all => 1 + self.rng.below(all),
            };
            let (piece, others) = rest.split_at(length as usize);
            rest = others;
            let mut delay = 1 + self.rng.below(self.faults.delay_ms);
            if way == TO_SERVER && self.rng.below(1_000) < self.faults.stall_per_mille {
                delay += 2_500;
            }
            let flow = self.flow(way, on);
            let offset = flow.sent;
            flow.sent += length;
            self.transmit(Datagram { on, way, offset, bytes: piece.to_vec(), lost: 0 }, delay);
        }
    }

    fn flow(&mut self, way: usize, on: Route) -> &mut Flow {
        let link = self.links.get_mut(&on.connection).expect("bytes go over a connection");
        &mut link.flows[on.stream as usize][way]
    }

    fn transmit(&mut self, datagram: Datagram, delay: u64) {
        let mut at = self.now + delay;
        if self.network.is_in_order {
            let arrives = &mut self.flow(datagram.way, datagram.on).arrives;
            at = at.max(*arrives);
            *arrives = at;
        }
        if datagram.lost < TRIES_MAX && self.network.rng.percent(self.network.lost_percent) {
            self.report.seen.note("a datagram lost");
            let again_at = self.now + (self.network.again_ms << datagram.lost);
            self.schedule(again_at, Event::SendAgain(Datagram { lost: datagram.lost + 1, ..datagram }));
            return;
        }
        if self.network.rng.percent(self.network.twice_percent) {
            let later = 1 + self.network.rng.below(4 * self.faults.delay_ms);
            self.schedule(at + later, Event::Arrives(datagram.clone()));
        }
        self.schedule(at, Event::Arrives(datagram));
    }

    /// Nobody has said that it arrived.
    pub(super) fn send_again(&mut self, datagram: Datagram) {
        let link = &self.links[&datagram.on.connection];
        let is_open_to_sender = match datagram.way {
            TO_SERVER => self.clients[link.client].connection == Some(datagram.on.connection),
            _ => !link.is_closed_at_server,
        };
        if !is_open_to_sender {
            self.report.seen.note("lost with its connection");
            return;
        }
        let delay = 1 + self.network.rng.below(self.faults.delay_ms);
        self.transmit(datagram, delay);
    }

    pub(super) fn arrives(&mut self, datagram: Datagram) -> Result<(), String> {
        let (way, on) = (datagram.way, datagram.on);
        let reads_twice = self.mistake == Some(Mistake::DatagramReadTwice);
        match self.flow(way, on).hear(datagram, reads_twice) {
            Heard::Bytes(bytes) if way == TO_SERVER => self.server_hears(on, &bytes),
            Heard::Bytes(bytes) => self.client_hears(on, &bytes),
            Heard::Early => {
                self.report.seen.note("a datagram that overtook another");
                Ok(())
            }
            Heard::Twice => {
                self.report.seen.note("a datagram that came twice");
                Ok(())
            }
        }
    }
}
