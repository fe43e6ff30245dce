//! The clock: the one place in this binary that asks what time it is.
//!
//! It never steps back: it starts at the later of the wall clock and the last event, advances with the system's
//! boot-time clock, which no one can set, and follows corrections of the wall clock forward only. A wall clock that is
//! off by too much is not followed but doubted: then what is denied stays denied and nothing new is issued.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jeton_core::time::Millis;
use rustix::time::{ClockId, clock_gettime};

/// How far the wall clock may be behind before it is doubted.
const BEHIND_MAX_MS: u64 = 60_000;

/// The engine's time, shared by all its threads.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What to add to the boot-time clock. Only ever raised, so time only goes forward.
    offset_ms: AtomicU64,
    is_in_doubt: AtomicBool,
    /// Somebody has said that a wall clock behind the last event is right: it is not doubted until it has caught up.
    may_be_behind: AtomicBool,
    jump_max_ms: u64,
}

fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

fn wall_ms() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

impl Clock {
    /// A clock that goes on after `last_event`. A wall clock more than a minute behind it, or more than `jump_max_ms`
    /// ahead, is doubted unless `accept` says that it is right.
    #[must_use]
    pub fn start(last_event: Millis, jump_max_ms: u64, accept: bool) -> Self {
        Self::start_at(last_event, jump_max_ms, accept, wall_ms(), boot_ms())
    }

    fn start_at(last_event: Millis, jump_max_ms: u64, accept: bool, wall_ms: u64, boot_ms: u64) -> Self {
        let is_new = last_event == Millis(0);
        let is_off = !is_new && is_off(wall_ms, last_event.0, jump_max_ms);
        let is_ahead = wall_ms > last_event.0;
        // A doubted jump ahead is not taken over: it would stay for ever.
        let start = if is_ahead && (!is_off || accept) { wall_ms } else { last_event.0 };
        Self(Arc::new(Shared {
            offset_ms: AtomicU64::new(start.saturating_sub(boot_ms)),
            is_in_doubt: AtomicBool::new(is_off && !accept),
            may_be_behind: AtomicBool::new(accept && !is_ahead),
            jump_max_ms,
        }))
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Millis {
        Millis(boot_ms() + self.0.offset_ms.load(Ordering::Relaxed))
    }

    /// Whether the wall clock is off by more than can be a correction.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.0.is_in_doubt.load(Ordering::Relaxed)
    }

    /// Compares with the wall clock and follows it forward. Called about once a second, by one thread.
    pub fn adjust(&self) {
        self.adjust_to(wall_ms());
    }

    fn adjust_to(&self, wall_ms: u64) {
        let now = self.now().0;
        if wall_ms >= now {
            self.0.may_be_behind.store(false, Ordering::Relaxed);
        } else if self.0.may_be_behind.load(Ordering::Relaxed) {
            return;
        }
        if is_off(wall_ms, now, self.0.jump_max_ms) {
            self.0.is_in_doubt.store(true, Ordering::Relaxed);
        } else if wall_ms > now {
            self.0.offset_ms.fetch_add(wall_ms - now, Ordering::Relaxed);
        }
    }
}

fn is_off(wall_ms: u64, known_ms: u64, jump_max_ms: u64) -> bool {
    wall_ms + BEHIND_MAX_MS < known_ms || wall_ms > known_ms.saturating_add(jump_max_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn start(last: u64, wall: u64, accept: bool) -> (bool, i64) {
        let clock = Clock::start_at(Millis(last), HOUR, accept, wall, boot_ms());
        (clock.is_in_doubt(), clock.now().0 as i64 - wall as i64)
    }

    #[test]
    fn a_start_believes_a_wall_clock_that_is_not_too_far_off() {
        let last = 1_800_000_000_000;
        for (wall, accept, in_doubt, ahead_of_wall) in [
            (last + 1_000, false, false, 0),
            (last - 1_000, false, false, 1_000),
            (last - 61_000, false, true, 61_000),
            (last - 61_000, true, false, 61_000),
            (last + 2 * HOUR, false, true, -(2 * HOUR as i64)),
            (last + 2 * HOUR, true, false, 0),
        ] {
            let (doubted, ahead) = start(last, wall, accept);
            assert_eq!(doubted, in_doubt, "wall {wall}");
            assert!((ahead - ahead_of_wall).abs() < 500, "wall {wall}: {ahead}");
        }
        assert!(!start(0, last, false).0, "a new log believes any clock");
    }

    #[test]
    fn a_wall_clock_accepted_although_it_is_behind_is_doubted_again_only_after_it_has_caught_up() {
        let last = 1_800_000_000_000;
        let clock = Clock::start_at(Millis(last), HOUR, true, last - 2 * HOUR, boot_ms());
        clock.adjust_to(last - 2 * HOUR);
        assert!(!clock.is_in_doubt());
        clock.adjust_to(last + 1_000);
        clock.adjust_to(last - 2 * HOUR);
        assert!(clock.is_in_doubt());
    }

    #[test]
    fn time_follows_corrections_forward_only_and_doubts_leaps() {
        let clock = Clock::start(Millis(0), HOUR, false);
        let before = clock.now().0;
        clock.adjust_to(before + 5_000);
        assert!(clock.now().0 >= before + 5_000);
        clock.adjust_to(before);
        assert!(clock.now().0 >= before + 5_000 && !clock.is_in_doubt());
        clock.adjust_to(before + 3 * HOUR);
        assert!(clock.now().0 < before + HOUR && clock.is_in_doubt());
    }
}
