//! What is shown while a run goes on, on standard error: a few lines that change in place, or a plain line each interval
//! where that or standard output is no terminal.

use std::collections::VecDeque;
use std::io::IsTerminal as _;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::run::Row;

/// Values of a sparkline.
const SPARKS: usize = 40;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Somebody who watches.
pub(crate) trait View {
    /// An interval is over.
    fn row(&mut self, row: &Row);
    /// The run is over.
    fn end(&mut self);
}

/// Nobody.
pub(crate) struct Silent;

impl View for Silent {
    fn row(&mut self, _row: &Row) {}
    fn end(&mut self) {}
}

/// A line an interval.
pub(crate) struct Lines;

impl View for Lines {
    fn row(&mut self, row: &Row) {
        eprintln!("{}", line(row));
    }

    fn end(&mut self) {}
}

fn line(row: &Row) -> String {
    format!(
        "{:>6.1} s  {:>9.0} of {:>9.0} requests/s  {:>10.0} tokens/s  p50 {} p99 {} max {}  {} errors  {} wrong",
        row.at_s,
        row.achieved_per_s,
        row.offered_per_s,
        row.tokens_per_s,
        latency(row.p50_us),
        latency(row.p99_us),
        latency(row.max_us),
        row.errors,
        row.wrong_replies
    )
}

/// A time with three digits or so: 950 us, 1.25 ms, 3.1 s.
pub(crate) fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// A latency; of nothing there is none, and what was measured is at least 1 us.
pub(crate) fn latency(us: u64) -> String {
    if us == 0 { "-".to_owned() } else { time(us) }
}

/// Lines that change in place.
pub(crate) struct Terminal {
    bars: MultiProgress,
    progress: ProgressBar,
    lines: Vec<ProgressBar>,
    rates: VecDeque<f64>,
    tails: VecDeque<f64>,
    duration_s: f64,
    errors: u64,
    wrong: u64,
}

impl Terminal {
    fn new(duration_s: f64) -> Self {
        let bars = MultiProgress::new();
        let style = |template| ProgressStyle::with_template(template).expect("the template is sound");
        let progress = bars.add(ProgressBar::new(1_000).with_style(style("  time     {bar:40} {msg}")));
        let lines = (0..4).map(|_| bars.add(ProgressBar::new(1).with_style(style("  {msg}")))).collect();
        let (rates, tails) = (VecDeque::new(), VecDeque::new());
        Self { bars, progress, lines, rates, tails, duration_s, errors: 0, wrong: 0 }
    }
}

fn spark(values: &VecDeque<f64>) -> String {
    let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    values.iter().map(|value| BLOCKS[((value / most * 7.0).round() as usize).min(7)]).collect()
}

impl View for Terminal {
    fn row(&mut self, row: &Row) {
        for (values, value) in [(&mut self.rates, row.achieved_per_s), (&mut self.tails, row.p99_us as f64)] {
            if values.len() == SPARKS {
                values.pop_front();
            }
            values.push_back(value);
        }
        (self.errors, self.wrong) = (self.errors + row.errors, self.wrong + row.wrong_replies);
        self.progress.set_position((row.at_s / self.duration_s * 1_000.0) as u64);
        self.progress.set_message(format!("{:.0} of {:.0} s", row.at_s, self.duration_s));
        let cores = row.server_cores.map_or("-".to_owned(), |cores| format!("{cores:.2}"));
        let texts = [
            format!(
                "rate     {:<40} {:.0} of {:.0} requests/s, {:.0} tokens/s",
                spark(&self.rates),
                row.achieved_per_s,
                row.offered_per_s,
                row.tokens_per_s
            ),
            format!("p99      {:<40} {}", spark(&self.tails), latency(row.p99_us)),
            format!(
                "latency  p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
                latency(row.p50_us),
                latency(row.p90_us),
                latency(row.p99_us),
                latency(row.p99_9_us),
                latency(row.max_us)
            ),
            format!(
                "cores    server {cores}, generator {:.2}   refused {:.0}/s, errors {}, wrong replies {}",
                row.generator_cores, row.refused_per_s, self.errors, self.wrong
            ),
        ];
        for (line, text) in self.lines.iter().zip(texts) {
            line.set_message(text);
            line.tick();
        }
    }

    fn end(&mut self) {
        for line in self.lines.iter().chain([&self.progress]) {
            line.finish_and_clear();
        }
        let _ = self.bars.clear();
    }
}

/// What fits the terminal, if there is one.
pub(crate) fn view(duration_s: f64, is_quiet: bool) -> Box<dyn View> {
    if is_quiet {
        Box::new(Silent)
    } else if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
        Box::new(Terminal::new(duration_s))
    } else {
        Box::new(Lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sparks_are_short() {
        assert_eq!([7, 1_250, 43_210, 3_100_000].map(time), ["7 us", "1.25 ms", "43.2 ms", "3.10 s"]);
        assert_eq!(spark(&VecDeque::from([0.0, 5.0, 10.0])), "▁▅█");
        let row =
            Row { at_s: 1.0, achieved_per_s: 99.6, offered_per_s: 100.0, p99_us: 1_500, ..Row::default() };
        assert!(line(&row).contains("100 of       100 requests/s"), "{}", line(&row));
        assert!(line(&row).contains("p50 - p99 1.50 ms"), "{}", line(&row));
    }
}
