//! The highest rate at which a server keeps a goal, found by search.
//!
//! Rates are doubled until one fails, then the gap is halved on a logarithmic scale until it is narrow; what was found has
//! to hold once more, for longer. Every step is kept: the answer is only as good as its evidence.

mod search;
mod slo;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

pub(crate) use self::search::{Search, Wanted};
pub(crate) use self::slo::Slo;
use crate::report::{Quantiles, Record};

/// Offered and achieved may differ by so much: the ends of a step are not sharp.
const BEHIND_MAX: f64 = 0.01;

/// What one step showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) rate: u32,
    pub(crate) achieved_per_s: f64,
    pub(crate) tokens_per_s: f64,
    pub(crate) latency_us: Quantiles,
    pub(crate) server_cores: Option<f64>,
    pub(crate) generator_busiest: f64,
    /// Whether it was the longer one in the end.
    pub(crate) is_confirmation: bool,
    /// Why it failed; empty if it did not.
    pub(crate) failed: Vec<String>,
    pub(crate) is_generator_the_limit: bool,
    /// The part of the time in which a worker had something to do and was kept from its core, if that was too long.
    #[serde(default)]
    pub(crate) generator_held_back: Option<f64>,
    /// Whether no token was left to revoke: then it validated instead.
    #[serde(default)]
    pub(crate) ran_dry: bool,
}

impl Step {
    /// What a run at this rate showed, held against the goals.
    pub(crate) fn new(rate: u32, record: &Record, slos: &[Slo], is_confirmation: bool) -> Self {
        let (summary, detail) = (&record.summary, &record.detail);
        let mut failed: Vec<String> = slos.iter().filter_map(|slo| slo.failure(record)).collect();
        if summary.achieved_per_s < (1.0 - BEHIND_MAX) * summary.offered_per_s {
            failed.push(format!("only {:.0}/s were answered", summary.achieved_per_s));
        }
        if summary.errors > 0 {
            failed.push(format!("{} errors", summary.errors));
        }
        Self {
            rate,
            achieved_per_s: summary.achieved_per_s,
            tokens_per_s: summary.tokens_per_s,
            latency_us: summary.latency_us,
            server_cores: summary
                .server_cpu_s
                .filter(|_| detail.seconds > 0.0)
                .map(|cpu| cpu / detail.seconds),
            generator_busiest: detail.generator_busiest,
            is_confirmation,
            is_generator_the_limit: record.is_generator_the_limit(),
            generator_held_back: record.is_generator_held_back().then_some(detail.generator_held_back),
            ran_dry: detail.ran_dry,
            failed,
        }
    }

    pub(crate) fn holds(&self) -> bool {
        self.failed.is_empty()
    }

    /// What came of it, in words.
    fn words(&self) -> String {
        let mut words =
            if self.holds() { "holds".to_owned() } else { format!("fails: {}", self.failed.join(", ")) };
        if let Some(part) = self.generator_held_back {
            let percent = part * 100.0;
            let _ = write!(
                words,
                " (the generator was kept from its core {percent:.0} % of the time: latencies hold that too)"
            );
        }
        if self.ran_dry {
            words.push_str(" (no token was left to revoke: --revocable)");
        }
        words
    }

    /// A line for people.
    pub(crate) fn line(&self) -> String {
        use crate::live::latency;
        format!(
            "{:>9}/s  p50 {:>8}  p99 {:>8}  p99.9 {:>8}  server {} cores, generator {:>3.0} %  {}{}",
            self.rate,
            latency(self.latency_us.p50),
            latency(self.latency_us.p99),
            latency(self.latency_us.p99_9),
            self.server_cores.map_or("   -".to_owned(), |cores| format!("{cores:.2}")),
            self.generator_busiest * 100.0,
            if self.is_confirmation { "once more: " } else { "" },
            self.words(),
        )
    }
}

/// The answer and what it rests on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Saturation {
    pub(crate) tool: String,
    pub(crate) target: String,
    pub(crate) slos: Vec<String>,
    /// The highest rate that held, twice; `None` if none did.
    pub(crate) rate: Option<u32>,
    pub(crate) tokens_per_s: Option<f64>,
    /// Whether it was the generator that gave out first: then the server can do more.
    pub(crate) is_generator_the_limit: bool,
    /// What ended the search early: then there is no answer, and the steps are those until then.
    #[serde(default)]
    pub(crate) failed: Option<String>,
    pub(crate) steps: Vec<Step>,
    pub(crate) workload: crate::workload::Workload,
    pub(crate) machine: crate::machine::Machine,
}

/// Whether it was the generator that gave out first: at the lowest rate that did not hold.
pub(crate) fn is_generator_first(steps: &[Step]) -> bool {
    let lowest = steps.iter().filter(|step| !step.holds()).min_by_key(|step| step.rate);
    lowest.is_some_and(|step| step.is_generator_the_limit)
}

/// The answer as a page.
pub(crate) fn page(saturation: &Saturation) -> String {
    use crate::live::{latency, time};
    use crate::report::page::{escaped, page};
    use crate::report::plot::{Plot, Scale, plain};
    let mut steps: Vec<&Step> = saturation.steps.iter().collect();
    steps.sort_by_key(|step| step.rate);
    let points = |value: fn(&Quantiles) -> u64| {
        steps.iter().map(|step| (f64::from(step.rate), value(&step.latency_us).max(1) as f64)).collect()
    };
    let mut plot = Plot::new("requests offered a second", Scale::Log, |us| time(us as u64))
        .line("p50", 0, points(|quantiles| quantiles.p50))
        .line("p99", 1, points(|quantiles| quantiles.p99))
        .line("p99.9", 2, points(|quantiles| quantiles.p99_9));
    let goals = saturation.slos.iter().filter_map(|slo| slo.parse::<Slo>().ok());
    plot.goals = goals.map(|slo| (slo.most_us() as f64, slo.to_string())).collect();
    let achieved = Plot::new("requests offered a second", Scale::Linear, plain).line(
        "achieved",
        0,
        steps.iter().map(|step| (f64::from(step.rate), step.achieved_per_s)).collect(),
    );
    let lead = match saturation.rate {
        Some(rate) => format!(
            "{rate} requests a second is the highest rate at which {} held.{}",
            saturation.slos.join(" and "),
            if saturation.is_generator_the_limit {
                " The generator gave out first: the server can do more."
            } else {
                ""
            }
        ),
        None if saturation.failed.is_some() => {
            format!("The search ended early: {}.", saturation.failed.as_deref().unwrap_or_default())
        }
        None => format!("No rate was found at which {} held.", saturation.slos.join(" and ")),
    };
    let mut body = format!(
        "<h1>The limit of {}</h1>\n<p class=\"lead\">{}</p>\n<section><h2>Latency by rate</h2>\n{}</section>\n\
         <section><h2>Achieved by rate</h2>\n{}</section>\n<section><h2>Every step, in order</h2>\n<table>\n\
         <tr><th>offered/s</th><th>achieved/s</th><th>p50</th><th>p99</th><th>p99.9</th><th>server cores</th>\
         <th>generator</th><th>what came of it</th></tr>\n",
        escaped(&saturation.target),
        escaped(&lead),
        plot.svg("latency by rate"),
        achieved.svg("achieved by rate"),
    );
    for step in &saturation.steps {
        let class = if step.holds() { "good" } else { "bad" };
        let again = if step.is_confirmation { "once more: " } else { "" };
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{:.0}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.0} %</td>\
             <td class=\"{class}\">{}</td></tr>",
            step.rate,
            step.achieved_per_s,
            latency(step.latency_us.p50),
            latency(step.latency_us.p99),
            latency(step.latency_us.p99_9),
            step.server_cores.map_or("-".to_owned(), |cores| format!("{cores:.2}")),
            step.generator_busiest * 100.0,
            escaped(&format!("{again}{}", step.words()))
        );
    }
    let workload = toml::to_string(&saturation.workload).unwrap_or_default();
    let _ = writeln!(
        body,
        "</table></section>\n<section><h2>How it was measured</h2><p class=\"note\">{}</p><pre>{}</pre></section>",
        escaped(&saturation.machine.to_string()),
        escaped(workload.trim())
    );
    page(&format!("The limit of {}", saturation.target), &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::record;

    fn step(rate: u32, holds: bool, is_generator_the_limit: bool) -> Step {
        let mut step = Step::new(rate, &record(), &[], false);
        step.failed = if holds { Vec::new() } else { vec!["too slow".to_owned()] };
        step.is_generator_the_limit = is_generator_the_limit;
        step
    }

    #[test]
    fn who_gave_out_first_is_told_by_the_lowest_rate_that_failed() {
        let held = step(1_000, true, false);
        let steps = [held.clone(), step(4_000, false, true), step(2_000, false, false)];
        assert!(!is_generator_first(&steps), "the server failed at 2,000, whatever gave out at 4,000");
        assert!(is_generator_first(&steps[..2]));
        assert!(!is_generator_first(&[held]));
    }

    #[test]
    fn a_step_whose_generator_was_held_back_says_so() {
        let mut record = record();
        assert!(!Step::new(1_000, &record, &[], false).line().contains("its core"));
        record.detail.generator_held_back = 0.07;
        let line = Step::new(1_000, &record, &[], false).line();
        assert!(line.contains("(the generator was kept from its core 7 % of the time: "), "{line}");
    }

    #[test]
    fn a_step_without_tokens_to_revoke_says_so() {
        let mut record = record();
        record.detail.ran_dry = true;
        let step = Step::new(1_000, &record, &[], true);
        assert!(step.ran_dry && step.line().ends_with("(no token was left to revoke: --revocable)"));
    }
}
