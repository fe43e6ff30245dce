//! What is counted and measured, without memory being asked for while a run goes on.
//!
//! A worker fills a [`Sample`]; at the end of each interval it hands it over and goes on with another, emptied one.
//! *Latency* counts from when a request was to be sent, *service time* from when it was: they differ by what a server
//! that is slow makes later requests wait, and that is what a closed loop hides.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::workload::kind::{KINDS, Kind};

/// The longest time that is told apart from longer ones.
const MAX_US: u64 = 600_000_000;
const DIGITS: u8 = 3;
/// Different wrong replies and failures that are described; more are only counted.
const DESCRIBED_MAX: usize = 5;

/// A histogram of microseconds up to ten minutes, three digits of each.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_US, DIGITS).expect("the bounds are sound")
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What is counted beside times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Requests that were to be sent.
    pub(crate) offered: u64,
    /// Requests that were answered as asked in that time, those of the warm-up among them.
    pub(crate) achieved: u64,
    /// Tokens that those asked about.
    pub(crate) tokens: u64,
    /// Those that the server refused.
    pub(crate) refused: u64,
    /// Those that it answered with something else than an answer to them.
    pub(crate) errors: u64,
    /// Answers that are not true.
    pub(crate) wrong_replies: u64,
    /// Requests that were never sent: dropped, or still waiting at the end.
    pub(crate) not_sent: u64,
    /// Those that were sent and never answered.
    pub(crate) unanswered: u64,
    /// How late a request was sent at worst because the generator itself was busy.
    pub(crate) lag_us_max: u64,
    /// Requests that were due while every place was taken: what made them wait was not the generator.
    pub(crate) no_room: u64,
    /// Connections that were replaced.
    pub(crate) reconnects: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.achieved += other.achieved;
        self.tokens += other.tokens;
        self.refused += other.refused;
        self.errors += other.errors;
        self.wrong_replies += other.wrong_replies;
        self.not_sent += other.not_sent;
        self.unanswered += other.unanswered;
        self.lag_us_max = self.lag_us_max.max(other.lag_us_max);
        self.no_room += other.no_room;
        self.reconnects += other.reconnects;
    }
}

/// What one worker measured in one interval, or all of them in a whole run.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) counts: Counts,
    /// By the number of the kind.
    pub(crate) latency: [Histogram<u64>; KINDS.len()],
    pub(crate) service: [Histogram<u64>; KINDS.len()],
    /// The first few different wrong replies and failures, in words, and how often each was met.
    pub(crate) described: Vec<(String, u64)>,
    /// Time in which the worker had nothing to do.
    pub(crate) idle: Duration,
    /// Time in which it had something to do and was not let: the processor was somebody else's.
    pub(crate) held_back: Duration,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            latency: std::array::from_fn(|_| histogram()),
            service: std::array::from_fn(|_| histogram()),
            described: Vec::new(),
            idle: Duration::ZERO,
            held_back: Duration::ZERO,
        }
    }
}

impl Sample {
    pub(crate) fn clear(&mut self) {
        self.counts = Counts::default();
        (self.idle, self.held_back) = (Duration::ZERO, Duration::ZERO);
        self.described.clear();
        for histogram in self.latency.iter_mut().chain(&mut self.service) {
            // Most kinds are in no mix, and emptying a histogram takes as long as its bounds are wide.
            if !histogram.is_empty() {
                histogram.reset();
            }
        }
    }

    /// Forgets what was counted while warming up, but never a wrong reply.
    pub(crate) fn clear_but_wrong(&mut self) {
        let (wrong_replies, described) = (self.counts.wrong_replies, std::mem::take(&mut self.described));
        self.clear();
        (self.counts.wrong_replies, self.described) = (wrong_replies, described);
    }

    pub(crate) fn record(&mut self, kind: Kind, latency: Duration, service: Duration) {
        self.latency[kind as usize].saturating_record(micros(latency).max(1));
        self.service[kind as usize].saturating_record(micros(service).max(1));
    }

    /// Requests that were not sent, and how long they had waited by the end.
    pub(crate) fn record_waiting(&mut self, kind: Kind, waited: Duration, count: u64) {
        self.latency[kind as usize].saturating_record_n(micros(waited).max(1), count);
    }

    pub(crate) fn wrong(&mut self, describe: impl FnOnce() -> String) {
        self.counts.wrong_replies += 1;
        self.describe(format!("wrong reply: {}", describe()), 1);
    }

    pub(crate) fn error(&mut self, describe: impl FnOnce() -> String) {
        self.counts.errors += 1;
        self.describe(describe(), 1);
    }

    fn describe(&mut self, words: String, count: u64) {
        if let Some((_, met)) = self.described.iter_mut().find(|(known, _)| *known == words) {
            *met += count;
        } else if self.described.len() < DESCRIBED_MAX {
            self.described.push((words, count));
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.idle += other.idle;
        self.held_back += other.held_back;
        let mine = self.latency.iter_mut().chain(&mut self.service);
        for (mine, other) in mine.zip(other.latency.iter().chain(&other.service)) {
            if !other.is_empty() {
                mine.add(other).expect("all histograms have the same bounds");
            }
        }
        for (words, count) in &other.described {
            self.describe(words.clone(), *count);
        }
    }

    /// Latencies of every kind together.
    pub(crate) fn all_latency(&self) -> Histogram<u64> {
        sum(&self.latency)
    }

    /// Service times of every kind together.
    pub(crate) fn all_service(&self) -> Histogram<u64> {
        sum(&self.service)
    }
}

fn sum(histograms: &[Histogram<u64>]) -> Histogram<u64> {
    let mut all = histogram();
    for histogram in histograms.iter().filter(|histogram| !histogram.is_empty()) {
        all.add(histogram).expect("all histograms have the same bounds");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(value: u64, expected: u64) -> bool {
        value.abs_diff(expected) * 1_000 <= expected
    }

    #[test]
    fn known_distributions_have_the_quantiles_they_should() {
        let mut sample = Sample::default();
        // Each microsecond from 1 to 100,000 once: quantile q is at 100,000 q.
        for value in 1..=100_000 {
            sample.record(Kind::Validate, Duration::from_micros(value), Duration::from_micros(1));
        }
        let latency = sample.all_latency();
        for (quantile, expected) in [(0.5, 50_000), (0.9, 90_000), (0.99, 99_000), (0.999, 99_900)] {
            let value = latency.value_at_quantile(quantile);
            assert!(within(value, expected), "p{quantile}: {value}");
        }
        assert!(within(latency.max(), 100_000));
        assert_eq!(sample.all_service().max(), 1);
        // Exponential with a mean of 10 ms, by its inverse: quantile q is at -10 ms ln(1 - q).
        let mut sample = Sample::default();
        for at in 0..100_000 {
            let millis = -10.0 * (1.0 - (f64::from(at) + 0.5) / 100_000.0_f64).ln();
            let latency = Duration::from_secs_f64(millis / 1_000.0);
            sample.record(Kind::Issue, latency, latency);
        }
        for quantile in [0.5_f64, 0.9, 0.99, 0.999] {
            let expected = -10_000.0 * (1.0 - quantile).ln();
            let value = sample.all_latency().value_at_quantile(quantile);
            assert!((value as f64 / expected - 1.0).abs() < 0.003, "p{quantile}: {value} for {expected}");
        }
    }

    #[test]
    fn parts_add_up_and_what_is_out_of_bounds_is_not_lost() {
        let (mut whole, mut part) = (Sample::default(), Sample::default());
        part.record(Kind::Renew, Duration::from_secs(3_600), Duration::ZERO);
        part.wrong(|| "a lie".to_owned());
        whole.add(&part);
        whole.add(&part);
        assert_eq!((whole.all_latency().len(), whole.counts.wrong_replies), (2, 2));
        assert!(whole.all_latency().max() >= MAX_US);
        part.clear_but_wrong();
        assert_eq!((part.all_latency().len(), part.counts.wrong_replies), (0, 1));
        assert_eq!(part.described, [("wrong reply: a lie".to_owned(), 1)]);
        assert_eq!(whole.described, [("wrong reply: a lie".to_owned(), 2)], "said once, and how often");
    }
}
