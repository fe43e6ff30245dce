//! What to ask, of what, how and when: what a workload file says and flags change.
//!
//! Knows no server. A value that [`Workload::check`] has passed can be run against any peer that has a counterpart of
//! each kind in its mix.

pub(crate) mod kind;
pub(crate) mod library;
pub(crate) mod units;

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

pub(crate) use self::kind::{Asks, Mix};
pub(crate) use self::units::Span;
use crate::layout::Layout;

/// Bounds, for flags and files alike.
pub(crate) const CONNECTIONS_MAX: u16 = 4_096;
pub(crate) const BATCH_MAX: u16 = 1_024;
pub(crate) const IN_FLIGHT_MAX: u16 = 1_024;
pub(crate) const ISSUE_BATCH_MAX: u16 = 256;
pub(crate) const STREAMS_MAX: u16 = 32;
pub(crate) const WORKERS_MAX: u16 = 64;
pub(crate) const RATE_MAX: u32 = 10_000_000;
pub(crate) const TOKENS_MIN: u32 = 1_000;
pub(crate) const TOKENS_MAX: u32 = 50_000_000;
const STEPS_MAX: usize = 1_000;
/// Longest a run, a warm-up or a thought may take.
pub(crate) const SPAN_MAX: Span = Span::from_secs(3_600);

/// Everything about a run but the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Workload {
    /// What it stands for, in a line.
    pub(crate) about: String,
    pub(crate) connections: u16,
    /// Streams of each connection that requests take turns on.
    pub(crate) streams: u16,
    /// Requests in flight on each connection at most.
    pub(crate) in_flight: u16,
    /// Tokens in a validate.
    pub(crate) batch: u16,
    /// Tokens in an issue.
    pub(crate) issue_batch: u16,
    /// Threads that ask; connections are shared out among them.
    pub(crate) workers: u16,
    pub(crate) seed: u64,
    pub(crate) schedule: Schedule,
    pub(crate) arrivals: Arrivals,
    pub(crate) when_full: WhenFull,
    pub(crate) duration: Span,
    pub(crate) warm_up: Span,
    /// In a closed loop: from an answer to the next request in its place.
    pub(crate) think: Span,
    /// Requests after which a connection is closed and another opened; 0 keeps it.
    pub(crate) churn: u32,
    pub(crate) mix: Mix,
    /// What validates ask about.
    pub(crate) validate: Asks,
    pub(crate) keys: Keys,
}

/// When requests are due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Schedule {
    /// As soon as the last one in its place was answered: says how much a server can do, not how fast it is.
    Closed,
    /// So many a second.
    Fixed(u32),
    /// From one rate to another, evenly.
    Ramp(Ramp),
    /// One rate after another, each for its share of the run.
    Steps(Vec<u32>),
}

/// Rates a second at the beginning and the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ramp {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// How an open loop's requests follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arrivals {
    /// At even distances.
    Constant,
    /// At random, as from many independent callers.
    Poisson,
}

/// What an open loop does with a request that is due while as many are in flight as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WhenFull {
    /// Sends it once there is room: its latency counts from when it was due.
    Wait,
    /// Counts it as not sent.
    Drop,
}

/// The key space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Keys {
    pub(crate) tokens: u32,
    /// Subjects that the tokens belong to.
    pub(crate) subjects: u32,
    pub(crate) pick: Pick,
    /// Percent of the tokens that are set aside to be revoked, if the mix revokes.
    pub(crate) revocable: u32,
}

/// Which tokens validates ask about.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pick {
    /// Each as often as any other.
    Uniform,
    /// The `n`th most wanted with a frequency of 1 / n to this power.
    Zipf(f64),
    /// A part of the tokens gets a part of the questions.
    HotSpot(HotSpot),
}

/// Percent of the tokens, and percent of the questions that go to them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HotSpot {
    pub(crate) tokens: f64,
    pub(crate) asks: f64,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            about: "a service that validates in batches, beside logins and logouts".to_owned(),
            connections: 16,
            streams: 1,
            in_flight: 4,
            batch: 64,
            issue_batch: 1,
            workers: 1,
            seed: 1,
            schedule: Schedule::Fixed(5_000),
            arrivals: Arrivals::Constant,
            when_full: WhenFull::Wait,
            duration: Span::from_secs(10),
            warm_up: Span::from_secs(2),
            think: Span::from_secs(0),
            churn: 0,
            mix: Mix::default(),
            validate: Asks::default(),
            keys: Keys::default(),
        }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self { tokens: 1_000_000, subjects: 1_000, pick: Pick::Uniform, revocable: 2 }
    }
}

impl Workload {
    /// The workload of a file, or the named one.
    pub(crate) fn find(name: &str) -> anyhow::Result<Self> {
        let path = Path::new(name);
        if path.extension().is_none() && !name.contains('/') {
            return library::named(name);
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("the workload file {name}"))?;
        Self::parse(&text).with_context(|| format!("the workload file {name}"))
    }

    /// Reads and checks a file's text.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let workload: Self = toml::from_str(text).map_err(|error| {
            // One line: where, and what. The parser's own message draws the place on further lines.
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            anyhow::anyhow!("line {line}: {}", error.message().replace('\n', "; "))
        })?;
        workload.check()?;
        Ok(workload)
    }

    /// Whether the numbers make sense, each alone and together.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        fn within<T: PartialOrd + std::fmt::Display>(
            name: &str,
            value: T,
            low: T,
            high: T,
        ) -> anyhow::Result<()> {
            ensure!(value >= low && value <= high, "{name} is {value}: it must be {low} to {high}");
            Ok(())
        }
        within("connections", self.connections, 1, CONNECTIONS_MAX)?;
        within("streams", self.streams, 1, STREAMS_MAX)?;
        within("in_flight", self.in_flight, 1, IN_FLIGHT_MAX)?;
        within("batch", self.batch, 1, BATCH_MAX)?;
        within("issue_batch", self.issue_batch, 1, ISSUE_BATCH_MAX)?;
        within("workers", self.workers, 1, WORKERS_MAX)?;
        within("duration", self.duration, Span::from_millis(100), SPAN_MAX)?;
        within("warm_up", self.warm_up, Span::from_secs(0), SPAN_MAX)?;
        within("think", self.think, Span::from_secs(0), SPAN_MAX)?;
        within("keys.tokens", self.keys.tokens, TOKENS_MIN, TOKENS_MAX)?;
        within("keys.subjects", self.keys.subjects, 1, self.keys.tokens)?;
        within("keys.revocable", self.keys.revocable, 1, 90)?;
        ensure!(
            self.workers <= self.connections,
            "{} workers have no use for {} connection(s)",
            self.workers,
            self.connections
        );
        match self.keys.pick {
            Pick::Uniform => {}
            Pick::Zipf(power) => within("keys.pick.zipf", power, 0.1, 5.0)?,
            Pick::HotSpot(spot) => {
                within("keys.pick.hot-spot.tokens", spot.tokens, 0.001, 99.0)?;
                within("keys.pick.hot-spot.asks", spot.asks, 1.0, 100.0)?;
            }
        }
        self.mix.check()?;
        self.validate.check()?;
        ensure!(
            Layout::live(self) > 0,
            "keys.revocable is {}: beside what is consumed, renewed and expired, that leaves no token alone",
            self.keys.revocable
        );
        self.check_schedule()
    }

    fn check_schedule(&self) -> anyhow::Result<()> {
        let rates = match &self.schedule {
            Schedule::Closed => return Ok(()),
            Schedule::Fixed(rate) => vec![*rate],
            Schedule::Ramp(ramp) => vec![ramp.from, ramp.to],
            Schedule::Steps(rates) => {
                ensure!(
                    (1..=STEPS_MAX).contains(&rates.len()),
                    "a schedule has 1 to {STEPS_MAX} steps, not {}",
                    rates.len()
                );
                rates.clone()
            }
        };
        if let Some(rate) = rates.iter().find(|rate| !(1..=RATE_MAX).contains(*rate)) {
            bail!("a rate is 1 to {RATE_MAX} requests a second, not {rate}");
        }
        ensure!(
            self.think == Span::from_secs(0),
            "only a closed loop thinks: in an open one the rate says when"
        );
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.schedule == Schedule::Closed
    }
}

#[cfg(test)]
mod tests;
