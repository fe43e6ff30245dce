//! The command line of the load generator.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::target::Target;

/// Load for a Jeton server, with every reply checked.
#[derive(Debug, Parser)]
#[command(name = "jeton-load", version, about, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fill a key space, then validate, issue and revoke in a closed loop, or at a fixed rate, and report.
    Run(Run),
}

/// Flags of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Connections.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) connections: u16,
    /// Tokens in a validate.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) batch: u16,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) in_flight: u16,
    /// Requests a second, whatever becomes of them: latency counts from when each was due. Those due while as many are
    /// in flight as may be are not sent, and counted.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,
    /// Tokens in the key space.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=50_000_000))]
    pub(crate) tokens: u32,
    /// How long to measure.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long to run before that.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub(crate) warm_up: Duration,
    /// Percent of requests of each kind.
    #[arg(long, default_value = "validate=97,issue=2,revoke=1", value_parser = Mix::parse)]
    pub(crate) mix: Mix,
    /// Tokens in an issue.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) issue_batch: u16,
    /// The server's process, to measure its CPU time and memory; that of the data directory if not given.
    #[arg(long)]
    pub(crate) server_pid: Option<u32>,
    /// Save the tokens here once they are issued, 32 bytes each by position, readable by you alone.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What share of requests is of which kind, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    pub(crate) validate: u32,
    pub(crate) issue: u32,
    pub(crate) revoke: u32,
}

impl Mix {
    fn parse(text: &str) -> Result<Self, String> {
        let mut mix = Self { validate: 0, issue: 0, revoke: 0 };
        for part in text.split(',') {
            let (kind, percent) =
                part.split_once('=').ok_or("a mix is written validate=97,issue=2,revoke=1")?;
            let percent: u32 = percent.parse().map_err(|_| format!("'{percent}' is no percentage"))?;
            match kind {
                "validate" => mix.validate = percent,
                "issue" => mix.issue = percent,
                "revoke" => mix.revoke = percent,
                _ => return Err(format!("'{kind}' is none of validate, issue, revoke")),
            }
        }
        let sum = u64::from(mix.validate) + u64::from(mix.issue) + u64::from(mix.revoke);
        if sum == 100 { Ok(mix) } else { Err(format!("the mix adds up to {sum} percent")) }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit_s) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: u64 = number.parse().map_err(|_| "a duration is written 10s or 2m".to_owned())?;
    let seconds = number.saturating_mul(unit_s);
    if seconds <= 3_600 { Ok(Duration::from_secs(seconds)) } else { Err("at most an hour".to_owned()) }
}

impl Arguments {
    /// Carries out what was typed; returns whether every reply was right.
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let Command::Run(run) = self.command;
        crate::run::run(&run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_adds_up_to_a_hundred() {
        assert_eq!(Mix::parse("validate=97,issue=2,revoke=1"), Ok(Mix { validate: 97, issue: 2, revoke: 1 }));
        assert_eq!(Mix::parse("issue=100"), Ok(Mix { validate: 0, issue: 100, revoke: 0 }));
        for text in ["", "validate=50", "validate=x", "reads=100", "validate=99,issue=2"] {
            assert!(Mix::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_seconds() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("61m").is_err() && duration("99999").is_err() && duration("1h").is_err());
    }
}
