//! Goals: a quantile of latency and the most it may be.

use std::fmt;
use std::str::FromStr;

use crate::live::time;
use crate::recorder::micros;
use crate::report::Record;
use crate::workload::Span;

/// `p99=2ms`: of a hundred requests, 99 take at most two milliseconds from when they were to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slo {
    quantile: Quantile,
    most: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantile {
    P50,
    P90,
    P99,
    P999,
    Max,
}

const NAMES: [(&str, Quantile); 5] = [
    ("p50", Quantile::P50),
    ("p90", Quantile::P90),
    ("p99", Quantile::P99),
    ("p99.9", Quantile::P999),
    ("max", Quantile::Max),
];

impl Quantile {
    fn name(self) -> &'static str {
        NAMES.iter().find(|(_, quantile)| *quantile == self).map_or("", |(name, _)| name)
    }
}

impl Slo {
    /// The most that it lets a latency be, in microseconds.
    pub(crate) fn most_us(&self) -> u64 {
        micros(self.most.0)
    }

    /// Why a run did not keep it; `None` if it did.
    pub(crate) fn failure(&self, record: &Record) -> Option<String> {
        let latency = record.summary.latency_us;
        let value = match self.quantile {
            Quantile::P50 => latency.p50,
            Quantile::P90 => latency.p90,
            Quantile::P99 => latency.p99,
            Quantile::P999 => latency.p99_9,
            Quantile::Max => latency.max,
        };
        (value > self.most_us()).then(|| format!("{} {}", self.quantile.name(), time(value)))
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no goal: write p99=2ms (p50, p90, p99, p99.9 or max)");
        let (name, most) = text.split_once('=').ok_or_else(wrong)?;
        let (_, quantile) = NAMES.into_iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
        Ok(Self { quantile, most: most.parse().map_err(|_| wrong())? })
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.quantile.name(), self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::record;

    #[test]
    fn a_goal_is_read_and_held_against_a_run() {
        for (text, fails) in [("p99=2ms", false), ("p99=1ms", true), ("p50=999us", true), ("max=1s", false)] {
            let slo: Slo = text.parse().unwrap();
            assert_eq!(
                (slo.failure(&record()).is_some(), slo.to_string()),
                (fails, text.to_owned()),
                "{text}"
            );
        }
        for text in ["", "p99", "p98=2ms", "p99=2", "p99=fast"] {
            let is_seconds = text == "p99=2";
            assert_eq!(text.parse::<Slo>().is_ok(), is_seconds, "{text}");
        }
    }
}
