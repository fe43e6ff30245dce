//! Flags that say what to ask: a workload, and changes to it.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::ensure;

use crate::target::Target;
use crate::workload::{Arrivals, Asks, HotSpot, Mix, Pick, Ramp, Schedule, Span, WhenFull, Workload};

/// What to ask whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) target: Target,
    /// A named workload (see `jeton-load workloads`; without this, default) or a file that ends in .toml; flags change it.
    #[arg(long, short, value_name = "NAME|FILE")]
    workload: Option<String>,
    /// Connections.
    #[arg(long)]
    connections: Option<u16>,
    /// Streams of each connection.
    #[arg(long)]
    streams: Option<u16>,
    /// Requests in flight on each connection at most.
    #[arg(long)]
    in_flight: Option<u16>,
    /// Tokens in a validate.
    #[arg(long)]
    batch: Option<u16>,
    /// Tokens in an issue.
    #[arg(long)]
    issue_batch: Option<u16>,
    /// Threads that ask.
    #[arg(long)]
    workers: Option<u16>,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// How long to measure.
    #[arg(long)]
    pub(crate) duration: Option<Span>,
    /// How long to run before that.
    #[arg(long)]
    warm_up: Option<Span>,
    /// Requests after which a connection is closed and another opened.
    #[arg(long)]
    churn: Option<u32>,
    /// Percent of requests of each kind: validate, issue, revoke, revoke-subject, consume, renew.
    #[arg(long)]
    mix: Option<Mix>,
    /// Percent of the tokens of validates: live, unknown, wrong-secret, revoked, expired, granted, forbidden.
    #[arg(long)]
    asks: Option<Asks>,
    /// Tokens in the key space.
    #[arg(long)]
    tokens: Option<u32>,
    /// Subjects that they belong to.
    #[arg(long)]
    subjects: Option<u32>,
    /// Which tokens are asked about: uniform, zipf=1.0, or hot-spot=5/80 (5 % of the tokens, 80 % of the asks).
    #[arg(long, value_parser = pick)]
    pick: Option<Pick>,
    /// Percent of the tokens that are set aside to be revoked.
    #[arg(long)]
    revocable: Option<u32>,
    /// Makes the same choices each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the tokens here for later runs, 32 bytes each by position, readable by you alone.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// When requests are due.
#[derive(Debug, clap::Args)]
#[group(id = "pace")]
pub(crate) struct Pace {
    /// Requests a second, whatever becomes of them: latency counts from when each was due.
    #[arg(long, group = "schedule")]
    rate: Option<u32>,
    /// From one rate to another, evenly: 1000..50000.
    #[arg(long, group = "schedule", value_parser = ramp)]
    ramp: Option<Ramp>,
    /// One rate after another, each for its share of the run: 1000,2000,4000.
    #[arg(long, group = "schedule", value_delimiter = ',')]
    steps: Option<Vec<u32>>,
    /// The next request as soon as the last one was answered: how much a server can do, not how fast it is.
    #[arg(long, group = "schedule")]
    pub(crate) closed: bool,
    /// In a closed loop: from an answer to the next request.
    #[arg(long)]
    think: Option<Span>,
    /// How requests of an open loop follow one another.
    #[arg(long)]
    arrivals: Option<Arrivals>,
    /// What becomes of a request that is due while as many are in flight as may be.
    #[arg(long)]
    when_full: Option<WhenFull>,
}

fn ramp(text: &str) -> Result<Ramp, String> {
    let parse = || {
        let (from, to) = text.split_once("..")?;
        Some(Ramp { from: from.parse().ok()?, to: to.parse().ok()? })
    };
    parse().ok_or_else(|| "a ramp is written 1000..50000".to_owned())
}

fn pick(text: &str) -> Result<Pick, String> {
    let parse = || match text.split_once('=') {
        None => (text == "uniform").then_some(Pick::Uniform),
        Some(("zipf", power)) => Some(Pick::Zipf(power.parse().ok()?)),
        Some(("hot-spot", spot)) => {
            let (tokens, asks) = spot.split_once('/')?;
            Some(Pick::HotSpot(HotSpot { tokens: tokens.parse().ok()?, asks: asks.parse().ok()? }))
        }
        Some(_) => None,
    };
    parse().ok_or_else(|| "this is written uniform, zipf=1.0 or hot-spot=5/80".to_owned())
}

fn set<T: Clone>(to: &mut T, from: &Option<T>) {
    if let Some(from) = from {
        *to = from.clone();
    }
}

impl Load {
    /// The workload, with all flags applied and checked.
    pub(crate) fn workload(&self) -> anyhow::Result<Workload> {
        let workload = self.changed(Workload::default())?;
        if workload.is_closed() {
            self.refuse(&["--arrivals", "--when-full"], "a closed loop asks as soon as it is answered")?;
        }
        Ok(workload)
    }

    /// Refuses those of these flags that were given: beside what is said of the rest they would change nothing.
    pub(crate) fn refuse(&self, flags: &[&str], why: &str) -> anyhow::Result<()> {
        let pace = &self.pace;
        let is_given = |flag: &str| match flag {
            "--rate" => pace.rate.is_some(),
            "--ramp" => pace.ramp.is_some(),
            "--steps" => pace.steps.is_some(),
            "--closed" => pace.closed,
            "--think" => pace.think.is_some(),
            "--arrivals" => pace.arrivals.is_some(),
            "--when-full" => pace.when_full.is_some(),
            "--mix" => self.mix.is_some(),
            "--batch" => self.batch.is_some(),
            "--issue-batch" => self.issue_batch.is_some(),
            "--warm-up" => self.warm_up.is_some(),
            other => unreachable!("{other} is never refused"),
        };
        let given: Vec<&str> = flags.iter().copied().filter(|flag| is_given(flag)).collect();
        ensure!(given.is_empty(), "{why}: leave {} out", given.join(" and "));
        Ok(())
    }

    /// A workload with all flags applied and checked; another is in its place if the flags name one.
    pub(crate) fn changed(&self, workload: Workload) -> anyhow::Result<Workload> {
        let mut workload = self.workload.as_ref().map_or(Ok(workload), |name| Workload::find(name))?;
        set(&mut workload.connections, &self.connections);
        set(&mut workload.streams, &self.streams);
        set(&mut workload.in_flight, &self.in_flight);
        set(&mut workload.batch, &self.batch);
        set(&mut workload.issue_batch, &self.issue_batch);
        set(&mut workload.workers, &self.workers);
        set(&mut workload.duration, &self.duration);
        set(&mut workload.warm_up, &self.warm_up);
        set(&mut workload.churn, &self.churn);
        set(&mut workload.mix, &self.mix);
        set(&mut workload.validate, &self.asks);
        set(&mut workload.keys.tokens, &self.tokens);
        set(&mut workload.keys.subjects, &self.subjects);
        set(&mut workload.keys.pick, &self.pick);
        set(&mut workload.keys.revocable, &self.revocable);
        set(&mut workload.seed, &self.seed);
        // A key space that was made small on the command line has fewer subjects than the workload says.
        if self.subjects.is_none() {
            workload.keys.subjects = workload.keys.subjects.min(workload.keys.tokens);
        }
        self.pace.apply(&mut workload);
        workload.check()?;
        Ok(workload)
    }
}

impl Pace {
    fn apply(&self, workload: &mut Workload) {
        let schedule = self.rate.map(Schedule::Fixed);
        let schedule = schedule.or(self.ramp.map(Schedule::Ramp));
        let schedule = schedule.or(self.steps.clone().map(Schedule::Steps));
        set(&mut workload.schedule, &schedule.or(self.closed.then_some(Schedule::Closed)));
        set(&mut workload.think, &self.think);
        set(&mut workload.arrivals, &self.arrivals);
        set(&mut workload.when_full, &self.when_full);
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self::Fixed).map_err(|_| format!("'{text}' is no rate"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        load: Load,
    }

    fn read(flags: &[&str]) -> Result<Workload, String> {
        let only = Only::try_parse_from([&["x"], flags].concat()).map_err(|error| error.to_string())?;
        only.load.workload().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_change_a_workload() {
        assert_eq!(read(&[]).unwrap(), Workload::default());
        let workload =
            read(&["-w", "gateway", "--ramp", "5..50", "--tokens", "5000", "--pick", "zipf=2"]).unwrap();
        assert_eq!(workload.schedule, Schedule::Ramp(Ramp { from: 5, to: 50 }));
        assert_eq!((workload.batch, workload.keys.tokens, workload.keys.pick), (1, 5_000, Pick::Zipf(2.0)));
        assert!(read(&["--closed", "--think", "5ms"]).unwrap().is_closed());
        let workload = read(&["--closed", "--think", "5ms", "--steps", "1,2"]);
        assert!(workload.unwrap_err().contains("cannot be used with"));
        assert_eq!(read(&["--steps", "10,20"]).unwrap().schedule, Schedule::Steps(vec![10, 20]));
    }

    #[test]
    fn nonsense_is_refused() {
        for flags in [
            ["--ramp", "5"],
            ["--pick", "hot-spot=5"],
            ["--mix", "validate=50"],
            ["--mix", "validate=50,validate=100"],
            ["--asks", "live=100,live=100"],
            ["--duration", "forever"],
            ["--connections", "0"],
            ["--rate", "0"],
            ["-w", "rush"],
        ] {
            assert!(read(&flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn flags_that_would_change_nothing_are_refused() {
        let said = read(&["--closed", "--arrivals", "poisson", "--when-full", "drop"]).unwrap_err();
        assert!(said.ends_with("as soon as it is answered: leave --arrivals and --when-full out"), "{said}");
        let only = Only::try_parse_from(["x", "--rate", "5"]).unwrap();
        assert!(
            only.load.refuse(&["--closed", "--rate"], "so").unwrap_err().to_string()
                == "so: leave --rate out"
        );
        assert!(only.load.refuse(&["--closed", "--mix"], "so").is_ok());
    }
}
