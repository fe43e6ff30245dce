//! `jeton-load compare`.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};

use super::flags::Load;
use crate::compare::{Baseline, Change, Compared, RUNS_MAX, RUNS_MIN, check_alike, compare, read_runs};
use crate::live::Silent;
use crate::report::{Record, files};
use crate::run::prepare;
use crate::target::Server;
use crate::workload::Workload;

/// Flags of `compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// A baseline. If there is no such file, it is measured and written.
    baseline: PathBuf,
    /// Another baseline to hold against it; without one, the baseline's workload is run again, as often.
    other: Option<PathBuf>,
    #[command(flatten)]
    load: Load,
    /// How often to run for a new baseline: 5, if nothing is said.
    #[arg(long)]
    runs: Option<usize>,
    /// Differences of less than so many percent are noise.
    #[arg(long, default_value_t = 5.0)]
    threshold: f64,
    /// Exit with 1 if anything regressed.
    #[arg(long)]
    fail_on_regression: bool,
    /// Print the comparison as JSON.
    #[arg(long)]
    json: bool,
}

impl Compare {
    /// Compares, or makes a baseline; returns whether nothing regressed, or nobody minds.
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        ensure!((0.0..=1_000.0).contains(&self.threshold), "--threshold is 0 to 1000 percent");
        if let Some(other) = &self.other {
            let (before, after) = (read_runs(&self.baseline)?, read_runs(other)?);
            self.check_flags(&before)?;
            return self.judge(&before, &after);
        }
        if !self.baseline.exists() {
            let runs = self.runs.unwrap_or(RUNS_MIN);
            ensure!((RUNS_MIN..=RUNS_MAX).contains(&runs), "--runs is {RUNS_MIN} to {RUNS_MAX}");
            return self.make(&self.baseline, runs);
        }
        let baseline = Baseline::read(&self.baseline)?;
        self.check_flags(&baseline.runs)?;
        let Some(first) = baseline.runs.first() else { bail!("a baseline without runs") };
        let after = self.measure(&first.summary.workload, baseline.runs.len())?;
        self.judge(&baseline.runs, &after)
    }

    /// Refuses flags that ask for something else than what a baseline was measured with: they would change nothing.
    fn check_flags(&self, baseline: &[Record]) -> anyhow::Result<()> {
        let Some(first) = baseline.first() else { bail!("a baseline without runs") };
        let workload = &first.summary.workload;
        let asked = self.load.changed(workload.clone())?;
        let (asked, measured) = (serde_json::to_value(asked)?, serde_json::to_value(workload)?);
        let is_other = |name: &&String| *name != "about" && asked.get(*name) != measured.get(*name);
        let names: Vec<&String> =
            measured.as_object().into_iter().flat_map(|it| it.keys()).filter(is_other).collect();
        ensure!(
            names.is_empty(),
            "the baseline was measured with another {}: leave these flags out, or make another baseline",
            names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" and another ")
        );
        ensure!(
            self.runs.is_none_or(|runs| runs == baseline.len()),
            "the baseline has {} runs, and is held against as many: leave --runs out",
            baseline.len()
        );
        Ok(())
    }

    fn make(&self, path: &Path, runs: usize) -> anyhow::Result<bool> {
        // That it cannot be written is better known before the runs than after them.
        tempfile::tempfile_in(files::folder_of(path))
            .map_err(|error| anyhow::anyhow!("the baseline {}: {error}", path.display()))?;
        let runs = self.measure(&self.load.workload()?, runs)?;
        check_alike(&runs, &[])?;
        Baseline::new(runs).write(path)?;
        tell!("{} is the baseline: compare with it by the same command", path.display())?;
        Ok(true)
    }

    fn measure(&self, workload: &Workload, runs: usize) -> anyhow::Result<Vec<Record>> {
        let server = Server::new(&self.load.target)?;
        let mut prepared = prepare(&server, workload, self.load.token_file.clone())?;
        let mut records = Vec::new();
        for number in 1..=runs {
            let outcome = prepared.run(&server, &mut Silent)?;
            let record = Record::new(workload, server.to_string(), None, &outcome);
            let summary = &record.summary;
            eprintln!(
                "run {number} of {runs}: {:.0} requests/s, p99 {}",
                summary.achieved_per_s,
                crate::live::time(summary.latency_us.p99)
            );
            record.check_truth()?;
            outcome.check_answers()?;
            if let Some(failed) = outcome.failed {
                return Err(failed);
            }
            records.push(record);
        }
        Ok(records)
    }

    fn judge(&self, before: &[Record], after: &[Record]) -> anyhow::Result<bool> {
        check_alike(before, after)?;
        for runs in [before, after] {
            ensure!(
                (RUNS_MIN..=RUNS_MAX).contains(&runs.len()),
                "{} run(s) on one side tell nothing from noise: {RUNS_MIN} to {RUNS_MAX} are needed",
                runs.len()
            );
        }
        let machines = [&before[0].summary.machine, &after[0].summary.machine];
        if machines[0] != machines[1] {
            eprintln!(
                "jeton-load: the two sides are of different machines: {} and {}",
                machines[0], machines[1]
            );
        }
        if before.iter().chain(after).any(|run| run.detail.ran_dry) {
            eprintln!(
                "jeton-load: in some runs no token was left to revoke, and they validated instead (keys.revocable)"
            );
        }
        let compared = compare(before, after, self.threshold);
        if self.json {
            tell!("{}", serde_json::to_string(&compared)?)?;
        } else {
            compared.iter().try_for_each(print)?;
        }
        let has_regressed = compared.iter().any(|figure| figure.change == Change::Regressed);
        Ok(!(has_regressed && self.fail_on_regression))
    }
}

fn print(figure: &Compared) -> anyhow::Result<()> {
    let word = match figure.change {
        Change::Improved => "improved",
        Change::Regressed => "regressed",
        Change::Noise => "noise",
        Change::Unjudged => "not judged",
    };
    tell!(
        "{:<24} {:>14.0} {:>14.0} {:>+8.1} %   {word:<10} (p = {:.3})",
        figure.figure,
        figure.before,
        figure.after,
        figure.percent,
        figure.p
    )
}
