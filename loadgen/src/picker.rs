//! What is asked next, of which token: by chance, and the same for the same seed.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};

use crate::checker::{Probe, Truth};
use crate::layout::Role;
use crate::workload::kind::{ASKS, Ask, KINDS, Kind};
use crate::workload::{Pick, Workload};

/// Parts of a share: a percent is 2^32 / 100 of them.
fn limits<const N: usize>(shares: [f64; N]) -> [u32; N] {
    let mut sum = 0.0;
    let mut limits = shares.map(|share| {
        sum += share;
        (sum / 100.0 * f64::from(u32::MAX)) as u32
    });
    // Rounding must not leave a gap at the end: the last kind with a share has it.
    if let Some(last) = shares.iter().rposition(|share| *share > 0.0) {
        limits[last..].fill(u32::MAX);
    }
    limits
}

/// Draws kinds of requests, and tokens for them.
#[derive(Debug)]
pub(crate) struct Picker {
    random: SmallRng,
    kinds: [u32; KINDS.len()],
    asks: [u32; ASKS.len()],
    only_live: bool,
    places: Places,
}

#[derive(Debug)]
enum Places {
    Uniform,
    Zipf(Zipf<f64>),
    /// So many tokens at the front get so many parts of 2^32.
    HotSpot(u32, u32),
}

impl Picker {
    pub(crate) fn new(workload: &Workload, live: u32, worker: u16) -> Self {
        let places = match workload.keys.pick {
            Pick::Uniform => Places::Uniform,
            Pick::Zipf(power) => {
                Places::Zipf(Zipf::new(f64::from(live.max(1)), power).expect("bounds were checked"))
            }
            Pick::HotSpot(spot) => {
                let tokens = (f64::from(live) * spot.tokens / 100.0).ceil() as u32;
                let asks = (spot.asks / 100.0 * f64::from(u32::MAX)) as u32;
                Places::HotSpot(tokens.clamp(1, live.max(1)), asks)
            }
        };
        Self {
            random: SmallRng::seed_from_u64(workload.seed.wrapping_add(u64::from(worker) << 32)),
            kinds: limits(workload.mix.shares()),
            asks: limits(workload.validate.shares()),
            only_live: workload.validate.live == 100.0,
            places,
        }
    }

    pub(crate) fn kind(&mut self) -> Kind {
        let die: u32 = self.random.random();
        KINDS[self.kinds.partition_point(|limit| *limit < die).min(KINDS.len() - 1)]
    }

    /// One of so many, each as likely.
    pub(crate) fn below(&mut self, count: u32) -> u32 {
        self.random.random_range(0..count.max(1))
    }

    fn live(&mut self, count: u32) -> u32 {
        let number = match &self.places {
            Places::Uniform => self.random.random_range(0..count.max(1)),
            Places::Zipf(zipf) => zipf.sample(&mut self.random) as u32 - 1,
            Places::HotSpot(tokens, asks) => {
                let is_hot = self.random.random::<u32>() <= *asks;
                let (from, to) = if is_hot || *tokens >= count { (0, *tokens) } else { (*tokens, count) };
                self.random.random_range(from..to)
            }
        };
        number.min(count.saturating_sub(1))
    }

    /// The next question of a validate.
    pub(crate) fn probe(&mut self, truth: &Truth) -> Probe {
        let ask = if self.only_live {
            Ask::Live
        } else {
            let die: u32 = self.random.random();
            ASKS[self.asks.partition_point(|limit| *limit < die).min(ASKS.len() - 1)]
        };
        let layout = &truth.layout;
        let position = match ask {
            Ask::Live if layout.count(Role::Limited) + layout.count(Role::Renewable) > 0 => self.good(truth),
            Ask::Revoked => self.revoked(truth),
            Ask::Expired => layout.region(Role::Expired).start + self.below(layout.count(Role::Expired)),
            _ => self.live(layout.count(Role::Live)),
        };
        truth.probe(position, ask)
    }

    /// A token of those that are left alone, can be consumed or can be renewed; one in eight of the latter two.
    fn good(&mut self, truth: &Truth) -> u32 {
        let layout = &truth.layout;
        let role = match self.random.random_range(0..8) {
            0 => Role::Limited,
            1 => Role::Renewable,
            _ => Role::Live,
        };
        match role {
            Role::Live => self.live(layout.count(Role::Live)),
            _ if layout.count(role) == 0 => self.live(layout.count(Role::Live)),
            _ => layout.region(role).start + self.below(layout.count(role)),
        }
    }

    /// A token that was revoked, or is among the next to be: there the two race.
    fn revoked(&mut self, truth: &Truth) -> u32 {
        let layout = &truth.layout;
        let (victims, members) = (layout.count(Role::Victim), layout.count(Role::Member));
        if members > 0 && (victims == 0 || self.random.random()) {
            return layout.region(Role::Member).start + self.below(members);
        }
        let taken = truth.victims_taken();
        let within = taken.saturating_add(taken / 8).saturating_add(16).min(victims);
        layout.region(Role::Victim).start + self.below(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::workload::{Asks, HotSpot, Mix};

    fn draw(pick: Pick) -> Vec<u32> {
        let mut workload = Workload { validate: Asks { live: 100.0, ..Asks::none() }, ..Workload::default() };
        workload.mix = Mix { validate: 100.0, ..Mix::none() };
        (workload.keys.tokens, workload.keys.pick) = (1_000, pick);
        let truth = Truth::new(Layout::new(&workload));
        let mut picker = Picker::new(&workload, truth.layout.count(Role::Live), 0);
        (0..100_000).map(|_| picker.probe(&truth).position()).collect()
    }

    fn share(drawn: &[u32], below: u32) -> f64 {
        drawn.iter().filter(|position| **position < below).count() as f64 / drawn.len() as f64
    }

    #[test]
    fn tokens_are_picked_as_often_as_the_distribution_says() {
        let uniform = draw(Pick::Uniform);
        assert!(
            (share(&uniform, 100) - 0.1).abs() < 0.01 && uniform.iter().all(|position| *position < 1_000)
        );
        let hot = draw(Pick::HotSpot(HotSpot { tokens: 1.0, asks: 80.0 }));
        assert!((share(&hot, 10) - 0.8).abs() < 0.01, "{}", share(&hot, 10));
        // The first of a thousand gets one in the sum of 1/n, which is 7.485.
        let zipf = draw(Pick::Zipf(1.0));
        assert!((share(&zipf, 1) - 1.0 / 7.485).abs() < 0.01, "{}", share(&zipf, 1));
        assert!(zipf.iter().all(|position| *position < 1_000));
        assert_eq!(uniform, draw(Pick::Uniform), "the same seed, the same run");
    }

    #[test]
    fn kinds_come_in_their_shares() {
        let workload = Workload::default();
        let mut picker = Picker::new(&workload, 1, 0);
        let mut seen = [0_u32; KINDS.len()];
        (0..100_000).for_each(|_| seen[picker.kind() as usize] += 1);
        assert!(seen[0].abs_diff(97_000) < 500 && seen[1].abs_diff(2_000) < 300, "{seen:?}");
        assert_eq!(seen[3..], [0, 0, 0]);
    }
}
