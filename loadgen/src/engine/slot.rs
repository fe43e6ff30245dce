//! Places for requests, made once: a connection has as many as it may have requests in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::checker::Probe;
use crate::peer::Peer;
use crate::workload::Workload;
use crate::workload::kind::Kind;

/// A request under way, or room for one.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) kind: Kind,
    /// Which token or group of its region a write is about.
    pub(super) number: u32,
    /// What was certain about that when the request was sent.
    pub(super) before: u32,
    /// How many tokens an issue is of.
    pub(super) tokens: u16,
    /// Whether it repeats what was refused.
    pub(super) is_again: bool,
    /// When it was to be sent, and when it was.
    pub(super) due: Instant,
    pub(super) at: Instant,
    pub(super) probes: Vec<Probe>,
    /// Tells answers to this request from those to earlier ones in the same place.
    generation: u32,
    is_under_way: bool,
}

/// All places of one worker.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    in_flight: u32,
    /// Free places and from when on they may be used, earliest first.
    free: VecDeque<(u32, Instant)>,
    under_way: usize,
    /// Requests after which a connection is replaced, if it ever is.
    churn: u32,
    connections: Vec<Connection>,
}

#[derive(Debug, Default)]
struct Connection {
    asked: u32,
    under_way: u32,
    /// Free places of a connection that takes no more requests.
    resting: Vec<u32>,
    is_opening: bool,
}

impl Slots {
    pub(super) fn new(connections: usize, workload: &Workload, now: Instant) -> Self {
        let in_flight = u32::from(workload.in_flight);
        let count = connections as u32 * in_flight;
        let slot = |_| Slot {
            kind: Kind::Validate,
            number: 0,
            before: 0,
            tokens: 0,
            is_again: false,
            due: now,
            at: now,
            probes: Vec::with_capacity(usize::from(workload.batch)),
            generation: 0,
            is_under_way: false,
        };
        // Neighbours in time are on different connections.
        let order =
            (0..in_flight).flat_map(|at| (0..connections as u32).map(move |link| link * in_flight + at));
        Self {
            slots: (0..count).map(slot).collect(),
            in_flight,
            free: order.map(|slot| (slot, now)).collect(),
            under_way: 0,
            churn: workload.churn,
            connections: (0..connections).map(|_| Connection::default()).collect(),
        }
    }

    pub(super) fn of(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    pub(super) fn connection(&self, slot: u32) -> usize {
        (slot / self.in_flight) as usize
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub(super) fn next_free(&self) -> Option<Instant> {
        self.free.front().map(|(_, from)| *from)
    }

    /// A free place; `None` if there is none now.
    pub(super) fn take(&mut self, now: Instant) -> Option<u32> {
        while let Some((slot, from)) = self.free.front().copied() {
            if from > now {
                return None;
            }
            self.free.pop_front();
            let at = self.connection(slot);
            let connection = &mut self.connections[at];
            if connection.is_opening || (self.churn > 0 && connection.asked >= self.churn) {
                connection.resting.push(slot);
                continue;
            }
            return Some(slot);
        }
        None
    }

    /// Fills a place; returns the id of its request.
    pub(super) fn begin(&mut self, slot: u32, kind: Kind, number: u32, due: Instant, at: Instant) -> u64 {
        let connection = &mut self.connections[(slot / self.in_flight) as usize];
        connection.asked = connection.asked.saturating_add(1);
        connection.under_way += 1;
        self.under_way += 1;
        let place = &mut self.slots[slot as usize];
        place.probes.clear();
        // Ids begin at 2^32: small ones are those of whoever fills the key space.
        place.generation = place.generation.wrapping_add(1).max(1);
        (place.kind, place.number, place.before) = (kind, number, 0);
        (place.due, place.at, place.is_under_way, place.is_again) = (due, at, true, false);
        u64::from(place.generation) << 32 | u64::from(slot)
    }

    /// The place of the request with this id; `None` if none is under way by it.
    pub(super) fn answered(&mut self, id: u64) -> Option<u32> {
        let (slot, generation) = (id as u32, (id >> 32) as u32);
        let place = self.slots.get_mut(slot as usize)?;
        (place.is_under_way && place.generation == generation).then_some(slot)
    }

    /// Empties a place, for use from `from` on.
    pub(super) fn release(&mut self, slot: u32, from: Instant) {
        self.slots[slot as usize].is_under_way = false;
        self.connections[(slot / self.in_flight) as usize].under_way -= 1;
        self.under_way -= 1;
        self.free.push_back((slot, from));
    }

    /// Replaces connections that have had their number of requests, and takes new ones into use; returns how many.
    pub(super) fn replace_connections(&mut self, peer: &mut dyn Peer, now: Instant) -> anyhow::Result<u64> {
        let mut replaced = 0;
        if self.churn == 0 {
            return Ok(0);
        }
        for (number, connection) in self.connections.iter_mut().enumerate() {
            if connection.is_opening && peer.is_ready(number) {
                connection.is_opening = false;
                // In front: they have waited longest, and nothing behind them is free later.
                connection
                    .resting
                    .drain(..)
                    .for_each(|slot| self.free.push_front((slot, now - Duration::ZERO)));
            } else if !connection.is_opening && connection.asked >= self.churn && connection.under_way == 0 {
                peer.reconnect(number)?;
                (connection.asked, connection.is_opening) = (0, true);
                replaced += 1;
            }
        }
        Ok(replaced)
    }
}
