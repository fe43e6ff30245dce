//! Validates in process beside the machine's limit: runs `benches/validate.rs` and writes what it shows.

use std::fmt::Write as _;

use anyhow::Context as _;

use crate::plot::Bars;
use crate::rig::{cargo, pinned_cargo, printed, run};
use crate::table::spread_of;

/// The marks of the part of docs/BENCHMARKS.md that is written here.
pub(crate) const MARKS: [&str; 2] = ["<!-- in-process: begin -->", "<!-- in-process: end -->"];

/// Live tokens, and the rate that is asked for, millions of tokens a second.
const SIZES: [(u64, f64); 2] = [(10_000_000, 14.0), (50_000_000, 11.0)];
/// How many times the time of two random lines a token may take.
const LINES_ASKED: f64 = 2.0;

/// What one turn showed, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Turn {
    /// A token of a frame of 64.
    token: f64,
    /// Two random lines of memory as large.
    lines: f64,
}

/// By number of tokens: the turns, and what of the memory lay in huge pages.
pub(crate) type Measured = Vec<(Vec<Turn>, String)>;

/// Runs the bench for each number of tokens, on these cores.
pub(crate) fn measure(cores: &str) -> anyhow::Result<Measured> {
    let bench = ["bench", "-p", "jeton-benches", "--bench", "validate"];
    run(cargo().args(bench).arg("--no-run"))?;
    let mut measured = Measured::new();
    for (tokens, _) in SIZES {
        eprintln!("{tokens} tokens are made, and asked about");
        let mut turns = pinned_cargo(cores);
        // No benchmark of criterion's has this name: what is measured by turns is left.
        turns.args(bench).args(["--", "by turns alone"]).env("JETON_BENCH_TOKENS", tokens.to_string());
        measured.push(read(&printed(&mut turns)?)?);
    }
    Ok(measured)
}

/// What the bench printed.
fn read(printed: &str) -> anyhow::Result<(Vec<Turn>, String)> {
    let after = |prefix: &str| printed.lines().find_map(|line| line.strip_prefix(prefix));
    let turns = after("turns: ").context("the bench printed no turns")?;
    let turn = |text: &str| {
        let (token, lines) = text.split_once(' ')?;
        Some(Turn { token: token.parse().ok()?, lines: lines.parse().ok()? })
    };
    let turns = turns.split(", ").map(turn).collect::<Option<_>>().context("the turns are no numbers")?;
    Ok((turns, after("huge pages: ").unwrap_or("unknown").to_owned()))
}

/// The table.
pub(crate) fn write(measured: &Measured, machine: &str, command: &str) -> String {
    let mut text = format!(
        "![a token in process beside what is asked](in-process.svg)\n\nFrames of 64 live tokens, in a random order, of a subject for each ten and of \
         1,000 claim sets, and two random cache lines for each of 64 in memory as large, in huge pages, by turns of 0.4 s in one process on one core; {} \
         turns each; medians (least to greatest). Machine: {machine}.\n\nCommand: `{command}`.\n\n\
         | live tokens | a token, ns | asked | two lines, ns | token : two lines | asked | in huge pages |\n|{}\n",
        measured.first().map_or(0, |(turns, _)| turns.len()),
        "---|".repeat(7)
    );
    for ((tokens, asked), (turns, pages)) in SIZES.iter().zip(measured) {
        let spread = |of: fn(&Turn) -> f64, digits: usize| {
            let [middle, least, most] = spread_of(&turns.iter().map(of).collect::<Vec<_>>());
            format!("{middle:.digits$} ({least:.digits$} to {most:.digits$})")
        };
        let _ = writeln!(
            text,
            "| {} M | {} | {:.1} | {} | {} | {LINES_ASKED:.1} | {pages} |",
            tokens / 1_000_000,
            spread(|turn| turn.token, 1),
            1_000.0 / asked,
            spread(|turn| turn.lines, 1),
            spread(|turn| turn.token / turn.lines, 2),
        );
    }
    text
}

/// What is asked as a multiple of what is seen: 1 is met.
pub(crate) fn draw(measured: &Measured) -> String {
    let groups = SIZES.iter().zip(measured).map(|((tokens, asked), (turns, _))| {
        let rates = turns.iter().map(|turn| 1_000.0 / turn.token / asked).collect();
        let lines = turns.iter().map(|turn| LINES_ASKED * turn.lines / turn.token).collect();
        (format!("{} M live tokens", tokens / 1_000_000), vec![rates, lines])
    });
    Bars {
        title: "Tokens validated in process, of what is asked",
        legend: &["tokens a second", "within twice two lines"],
        groups: groups.collect(),
    }
    .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_bench_prints_is_read_and_told_by_the_middle() {
        let printed = "a line\nturns: 80.00 40.00, 100.00 40.00, 90.00 30.00\nhuge pages: 7 MiB of 9\n";
        let (turns, pages) = read(printed).unwrap();
        assert_eq!((turns.len(), pages.as_str()), (3, "7 MiB of 9"));
        assert_eq!(turns[2], Turn { token: 90.0, lines: 30.0 });
        assert!(read("turns: 80.00\n").is_err() && read("").is_err());
        let measured = vec![(turns.clone(), pages.clone()), (turns, pages)];
        let text = write(&measured, "a machine", "a command");
        assert!(
            text.contains(
                "| 10 M | 90.0 (80.0 to 100.0) | 71.4 | 40.0 (30.0 to 40.0) | 2.50 (2.00 to 3.00) | 2.0 |"
            ),
            "{text}"
        );
        assert_eq!(draw(&measured).matches("class=\"spread\"").count(), 4);
    }
}
