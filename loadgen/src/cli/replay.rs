//! `jeton-load replay`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};

use super::flags::Load;
use super::run::{Output, run_and_tell};
use crate::fill::revoked_before;
use crate::layout::GROUP_TOKENS;
use crate::run::prepare;
use crate::target::Server;
use crate::trace::Trace;
use crate::workload::kind::Kind;
use crate::workload::{Arrivals, RATE_MAX, SPAN_MAX, Schedule, Span, Workload};

/// What is answered after the end of a run is not achieved: the last request, too, is to have time for its answer.
const ANSWER_TIME: Duration = Duration::from_millis(100);

/// Flags of `replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// JSON Lines: of `jeton log show --json`, or with at_ms, kind and tokens.
    trace: PathBuf,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
    /// So many times as fast.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
}

impl Replay {
    /// Asks again; returns whether every reply was right.
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        ensure!((0.001..=1_000_000.0).contains(&self.speed), "--speed is 0.001 to 1000000");
        let of_the_trace =
            ["--rate", "--ramp", "--steps", "--closed", "--think", "--arrivals", "--mix", "--batch"];
        self.load.refuse(&of_the_trace, "a replay takes kinds, batches and times from its trace")?;
        self.load.refuse(&["--issue-batch", "--warm-up"], "a replay has neither but what is in its trace")?;
        let mut trace = Trace::read(&self.trace)?;
        trace.speed_up(self.speed);
        let workload = self.workload(&trace)?;
        let folder = self.output.folder()?;
        let server = Server::new(&self.load.target)?;
        let prepared = prepare(&server, &workload, self.load.token_file.clone())?.replaying(trace)?;
        run_and_tell(prepared, &server, &workload, &self.output, folder.as_ref())
    }

    /// The workload that a trace amounts to: as long, of the same mix, with enough tokens to revoke.
    fn workload(&self, trace: &Trace) -> anyhow::Result<Workload> {
        let mut workload = self.load.changed(Workload::default())?;
        let length = trace.length() + ANSWER_TIME;
        if length > SPAN_MAX.0 && self.load.duration.is_none() {
            bail!(
                "the trace is {:.0} s long, and a run {} at most: play it faster, --speed {:.0}, or its beginning, --duration",
                length.as_secs_f64(),
                SPAN_MAX,
                (self.speed * length.as_secs_f64() / SPAN_MAX.0.as_secs_f64()).ceil()
            );
        }
        let rate = (trace.requests.len() as f64 / trace.length().as_secs_f64().max(1e-3))
            .clamp(1.0, f64::from(RATE_MAX));
        workload.about = format!("a replay of {}", self.trace.display());
        workload.duration = self.load.duration.unwrap_or(Span(length)).max(Span::from_millis(100));
        (workload.schedule, workload.warm_up) = (Schedule::Fixed(rate as u32), Span::from_secs(0));
        (workload.mix, workload.think) = (trace.mix(), Span::from_secs(0));
        // Its own times, one after another: not times by chance around them.
        workload.arrivals = Arrivals::Constant;
        workload.batch = trace.tokens_max(Kind::Validate);
        workload.issue_batch = trace.tokens_max(Kind::Issue);
        let (victims, groups) = (trace.count(Kind::Revoke), trace.count(Kind::RevokeSubject));
        let members = groups * GROUP_TOKENS as usize;
        let asks_revoked = workload.validate.revoked > 0.0;
        let both = if (victims > 0 || asks_revoked) && members > 0 { 2 } else { 1 };
        let tokens = workload.keys.tokens as usize;
        // Some are revoked before the trace begins: as many are to be left as it revokes.
        let is_enough = |set_aside: &usize| {
            let before = if asks_revoked { revoked_before(*set_aside as u32) as usize } else { 0 };
            set_aside - before >= victims
        };
        let set_aside = (victims..).find(is_enough).unwrap_or(victims);
        let needed = (set_aside.max(members) * 100).div_ceil(tokens).max(1) * both;
        if needed > 90 {
            bail!(
                "the trace revokes {} tokens: it needs a key space of more than {tokens} (--tokens)",
                victims + members
            );
        }
        workload.keys.revocable = workload.keys.revocable.max(needed as u32);
        workload.check()?;
        Ok(workload)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        replay: Replay,
    }

    #[test]
    fn a_trace_keeps_its_times_whatever_the_named_workload_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace.jsonl");
        let lines = "{\"at_ms\":0,\"kind\":\"validate\",\"tokens\":7}\n{\"at_ms\":300,\"kind\":\"issue\"}\n";
        std::fs::write(&path, lines).unwrap();
        let trace = Trace::read(&path).unwrap();
        let replay = Only::parse_from(["x", path.to_str().unwrap(), "-w", "gateway"]).replay;
        assert_eq!(Workload::find("gateway").unwrap().arrivals, Arrivals::Poisson);
        let workload = replay.workload(&trace).unwrap();
        assert_eq!((workload.arrivals, workload.batch), (Arrivals::Constant, 7));
        assert_eq!((workload.mix.validate, workload.mix.issue), (50.0, 50.0));
    }
}
