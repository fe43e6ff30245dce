//! `attack`: runs an attack against a server, or measures what a legitimate client feels of each.
//!
//! `run` is the attacker alone, against any server whose data directory it can read. `measure` starts a server of its
//! own on core 0 and, on core 1, a witness and, by turns, an attacker beside it: the two share that core, with the
//! attacker behind in priority. `overload` offers multiples of what the server can do. Figures are JSON, one object.

mod measure;
mod overload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum as _};
use jeton_tests::attack::kinds::{Force, Kind};
use jeton_tests::attack::rig::{Stop, Target};

/// Attacks on a Jeton server, and what they do to its clients.
#[derive(Debug, Parser)]
#[command(name = "attack", max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attack the server of a data directory.
    Run(Run),
    /// Start a server and measure a legitimate client with and without each attack, by turns.
    Measure(measure::Measure),
    /// Start a server, find what it can do, and offer it multiples of that.
    Overload(overload::Overload),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Which attack.
    kind: Kind,
    /// The server's data directory.
    #[arg(long)]
    data: PathBuf,
    /// For how many seconds.
    #[arg(long = "for", default_value_t = 10.0)]
    seconds: f64,
    /// Datagrams, requests or attempts a second, where there is a pace.
    #[arg(long)]
    per_s: Option<u32>,
    /// Connections, sockets or tasks at a time.
    #[arg(long)]
    width: Option<usize>,
}

fn run(config: &Run) -> anyhow::Result<serde_json::Value> {
    let target = Target::of(&config.data)?;
    let usual = config.kind.usual_force();
    let force = Force {
        per_s: config.per_s.unwrap_or(usual.per_s),
        width: config.width.unwrap_or(usual.width).max(1),
    };
    let stop = Stop::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = runtime.block_on(async {
        let stopping = stop.clone();
        let seconds = Duration::try_from_secs_f64(config.seconds).context("no duration")?;
        tokio::spawn(async move {
            tokio::time::sleep(seconds).await;
            stopping.stop();
        });
        config.kind.run(&target, force, &stop).await
    })?;
    let name = config.kind.to_possible_value().map(|value| value.get_name().to_owned());
    Ok(serde_json::json!({ "attack": name, "seconds": config.seconds, "figures": figures }))
}

fn main() -> ExitCode {
    let figures = match Arguments::parse().command {
        Command::Run(config) => run(&config),
        Command::Measure(config) => measure::measure(&config),
        Command::Overload(config) => overload::overload(&config),
    };
    match figures {
        Ok(figures) => {
            println!("{figures:#}");
            let missed = figures["missed"].as_array().into_iter().flatten();
            let missed: Vec<_> = missed.filter_map(serde_json::Value::as_str).collect();
            missed.iter().for_each(|missed| eprintln!("attack: {missed}"));
            ExitCode::from(u8::from(!missed.is_empty()))
        }
        Err(error) => {
            eprintln!("attack: {error:#}");
            ExitCode::from(2)
        }
    }
}
