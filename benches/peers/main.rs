//! Jeton beside Redis, in the clear and over TLS: by turns, on the same core, with the same tokens in flight; durable writes
//! beside a Redis that syncs each; what a snapshot costs readers, and what a restart does; and a validate in process beside
//! the machine's limit.
//!
//! `cargo run --release -p jeton-benches --bin peers` installs Redis if it is missing (Debian's package, as root), builds
//! what it measures, measures, and writes the tables and the plots of docs/BENCHMARKS.md.

mod in_process;
mod plot;
mod restarts;
mod rig;
mod shapes;
mod snapshots;
mod table;
mod threads;
mod writes;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

use self::rig::{Figures, Rig};
use self::shapes::{PEERS, SHAPES};

/// Measures Jeton and Redis by turns.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each is measured in each shape.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(5..=100))]
    alternations: u32,
    /// Seconds of each measurement, after one of warm-up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Tokens in the key space.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    tokens: u32,
    /// The core that servers run on, one at a time at work.
    #[arg(long, default_value_t = 0)]
    server_core: u32,
    /// The cores of the generator.
    #[arg(long, default_value = "1")]
    generator_cores: String,
    /// One part alone.
    #[arg(long)]
    only: Option<Part>,
    /// Live tokens where a snapshot is written.
    #[arg(long, default_value_t = 4_000_000, value_parser = clap::value_parser!(u32).range(100_000..=50_000_000))]
    snapshot_tokens: u32,
    /// Live tokens where a server is restarted.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(100_000..=50_000_000))]
    restart_tokens: u32,
    /// Where BENCHMARKS.md is; plots are written beside it.
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
}

/// What was measured: by shape, by peer, by alternation.
type Measured = Vec<Vec<Vec<Figures>>>;

/// A part of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Validates beside Redis, in the clear and over TLS.
    Validates,
    /// Durable writes beside Redis and a plain file.
    Writes,
    /// What a snapshot costs readers.
    Snapshots,
    /// How soon after a kill a server is there again, and as fast.
    Restarts,
    /// A validate in process beside random cache lines: `benches/validate.rs`.
    InProcess,
}

const IN_PROCESS_COMMAND: &str = "cargo run --release -p jeton-benches --bin peers -- --only in-process";

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let document = arguments.docs.join("BENCHMARKS.md");
    let read = || std::fs::read_to_string(&document).with_context(|| document.display().to_string());
    for marks in [table::MARKS, writes::MARKS, snapshots::MARKS, restarts::MARKS, in_process::MARKS] {
        table::check(&read()?, marks)?;
    }
    let is_wanted = |part| arguments.only.is_none_or(|only| only == part);
    let put = |marks, text: &str| {
        println!("{text}");
        std::fs::write(&document, table::replace(&read()?, marks, text)?)
            .with_context(|| document.display().to_string())
    };
    let picture = |name: &str, svg: String| {
        let path = arguments.docs.join(name);
        std::fs::write(&path, svg).with_context(|| path.display().to_string())
    };
    if is_wanted(Part::InProcess) {
        let measured = in_process::measure(&arguments.generator_cores)?;
        picture("in-process.svg", in_process::draw(&measured))?;
        put(in_process::MARKS, &in_process::write(&measured, &rig::machine()?, IN_PROCESS_COMMAND))?;
        if arguments.only.is_some() {
            return Ok(());
        }
    }
    let rig = Rig::start(arguments.server_core, &arguments.generator_cores, arguments.tokens)?;
    let (times, seconds) = (arguments.alternations, arguments.seconds);
    if is_wanted(Part::Writes) {
        let measured = writes::measure(&rig, times, seconds)?;
        let command = arguments.command("writes");
        picture("writes.svg", writes::draw(&measured))?;
        put(writes::MARKS, &writes::write(&measured, &rig::machine()?, &rig.redis_version()?, &command))?;
    }
    if is_wanted(Part::Snapshots) {
        let tokens = arguments.snapshot_tokens;
        let measured = snapshots::measure(&rig, times, seconds, tokens)?;
        let command = format!("{} --snapshot-tokens {tokens}", arguments.command("snapshots"));
        picture("snapshots.svg", snapshots::draw(&measured))?;
        put(snapshots::MARKS, &snapshots::write(&measured, &rig::machine()?, tokens, &command))?;
    }
    if is_wanted(Part::Restarts) {
        let tokens = arguments.restart_tokens;
        let measured = restarts::measure(&rig, times, seconds, tokens)?;
        let command = format!("{} --restart-tokens {tokens}", arguments.command("restarts"));
        picture("restarts.svg", restarts::draw(&measured))?;
        put(restarts::MARKS, &restarts::write(&measured, &rig::machine()?, tokens, &command))?;
    }
    if is_wanted(Part::Validates) {
        let measured = validates(&rig, times, seconds)?;
        let command = arguments.command("validates");
        put(table::MARKS, &table::write(&measured, &rig::machine()?, &rig.redis_version()?, &command))?;
        picture("peers.svg", table::draw(&measured))?;
    }
    Ok(())
}

impl Arguments {
    /// What measures a part again.
    fn command(&self, only: &str) -> String {
        format!(
            "cargo run --release -p jeton-benches --bin peers -- --only {only} --alternations {} --seconds {} --tokens {}",
            self.alternations, self.seconds, self.tokens
        )
    }
}

fn validates(rig: &Rig, alternations: u32, seconds: u32) -> anyhow::Result<Measured> {
    let mut measured: Measured = vec![vec![Vec::new(); PEERS.len()]; SHAPES.len()];
    for alternation in 1..=alternations {
        for (shape, row) in SHAPES.iter().zip(&mut measured) {
            let mut turns: Vec<_> = PEERS.iter().zip(row).collect();
            // Each is early in turn: a machine that grows slower favours what comes first.
            if alternation % 2 == 0 {
                turns.reverse();
            }
            for (peer, figures) in turns {
                let seen = rig.measure(*peer, shape, seconds)?;
                eprintln!(
                    "{alternation} of {alternations}: {:<32} {:<16} {:>11.0} tokens/s, {:>11.0} per server-CPU-second, p50 {} us",
                    shape.name,
                    peer.name(),
                    seen.tokens_per_s,
                    seen.tokens_per_cpu_s,
                    seen.p50_us
                );
                figures.push(seen);
            }
        }
    }
    Ok(measured)
}
