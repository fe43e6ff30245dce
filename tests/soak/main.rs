//! Runs the soak by hand: an hour of steady load on the real server, judged and drawn.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use jeton_tests::parse_duration;
use jeton_tests::soak::{Plan, replot, run};

/// Runs a real server under a steady mixed load, to see that nothing grows but what has to.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Arguments {
    /// How long, such as `90s`, `30m` or `1h`.
    #[arg(long = "for", value_parser = parse_duration, default_value = "1h", value_name = "DURATION")]
    duration: Duration,
    /// Operations started each second.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Tokens issued each second beside that, in waves of ten minutes, that live for less than a minute: memory has to
    /// follow them.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    churn: u32,
    /// Time between two samples.
    #[arg(long, value_parser = parse_duration, default_value = "5s", value_name = "DURATION")]
    every: Duration,
    /// Decides which operations come, and in which order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder for samples.jsonl, soak.svg and the server's data.
    #[arg(long, default_value = "target/soak")]
    out: PathBuf,
    /// Only draw and judge the samples of an earlier run in --out.
    #[arg(long)]
    replot: bool,
}

fn main() -> ExitCode {
    let Arguments { duration, rate, churn, every, seed, out, replot: only_replot } = Arguments::parse();
    let judged = if only_replot {
        replot(&out.join("samples.jsonl"), &out.join("soak.svg"))
    } else {
        run(&Plan { duration, rate, churn, every, seed, out }).map(|report| {
            println!("{} operations", report.operations);
            report.errors.1.iter().for_each(|words| println!("error: {words}"));
            report.judgement
        })
    };
    match judged {
        Ok(judgement) => {
            println!("{judgement}");
            if judgement.is_flat() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(words) => {
            eprintln!("{words}");
            ExitCode::FAILURE
        }
    }
}
