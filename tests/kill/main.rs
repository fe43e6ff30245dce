//! Kills servers by hand and for long.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use jeton_tests::kill::{Plan, kill};

/// Kills a server under load, in its start and in its stop, and checks everything it acknowledged after each restart.
#[derive(Debug, Parser)]
#[command(name = "kill")]
struct Arguments {
    /// How many kills under load or in a stop.
    #[arg(long, default_value_t = 2_000)]
    rounds: u64,
    /// What the schedule follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A new log after so many rounds.
    #[arg(long, default_value_t = 100)]
    rounds_per_log: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { rounds, seed, rounds_per_log } = Arguments::parse();
    let began = Instant::now();
    let mut total = None;
    match kill(Plan { seed, rounds, rounds_per_log }).await {
        Ok(report) => total = Some(report),
        Err(what) => eprintln!("{what}"),
    }
    println!("seed {seed}: {total:?}, {:.0} s", began.elapsed().as_secs_f64());
    if total.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
