//! The search itself, without a server: says which rate to try, is told what came of it.

/// How often a rate is doubled, and the gap halved, at most.
const DOUBLINGS_MAX: u32 = 24;
const HALVINGS_MAX: u32 = 12;
/// How often what was found may fail to hold once more: then it counts as failed, and the search goes on below it.
const CONFIRMATIONS_MAX: u32 = 4;

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A step at this rate.
    Try(u32),
    /// A longer one at this rate.
    Confirm(u32),
    /// Nothing: this is the answer.
    Found(Option<u32>),
}

/// A search for the highest rate that holds.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    max: u32,
    /// How near the answer is to the limit, as a ratio.
    precision: f64,
    /// What held, from low to high, and the lowest that did not.
    held: Vec<u32>,
    failed: Option<u32>,
    next: u32,
    steps: u32,
    confirmations: u32,
    is_confirming: bool,
    is_over: bool,
}

impl Search {
    /// From `start` up to `max`, to within this part of the answer.
    pub(crate) fn new(start: u32, max: u32, precision: f64) -> Self {
        Self {
            max,
            precision,
            held: Vec::new(),
            failed: None,
            next: start.clamp(1, max),
            steps: 0,
            confirmations: 0,
            is_confirming: false,
            is_over: false,
        }
    }

    /// What is to be done now.
    pub(crate) fn wanted(&self) -> Wanted {
        match self {
            Self { is_over: true, .. } => Wanted::Found(self.held.last().copied()),
            Self { is_confirming: true, .. } => Wanted::Confirm(self.next),
            _ => Wanted::Try(self.next),
        }
    }

    /// What came of it. `can_go_on` is false if more load cannot be made: then nothing higher is tried.
    pub(crate) fn tell(&mut self, holds: bool, can_go_on: bool) {
        self.steps += 1;
        if self.is_confirming {
            self.tell_confirmation(holds);
            return;
        }
        let rate = self.next;
        if holds {
            // Whatever is tried is higher than all that held.
            self.held.push(rate);
        } else {
            self.failed = Some(self.failed.map_or(rate, |failed| failed.min(rate)));
        }
        if !can_go_on && !holds {
            // What is above was not the server's doing either.
            self.max = self.max.min(rate);
        }
        self.choose();
    }

    fn choose(&mut self) {
        let next = match (self.held.last().copied(), self.failed) {
            (None, None) => return,
            (Some(held), None) if held >= self.max || self.steps >= DOUBLINGS_MAX => {
                return self.confirm(held);
            }
            (Some(held), None) => held.saturating_mul(2).min(self.max),
            (None, Some(failed)) if failed <= 1 || self.steps >= DOUBLINGS_MAX => {
                self.is_over = true;
                return;
            }
            (None, Some(failed)) => (failed / 4).max(1),
            (Some(held), Some(failed)) => {
                let is_near =
                    f64::from(failed) <= f64::from(held) * (1.0 + self.precision) || failed <= held + 1;
                if is_near || self.steps >= DOUBLINGS_MAX + HALVINGS_MAX {
                    return self.confirm(held);
                }
                let middle = (f64::from(held) * f64::from(failed)).sqrt() as u32;
                middle.clamp(held + 1, failed - 1)
            }
        };
        self.next = next;
    }

    fn confirm(&mut self, rate: u32) {
        (self.next, self.is_confirming) = (rate, true);
    }

    fn tell_confirmation(&mut self, holds: bool) {
        self.confirmations += 1;
        if holds {
            self.is_over = true;
            return;
        }
        self.held.retain(|held| *held < self.next);
        self.failed = Some(self.next);
        if self.confirmations >= CONFIRMATIONS_MAX {
            self.held.clear();
            self.is_over = true;
            return;
        }
        (self.is_confirming, self.steps) = (false, 0);
        self.choose();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(start: u32, max: u32, mut holds: impl FnMut(u32) -> bool) -> (Option<u32>, u32) {
        let (mut search, mut steps) = (Search::new(start, max, 0.03), 0);
        loop {
            match search.wanted() {
                Wanted::Found(found) => return (found, steps),
                Wanted::Try(rate) | Wanted::Confirm(rate) => search.tell(holds(rate), true),
            }
            steps += 1;
            assert!(steps < 200, "the search ends");
        }
    }

    proptest! {
        #[test]
        fn the_limit_is_found_from_anywhere(limit in 1..5_000_000_u32, start in 1..1_000_000_u32) {
            let (found, _) = search(start, 10_000_000, |rate| rate <= limit);
            let found = found.unwrap();
            prop_assert!(found <= limit, "{found} of {limit}");
            prop_assert!(f64::from(found) * 1.031 + 1.0 >= f64::from(limit), "{found} of {limit}");
        }

        #[test]
        fn it_ends_whatever_it_is_told(seed in any::<u64>(), start in 1..1_000_000_u32) {
            let mut bits = seed | 1;
            search(start, 10_000_000, |_| {
                bits = bits.rotate_left(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                bits & 1 == 0
            });
        }
    }

    #[test]
    fn a_rate_that_held_by_luck_is_not_the_answer() {
        let mut asked = 0;
        let (found, _) = search(1_000, 8_000, |rate| {
            asked += 1;
            rate <= 5_000 || asked <= 4
        });
        assert!(found.is_some_and(|found| (4_000..=5_000).contains(&found)), "{found:?}");
        assert_eq!(search(1_000, 8_000, |_| true).0, Some(8_000), "the most that may be tried");
        assert_eq!(search(1_000, 8_000, |_| false).0, None);
    }

    #[test]
    fn nothing_is_tried_above_what_the_generator_can_do() {
        let mut search = Search::new(1_000, 1_000_000, 0.05);
        let mut highest = 0;
        while let Wanted::Try(rate) | Wanted::Confirm(rate) = search.wanted() {
            highest = highest.max(rate);
            search.tell(rate < 10_000, rate < 10_000);
        }
        assert!(highest <= 16_000, "{highest}");
    }
}
