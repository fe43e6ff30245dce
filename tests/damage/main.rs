//! Damages a small data directory in every way, by hand and for long.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use jeton_tests::damage::{Image, Repaired, Workbench, all, gate, judge, repair};

/// Makes one change after another to a copy of a data directory and sees what `jeton log verify` says.
#[derive(Debug, Parser)]
#[command(name = "damage")]
struct Arguments {
    /// Every byte of every file of the log, instead of the gate's.
    #[arg(long)]
    all: bool,
    /// What positions and bits follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many positions by seed, beside headers and cuts.
    #[arg(long, default_value_t = 2_000, conflicts_with = "all")]
    seeded: usize,
    /// Only every so many-th of the changes.
    #[arg(long, default_value_t = 1)]
    step: usize,
    /// Have every so many-th of what is refused repaired.
    #[arg(long, default_value_t = 0)]
    repair_step: usize,
    /// End after so many minutes.
    #[arg(long, default_value_t = u64::MAX / 60)]
    minutes: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let (image, foreign) = match (Image::make().await, Image::make().await) {
        (Ok(image), Ok(foreign)) => (image, foreign),
        (one, other) => {
            eprintln!("{one:?} {other:?}");
            return ExitCode::FAILURE;
        }
    };
    println!("{image:?}, made in {:.1} s", began.elapsed().as_secs_f64());
    let mut changes = match arguments.all {
        true => all(&image, arguments.seed),
        false => gate(&image, arguments.seed, arguments.seeded),
    };
    let mut at = 0;
    changes.retain(|_| {
        at += 1;
        at % arguments.step.max(1) == 0
    });
    let limit = Duration::from_secs(arguments.minutes * 60);
    let began = Instant::now();
    let mut report = judge(&image, &foreign, &changes, || began.elapsed() >= limit);
    let chosen = match arguments.repair_step {
        0 => Vec::new(),
        step => report.refused.iter().step_by(step).cloned().collect(),
    };
    let (mut all, mut some, mut nothing) = (0, 0, 0);
    for change in chosen {
        match repair(&Workbench::new(&image, &foreign), &change) {
            Ok(Repaired::Kept(events)) if events == image.events => all += 1,
            Ok(Repaired::Kept(_)) => some += 1,
            Ok(Repaired::Nothing) => nothing += 1,
            Err(failure) => report.failures.push(format!("repair after {change}: {}", failure.0)),
        }
    }
    println!("{report}");
    println!("repaired: {all} kept everything, {some} a part, {nothing} had nothing left");
    let seconds = began.elapsed().as_secs_f64();
    println!("{} of {} changes, seed {}, {seconds:.0} s", report.changes(), changes.len(), arguments.seed);
    if report.failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("the directory that was damaged is kept: {}", image.keep().display());
    ExitCode::FAILURE
}
