//! `jeton-load saturate`.

use anyhow::ensure;

use super::flags::Load;
use super::run::Output;
use crate::live::Silent;
use crate::machine::Machine;
use crate::report::Record;
use crate::run::{Prepared, prepare};
use crate::saturate::{Saturation, Search, Slo, Step, Wanted, is_generator_first, page};
use crate::target::Server;
use crate::workload::{RATE_MAX, Schedule, Span, WhenFull, Workload};

/// How long a step is, if nothing is said; the confirmation is twice as long.
const STEP: Span = Span::from_secs(5);

/// Flags of `saturate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Saturate {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
    /// What has to hold, as often as needed: p99=2ms. Beside that everything offered has to be answered.
    #[arg(long, required = true)]
    slo: Vec<Slo>,
    /// The rate to begin with.
    #[arg(long, default_value_t = 1_000)]
    from: u32,
    /// The highest rate to try.
    #[arg(long, default_value_t = RATE_MAX)]
    up_to: u32,
    /// How near to the limit the answer is to be, in percent.
    #[arg(long, default_value_t = 5)]
    within: u32,
}

impl Saturate {
    /// Searches; returns whether a rate was found.
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        ensure!((1..=self.up_to).contains(&self.from), "--from is 1 to --up-to");
        ensure!(self.up_to <= RATE_MAX, "--up-to is {RATE_MAX} at most");
        ensure!((1..=50).contains(&self.within), "--within is 1 to 50 percent");
        let paces = ["--rate", "--ramp", "--steps", "--closed", "--think", "--when-full"];
        self.load.refuse(&paces, "saturate chooses the rates itself, --from and --up-to")?;
        let mut workload = self.load.changed(Workload::default())?;
        // A step is a fixed rate, and what waits at its end has missed the goal.
        (workload.schedule, workload.when_full) = (Schedule::Fixed(self.from), WhenFull::Wait);
        workload.duration = self.load.duration.unwrap_or(STEP);
        workload.check()?;
        let folder = self.output.folder()?;
        let server = Server::new(&self.load.target)?;
        let prepared = prepare(&server, &workload, self.load.token_file.clone())?;
        let mut steps: Vec<Step> = Vec::new();
        let found = self.search(prepared, &server, &workload, &mut steps);
        let rate = *found.as_ref().unwrap_or(&None);
        let saturation = Saturation {
            tool: format!("jeton-load {}", env!("CARGO_PKG_VERSION")),
            target: server.to_string(),
            slos: self.slo.iter().map(ToString::to_string).collect(),
            tokens_per_s: steps.last().filter(|_| rate.is_some()).map(|step| step.tokens_per_s),
            rate,
            is_generator_the_limit: is_generator_first(&steps),
            failed: found.as_ref().err().map(|error| format!("{error:#}")),
            steps,
            workload,
            machine: Machine::this(),
        };
        // Files first: standard output may be a full disk.
        if let Some(folder) = folder {
            folder.write("saturation.json", &serde_json::to_vec_pretty(&saturation)?)?;
            folder.write("saturation.html", page(&saturation).as_bytes())?;
            eprintln!("jeton-load: the evidence is in {}", folder.path().display());
        }
        self.tell(&saturation)?;
        // A server that died: what was found until then is told, and then that.
        found.map(|rate| rate.is_some())
    }

    /// Searches for the rate; what each step showed is in `steps`, also if one fails.
    fn search(
        &self,
        mut prepared: Prepared,
        server: &Server,
        workload: &Workload,
        steps: &mut Vec<Step>,
    ) -> anyhow::Result<Option<u32>> {
        let mut search = Search::new(self.from, self.up_to, f64::from(self.within) / 100.0);
        loop {
            let (rate, is_confirmation) = match search.wanted() {
                Wanted::Found(rate) => return Ok(rate),
                Wanted::Try(rate) => (rate, false),
                Wanted::Confirm(rate) => (rate, true),
            };
            let (step, back) = self.step(prepared, server, workload, rate, is_confirmation)?;
            prepared = back;
            if !self.output.quiet {
                eprintln!("{}", step.line());
            }
            search.tell(step.holds(), !step.is_generator_the_limit);
            steps.push(step);
        }
    }

    fn step(
        &self,
        prepared: Prepared,
        server: &Server,
        workload: &Workload,
        rate: u32,
        is_confirmation: bool,
    ) -> anyhow::Result<(Step, Prepared)> {
        let mut workload = Workload { schedule: Schedule::Fixed(rate), ..workload.clone() };
        if is_confirmation {
            workload.duration.0 *= 2;
        }
        let mut prepared = prepared.with(workload.clone())?;
        let outcome = prepared.run(server, &mut Silent)?;
        let record = Record::new(&workload, server.to_string(), None, &outcome);
        record.check_truth()?;
        if let Some(failed) = outcome.failed {
            return Err(failed.context(format!("at {rate} requests/s")));
        }
        Ok((Step::new(rate, &record, &self.slo, is_confirmation), prepared))
    }

    fn tell(&self, saturation: &Saturation) -> anyhow::Result<()> {
        let goals = saturation.slos.join(" and ");
        if self.output.json {
            tell!("{}", serde_json::to_string(saturation)?)?;
        } else {
            match (saturation.rate, saturation.tokens_per_s) {
                (Some(rate), Some(tokens)) => {
                    tell!(
                        "{rate} requests/s ({tokens:.0} tokens/s) is the highest rate at which {goals} held"
                    )?;
                }
                _ if saturation.failed.is_some() => {
                    tell!("the search ended early: no rate was found at which {goals} held")?;
                }
                _ => tell!("no rate was found at which {goals} held")?,
            }
        }
        if saturation.is_generator_the_limit {
            eprintln!(
                "jeton-load: the generator gave out first: the server can do more; add --workers, cores or machines"
            );
        }
        Ok(())
    }
}
