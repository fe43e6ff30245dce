//! What came of a run, as JSON, as text, and as files: the same figures in each.

pub(crate) mod files;
pub(crate) mod hdr;
pub(crate) mod page;
pub(crate) mod plot;
mod text;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub(crate) use self::text::{print_text, warnings};
use crate::machine::Machine;
use crate::run::{Outcome, Row};
use crate::workload::Workload;
use crate::workload::kind::KINDS;

/// The part of the time that a generator may be kept from its core and still be said to have had it.
const HELD_BACK_MAX: f64 = 0.02;

/// The figures that every report has, whatever the peer: one line of JSON with these keys and no others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) tool: String,
    pub(crate) version: String,
    pub(crate) machine: Machine,
    pub(crate) target: String,
    pub(crate) workload: Workload,
    /// Requests that were to be sent a second.
    pub(crate) offered_per_s: f64,
    /// Requests that were answered as asked a second.
    pub(crate) achieved_per_s: f64,
    /// Requests that got any answer a second, refusals among them.
    pub(crate) requests_per_s: f64,
    pub(crate) tokens_per_s: f64,
    pub(crate) tokens_per_server_cpu_s: Option<f64>,
    pub(crate) server_cpu_s: Option<f64>,
    pub(crate) generator_cpu_s: f64,
    pub(crate) server_rss_bytes: Option<u64>,
    pub(crate) refused: u64,
    pub(crate) errors: u64,
    pub(crate) wrong_replies: u64,
    /// From when a request was to be sent to its answer.
    pub(crate) latency_us: Quantiles,
    /// From when it was sent.
    pub(crate) service_us: Quantiles,
}

/// The server did not say the truth: whoever asks for one figure has to be told that instead.
#[derive(Debug)]
pub(crate) struct WrongReplies(String);

impl std::fmt::Display for WrongReplies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongReplies {}

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
}

impl Quantiles {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p99_9: at(0.999), max: histogram.max() }
    }
}

/// What was measured of one kind of request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OfKind {
    pub(crate) kind: String,
    pub(crate) requests: u64,
    pub(crate) latency_us: Quantiles,
    pub(crate) service_us: Quantiles,
}

/// Everything there is to know of a run: what later reports and comparisons are made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) summary: Summary,
    pub(crate) detail: Detail,
}

/// What a summary has no room for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Detail {
    pub(crate) seconds: f64,
    /// Tokens issued a second while the key space was filled; durable, if the peer makes them so.
    pub(crate) fill_per_s: Option<f64>,
    /// Requests that were never sent: dropped, or still waiting at the end.
    pub(crate) not_sent: u64,
    pub(crate) unanswered: u64,
    pub(crate) reconnects: u64,
    pub(crate) generator_lag_us_max: u64,
    /// The part of the time in which the busiest worker had something to do.
    pub(crate) generator_busiest: f64,
    /// The part of the time in which one worker at worst had something to do and was not let.
    #[serde(default)]
    pub(crate) generator_held_back: f64,
    /// Requests that were due while every place was taken.
    #[serde(default)]
    pub(crate) no_room: u64,
    pub(crate) ran_dry: bool,
    /// Whether what was asked came from a trace: then the workload alone does not say it.
    #[serde(default)]
    pub(crate) is_replay: bool,
    pub(crate) failed: Option<String>,
    pub(crate) kinds: Vec<OfKind>,
    /// Latency by percentile: for the curve of the report.
    pub(crate) curve: Vec<Point>,
    pub(crate) rows: Vec<Row>,
    /// The first few different wrong replies and failures, and how often each was met.
    pub(crate) described: Vec<String>,
}

/// A point of the percentile curve.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) quantile: f64,
    pub(crate) latency_us: u64,
    pub(crate) service_us: u64,
}

/// Quantiles up to the last that the number of requests says something about: half, three quarters, seven eighths...
fn curve(latency: &Histogram<u64>, service: &Histogram<u64>) -> Vec<Point> {
    let count = latency.len().max(1) as f64;
    let halves = (0..60).map(|step| 1.0 - 0.5_f64.powf(f64::from(step) / 2.0));
    halves
        .take_while(|quantile| (1.0 - quantile) * count >= 1.0)
        .map(|quantile| Point {
            quantile,
            latency_us: latency.value_at_quantile(quantile),
            service_us: service.value_at_quantile(quantile),
        })
        .collect()
}

fn told((words, count): &(String, u64)) -> String {
    if *count == 1 { words.clone() } else { format!("{words} ({count} times)") }
}

impl Record {
    pub(crate) fn new(
        workload: &Workload,
        target: String,
        fill_per_s: Option<f64>,
        outcome: &Outcome,
    ) -> Self {
        let counts = outcome.whole.counts;
        let rate = |count: u64, seconds: f64| {
            if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
        };
        let per_s = |count| rate(count, outcome.seconds);
        let (latency, service) = (outcome.whole.all_latency(), outcome.whole.all_service());
        let kinds = KINDS.into_iter().filter(|kind| !outcome.whole.service[*kind as usize].is_empty());
        let kinds = kinds.map(|kind| OfKind {
            kind: kind.name().to_owned(),
            requests: outcome.whole.service[kind as usize].len(),
            latency_us: Quantiles::of(&outcome.whole.latency[kind as usize]),
            service_us: Quantiles::of(&outcome.whole.service[kind as usize]),
        });
        let summary = Summary {
            tool: "jeton-load".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine::this(),
            target,
            workload: workload.clone(),
            offered_per_s: rate(counts.offered, outcome.counted_seconds),
            achieved_per_s: per_s(counts.achieved),
            requests_per_s: per_s(counts.achieved + counts.refused + counts.errors),
            tokens_per_s: per_s(counts.tokens),
            tokens_per_server_cpu_s: outcome
                .server_cpu_s
                .filter(|cpu| *cpu > 0.0)
                .map(|cpu| (counts.tokens as f64 / cpu).round()),
            server_cpu_s: outcome.server_cpu_s,
            generator_cpu_s: outcome.generator_cpu_s,
            server_rss_bytes: outcome.server_rss_bytes,
            refused: counts.refused,
            errors: counts.errors,
            wrong_replies: counts.wrong_replies,
            latency_us: Quantiles::of(&latency),
            service_us: Quantiles::of(&service),
        };
        let detail = Detail {
            seconds: outcome.seconds,
            fill_per_s: fill_per_s.map(f64::round),
            not_sent: counts.not_sent,
            unanswered: counts.unanswered,
            reconnects: counts.reconnects,
            generator_lag_us_max: counts.lag_us_max,
            generator_busiest: outcome.busiest,
            generator_held_back: outcome.held_back,
            no_room: counts.no_room,
            ran_dry: outcome.ran_dry,
            is_replay: outcome.is_replay,
            failed: outcome.failed.as_ref().map(|error| format!("{error:#}")),
            kinds: kinds.collect(),
            curve: curve(&latency, &service),
            rows: outcome.rows.clone(),
            described: outcome.whole.described.iter().map(told).collect(),
        };
        Self { summary, detail }
    }

    /// Whether every request that was answered was answered truly, and the run came to its end.
    pub(crate) fn is_good(&self) -> bool {
        self.summary.wrong_replies == 0 && self.detail.failed.is_none()
    }

    /// Whether the generator had no more to give: then the figures say little about the server. Of a run that ended early
    /// this cannot be said: its workers spent a part of it waiting for nobody.
    pub(crate) fn is_generator_the_limit(&self) -> bool {
        if self.detail.failed.is_some() {
            return false;
        }
        let is_behind = self.summary.achieved_per_s < 0.98 * self.summary.offered_per_s;
        self.detail.generator_busiest > 0.95 && (self.summary.workload.is_closed() || is_behind)
    }

    /// An error that says which replies were wrong, if any were: whatever else happened, that is what a run fails of.
    pub(crate) fn check_truth(&self) -> Result<(), WrongReplies> {
        match self.summary.wrong_replies {
            0 => Ok(()),
            wrong => {
                Err(WrongReplies(format!("{wrong} wrong replies: {}", self.detail.described.join("; "))))
            }
        }
    }

    /// Whether fewer requests were answered, in whatever way, than were asked for, though the run came to its end.
    pub(crate) fn is_behind(&self) -> bool {
        self.detail.failed.is_none() && self.summary.requests_per_s < 0.98 * self.summary.offered_per_s
    }

    /// Whether it was the server that made requests wait: every place was taken, and the generator was free to work.
    pub(crate) fn is_server_the_limit(&self) -> bool {
        let is_free = !self.is_generator_the_limit() && !self.is_generator_held_back();
        self.is_behind() && is_free && self.detail.no_room > 0
    }

    /// Whether others had the processor while the generator had something to do.
    pub(crate) fn is_generator_held_back(&self) -> bool {
        self.detail.generator_held_back > HELD_BACK_MAX
    }
}

#[cfg(test)]
pub(crate) mod tests;
