//! Records and checks histories by hand: a long one, short ones, or one that was kept.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use jeton_tests::linear::history::{Operation, read};
use jeton_tests::linear::record::{Plan, long, rounds};
use jeton_tests::linear::{full, quick};

/// Records what clients of a server that is killed again and again were told, and checks it.
#[derive(Debug, Parser)]
#[command(name = "history")]
struct Arguments {
    /// Answers about tokens in the long history.
    #[arg(long, default_value_t = 20_000_000)]
    ops: u64,
    /// Kills in the long history.
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// Record so many short histories instead, and search each for an order that explains it.
    #[arg(long, conflicts_with_all = ["ops", "kills"])]
    rounds: Option<u32>,
    /// Clients.
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Decides what is asked, and when the server is killed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tokens of a validate in the long history, at most: the fewer, the more operations for so many answers.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1_024), conflicts_with = "rounds")]
    batch: u64,
    /// Put a network between that loses, repeats and exchanges datagrams.
    #[arg(long)]
    bad_network: bool,
    /// The folder for the history and the server's data.
    #[arg(long, default_value = "target/history")]
    out: PathBuf,
    /// Only check a history that was kept; with --full by the search, too.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Search as well: for short histories.
    #[arg(long, requires = "check")]
    full: bool,
}

/// Longer than any run that still makes sense.
const LIMIT: Duration = Duration::from_secs(24 * 3_600);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.out).expect("the folder can be made");
    let is_kept = match (&arguments.check, arguments.rounds) {
        (Some(file), _) => {
            let searched = !arguments.full || search(&read(file).collect::<Vec<_>>());
            check(file) && searched
        }
        (None, Some(count)) => record_short(&arguments, count),
        (None, None) => record_long(&arguments),
    };
    if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plan(arguments: &Arguments) -> Plan {
    Plan {
        dir: arguments.out.clone(),
        clients: arguments.clients,
        seed: arguments.seed,
        lie: None,
        batch: arguments.batch,
        bad_network: arguments.bad_network,
    }
}

fn record_long(arguments: &Arguments) -> bool {
    let recorded = long(&plan(arguments), arguments.ops, arguments.kills, LIMIT);
    println!(
        "recorded in {:.1} s, {} kills: {}",
        recorded.took.as_secs_f64(),
        recorded.kills,
        recorded.path.display()
    );
    recorded.network.iter().for_each(|passed| println!("the network: {passed:?}"));
    recorded.surprises.iter().for_each(|words| eprintln!("unexpected: {words}"));
    check(&recorded.path) && recorded.surprises.is_empty()
}

fn check(file: &std::path::Path) -> bool {
    let began = Instant::now();
    match quick::check(|| read(file)) {
        Ok(tally) => {
            println!("every rule is kept, checked in {:.1} s: {tally:#?}", began.elapsed().as_secs_f64());
            true
        }
        Err(violation) => {
            eprintln!("{violation}\nthe history is in {}", file.display());
            false
        }
    }
}

fn search(history: &[Operation]) -> bool {
    match full::check(history) {
        Ok(checked) => {
            println!("an order explains every answer: {checked:?}");
            true
        }
        Err(violation) => {
            eprintln!("{violation}");
            false
        }
    }
}

fn record_short(arguments: &Arguments, count: u32) -> bool {
    let (mut done, mut total, mut is_kept) = (0, full::Checked::default(), true);
    let recorded = rounds(&plan(arguments), count, |round, path, history| {
        done = round + 1;
        let broken = match full::check(history) {
            Ok(checked) => {
                total.tokens += checked.tokens;
                total.steps += checked.steps;
                total.longest = total.longest.max(checked.longest);
                quick::check(|| history.iter().cloned()).err()
            }
            Err(violation) => Some(violation),
        };
        if let Some(violation) = &broken {
            eprintln!("round {round}: {violation}\nthe history is in {}", path.display());
        }
        is_kept = broken.is_none();
        is_kept
    });
    let seconds = recorded.took.as_secs_f64();
    println!("{done} histories, {} kills, {seconds:.1} s, all of them: {total:?}", recorded.kills);
    recorded.network.iter().for_each(|passed| println!("the network: {passed:?}"));
    recorded.surprises.iter().for_each(|words| eprintln!("unexpected: {words}"));
    is_kept && recorded.surprises.is_empty()
}
