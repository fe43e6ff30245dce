//! A report for a terminal, and what has to be said beside the figures.

use super::Record;
use crate::live::{latency, time};

fn optional(value: Option<f64>, unit: &str) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2}{unit}"))
}

/// 1234567 as 1,234,567: rates are long numbers.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && text != "-" {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Prints the figures.
pub(crate) fn print_text(record: &Record) -> anyhow::Result<()> {
    let (summary, detail) = (&record.summary, &record.detail);
    tell!("target        {}", summary.target)?;
    if let Some(fill) = detail.fill_per_s {
        tell!("filled        at {} tokens/s", grouped(fill))?;
    }
    tell!(
        "requests      {}/s of {}/s offered; {} refused, {} not sent, {} unanswered, {} errors",
        grouped(summary.achieved_per_s),
        grouped(summary.offered_per_s),
        summary.refused,
        detail.not_sent,
        detail.unanswered,
        summary.errors
    )?;
    tell!(
        "validated     {} tokens/s, {} per server-CPU-second",
        grouped(summary.tokens_per_s),
        summary.tokens_per_server_cpu_s.map_or("-".to_owned(), grouped)
    )?;
    tell!(
        "CPU           server {}, generator {:.2} s, in {:.1} s; the busiest worker {:.0} % of the time",
        optional(summary.server_cpu_s, " s"),
        summary.generator_cpu_s,
        detail.seconds,
        detail.generator_busiest * 100.0
    )?;
    let mib = summary.server_rss_bytes.map(|bytes| bytes as f64 / 1_048_576.0);
    tell!("server RSS    {}", optional(mib, " MiB"))?;
    tell!(
        "latency       from when a request was to be sent; in brackets the service time, from when it was"
    )?;
    let all = [("all", summary.latency_us, summary.service_us)];
    let kinds = detail.kinds.iter().map(|of| (of.kind.as_str(), of.latency_us, of.service_us));
    for (name, due, sent) in all.into_iter().chain(kinds.filter(|_| detail.kinds.len() > 1)) {
        let both = |due, sent| format!("{} ({})", latency(due), latency(sent));
        tell!(
            "{name:<13} p50 {}, p99 {}, p99.9 {}, max {}",
            both(due.p50, sent.p50),
            both(due.p99, sent.p99),
            both(due.p99_9, sent.p99_9),
            both(due.max, sent.max),
        )?;
    }
    tell!("wrong replies {}", summary.wrong_replies)
}

/// What a reader must know to make sense of the figures, a line each.
pub(crate) fn warnings(record: &Record) -> Vec<String> {
    let (summary, detail) = (&record.summary, &record.detail);
    let (mut warnings, mut has_told_held_back) = (Vec::new(), false);
    if record.is_generator_the_limit() {
        let server = summary
            .server_cpu_s
            .map_or("unknown".to_owned(), |cpu| format!("{:.2} cores", cpu / detail.seconds));
        warnings.push(format!(
            "the generator is the limit: its busiest worker worked {:.0} % of the time (server: {server}); add \
             --workers, cores or machines, these figures are not the server's",
            detail.generator_busiest * 100.0
        ));
    }
    if record.is_behind() && !record.is_generator_the_limit() && !summary.workload.is_closed() {
        let answered = format!(
            "{}/s of {}/s were answered",
            grouped(summary.requests_per_s),
            grouped(summary.offered_per_s)
        );
        let late = time(detail.generator_lag_us_max);
        has_told_held_back = record.is_generator_held_back();
        warnings.push(if record.is_server_the_limit() {
            format!(
                "the server did not keep up: {answered}, all places for requests were taken (the generator itself was \
                 late by {late} at most)"
            )
        } else if record.is_generator_held_back() {
            format!(
                "only {answered}; the generator was not always given its core: it was kept from it {:.0} % of the time \
                 and late by {late} at most",
                detail.generator_held_back * 100.0
            )
        } else {
            format!("only {answered}, although there was room for more (the generator was late by {late} at most)")
        });
    }
    // Also where it kept up, and in a closed loop: what it was late by is in what was measured.
    if record.is_generator_held_back() && !has_told_held_back {
        warnings.push(format!(
            "the generator was not always given its core: it was kept from it {:.0} % of the time and late by {} at most, \
             which latencies hold beside what the server took",
            detail.generator_held_back * 100.0,
            time(detail.generator_lag_us_max)
        ));
    }
    if detail.ran_dry {
        warnings.push(
            "every token set aside to be revoked was: the rest of the run validated instead (keys.revocable)"
                .to_owned(),
        );
    }
    if detail.unanswered > 0 {
        warnings.push(format!("{} requests were never answered", detail.unanswered));
    }
    warnings.extend(detail.described.iter().cloned());
    warnings
}
