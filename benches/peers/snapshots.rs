//! What a snapshot costs readers: deep validates while one is written and while none is, by turns.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::plot::Bars;
use crate::rig::{Figures, Process, Rig, figures};
use crate::shapes::SHAPES;
use crate::table::{in_thousands, median, spread_of};
use crate::threads::{Share, Threads};

/// The marks of the part of docs/BENCHMARKS.md that is written here.
pub(crate) const MARKS: [&str; 2] = ["<!-- snapshots: begin -->", "<!-- snapshots: end -->"];

/// Threads of which is told what they had of the core: what writes a snapshot, what copies the index for it, and what answers.
const THREADS: [&str; 3] = ["jeton-snapshot", "jeton-sequencer", "jeton-shard"];

/// One measurement.
#[derive(Clone, Debug)]
struct Asked {
    figures: Figures,
    /// Of [`THREADS`], while the generator ran.
    shares: [Share; THREADS.len()],
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Without a snapshot: before each that was beside one, and once more behind the last.
    quiet: Vec<Asked>,
    beside: Vec<Asked>,
    /// How long a snapshot took, in seconds.
    took_s: Vec<f64>,
}

impl Measured {
    /// Beside a snapshot, as a part of what was before and behind it: a machine that grows slower is not taken for its cost.
    fn ratios(&self, value: fn(&Figures) -> f64) -> Vec<f64> {
        let usual =
            self.quiet.windows(2).map(|both| f64::midpoint(value(&both[0].figures), value(&both[1].figures)));
        self.beside.iter().zip(usual).map(|(beside, usual)| value(&beside.figures) / usual).collect()
    }
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
    let mut measured =
        Measured { quiet: vec![subject.ask(seconds)?], beside: Vec::new(), took_s: Vec::new() };
    for alternation in 1..=alternations {
        let (beside, took_s) = subject.ask_beside_a_snapshot(seconds)?;
        measured.beside.push(beside);
        measured.took_s.push(took_s);
        measured.quiet.push(subject.ask(seconds)?);
        let ratio = measured.ratios(|figures| figures.tokens_per_s).pop().unwrap_or(f64::NAN);
        eprintln!(
            "{alternation} of {alternations}: beside a snapshot of {took_s:.1} s {ratio:.2} of the quiet rate"
        );
    }
    Ok(measured)
}

impl Subject<'_> {
    fn ask(&self, seconds: u32) -> anyhow::Result<Asked> {
        let mut command = self.rig.generator(&SHAPES[0], seconds, self.tokens, "snapshots");
        command.args(["--warm-up", "1s", "--data"]).arg(&self.data);
        let pid = self.server.0.id();
        let before = Threads::of(pid)?;
        let figures = figures(&self.rig.output_of(command, &self.server)?)?;
        let after = Threads::of(pid)?;
        let mut shares = [Share::default(); THREADS.len()];
        for (share, name) in shares.iter_mut().zip(THREADS) {
            *share = after.since(&before, name)?;
        }
        Ok(Asked { figures, shares })
    }

    /// The same while a snapshot is written of which nothing is there yet, and how long that took in seconds.
    fn ask_beside_a_snapshot(&self, seconds: u32) -> anyhow::Result<(Asked, f64)> {
        let written = self.data.join("snapshots");
        if written.exists() {
            std::fs::remove_dir_all(&written)?;
            std::fs::create_dir(&written)?;
        }
        let began = Instant::now();
        let mut now = self.rig.beside_the_generator("jeton");
        now.args(["snapshot", "now", "--data"]).arg(&self.data).stdout(Stdio::null());
        let mut now = Process(now.spawn().context("jeton snapshot now")?);
        let asked = self.ask(seconds)?;
        let is_over = now.0.try_wait()?.is_some();
        ensure!(
            !is_over,
            "the snapshot was over before the measurement: measure for less time, or more tokens"
        );
        ensure!(now.0.wait()?.success(), "jeton snapshot now failed");
        Ok((asked, began.elapsed().as_secs_f64()))
    }
}

/// The table and what has to be said about it.
pub(crate) fn write(measured: &Measured, machine: &str, tokens: u32, command: &str) -> String {
    let Measured { quiet, beside, took_s } = measured;
    let each = measured.ratios(|figures| figures.tokens_per_s);
    let [middle, least, most] = spread_of(&each);
    let mut text = format!(
        "![rates beside a snapshot](snapshots.svg)\n\nDeep validates (16 connections, 4 frames of 64 tokens in flight each) of {tokens} live tokens, for the whole of which a \
         snapshot was being written, and the same without before and behind each, {} alternations. Machine: {machine}.\n\n\
         Command: `{command}`.\n\n\
         | medians | tokens a second | p99 of a frame | the writing thread had the core for | the sequencer's | the shard waited for it for |\n|---|---|---|---|---|---|\n",
        beside.len()
    );
    for (name, of) in [("quiet", quiet), ("beside a snapshot", beside)] {
        let middle = |value: &dyn Fn(&Asked) -> f64| median(of.iter().map(value));
        let percent = |value: &dyn Fn(&Asked) -> f64| middle(value) * 100.0;
        let _ = writeln!(
            text,
            "| {name} | {} | {:.0} us | {:.1} % | {:.1} % | {:.1} % |",
            in_thousands(middle(&|asked| asked.figures.tokens_per_s)),
            middle(&|asked| asked.figures.p99_us as f64),
            percent(&|asked| asked.shares[0].ran),
            percent(&|asked| asked.shares[1].ran),
            percent(&|asked| asked.shares[2].waited)
        );
    }
    let list: Vec<String> = each.iter().map(|value| format!("{value:.2}")).collect();
    let _ = writeln!(
        text,
        "\n**{middle:.2}** of the quiet rate ({least:.2} to {most:.2}: {}), {:.2} on average; a snapshot took {:.1} s. What threads had is by the \
         system's own account (`schedstat`), from the generator's start to its end.",
        list.join(", "),
        each.iter().sum::<f64>() / each.len() as f64,
        median(took_s.iter().copied())
    );
    text
}

/// Each alternation as a bar.
pub(crate) fn draw(measured: &Measured) -> String {
    let each = measured.ratios(|figures| figures.tokens_per_s);
    let late = measured.ratios(|figures| 1.0 / figures.p99_us as f64);
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

    fn asked(tokens_per_s: f64) -> Asked {
        let figures =
            Figures { tokens_per_s, tokens_per_cpu_s: 1.0, p50_us: 1, p99_us: 2, generator_cpu_s: 1.0 };
        let share = |ran, waited| Share { ran, waited };
        Asked { figures, shares: [share(0.05, 0.3), share(0.01, 0.0), share(0.9, 0.06)] }
    }

    #[test]
    fn each_is_compared_with_what_was_before_and_behind_it() {
        let measured = Measured {
            quiet: [12.0, 8.0, 12.0, 28.0].map(asked).to_vec(),
            beside: [9.0, 8.0, 19.0].map(asked).to_vec(),
            took_s: vec![9.0; 3],
        };
        assert_eq!(draw(&measured).matches("class=\"spread\"").count(), 6);
        let text = write(&measured, "a machine", 7, "a command");
        let told = "**0.90** of the quiet rate (0.80 to 0.95: 0.90, 0.80, 0.95), 0.88 on average; a snapshot took 9.0 s.";
        assert!(text.contains(told), "{text}");
        assert!(text.contains("| beside a snapshot | 0.0 k | 2 us | 5.0 % | 1.0 % | 6.0 % |"), "{text}");
    }
}
