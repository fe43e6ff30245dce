//! When a commit begins: at once, or a moment later, so that those who were answered a moment ago are in it too.
//!
//! Callers who wait for their answers ask again as soon as they have them. Those who come while a commit is under way wait
//! for the next, which begins the moment that one ends, just before the first group is back: so there are two groups for
//! ever, each waiting for the other's commit and then for its own. A wait of a part of a commit lets them fall into step, and
//! then commits are twice as large. If they do not come back, waiting was for nothing; then it is left alone for a while.
//!
//! Knows neither commands nor the log: counts, and the time that it is told.

use std::time::{Duration, Instant};

/// The longest wait, and the part of the last commit's time that it is at most.
pub const WAIT_MAX: Duration = Duration::from_micros(250);
const WAIT_PART: u32 = 2;
/// After waits for nothing, one after another, so many commits begin at once, and at most: a power of two.
const UNPACED_MAX: u32 = 64;

/// Decides when the next commit begins.
#[derive(Debug, Default)]
pub struct Pacing {
    /// Until when it is waited for those who were answered; `None` if it is not.
    until: Option<Instant>,
    /// Commands that waited when the last commit ended, and those that it answered.
    waited: usize,
    answered: usize,
    /// Commits that begin at once, and how many will after the next wait for nothing.
    unpaced: u32,
    unpaced_next: u32,
}

impl Pacing {
    /// A commit that took so long has ended and answered so many commands; so many others wait already.
    pub fn handle_durable(&mut self, answered: usize, waiting: usize, took: Duration, now: Instant) {
        self.unpaced = self.unpaced.saturating_sub(1);
        (self.answered, self.waited) = (answered, waiting);
        self.until = (self.unpaced == 0).then(|| now + WAIT_MAX.min(took / WAIT_PART));
    }

    /// How much longer the next commit is to wait while so many commands wait for it; `None` if it is to begin.
    pub fn poll_wait(&mut self, waiting: usize, now: Instant) -> Option<Duration> {
        let until = self.until?;
        let came = waiting.saturating_sub(self.waited);
        let is_over = now >= until;
        if came < self.answered && !is_over {
            return Some(until - now);
        }
        self.until = None;
        // Where nobody waited, nobody was kept waiting.
        if came * 2 < self.answered && self.waited > 0 {
            self.unpaced_next = (self.unpaced_next * 2).clamp(1, UNPACED_MAX);
            self.unpaced = self.unpaced_next + 1;
        } else {
            self.unpaced_next = 0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const US: Duration = Duration::from_micros(1);

    #[test]
    fn a_commit_waits_for_those_who_were_answered_and_no_longer() {
        let now = Instant::now();
        let mut pacing = Pacing::default();
        assert_eq!(pacing.poll_wait(1, now), None, "nobody was answered yet");
        pacing.handle_durable(8, 8, MS, now);
        assert_eq!(pacing.poll_wait(8, now), Some(WAIT_MAX));
        assert_eq!(pacing.poll_wait(15, now + 100 * US), Some(WAIT_MAX - 100 * US));
        assert_eq!(pacing.poll_wait(16, now + 110 * US), None);
        assert_eq!(pacing.poll_wait(3, now + 110 * US), None, "it began");
        // A fast log is not made a slow one.
        pacing.handle_durable(8, 8, 40 * US, now);
        assert_eq!(pacing.poll_wait(8, now), Some(20 * US));
        assert_eq!(pacing.poll_wait(14, now + 20 * US), None);
    }

    #[test]
    fn one_caller_alone_never_waits() {
        let now = Instant::now();
        let mut pacing = Pacing::default();
        for _ in 0..100 {
            pacing.handle_durable(1, 0, MS, now);
            assert_eq!(pacing.poll_wait(1, now), None);
        }
        // Nor does whoever comes once the wait is over.
        pacing.handle_durable(64, 0, MS, now);
        assert_eq!(pacing.poll_wait(1, now + MS), None);
        assert_eq!(pacing.unpaced_next, 0, "and that is no wait for nothing");
    }

    #[test]
    fn waits_for_nothing_become_rare() {
        let mut now = Instant::now();
        let mut pacing = Pacing::default();
        let mut waits = 0;
        for _ in 0..1_000 {
            pacing.handle_durable(8, 8, MS, now);
            waits += u32::from(pacing.poll_wait(8, now).is_some());
            now += MS;
            assert_eq!(pacing.poll_wait(8, now), None);
        }
        assert!((15..=25).contains(&waits), "{waits} waits in a thousand commits");
        // The first that is worth it makes up for all before.
        while pacing.until.is_none() {
            pacing.handle_durable(8, 8, MS, now);
        }
        assert_eq!(pacing.poll_wait(16, now), None);
        pacing.handle_durable(8, 8, MS, now);
        assert!(pacing.poll_wait(8, now).is_some());
    }
}
