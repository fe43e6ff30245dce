//! Damages a small data directory in every way, by hand and for long.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use jeton_tests::damage::{
    Change, Failure, Image, Judges, Repaired, Report, WORKER, Workbench, all, gate, judge_by, repair, work,
};

/// Makes one change after another to a copy of a data directory and sees what `jeton log verify` says.
#[derive(Debug, Parser)]
#[command(name = "damage")]
struct Arguments {
    /// Every bit of every byte of every file of the smallest data directory, and every length, instead of the gate's.
    #[arg(long)]
    all: bool,
    /// What positions and bits follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many positions by seed, beside headers and cuts.
    #[arg(long, default_value_t = 2_000, conflicts_with = "all")]
    seeded: usize,
    /// Only every so many-th of the changes.
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    step: NonZeroUsize,
    /// Have every so many-th of what is refused repaired.
    #[arg(long, default_value_t = 0)]
    repair_step: usize,
    /// End after so many minutes.
    #[arg(long, default_value_t = u64::MAX / 60)]
    minutes: u64,
    /// Have all judged by the real binary, not by workers.
    #[arg(long)]
    real_binary: bool,
    /// How many at a time; as many as there are cores if it is not said.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Beside workers the real binary judges every so many-th change, and whatever they take for a failure.
    #[arg(long, default_value_t = 1_000)]
    sample: usize,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| first == WORKER) {
        return work().map_or_else(
            |error| {
                eprintln!("{error}");
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    let arguments = Arguments::parse();
    match images(&arguments) {
        Ok((image, foreign)) => run(&arguments, &image, &foreign),
        Err(Failure(words)) => {
            eprintln!("{words}");
            ExitCode::FAILURE
        }
    }
}

/// The directory that is damaged, and another of its kind.
#[tokio::main]
async fn images(arguments: &Arguments) -> Result<(Image, Image), Failure> {
    let began = Instant::now();
    let (image, foreign) = match arguments.all {
        true => (Image::make_small()?, Image::make_small()?),
        false => (Image::make().await?, Image::make().await?),
    };
    println!("{image:?}, made in {:.1} s", began.elapsed().as_secs_f64());
    Ok((image, foreign))
}

fn run(arguments: &Arguments, image: &Image, foreign: &Image) -> ExitCode {
    let changes = match arguments.all {
        true => all(image),
        false => gate(image, arguments.seed, arguments.seeded),
    };
    let changes: Vec<Change> = changes.into_iter().step_by(arguments.step.get()).collect();
    println!("{} changes", changes.len());
    let program = std::env::current_exe().expect("it has a path");
    let judges = match arguments.real_binary {
        true => Judges::RealBinary,
        false => Judges::Workers { program: &program, sample: arguments.sample.max(1) },
    };
    let threads = arguments.threads.map(NonZeroUsize::get);
    let threads = threads.or_else(|| std::thread::available_parallelism().ok().map(NonZeroUsize::get));
    let limit = Duration::from_secs(arguments.minutes * 60);
    let began = Instant::now();
    let mut report =
        judge_by(judges, threads.unwrap_or(1), (image, foreign), &changes, || began.elapsed() >= limit);
    let repaired = match arguments.repair_step {
        0 => String::new(),
        step => repair_some(&mut report, step, image, foreign),
    };
    println!("{report}{repaired}");
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} of {} changes, {} of them by workers and by the real binary, seed {}, {seconds:.0} s",
        report.changes(),
        changes.len(),
        report.sampled,
        arguments.seed
    );
    if report.failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("the directory that was damaged is kept: {}", image.keep().display());
    ExitCode::FAILURE
}

/// Has every so many-th refused change repaired.
fn repair_some(report: &mut Report, step: usize, image: &Image, foreign: &Image) -> String {
    let (mut all, mut some, mut nothing) = (0, 0, 0);
    let of_log = report.refused.iter().filter(|change| change.is_of_log());
    for change in of_log.step_by(step).cloned().collect::<Vec<_>>() {
        match repair(&Workbench::new(image, foreign), &change) {
            Ok(Repaired::Kept(events)) if events == image.events => all += 1,
            Ok(Repaired::Kept(_)) => some += 1,
            Ok(Repaired::Nothing) => nothing += 1,
            Err(failure) => report.failures.push(format!("repair after {change}: {}", failure.0)),
        }
    }
    format!("repaired: {all} kept everything, {some} a part, {nothing} had nothing left\n")
}
