//! Jeton beside Redis, in the clear and over TLS: by turns, on the same core, with the same tokens in flight.
//!
//! `cargo run --release -p jeton-benches --bin peers` installs Redis if it is missing (Debian's package, as root), builds
//! what it measures, measures, and writes the table and the plot of docs/BENCHMARKS.md.

mod plot;
mod rig;
mod shapes;
mod table;

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
    /// Where BENCHMARKS.md is; a plot is written beside it.
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
}

/// What was measured: by shape, by peer, by alternation.
type Measured = Vec<Vec<Vec<Figures>>>;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let document = arguments.docs.join("BENCHMARKS.md");
    let text = std::fs::read_to_string(&document).with_context(|| document.display().to_string())?;
    table::check(&text)?;
    let rig = Rig::start(arguments.server_core, &arguments.generator_cores, arguments.tokens)?;
    let mut measured: Measured = vec![vec![Vec::new(); PEERS.len()]; SHAPES.len()];
    for alternation in 0..arguments.alternations {
        for (shape, row) in SHAPES.iter().zip(&mut measured) {
            for (peer, figures) in PEERS.iter().zip(row) {
                let seen = rig.measure(*peer, shape, arguments.seconds)?;
                eprintln!(
                    "{} of {}: {:<32} {:<16} {:>11.0} tokens/s, {:>11.0} per server-CPU-second, p50 {} us",
                    alternation + 1,
                    arguments.alternations,
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
    let command = format!(
        "cargo run --release -p jeton-benches --bin peers -- --alternations {} --seconds {} --tokens {}",
        arguments.alternations, arguments.seconds, arguments.tokens
    );
    let written = table::write(&measured, &rig.machine()?, &rig.redis_version()?, &command);
    std::fs::write(&document, table::replace(&text, &written)?)
        .with_context(|| document.display().to_string())?;
    let picture = arguments.docs.join("peers.svg");
    std::fs::write(&picture, plot::draw(&measured)).with_context(|| picture.display().to_string())?;
    println!("{written}");
    Ok(())
}
