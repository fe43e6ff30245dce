//! The server's clock: never back, follows the wall clock forward, doubts one that is far behind.

use jeton_core::time::Millis;

use super::super::rng::Rng;

/// How far the wall clock may be behind the last event at a start before it is doubted.
const BEHIND_MAX_MS: u64 = 60_000;
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The wall clock, and the engine's time above the world's own.
#[derive(Debug)]
pub(super) struct Clock {
    /// What the wall clock shows beyond the world's time.
    wall_ms: u64,
    /// What the engine's time is beyond the world's; only ever raised.
    offset_ms: u64,
    /// The engine's time goes in steps of this, so that many things happen in the very millisecond of an expiry.
    quantum_ms: u64,
    pub(super) is_in_doubt: bool,
}

impl Clock {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let quantum_ms = *rng.pick(&[50, 100, 250, 500]);
        Self { wall_ms: EPOCH_MS, offset_ms: EPOCH_MS, quantum_ms, is_in_doubt: false }
    }

    pub(super) fn engine(&self, world_ms: u64) -> Millis {
        Millis((world_ms + self.offset_ms) / self.quantum_ms * self.quantum_ms)
    }

    /// Somebody sets the wall clock.
    pub(super) fn step(&mut self, rng: &mut Rng) {
        let by_ms = match rng.below(10) {
            0..6 => rng.below(4_000),
            6..8 => rng.below(90_000),
            _ => rng.within(590_000..700_000),
        };
        if rng.one_in(3) {
            self.wall_ms -= by_ms;
        } else {
            self.wall_ms += by_ms;
        }
    }

    /// The wall clock is right again, nobody is behind it, and some time has gone by.
    pub(super) fn heal(&mut self, later_ms: u64) {
        self.wall_ms = self.wall_ms.max(self.offset_ms) + later_ms;
    }

    /// Corrections are followed forward only.
    pub(super) fn adjust(&mut self) {
        self.offset_ms = self.offset_ms.max(self.wall_ms);
    }

    /// A start: goes on after the last event.
    pub(super) fn start(&mut self, world_ms: u64, last_event: Millis, accept: bool) {
        let wall_ms = world_ms + self.wall_ms;
        self.is_in_doubt = !accept && wall_ms + BEHIND_MAX_MS < last_event.0;
        self.offset_ms = wall_ms.max(last_event.0 + self.quantum_ms) - world_ms;
    }
}
