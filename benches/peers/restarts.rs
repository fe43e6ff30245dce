//! What a restart costs those who ask: how long after a kill -9 a server with many tokens listens again, when somebody who
//! comes then has an answer, and when it is as fast as it was.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::plot::Bars;
use crate::rig::{Process, Rig, printed, run};
use crate::shapes::SHAPES;
use crate::table::{in_thousands, median, spread_of};

/// The marks of the part of docs/BENCHMARKS.md that is written here.
pub(crate) const MARKS: [&str; 2] = ["<!-- restarts: begin -->", "<!-- restarts: end -->"];

/// Seconds for which is asked after a start; the generator tells a tenth of that apart.
const ASKED_S: u32 = 4;
/// From this part of the usual rate on it is the full one: rates of a server scatter by as much.
const FULL: f64 = 0.9;
/// When it is to be the full one, in seconds after the start.
const FULL_ASKED_S: f64 = 2.0;
/// What the generator tells rates of.
const TENTH_S: f64 = ASKED_S as f64 / 10.0;
const _: () =
    assert!(ASKED_S as f64 > FULL_ASKED_S + TENTH_S, "some tenths begin when the rate is to be the full one");
/// Of the tokens in the snapshot, one for so many is issued behind it, to be replayed.
const BEHIND_PART: u32 = 10;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) restarts: Vec<Restart>,
    /// Restarts with so many issues in the log behind the snapshot: when each listened, and when it had answered, in seconds.
    pub(crate) behind: (u32, Vec<[f64; 2]>),
}

/// One restart.
#[derive(Clone, Debug)]
pub(crate) struct Restart {
    /// Tokens a second before the kill.
    before_per_s: f64,
    /// Tokens a second in a run of the same length behind the one that is told in tenths.
    behind_per_s: f64,
    /// From the start of the process until it listens.
    listens_s: f64,
    /// From there too, until a client process that is started when it listens has had one validate answered, and ended.
    answers_s: f64,
    /// Seconds from the start of the process to the end of each tenth, and the tokens a second in it.
    rates: Vec<(f64, f64)>,
}

impl Restart {
    /// The rate of a server that has been there for a while: of the run before and the run behind, for a machine that drifts.
    fn usual_per_s(&self) -> f64 {
        f64::midpoint(self.before_per_s, self.behind_per_s)
    }

    /// When the first tenth ended in which the rate was the full one, and on average stayed it; `None` if it never was.
    fn is_full_after_s(&self) -> Option<f64> {
        let full = FULL * self.usual_per_s();
        let mean = |rates: &[(f64, f64)]| rates.iter().map(|rate| rate.1).sum::<f64>() / rates.len() as f64;
        let first = (0..self.rates.len())
            .find(|first| self.rates[*first].1 >= full && mean(&self.rates[*first..]) >= full)?;
        Some(self.rates[first].0)
    }

    /// The mean of all tenths that began when the rate was to be the full one, or later, as a part of the usual rate.
    fn part_when_asked(&self) -> f64 {
        let late = self.rates.iter().filter(|(end_s, _)| end_s - TENTH_S >= FULL_ASKED_S);
        let (count, sum) = late.fold((0.0, 0.0), |(count, sum), (_, per_s)| (count + 1.0, sum + per_s));
        sum / count / self.usual_per_s()
    }
}

/// Fills a server, has it write a snapshot, and kills and starts it that often.
pub(crate) fn measure(rig: &Rig, alternations: u32, seconds: u32, tokens: u32) -> anyhow::Result<Measured> {
    let data = rig.dir().join("restarts");
    let mut server = rig.jeton_on_all_cores(&data)?;
    let subject = Subject { rig, data, tokens };
    subject.ask(&server, 1, "1s")?; // which fills it
    let token = subject.issue()?; // before the snapshot, as all the others
    let mut now = rig.beside_the_generator("jeton");
    run(now.args(["snapshot", "now", "--data"]).arg(&subject.data).stdout(Stdio::null()))?;
    let mut restarts = Vec::new();
    for alternation in 1..=alternations {
        let before_per_s = subject.rate(&server, seconds)?;
        let (began, listens_s, answers_s);
        (server, began, [listens_s, answers_s]) = subject.restart(server, &token)?;
        subject.ask(&server, ASKED_S, "0s")?;
        let over_s = began.elapsed().as_secs_f64();
        let rates = subject.rates(over_s - f64::from(ASKED_S))?;
        let behind_per_s = subject.rate(&server, seconds)?;
        let restart = Restart { before_per_s, behind_per_s, listens_s, answers_s, rates };
        eprintln!(
            "{alternation} of {alternations}: listens after {listens_s:.2} s, answers after {answers_s:.2} s, full rate of \
             {:.0} tokens/s after {:?} s",
            restart.usual_per_s(),
            restart.is_full_after_s()
        );
        restarts.push(restart);
    }
    let behind = tokens / BEHIND_PART;
    subject.fill(&server, behind, "restarts-behind")?;
    let mut times = Vec::new();
    for alternation in 1..=alternations {
        let seen;
        (server, _, seen) = subject.restart(server, &token)?;
        eprintln!(
            "{alternation} of {alternations}, with log behind the snapshot: listens and answers after {seen:.2?} s"
        );
        times.push(seen);
    }
    Ok(Measured { restarts, behind: (behind, times) })
}

struct Subject<'a> {
    rig: &'a Rig,
    data: PathBuf,
    tokens: u32,
}

impl Subject<'_> {
    fn report(&self) -> PathBuf {
        self.rig.dir().join("restarts-report")
    }

    /// Kills a server with -9 and starts another: when that began, and the seconds until it listened and had answered.
    fn restart(&self, server: Process, token: &str) -> anyhow::Result<(Process, Instant, [f64; 2])> {
        drop(server);
        std::fs::remove_file(self.data.join("server.json")).context("the server's own file")?;
        let began = Instant::now();
        let server = self.rig.jeton_on_all_cores(&self.data)?;
        let listens_s = began.elapsed().as_secs_f64();
        self.validate(token)?;
        Ok((server, began, [listens_s, began.elapsed().as_secs_f64()]))
    }

    /// Issues so many more, which a key space of their own makes the generator do.
    fn fill(&self, server: &Process, tokens: u32, whose: &str) -> anyhow::Result<()> {
        let mut command = self.rig.generator(&SHAPES[0], 1, tokens, whose);
        command.args(["--warm-up", "0s", "--data"]).arg(&self.data);
        self.rig.output_of(command, server).map(drop)
    }

    fn ask(&self, server: &Process, seconds: u32, warm_up: &str) -> anyhow::Result<Value> {
        let mut command = self.rig.generator(&SHAPES[0], seconds, self.tokens, "restarts");
        command.args(["--warm-up", warm_up, "--data"]).arg(&self.data).arg("--out").arg(self.report());
        self.rig.output_of(command, server)
    }

    /// Tokens a second of a server that is warm.
    fn rate(&self, server: &Process, seconds: u32) -> anyhow::Result<f64> {
        self.ask(server, seconds, "1s")?["tokens_per_s"].as_f64().context("a rate")
    }

    /// A client process of its own.
    fn client(&self, command: &str) -> Command {
        let mut client = self.rig.beside_the_generator("jeton");
        client.args([command, "--data"]).arg(&self.data);
        client
    }

    /// A token that outlives the measurement.
    fn issue(&self) -> anyhow::Result<String> {
        let issued = printed(self.client("issue").args(["--subject", "restarts", "--ttl", "7d"]))?;
        Ok(issued.trim().to_owned())
    }

    /// Has a client ask about a token that is good.
    fn validate(&self, token: &str) -> anyhow::Result<()> {
        let answer = printed(self.client("validate").arg(token))?;
        ensure!(answer.starts_with("valid for "), "the token is good, but the answer was {answer}");
        Ok(())
    }

    /// The rates of the last run, which began so many seconds after the server did.
    fn rates(&self, began_s: f64) -> anyhow::Result<Vec<(f64, f64)>> {
        rates_of(&self.report().join("run.json"), began_s)
    }
}

fn rates_of(run: &Path, began_s: f64) -> anyhow::Result<Vec<(f64, f64)>> {
    let run: Value = serde_json::from_slice(&std::fs::read(run)?)?;
    let rows = run["detail"]["rows"].as_array().context("a run has rows")?;
    ensure!(!rows.is_empty(), "a run has rows");
    let number = |value: &Value| value.as_f64().context("a row has figures");
    rows.iter().map(|row| Ok((began_s + number(&row["at_s"])?, number(&row["tokens_per_s"])?))).collect()
}

/// The table and what has to be said about it.
pub(crate) fn write(measured: &Measured, machine: &str, tokens: u32, command: &str) -> String {
    let Measured { restarts, behind: (behind, times) } = measured;
    let mut text = format!(
        "![rates after a restart](restarts.svg)\n\nA server with {tokens} live tokens and a snapshot of all of them, its files in the system's memory, killed with -9 and \
         started {} times; deep validates (16 connections, 4 frames of 64 tokens in flight each) before, from a generator that is \
         started once a `jeton validate`, which is started when it listens, has had its answer and ended (what both take to begin is in the times), and behind that again. The server may use every core, the generator its own. Machine: {machine}.\n\nCommand: `{command}`.\n\n\
         | before, behind: tokens/s | listens after, s | answers after, s | full rate ({:.0} % of the mean of both, and on average from then on) after, s | from {FULL_ASKED_S:.0} s on, of that mean |\n|---|---|---|---|---|\n",
        restarts.len(),
        FULL * 100.0
    );
    let late = f64::INFINITY;
    for restart in restarts {
        let _ = writeln!(
            text,
            "| {}, {} | {:.2} | {:.2} | {:.1} | {:.2} |",
            in_thousands(restart.before_per_s),
            in_thousands(restart.behind_per_s),
            restart.listens_s,
            restart.answers_s,
            restart.is_full_after_s().unwrap_or(late),
            restart.part_when_asked()
        );
    }
    let parts: Vec<f64> = restarts.iter().map(Restart::part_when_asked).collect();
    let [part, least, most] = spread_of(&parts);
    let [listens, answers] =
        [0, 1].map(|which| spread_of(&times.iter().map(|seen| seen[which]).collect::<Vec<_>>()));
    let _ = writeln!(
        text,
        "\nMedians: it listens after **{:.2} s**, has answered after **{:.2} s**, and is at the full rate after **{:.1} s**; from \
         {FULL_ASKED_S:.0} s on it does **{part:.2}** of the usual rate ({least:.2} to {most:.2}). With {behind} issues in the log behind the snapshot, which are \
         read, verified and applied: {:.2} s ({:.2} to {:.2}) and {:.2} s ({:.2} to {:.2}). Rates are those of each {:.1} s, counted back from the generator's end; `inf` \
         would be a run that never was.\n\n\
         Tokens a second, by seconds since the start, medians:\n\n| s | tokens/s |\n|---|---|",
        median(restarts.iter().map(|restart| restart.listens_s)),
        median(restarts.iter().map(|restart| restart.answers_s)),
        median(restarts.iter().map(|restart| restart.is_full_after_s().unwrap_or(late))),
        listens[0],
        listens[1],
        listens[2],
        answers[0],
        answers[1],
        answers[2],
        TENTH_S
    );
    let tenths = restarts.iter().map(|restart| restart.rates.len()).min().unwrap_or(0);
    for tenth in 0..tenths {
        let of = |value: fn(&(f64, f64)) -> f64| {
            median(restarts.iter().map(|restart| value(&restart.rates[tenth])))
        };
        let _ = writeln!(text, "| {:.1} | {} |", of(|(at, _)| *at), in_thousands(of(|(_, per_s)| *per_s)));
    }
    text
}

/// The rates after a start as parts of the usual one.
pub(crate) fn draw(measured: &Measured) -> String {
    let restarts = &measured.restarts;
    let tenths = restarts.iter().map(|restart| restart.rates.len()).min().unwrap_or(0);
    let groups = (0..tenths).map(|tenth| {
        let at_s = median(restarts.iter().map(|restart| restart.rates[tenth].0));
        let parts = restarts.iter().map(|restart| restart.rates[tenth].1 / restart.usual_per_s()).collect();
        (format!("{at_s:.1} s after the start"), vec![parts])
    });
    Bars {
        title: "Tokens a second after a restart, as a multiple of the usual rate",
        legend: &["of the rate before the kill and after the run, their mean"],
        groups: groups.collect(),
    }
    .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restart(rates: &[f64]) -> Restart {
        let rates = rates.iter().enumerate().map(|(at, per_s)| (1.0 + at as f64, *per_s)).collect();
        Restart { before_per_s: 90.0, behind_per_s: 110.0, listens_s: 0.5, answers_s: 0.6, rates }
    }

    #[test]
    fn the_full_rate_is_there_once_it_stays() {
        assert_eq!(restart(&[95.0, 99.0]).is_full_after_s(), Some(1.0), "in the first");
        assert_eq!(restart(&[50.0, 95.0, 60.0, 91.0, 130.0]).is_full_after_s(), Some(2.0), "on average");
        assert_eq!(restart(&[99.0, 70.0]).is_full_after_s(), None, "it did not stay");
    }

    #[test]
    fn medians_are_told_and_each_restart() {
        let restarts = [95.0, 10.0, 20.0].map(|first| restart(&[first, 99.0, 99.0])).to_vec();
        let measured = Measured { restarts, behind: (3, vec![[0.7, 0.8], [0.9, 1.0], [0.8, 0.9]]) };
        assert_eq!(draw(&measured).matches("class=\"spread\"").count(), 3);
        let text = write(&measured, "a machine", 7, "a command");
        assert!(
            text.contains(
                "it listens after **0.50 s**, has answered after **0.60 s**, and is at the full rate after **2.0 s**"
            ),
            "{text}"
        );
        assert_eq!(text.matches("| 0.1 k, 0.1 k | 0.50 | 0.60 |").count(), 3, "{text}");
        assert!(!text.contains("NaN"));
        assert!(text.contains("With 3 issues in the log"), "{text}");
        assert!(text.contains("0.80 s (0.70 to 0.90) and 0.90 s (0.80 to 1.00)"), "{text}");
    }

    #[test]
    fn the_rate_from_the_second_on_in_which_it_is_to_be_full_is_a_mean() {
        assert_eq!(restart(&[1.0, 1.0, 80.0, 120.0, 70.0]).part_when_asked(), 0.9, "of what began then");
    }
}
