//! A report as one page that needs nothing else: plots, figures, and words for whoever has never read one.

use std::fmt::Write as _;

use super::plot::{Cell, Plot, Scale, plain};
use super::text::{grouped, warnings};
use super::{Quantiles, Record};
use crate::live::{latency, time};
use crate::run::Row;

/// Colours: light, dark, and for paper the light ones. Plots take them by class.
const STYLE: &str = include_str!("page.css");

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A page with this title and these contents.
pub(crate) fn page(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// The page of some runs, one after another.
pub(crate) fn runs(records: &[Record]) -> String {
    let title = match records {
        [only] => format!("Load test: {}", only.summary.target),
        _ => format!("Load tests: {} runs", records.len()),
    };
    let body: String = records.iter().map(run).collect();
    page(&title, &body)
}

fn run(record: &Record) -> String {
    let (summary, detail) = (&record.summary, &record.detail);
    let mut html = format!(
        "<h1>{}</h1>\n<p class=\"lead\">{}. {}</p>\n",
        escaped(&summary.target),
        escaped(&summary.workload.about),
        escaped(&verdict(record))
    );
    for warning in warnings(record).into_iter().chain(detail.failed.clone()) {
        let _ = writeln!(html, "<p class=\"warning\">{}</p>", escaped(&warning));
    }
    cards(record, &mut html);
    let plots = [
        (
            "Latency by percentile",
            percentiles_note(record),
            by_percentile(record),
        ),
        (
            "Rates",
            "What was due in each interval (in a closed loop, what was sent) and what was answered as asked in it. The \
             two lie on each other as long as the server keeps up; where it does not, they part."
                .to_owned(),
            rates(&detail.rows),
        ),
        (
            "Latency over time",
            "The stronger the colour of a field, the more requests took that long in that interval. Stripes are steady; \
             a field far above them is a pause."
                .to_owned(),
            heat(&detail.rows),
        ),
        (
            "Processor",
            "Cores in use. A server at as many cores as it may use is at its limit; a generator there hides the \
             server's."
                .to_owned(),
            cores(&detail.rows),
        ),
        (
            "Memory of the server",
            "What is resident. It grows with tokens; a steady load keeps it level.".to_owned(),
            memory(&detail.rows),
        ),
    ];
    for (title, note, plot) in plots {
        if let Some(plot) = plot {
            let (svg, title) = (plot.svg(title), escaped(title));
            let _ =
                writeln!(html, "<section>\n<h2>{title}</h2>\n{svg}<p class=\"note\">{note}</p>\n</section>");
        }
    }
    tables(record, &mut html);
    html
}

/// How to read the curve, and why latency and service time part, as far as this run tells.
fn percentiles_note(record: &Record) -> String {
    let detail = &record.detail;
    let late = time(detail.generator_lag_us_max);
    let why = match (detail.no_room > 0, record.is_generator_held_back() || record.is_generator_the_limit()) {
        (true, false) => "requests had to wait for earlier ones".to_owned(),
        (true, true) => format!(
            "requests had to wait for earlier ones, or for the generator, which was late by itself (by {late} at most)"
        ),
        (false, _) => {
            format!("the generator was late by itself (by {late} at most): there was room for every request")
        }
    };
    format!(
        "Read it from the bottom: at 99 on the lower axis, one request in a hundred took longer than the line is high. \
         Latency counts from when a request was to be sent; service time from when it was. Where they part, {why}."
    )
}

/// The first thing to know.
fn verdict(record: &Record) -> String {
    let (summary, detail) = (&record.summary, &record.detail);
    let checked = match summary.wrong_replies {
        0 => "every reply was checked, none was wrong".to_owned(),
        wrong => format!("{wrong} replies were WRONG"),
    };
    let times = match summary.latency_us {
        Quantiles { max: 0, .. } if summary.achieved_per_s > 0.0 => {
            "all that were are of the warm-up".to_owned()
        }
        Quantiles { max: 0, .. } => "none was answered as asked".to_owned(),
        Quantiles { p50, p99, .. } => {
            format!("half of them within {}, 99 in a hundred within {}", time(p50), time(p99))
        }
    };
    format!(
        "{} of {} requests a second were answered over {:.0} s; {times}; {checked}.",
        grouped(summary.achieved_per_s),
        grouped(summary.offered_per_s),
        detail.seconds,
    )
}

fn cards(record: &Record, html: &mut String) {
    let summary = &record.summary;
    let optional = |value: Option<f64>| value.map_or("-".to_owned(), grouped);
    let cards = [
        ("requests/s", grouped(summary.achieved_per_s)),
        ("tokens/s", grouped(summary.tokens_per_s)),
        ("p50", latency(summary.latency_us.p50)),
        ("p99", latency(summary.latency_us.p99)),
        ("p99.9", latency(summary.latency_us.p99_9)),
        ("tokens per server-CPU-second", optional(summary.tokens_per_server_cpu_s)),
        ("refused", grouped(summary.refused as f64)),
        ("errors", grouped(summary.errors as f64)),
        ("wrong replies", grouped(summary.wrong_replies as f64)),
    ];
    html.push_str("<div class=\"cards\">\n");
    for (name, value) in cards {
        let _ = writeln!(html, "<div><b>{}</b><span>{}</span></div>", escaped(&value), escaped(name));
    }
    html.push_str("</div>\n");
}

fn micros(value: f64) -> String {
    time(value as u64)
}

fn by_percentile(record: &Record) -> Option<Plot> {
    let curve = &record.detail.curve;
    if curve.len() < 2 {
        return None;
    }
    // Each nine as far from the last as that from the one before.
    let across = |quantile: f64| -(1.0 - quantile).log10();
    let points = |value: fn(&super::Point) -> u64| {
        curve.iter().map(|point| (across(point.quantile), value(point).max(1) as f64)).collect()
    };
    let mut plot = Plot::new("percentile", Scale::Log, micros)
        .line("latency", 0, points(|point| point.latency_us))
        .line("service time", 1, points(|point| point.service_us));
    let ticks = [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")];
    let more = [(0.99999, "99.999"), (0.999_999, "99.9999")];
    plot.x_ticks = Some(
        ticks.into_iter().chain(more).map(|(quantile, name)| (across(quantile), name.to_owned())).collect(),
    );
    Some(plot)
}

fn over_time(rows: &[Row], value: impl Fn(&Row) -> f64) -> Vec<(f64, f64)> {
    rows.iter().map(|row| (row.at_s, value(row))).collect()
}

fn rates(rows: &[Row]) -> Option<Plot> {
    let plot = Plot::new("seconds", Scale::Linear, plain)
        .line("offered", 2, over_time(rows, |row| row.offered_per_s))
        .line("achieved", 0, over_time(rows, |row| row.achieved_per_s));
    let has_refused = rows.iter().any(|row| row.refused_per_s > 0.0);
    let plot =
        if has_refused { plot.line("refused", 1, over_time(rows, |row| row.refused_per_s)) } else { plot };
    (rows.len() > 1).then_some(plot)
}

fn heat(rows: &[Row]) -> Option<Plot> {
    let mut plot = Plot::new("seconds", Scale::Log, micros)
        .line("p50", 0, over_time(rows, |row| row.p50_us.max(1) as f64))
        .line("p99", 1, over_time(rows, |row| row.p99_us.max(1) as f64))
        .line("max", 2, over_time(rows, |row| row.max_us.max(1) as f64));
    for row in rows {
        let most = row.bands.iter().copied().max().unwrap_or(0) as f64;
        for (band, count) in row.bands.iter().enumerate().filter(|(_, count)| **count > 0) {
            let edge = |band: usize| 2_f64.powf(band as f64 / 2.0);
            // By their logarithm: a few slow ones are what one looks for.
            let weight = 0.08 + 0.72 * (1.0 + *count as f64).ln() / (1.0 + most).ln();
            let (x, y) = ((row.at_s - row.seconds, row.at_s), (edge(band), edge(band + 1)));
            plot.cells.push(Cell { x, y, weight });
        }
    }
    (rows.len() > 1).then_some(plot)
}

fn cores(rows: &[Row]) -> Option<Plot> {
    let plot = Plot::new("seconds", Scale::Linear, plain)
        .line("generator", 2, over_time(rows, |row| row.generator_cores))
        .line("server", 0, over_time(rows, |row| row.server_cores.unwrap_or(f64::NAN)));
    (rows.len() > 1).then_some(plot)
}

fn memory(rows: &[Row]) -> Option<Plot> {
    let mib = |row: &Row| row.server_rss_bytes.map_or(f64::NAN, |bytes| bytes as f64 / 1_048_576.0);
    let is_known = rows.iter().any(|row| row.server_rss_bytes.is_some());
    (rows.len() > 1 && is_known).then(|| {
        Plot::new("seconds", Scale::Linear, |mib| format!("{mib:.0} MiB")).line(
            "resident",
            0,
            over_time(rows, mib),
        )
    })
}

fn tables(record: &Record, html: &mut String) {
    let (summary, detail) = (&record.summary, &record.detail);
    html.push_str(
        "<section>\n<h2>By kind of request</h2>\n<table>\n<tr><th>kind</th><th>requests</th><th>p50</th><th>p90</th>\
         <th>p99</th><th>p99.9</th><th>max</th><th>service p50</th><th>service p99</th></tr>\n",
    );
    for of in &detail.kinds {
        let Quantiles { p50, p90, p99, p99_9, max } = of.latency_us;
        let times = [p50, p90, p99, p99_9, max, of.service_us.p50, of.service_us.p99];
        let cells: String = times.into_iter().map(|us| format!("<td>{}</td>", latency(us))).collect();
        let requests = grouped(of.requests as f64);
        let _ = writeln!(html, "<tr><td>{}</td><td>{requests}</td>{cells}</tr>", escaped(&of.kind));
    }
    html.push_str("</table>\n</section>\n<section>\n<h2>How it was measured</h2>\n<dl>\n");
    let seconds = |value: Option<f64>| value.map_or("not known".to_owned(), |value| format!("{value:.2} s"));
    let facts = [
        ("machine", summary.machine.to_string()),
        ("tool", format!("{} {}", summary.tool, summary.version)),
        ("processor time of the server", seconds(summary.server_cpu_s)),
        ("processor time of the generator", seconds(Some(summary.generator_cpu_s))),
        ("busiest worker of the generator", format!("{:.0} % of the time", detail.generator_busiest * 100.0)),
        ("requests never sent, never answered", format!("{}, {}", detail.not_sent, detail.unanswered)),
        (
            "tokens issued a second while the key space was filled",
            detail.fill_per_s.map_or("none was issued for this run".to_owned(), grouped),
        ),
    ];
    for (name, fact) in facts {
        let _ = writeln!(html, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(&fact));
    }
    let workload = toml::to_string(&summary.workload).unwrap_or_default();
    let again = if detail.is_replay {
        "The same again: <code>jeton-load replay</code> with the same trace, which this sums up."
    } else {
        "The same again: save this as load.toml, then <code>jeton-load run -w load.toml</code>."
    };
    let _ = writeln!(
        html,
        "</dl>\n<p class=\"note\">{again}</p>\n<pre>{}</pre>\n</section>",
        escaped(workload.trim())
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::record;

    #[test]
    fn a_page_needs_nothing_from_elsewhere_and_has_a_look_for_each_medium() {
        let html = runs(&[record()]);
        for part in ["http://", "https://", "<script", "src=", "url(", "NaN"] {
            assert!(!html.contains(part), "{part}");
        }
        for part in
            ["prefers-color-scheme: dark", "@media print", "100 of 120 requests a second", "<pre>about"]
        {
            assert!(html.contains(part), "{part}");
        }
        assert_eq!(html.matches("<svg").count(), 5);
        for tag in ["section", "table", "svg", "dl", "div", "main"] {
            let (opened, closed) =
                (html.matches(&format!("<{tag}")).count(), html.matches(&format!("</{tag}>")).count());
            assert_eq!(opened, closed, "{tag}");
        }
    }

    #[test]
    fn a_gap_between_the_two_times_is_explained_by_what_was_measured() {
        let mut record = record();
        assert!(runs(&[record.clone()]).contains("Where they part, requests had to wait for earlier ones."));
        record.detail.generator_held_back = 0.2;
        assert!(
            runs(&[record.clone()]).contains("or for the generator, which was late by itself (by 250 us at")
        );
        record.detail.no_room = 0;
        assert!(!runs(&[record]).contains("had to wait for earlier ones"));
    }

    #[test]
    fn a_replay_is_not_called_a_run_of_its_workload() {
        let mut record = record();
        assert!(runs(&[record.clone()]).contains("jeton-load run -w load.toml"));
        record.detail.is_replay = true;
        let html = runs(&[record]);
        assert!(html.contains("<code>jeton-load replay</code>") && !html.contains("run -w load.toml"));
    }

    #[test]
    fn what_a_server_says_is_no_markup() {
        let mut record = record();
        record.detail.described = vec!["wrong reply: <script>alert(1)</script>".to_owned()];
        record.summary.target = "<b>".to_owned();
        let html = runs(&[record.clone(), record]);
        assert!(!html.contains("<script") && !html.contains("<b>Load") && html.contains("&lt;script&gt;"));
    }
}
