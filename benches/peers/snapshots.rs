//! What a snapshot costs readers: deep validates while one is written and while none is, by turns.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::plot::Bars;
use crate::rig::{Figures, Process, Rig, figures};
use crate::shapes::SHAPES;
use crate::table::{in_thousands, median, ratios, spread_of};
use crate::threads::{Share, Threads};

/// The marks of the part of docs/BENCHMARKS.md that is written here.
pub(crate) const MARKS: [&str; 2] = ["<!-- snapshots: begin -->", "<!-- snapshots: end -->"];

/// What was measured, by alternation.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) quiet: Vec<Figures>,
    pub(crate) beside: Vec<Figures>,
    /// How long a snapshot took, in seconds.
    pub(crate) took_s: Vec<f64>,
    /// What the thread that writes them and the shard had of the core meanwhile.
    pub(crate) shares: Vec<[Share; 2]>,
}

/// What one measurement beside a snapshot gave.
struct Beside {
    figures: Figures,
    took_s: f64,
    shares: [Share; 2],
}

/// A server with many tokens that writes a snapshot only when one is ordered.
struct Subject<'a> {
    rig: &'a Rig,
    data: PathBuf,
    tokens: u32,
    server: Process,
}

/// Measures by turns.
pub(crate) fn measure(rig: &Rig, alternations: u32, seconds: u32, tokens: u32) -> anyhow::Result<Measured> {
    let data = rig.dir().join("snapshots");
    let never = [("JETON_SNAPSHOT_LOG_MIB", "0"), ("JETON_SNAPSHOT_MINUTES", "0")];
    let server = rig.jeton_with(&data, &never)?;
    let subject = Subject { rig, data, tokens, server };
    subject.ask(1)?; // which fills it
    let mut measured = Measured::default();
    for alternation in 1..=alternations {
        // Each is first in turn: a machine that grows slower would else be taken for what a snapshot costs.
        let early = (alternation % 2 == 1).then(|| subject.ask(seconds)).transpose()?;
        let beside = subject.ask_beside_a_snapshot(seconds)?;
        let quiet = early.map_or_else(|| subject.ask(seconds), Ok)?;
        eprintln!(
            "{alternation} of {alternations}: {:.0} tokens/s, beside a snapshot of {:.1} s {:.0} ({:.2})",
            quiet.tokens_per_s,
            beside.took_s,
            beside.figures.tokens_per_s,
            beside.figures.tokens_per_s / quiet.tokens_per_s
        );
        measured.quiet.push(quiet);
        measured.beside.push(beside.figures);
        measured.took_s.push(beside.took_s);
        measured.shares.push(beside.shares);
    }
    Ok(measured)
}

impl Subject<'_> {
    fn ask(&self, seconds: u32) -> anyhow::Result<Figures> {
        let mut command = self.rig.generator(&SHAPES[0], seconds, self.tokens, "snapshots");
        command.args(["--warm-up", "1s", "--data"]).arg(&self.data);
        figures(&self.rig.output_of(command, &self.server)?)
    }

    /// A snapshot of which nothing is there yet, and how long it took.
    fn ask_beside_a_snapshot(&self, seconds: u32) -> anyhow::Result<Beside> {
        let written = self.data.join("snapshots");
        if written.exists() {
            std::fs::remove_dir_all(&written)?;
            std::fs::create_dir(&written)?;
        }
        let began = Instant::now();
        let mut now = self.rig.beside_the_generator("jeton");
        now.args(["snapshot", "now", "--data"]).arg(&self.data).stdout(Stdio::null());
        let mut now = Process(now.spawn().context("jeton snapshot now")?);
        let before = Threads::of(self.server.0.id())?;
        let figures = self.ask(seconds)?;
        let after = Threads::of(self.server.0.id())?;
        let is_over = now.0.try_wait()?.is_some();
        ensure!(
            !is_over,
            "the snapshot was over before the measurement: measure for less time, or more tokens"
        );
        ensure!(now.0.wait()?.success(), "jeton snapshot now failed");
        let shares = ["jeton-snapshot", "jeton-shard"].map(|name| after.since(&before, name));
        Ok(Beside { figures, took_s: began.elapsed().as_secs_f64(), shares })
    }
}

/// The table and what has to be said about it.
pub(crate) fn write(measured: &Measured, machine: &str, tokens: u32, command: &str) -> String {
    let Measured { quiet, beside, took_s, shares } = measured;
    let each = ratios(beside, quiet, |figures| figures.tokens_per_s);
    let [middle, least, most] = spread_of(&each);
    let mut text = format!(
        "![rates beside a snapshot](snapshots.svg)\n\nDeep validates (16 connections, 4 frames of 64 tokens in flight each) of {tokens} live tokens, for the whole of which a \
         snapshot was being written, beside the same without, by turns, now one first and now the other, {} alternations. Machine: {machine}.\n\n\
         Command: `{command}`.\n\n\
         | | tokens a second | p99 of a frame |\n|---|---|---|\n",
        quiet.len()
    );
    for (name, of) in [("quiet", quiet), ("beside a snapshot", beside)] {
        let _ = writeln!(
            text,
            "| {name} | {} | {:.0} us |",
            in_thousands(median(of.iter().map(|figures| figures.tokens_per_s))),
            median(of.iter().map(|figures| figures.p99_us as f64))
        );
    }
    let sum = |of: &[Figures]| of.iter().map(|figures| figures.tokens_per_s).sum::<f64>();
    let list: Vec<String> = each.iter().map(|value| format!("{value:.2}")).collect();
    let _ = writeln!(
        text,
        "\n**{middle:.2}** of the quiet rate ({least:.2} to {most:.2}: {}); all alternations together {:.2}. A snapshot took {:.1} s.",
        list.join(", "),
        sum(beside) / sum(quiet),
        median(took_s.iter().copied())
    );
    let share = |of: fn(&[Share; 2]) -> f64| median(shares.iter().map(of)) * 100.0;
    let _ = writeln!(
        text,
        "\nBy the system's own account (`schedstat`, medians) the thread that writes it had the core for {:.1} % of that time, and the shard \
         was ready but had to wait for it for {:.1} %.",
        share(|[writer, _]| writer.ran),
        share(|[_, shard]| shard.waited)
    );
    text
}

/// Each alternation as a bar.
pub(crate) fn draw(measured: &Measured) -> String {
    let each = ratios(&measured.beside, &measured.quiet, |figures| figures.tokens_per_s);
    let late = ratios(&measured.quiet, &measured.beside, |figures| figures.p99_us as f64);
    let groups = each.iter().zip(&late).enumerate().map(|(number, (rate, late))| {
        (format!("alternation {}", number + 1), vec![vec![*rate], vec![*late]])
    });
    Bars {
        title: "Deep validates beside a snapshot being written, as a multiple of those without",
        legend: &["tokens a second", "how soon at p99"],
        groups: groups.collect(),
    }
    .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_ratios_is_told() {
        let of = |rates: [f64; 3]| {
            rates
                .map(|tokens_per_s| Figures {
                    tokens_per_s,
                    tokens_per_cpu_s: 1.0,
                    p50_us: 1,
                    p99_us: 2,
                    generator_cpu_s: 1.0,
                })
                .to_vec()
        };
        let measured = Measured {
            quiet: of([10.0, 10.0, 20.0]),
            beside: of([9.0, 8.0, 19.0]),
            took_s: vec![9.0; 3],
            shares: vec![[Share { ran: 0.05, waited: 0.3 }, Share { ran: 0.9, waited: 0.06 }]; 3],
        };
        assert_eq!(draw(&measured).matches("class=\"spread\"").count(), 6);
        let text = write(&measured, "a machine", 7, "a command");
        assert!(
            text.contains(
                "**0.90** of the quiet rate (0.80 to 0.95: 0.90, 0.80, 0.95); all alternations together 0.90."
            ),
            "{text}"
        );
        assert!(text.contains("had the core for 5.0 %") && text.contains("wait for it for 6.0 %"), "{text}");
    }
}
