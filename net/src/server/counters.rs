//! A shard's counters: written by its own thread, read by whoever asks for figures.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use jeton_wire::Tally;

/// Buckets of the service-time histogram: bucket n counts times below 2^n nanoseconds, and not below 2^(n-1).
pub(super) const TIME_BUCKETS: usize = 40;

/// Counters of one shard. Relaxed throughout: each is a figure by itself, in no order with anything.
#[derive(Debug)]
pub struct ShardCounters {
    connections: AtomicU64,
    requests: AtomicU64,
    tokens: AtomicU64,
    valid: AtomicU64,
    writes: AtomicU64,
    busy: AtomicU64,
    not_allowed: AtomicU64,
    protocol_errors: AtomicU64,
    times: [AtomicU64; TIME_BUCKETS],
}

/// The counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterValues {
    /// Clients connected.
    pub connections: u64,
    /// Requests of every kind.
    pub requests: u64,
    /// Tokens asked about.
    pub tokens: u64,
    /// Of those, valid ones.
    pub valid: u64,
    /// Commands handed to the sequencer.
    pub writes: u64,
    /// Requests answered `Busy`.
    pub busy: u64,
    /// Requests refused for want of a right.
    pub not_allowed: u64,
    /// Connections closed for breaking the protocol.
    pub protocol_errors: u64,
    /// How long it took to handle what one read brought: counts by power of two of nanoseconds.
    pub times: Vec<u64>,
}

impl Default for ShardCounters {
    fn default() -> Self {
        Self {
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            valid: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            not_allowed: AtomicU64::new(0),
            protocol_errors: AtomicU64::new(0),
            times: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl ShardCounters {
    pub(super) fn add(&self, tally: &Tally, took: Duration) {
        let counters = [
            (&self.requests, tally.requests),
            (&self.tokens, tally.tokens),
            (&self.valid, tally.valid),
            (&self.writes, tally.writes),
            (&self.busy, tally.busy),
            (&self.not_allowed, tally.not_allowed),
        ];
        for (counter, count) in counters.into_iter().filter(|(_, count)| *count > 0) {
            counter.fetch_add(count, Relaxed);
        }
        let bits = u64::BITS - u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).leading_zeros();
        self.times[(bits as usize).min(TIME_BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    pub(super) fn set_connections(&self, connections: usize) {
        self.connections.store(connections as u64, Relaxed);
    }

    pub(super) fn count_protocol_error(&self) {
        self.protocol_errors.fetch_add(1, Relaxed);
    }

    /// The counters now.
    #[must_use]
    pub fn values(&self) -> CounterValues {
        CounterValues {
            connections: self.connections.load(Relaxed),
            requests: self.requests.load(Relaxed),
            tokens: self.tokens.load(Relaxed),
            valid: self.valid.load(Relaxed),
            writes: self.writes.load(Relaxed),
            busy: self.busy.load(Relaxed),
            not_allowed: self.not_allowed.load(Relaxed),
            protocol_errors: self.protocol_errors.load(Relaxed),
            times: self.times.iter().map(|bucket| bucket.load(Relaxed)).collect(),
        }
    }
}
