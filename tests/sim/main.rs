//! Runs seeds of the simulator by hand: one again, a range, or as many as fit into some time.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use jeton_tests::parse_duration;
use jeton_tests::sim::{MISTAKES, Mistake, Seen, run};

/// The first seed of the long mode: beyond those that the tests run.
const LONG_MODE_FROM: u64 = 1_000_000;

/// Runs the whole of Jeton on virtual time, with a network, a disk and a clock that misbehave as a seed says.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    /// The seed to run, and to show what it came to.
    #[arg(long, conflicts_with_all = ["seeds", "duration"])]
    seed: Option<u64>,
    /// A range of seeds, `FROM..TO`.
    #[arg(long, value_parser = range, conflicts_with = "duration")]
    seeds: Option<(u64, u64)>,
    /// Run new seeds for so long, such as `90s`, `30m` or `8h`.
    #[arg(long = "for", value_parser = parse_duration, id = "duration", value_name = "DURATION")]
    duration: Option<Duration>,
    /// Make a deliberate mistake, to see it found.
    #[arg(long, value_parser = mistake)]
    mistake: Option<Mistake>,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("a range is written FROM..TO")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text} is no seed"));
    Ok((number(from)?, number(to)?))
}

fn mistake(text: &str) -> Result<Mistake, String> {
    let names = || MISTAKES.map(Mistake::name).join(", ");
    Mistake::named(text).ok_or_else(|| format!("the mistakes are {}", names()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (from, to) = match (arguments.seed, arguments.seeds, arguments.duration) {
        (Some(seed), ..) => return one(seed, arguments.mistake),
        (_, Some(range), _) => range,
        (_, _, Some(_)) => (LONG_MODE_FROM, u64::MAX),
        _ => (0, 2_000),
    };
    many(from, to, arguments.duration, arguments.mistake)
}

fn one(seed: u64, mistake: Option<Mistake>) -> ExitCode {
    match run(seed, mistake) {
        Ok(report) => {
            println!("seed {seed}: {report}");
            report.seen.iter().for_each(|(situation, times)| println!("{times:>8}  {situation}"));
            ExitCode::SUCCESS
        }
        Err(broken) => {
            eprintln!("{broken}");
            ExitCode::FAILURE
        }
    }
}

/// Seeds on every core, until the range, the time or the promise ends.
fn many(from: u64, to: u64, limit: Option<Duration>, mistake: Option<Mistake>) -> ExitCode {
    let began = Instant::now();
    let (next, is_broken) = (AtomicU64::new(from), AtomicBool::new(false));
    let (seeds, steps) = (AtomicU64::new(0), AtomicU64::new(0));
    let seen = Mutex::new(Seen::default());
    let is_over = || is_broken.load(Relaxed) || limit.is_some_and(|limit| began.elapsed() >= limit);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !is_over() {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= to {
                        break;
                    }
                    match run(seed, mistake) {
                        Ok(report) => {
                            seeds.fetch_add(1, Relaxed);
                            steps.fetch_add(report.steps, Relaxed);
                            seen.lock().expect("nobody panics with it").add(&report.seen);
                        }
                        Err(broken) => {
                            is_broken.store(true, Relaxed);
                            eprintln!("{broken}");
                        }
                    }
                }
            });
        }
    });
    let seen = seen.into_inner().expect("nobody panics with it");
    seen.iter().for_each(|(situation, times)| println!("{times:>10}  {situation}"));
    let (seeds, steps) = (seeds.into_inner(), steps.into_inner());
    println!("{seeds} seeds from {from} on, {steps} steps, {:.1} s", began.elapsed().as_secs_f64());
    if is_broken.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
