//! Two sets of runs held against one another: improved, regressed, or noise.
//!
//! One run against one says nothing on a machine that does other things as well. Each figure is compared by the ranks of
//! all its runs (Wilcoxon, Mann and Whitney): how many of all ways to deal the same figures out to the two sides set them
//! apart as far as this? Only if that is rare, and the medians differ by more than a threshold, is it called a change.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::report::{Record, files};

/// How rare chance must be for a difference to be called one. There are about eight figures: with a twentieth, every
/// third comparison of nothing with nothing would find something.
const P_MAX: f64 = 0.01;
/// Runs on each side: with fewer than five, no difference at all is rare enough; with more than ten, counting takes long.
pub(crate) const RUNS_MIN: usize = 5;
pub(crate) const RUNS_MAX: usize = 10;
const FORMAT: u32 = 1;

/// Runs of one workload against one server: what later ones are held against.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    format: u32,
    pub(crate) runs: Vec<Record>,
}

impl Baseline {
    pub(crate) fn new(runs: Vec<Record>) -> Self {
        Self { format: FORMAT, runs }
    }

    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("the baseline {}", path.display()))?;
        let baseline: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no baseline of jeton-load", path.display()))?;
        ensure!(baseline.format == FORMAT, "{} is a baseline of another version", path.display());
        ensure!(
            (RUNS_MIN..=RUNS_MAX).contains(&baseline.runs.len()),
            "{} holds {} runs: a baseline has {RUNS_MIN} to {RUNS_MAX}",
            path.display(),
            baseline.runs.len()
        );
        Ok(baseline)
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        files::replace(path, &serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("the baseline {} cannot be written", path.display()))
    }
}

/// Either a baseline, or a run's folder: for `compare OLD NEW`.
pub(crate) fn read_runs(path: &Path) -> anyhow::Result<Vec<Record>> {
    if path.is_dir() {
        files::read(path).map(|record| vec![record])
    } else {
        Baseline::read(path).map(|it| it.runs)
    }
}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    Improved,
    Regressed,
    /// What the same server shows from run to run.
    Noise,
    /// It is shown, and says nothing of the server: each invocation fills a key space beside those of earlier ones.
    Unjudged,
}

/// One figure on both sides.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) figure: &'static str,
    /// Medians.
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// From the first median to the second, in percent.
    pub(crate) percent: f64,
    /// How often chance alone sets the sides apart as far.
    pub(crate) p: f64,
    pub(crate) change: Change,
}

struct Figure {
    name: &'static str,
    /// `None` if neither is: then it is not judged.
    more_is_better: Option<bool>,
    of: fn(&Record) -> Option<f64>,
}

const FIGURES: [Figure; 8] = [
    Figure { name: "achieved_per_s", more_is_better: Some(true), of: |it| Some(it.summary.achieved_per_s) },
    Figure { name: "tokens_per_s", more_is_better: Some(true), of: |it| Some(it.summary.tokens_per_s) },
    Figure {
        name: "tokens_per_server_cpu_s",
        more_is_better: Some(true),
        of: |it| it.summary.tokens_per_server_cpu_s,
    },
    Figure {
        name: "latency p50",
        more_is_better: Some(false),
        of: |it| Some(it.summary.latency_us.p50 as f64),
    },
    Figure {
        name: "latency p99",
        more_is_better: Some(false),
        of: |it| Some(it.summary.latency_us.p99 as f64),
    },
    Figure {
        name: "latency p99.9",
        more_is_better: Some(false),
        of: |it| Some(it.summary.latency_us.p99_9 as f64),
    },
    Figure {
        name: "service p99",
        more_is_better: Some(false),
        of: |it| Some(it.summary.service_us.p99 as f64),
    },
    Figure {
        name: "server_rss_bytes",
        more_is_better: None,
        of: |it| it.summary.server_rss_bytes.map(|bytes| bytes as f64),
    },
];

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// How often the ranks of one side, dealt out at random, add up to as far from their mean as they do (two-sided, exact).
fn chance(before: &[f64], after: &[f64]) -> f64 {
    let mut all: Vec<f64> = before.iter().chain(after).copied().collect();
    all.sort_unstable_by(f64::total_cmp);
    // Twice the rank, so that ties, which share the mean of theirs, stay whole numbers.
    let rank = |value: f64| {
        let first = all.partition_point(|other| *other < value);
        let last = all.partition_point(|other| *other <= value);
        first + last + 1
    };
    let ranks: Vec<usize> = all.iter().map(|value| rank(*value)).collect();
    let seen: usize = before.iter().map(|value| rank(*value)).sum();
    let total: usize = ranks.iter().sum();
    // ways[n][s]: how many ways there are to take n of the ranks so far with the sum s.
    let mut ways = vec![vec![0.0_f64; total + 1]; before.len() + 1];
    ways[0][0] = 1.0;
    for rank in &ranks {
        for count in (1..=before.len()).rev() {
            for sum in (*rank..=total).rev() {
                ways[count][sum] += ways[count - 1][sum - rank];
            }
        }
    }
    let mean = total as f64 * before.len() as f64 / all.len() as f64;
    let distance = (seen as f64 - mean).abs() - 1e-9;
    let dealt = &ways[before.len()];
    let far: f64 = dealt
        .iter()
        .enumerate()
        .filter(|(sum, _)| (*sum as f64 - mean).abs() >= distance)
        .map(|(_, ways)| ways)
        .sum();
    far / dealt.iter().sum::<f64>()
}

/// Compares two sets of runs; differences of less than `threshold` percent are noise whatever their ranks.
pub(crate) fn compare(before: &[Record], after: &[Record], threshold: f64) -> Vec<Compared> {
    let figures = FIGURES.iter().filter_map(|figure| {
        let values = |runs: &[Record]| runs.iter().map(figure.of).collect::<Option<Vec<f64>>>();
        let (before, after) = (values(before)?, values(after)?);
        Some(judge(figure, &before, &after, threshold))
    });
    figures.collect()
}

fn judge(figure: &Figure, before: &[f64], after: &[f64], threshold: f64) -> Compared {
    let p = chance(before, after);
    let (before, after) = (median(before), median(after));
    let percent = if before == 0.0 { 0.0 } else { (after / before - 1.0) * 100.0 };
    let change = if figure.more_is_better.is_none() {
        Change::Unjudged
    } else if p > P_MAX || percent.abs() < threshold {
        Change::Noise
    } else if Some(percent > 0.0) == figure.more_is_better {
        Change::Improved
    } else {
        Change::Regressed
    };
    Compared { figure: figure.name, before, after, percent, p, change }
}

/// Whether two runs can be compared at all; otherwise why not.
pub(crate) fn check_alike(before: &[Record], after: &[Record]) -> anyhow::Result<()> {
    let first = &before.first().context("a run on each side")?.summary;
    for record in before.iter().chain(after) {
        let summary = &record.summary;
        ensure!(summary.workload == first.workload, "the runs are not of the same workload");
        ensure!(summary.wrong_replies == 0, "a run with wrong replies cannot be compared");
        ensure!(record.detail.failed.is_none(), "a run that did not come to its end cannot be compared");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::record;

    fn runs(p99s: &[u64]) -> Vec<Record> {
        let run = |p99: &u64| {
            let mut record = record();
            record.summary.latency_us.p99 = *p99;
            record
        };
        p99s.iter().map(run).collect()
    }

    fn change(before: &[u64], after: &[u64]) -> Change {
        let compared = compare(&runs(before), &runs(after), 3.0);
        compared.iter().find(|it| it.figure == "latency p99").unwrap().change
    }

    #[test]
    fn only_what_is_rare_by_chance_is_a_change() {
        let usual = [1_000, 1_100, 950, 1_020, 1_050];
        assert_eq!(change(&usual, &[1_010, 1_080, 940, 1_030, 1_060]), Change::Noise);
        assert_eq!(change(&usual, &[1_500, 1_600, 1_450, 1_520, 1_490]), Change::Regressed);
        assert_eq!(change(&usual, &[500, 600, 450, 520, 490]), Change::Improved);
        assert_eq!(
            change(&usual, &[1_500, 1_600, 1_450, 1_520, 1_000]),
            Change::Noise,
            "one of five was as fast"
        );
        let near = [1_000, 1_001, 1_002, 1_003, 1_004];
        assert_eq!(change(&near, &[1_010, 1_011, 1_012, 1_013, 1_014]), Change::Noise, "below the threshold");
        assert_eq!(change(&usual, &usual), Change::Noise);
    }

    #[test]
    fn memory_is_shown_and_not_judged() {
        let (before, mut after) = (runs(&[1; 5]), runs(&[1; 5]));
        // Tokens of earlier invocations stay: twice the memory is what twice the tokens take.
        after.iter_mut().for_each(|run| run.summary.server_rss_bytes = Some(200 << 20));
        let compared = compare(&before, &after, 3.0);
        let memory = compared.iter().find(|it| it.figure == "server_rss_bytes").unwrap();
        assert_eq!((memory.change, memory.percent), (Change::Unjudged, 100.0));
        assert!(compared.iter().all(|it| it.change != Change::Regressed));
    }

    #[test]
    fn chances_are_those_of_the_tables() {
        let low = [1.0, 2.0, 3.0, 4.0, 5.0];
        // Of C(10, 5) = 252 ways, two set the sides apart wholly; of C(8, 4) = 70 likewise.
        assert!((chance(&low, &[6.0, 7.0, 8.0, 9.0, 10.0]) - 2.0 / 252.0).abs() < 1e-12);
        assert!((chance(&low[..4], &[6.0, 7.0, 8.0, 9.0]) - 2.0 / 70.0).abs() < 1e-12);
        assert!((chance(&low, &low) - 1.0).abs() < 1e-12);
        // U = 2 at five and five: p = 0.032 (Mann and Whitney, 1947).
        assert!((chance(&[1.0, 2.0, 3.0, 4.0, 7.0], &[5.0, 6.0, 8.0, 9.0, 10.0]) - 0.0317).abs() < 1e-3);
    }

    #[test]
    fn what_is_not_alike_is_not_compared() {
        let (mut other, usual) = (runs(&[1; 5]), runs(&[1; 5]));
        assert!(check_alike(&usual, &other).is_ok());
        other[3].summary.workload.batch += 1;
        assert!(check_alike(&usual, &other).is_err());
        other[3] = usual[3].clone();
        other[3].summary.wrong_replies = 1;
        assert!(check_alike(&usual, &other).is_err());
    }

    #[test]
    fn a_baseline_is_read_back_and_nonsense_is_refused_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.json");
        Baseline::new(runs(&[1; 5])).write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap().runs.len(), 5);
        Baseline::new(runs(&[1; 4])).write(&path).unwrap();
        let said = format!("{:#}", Baseline::read(&path).unwrap_err());
        assert!(said.ends_with("holds 4 runs: a baseline has 5 to 10"), "{said}");
        std::fs::write(&path, "[]").unwrap();
        let said = format!("{:#}", Baseline::read(&path).unwrap_err());
        assert!(said.contains("is no baseline of jeton-load") && said.lines().count() == 1, "{said}");
    }
}
