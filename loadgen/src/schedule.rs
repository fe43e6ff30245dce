//! When requests are due in an open loop: at a fixed rate, whatever becomes of them.
//!
//! A closed loop asks less of a server that is slow, and so hides that it is. Here the times are fixed beforehand, and
//! latency counts from them.

use std::time::{Duration, Instant};

/// Due times at a fixed rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    began: Instant,
    per_s: u32,
    next: u64,
}

impl Schedule {
    /// The first request is due at `began`, and `per_s` of them, at least one, in every second after.
    pub(crate) fn new(began: Instant, per_s: u32) -> Self {
        Self { began, per_s: per_s.max(1), next: 0 }
    }

    /// When the next request was to start, if that is not after `now`; it counts as started then.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<Instant> {
        let at = self.due(self.next);
        if at > now {
            return None;
        }
        self.next += 1;
        Some(at)
    }

    /// How many were due so far, and taken from here.
    pub(crate) fn offered(&self) -> u64 {
        self.next
    }

    /// Without drift: every second holds the same number, whatever the rate.
    fn due(&self, number: u64) -> Instant {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.per_s);
        self.began + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_second_holds_as_many_as_the_rate_says(per_s in 1..5_000_000_u32, second in 0..1_000_u64) {
            let schedule = Schedule::new(Instant::now(), per_s);
            let first = schedule.due(second * u64::from(per_s));
            prop_assert_eq!(first, schedule.began + Duration::from_secs(second));
            let last = schedule.due((second + 1) * u64::from(per_s) - 1);
            prop_assert!(last >= first && last < first + Duration::from_secs(1));
        }
    }

    #[test]
    fn what_is_due_is_given_out_once_and_in_order_however_late_it_is_asked_for() {
        let began = Instant::now();
        let mut schedule = Schedule::new(began, 1_000);
        assert_eq!(schedule.next_due(began), Some(began));
        assert_eq!(schedule.next_due(began), None);
        let late = began + Duration::from_millis(10);
        let due: Vec<Instant> = std::iter::from_fn(|| schedule.next_due(late)).collect();
        assert_eq!((due.len(), due.last(), schedule.offered()), (10, Some(&late), 11));
        assert_eq!(due.first(), Some(&(began + Duration::from_millis(1))));
    }
}
