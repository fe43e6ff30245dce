//! What is counted, and how it is told.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::cli::Run;
use crate::run::histogram;

/// Wrong replies that are described; more are only counted.
const DESCRIBED_MAX: usize = 5;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Validate,
    Issue,
    Revoke,
}

const KINDS: [(Kind, &str); 3] =
    [(Kind::Validate, "validate"), (Kind::Issue, "issue"), (Kind::Revoke, "revoke")];

/// What was counted while measuring. Wrong replies count from the first request on.
#[derive(Clone)]
pub(crate) struct Totals {
    pub(crate) tokens: u64,
    /// Requests that were due.
    pub(crate) offered: u64,
    /// Those that were due while as many were in flight as may be.
    pub(crate) not_sent: u64,
    /// Those that the server did not answer at all.
    pub(crate) unanswered: u64,
    /// How late a request was sent at worst, for the generator itself had more to do than it could.
    pub(crate) lag_us_max: u64,
    /// Those that the server refused.
    pub(crate) refused: u64,
    pub(crate) errors: u64,
    pub(crate) wrong_replies: u64,
    described: Vec<String>,
    /// From when a request was due to its answer.
    latency: [Histogram<u64>; 3],
    /// From when it was sent.
    service: [Histogram<u64>; 3],
}

/// Everything there is to tell.
pub(crate) struct Report {
    pub(crate) seconds: f64,
    /// Durable issues a second while the key space was filled.
    pub(crate) fill_per_s: f64,
    pub(crate) generator_cpu_s: f64,
    pub(crate) server_cpu_s: Option<f64>,
    pub(crate) server_rss_bytes: Option<u64>,
    pub(crate) totals: Totals,
}

impl Totals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            tokens: 0,
            offered: 0,
            not_sent: 0,
            unanswered: 0,
            lag_us_max: 0,
            refused: 0,
            errors: 0,
            wrong_replies: 0,
            described: Vec::new(),
            latency: [histogram()?, histogram()?, histogram()?],
            service: [histogram()?, histogram()?, histogram()?],
        })
    }

    /// Forgets what was counted while warming up, but never a wrong reply.
    pub(crate) fn reset(&mut self) {
        (self.tokens, self.refused, self.errors) = (0, 0, 0);
        (self.offered, self.not_sent, self.lag_us_max) = (0, 0, 0);
        self.latency.iter_mut().chain(&mut self.service).for_each(Histogram::reset);
    }

    pub(crate) fn count(&mut self, kind: Kind, latency_us: u64, service_us: u64) {
        self.latency[kind as usize].saturating_record(latency_us.max(1));
        self.service[kind as usize].saturating_record(service_us.max(1));
    }

    pub(crate) fn wrong(&mut self, describe: impl FnOnce() -> String) {
        self.wrong_replies += 1;
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(describe());
        }
    }

    /// These, and of `late`, which went on, only what was wrong or never came.
    pub(crate) fn with_late(self, late: Self) -> Self {
        let (unanswered, wrong_replies, described) = (late.unanswered, late.wrong_replies, late.described);
        Self { unanswered, wrong_replies, described, ..self }
    }

    fn requests(&self) -> u64 {
        self.latency.iter().map(Histogram::len).sum()
    }
}

fn latency_json(latency: &Histogram<u64>) -> Value {
    json!({
        "count": latency.len(),
        "p50": latency.value_at_quantile(0.5),
        "p90": latency.value_at_quantile(0.9),
        "p99": latency.value_at_quantile(0.99),
        "p99_9": latency.value_at_quantile(0.999),
        "max": latency.max(),
    })
}

impl Report {
    fn json(&self, config: &Run) -> Value {
        let per_s = |count: u64| (count as f64 / self.seconds).round();
        let by_kind = |histograms: &[Histogram<u64>; 3]| {
            let named = KINDS.map(|(kind, name)| (name.to_owned(), latency_json(&histograms[kind as usize])));
            Value::Object(named.into_iter().collect())
        };
        json!({
            "tool": "jeton-load",
            "version": env!("CARGO_PKG_VERSION"),
            "workload": {
                "connections": config.connections, "batch": config.batch, "in_flight": config.in_flight,
                "tokens": config.tokens, "issue_batch": config.issue_batch, "rate": config.rate,
                "mix": { "validate": config.mix.validate, "issue": config.mix.issue, "revoke": config.mix.revoke },
            },
            "seconds": self.seconds,
            "fill_durable_issues_per_s": self.fill_per_s.round(),
            "offered_per_s": per_s(self.totals.offered),
            "achieved_per_s": per_s(self.totals.requests()),
            "requests_per_s": per_s(self.totals.requests()),
            "tokens_per_s": per_s(self.totals.tokens),
            "tokens_per_server_cpu_s": self.server_cpu_s.filter(|cpu| *cpu > 0.0).map(|cpu| (self.totals.tokens as f64 / cpu).round()),
            "server_cpu_s": self.server_cpu_s,
            "generator_cpu_s": self.generator_cpu_s,
            "server_rss_bytes": self.server_rss_bytes,
            "refused": self.totals.refused,
            "not_sent": self.totals.not_sent,
            "unanswered": self.totals.unanswered,
            "generator_lag_us_max": self.totals.lag_us_max,
            "errors": self.totals.errors,
            "wrong_replies": self.totals.wrong_replies,
            "latency_us": by_kind(&self.totals.latency),
            "service_us": by_kind(&self.totals.service),
        })
    }

    /// Prints the report; wrong replies go to standard error as well.
    pub(crate) fn print(&self, config: &Run) {
        let report = self.json(config);
        if config.json {
            println!("{report}");
        } else {
            self.print_text(&report);
        }
        for wrong in &self.totals.described {
            eprintln!("jeton-load: wrong reply: {wrong}");
        }
    }

    fn print_text(&self, report: &Value) {
        let number = |key: &str| {
            report.get(key).filter(|value| !value.is_null()).map_or("-".to_owned(), Value::to_string)
        };
        println!("filled        {} durable issues/s", number("fill_durable_issues_per_s"));
        println!(
            "validated     {} tokens/s, {} per server-CPU-second",
            number("tokens_per_s"),
            number("tokens_per_server_cpu_s")
        );
        println!(
            "requests      {}/s of {}/s offered, {} refused, {} not sent, {} unanswered, {} errors",
            number("achieved_per_s"),
            number("offered_per_s"),
            number("refused"),
            number("not_sent"),
            number("unanswered"),
            number("errors")
        );
        println!(
            "CPU           server {} s, generator {} s, in {:.1} s",
            number("server_cpu_s"),
            number("generator_cpu_s"),
            self.seconds
        );
        println!("server RSS    {} bytes", number("server_rss_bytes"));
        for (kind, name) in KINDS {
            let latency = &self.totals.latency[kind as usize];
            if !latency.is_empty() {
                println!(
                    "{name:<13} p50 {} us, p90 {} us, p99 {} us, p99.9 {} us, max {} us ({} requests)",
                    latency.value_at_quantile(0.5),
                    latency.value_at_quantile(0.9),
                    latency.value_at_quantile(0.99),
                    latency.value_at_quantile(0.999),
                    latency.max(),
                    latency.len(),
                );
            }
        }
        println!("wrong replies {}", self.totals.wrong_replies);
    }
}
