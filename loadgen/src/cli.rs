//! The command line of the load generator.

mod compare;
mod flags;
mod propagation;
mod replay;
mod report;
mod run;
mod saturate;

use clap::{Parser, Subcommand};

use crate::workload::library;

/// Load for token servers, with every reply checked.
#[derive(Debug, Parser)]
#[command(name = "jeton-load", version, about, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fill a key space, ask at a rate that does not depend on the answers (or in a closed loop), and report.
    Run(run::Run),
    /// Find the highest rate at which a goal holds, with the evidence.
    Saturate(saturate::Saturate),
    /// Hold runs against a baseline: improved, regressed or noise. Makes the baseline if there is none.
    Compare(compare::Compare),
    /// Measure how long after an acknowledged revoke anybody is still told valid.
    Propagation(propagation::Propagation),
    /// Ask again what was asked before: the mix and the times of an exported log or a trace, over tokens of its own.
    Replay(replay::Replay),
    /// Make one page of runs that were measured: plots and words for whoever was not there.
    Report(report::Report),
    /// List the named workloads, or print one as a file to start from.
    Workloads {
        /// Print this one.
        name: Option<String>,
    },
}

impl Arguments {
    /// Carries out what was typed; returns whether all was well.
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Saturate(saturate) => saturate.run(),
            Command::Compare(compare) => compare.run(),
            Command::Propagation(propagation) => propagation.run(),
            Command::Replay(replay) => replay.run(),
            Command::Report(report) => report.run(),
            Command::Workloads { name: None } => {
                for (name, workload, _) in library::all() {
                    tell!("{name:<20} {}", workload.about)?;
                }
                Ok(true)
            }
            Command::Workloads { name: Some(name) } => {
                tell!("{}", toml::to_string(&library::named(&name)?)?.trim_end())?;
                Ok(true)
            }
        }
    }
}
