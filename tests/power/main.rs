//! Cuts the power of a log's life at every sync, by hand: one seed again, or many.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use jeton_tests::power::{
    Campaign, Lie, Report, Script, SnapshotReport, cut_snapshots, drive, drive_snapshots, write_snapshots,
};

/// Records what the real store does to its files, and opens what a power cut may leave of them at each sync.
#[derive(Debug, Parser)]
#[command(name = "power", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    driven: Option<Driven>,
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// A range of seeds, `FROM..TO`.
    #[arg(long, value_parser = range, default_value = "0..1")]
    seeds: (u64, u64),
    /// Commits of each life.
    #[arg(long, default_value_t = 200)]
    commits: usize,
    /// How often the process that lives it is killed, and another one goes on.
    #[arg(long, default_value_t = 0)]
    deaths: usize,
    /// Only this sync point of it.
    #[arg(long)]
    point: Option<usize>,
    /// Instead of a log's life, so many snapshots.
    #[arg(long, conflicts_with_all = ["point", "keep", "lie", "deaths"])]
    snapshots: Option<usize>,
    /// Where the trace and images that break a promise are kept.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// What the store is taken to leave out, to see it found.
    #[arg(long, value_parser = lie)]
    lie: Option<Lie>,
}

/// What the process that is recorded does.
#[derive(Debug, Subcommand)]
enum Driven {
    /// Lives a log's life in a directory: started by the other commands, under the shim.
    #[command(hide = true)]
    Drive {
        #[arg(long)]
        seed: Option<u64>,
        #[arg(long, default_value_t = 200)]
        commits: usize,
        root: PathBuf,
    },
    /// Has an engine write snapshots into a directory: started by the other commands, under the shim.
    #[command(hide = true)]
    DriveSnapshots {
        /// Where its log is.
        #[arg(long)]
        log: PathBuf,
        root: PathBuf,
    },
    /// Writes snapshots into a directory: started by the other commands, under the shim.
    #[command(hide = true)]
    WriteSnapshots {
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        snapshots: usize,
        root: PathBuf,
    },
}

impl Driven {
    fn run(self) -> Result<(), String> {
        match self {
            Self::Drive { seed, commits, root } => {
                let script = seed.map_or_else(Script::steps_of_a_store, |seed| Script::life(seed, commits));
                drive(&script, &root)
            }
            Self::DriveSnapshots { log, root } => drive_snapshots(&root, &log),
            Self::WriteSnapshots { seed, snapshots, root } => {
                write_snapshots(seed, snapshots, &root).map_err(|error| error.to_string())
            }
        }
    }
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("a range is written FROM..TO")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text} is no seed"));
    Ok((number(from)?, number(to)?))
}

fn lie(text: &str) -> Result<Lie, String> {
    let lies = [Lie::NoDataSync, Lie::NoDirectorySync, Lie::NoAnchorSync, Lie::NoSyncAtStart];
    let named = lies.into_iter().find(|lie| format!("{lie:?}") == text);
    named.ok_or_else(|| format!("it leaves out one of {lies:?}"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(driven) = arguments.driven {
        return match driven.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(words) => {
                println!("broken: {words}");
                ExitCode::FAILURE
            }
        };
    }
    let (from, to) = arguments.seed.map_or(arguments.seeds, |seed| (seed, seed + 1));
    let driver = std::env::current_exe().expect("it has a path");
    let mut is_broken = false;
    for seed in from..to {
        let began = Instant::now();
        if let Some(snapshots) = arguments.snapshots {
            let report = cut_snapshots(&driver, seed, snapshots, None);
            print_snapshots(seed, &report, began);
            is_broken |= report.broken_count > 0;
            continue;
        }
        let Arguments { commits, deaths, lie, point, ref keep, .. } = arguments;
        let campaign = Campaign { seed, commits, deaths, lie, point, keep: keep.clone() };
        let report = campaign.run(&driver);
        print(seed, &report, began);
        is_broken |= report.broken_count > 0;
    }
    if is_broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print(seed: u64, report: &Report, began: Instant) {
    println!(
        "seed {seed}: {} deaths, {} sync points, {} images, {} different, {} with a commit that was not acknowledged, {} broken, \
         {:.1} s",
        report.deaths,
        report.points,
        report.images,
        report.distinct,
        report.kept_unacknowledged,
        report.broken_count,
        began.elapsed().as_secs_f64()
    );
    report.refused.iter().for_each(|(words, times)| println!("{times:>8}  refused: {words}"));
    report.broken.iter().for_each(|words| println!("{words}"));
}

fn print_snapshots(seed: u64, report: &SnapshotReport, began: Instant) {
    println!(
        "seed {seed}: {} sync points, {} images, {} with a snapshot that was not acknowledged, {} without any, {} broken, {:.1} s",
        report.points,
        report.images,
        report.kept_unacknowledged,
        report.without,
        report.broken_count,
        began.elapsed().as_secs_f64()
    );
    report.broken.iter().for_each(|words| println!("{words}"));
}
