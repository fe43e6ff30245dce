//! What one span of load showed, and what several of them come to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jeton_client::{Client, ValidateCounts};

use crate::Failure;

/// How long one span lasts; what ends in the first part of it is not counted.
const WARM: Duration = Duration::from_millis(500);
const SPAN: Duration = Duration::from_secs(2);
const LATENCY_US_MAX: u64 = 60_000_000;

/// Latencies of one span, as they come in.
pub(crate) struct Recorder {
    began: Instant,
    cpu_began: Duration,
    latencies_us: Mutex<Histogram<u64>>,
    /// Also those outside the span whose latencies count.
    requests: AtomicU64,
}

/// Processor time of this process so far, in steps of 10 ms: of the service and its callers, not of the server.
fn cpu_time() -> Result<Duration, Failure> {
    const TICK: Duration = Duration::from_millis(10);
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The name, in brackets, may hold anything; user and system time are the 12th and 13th field behind it.
    let (_, fields) = text.rsplit_once(") ").ok_or("a process has a name")?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || -> Result<u32, Failure> { Ok(fields.next().ok_or("a process has times")?.parse()?) };
    Ok(TICK * (ticks()? + ticks()?))
}

impl Recorder {
    pub(crate) fn new() -> Result<Self, Failure> {
        let latencies_us = Mutex::new(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?);
        let (began, cpu_began) = (Instant::now(), cpu_time()?);
        Ok(Self { began, cpu_began, latencies_us, requests: AtomicU64::new(0) })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.began.elapsed() >= WARM + SPAN
    }

    /// Takes down a request that began then and has just ended.
    pub(crate) fn note(&self, began: Instant) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let within = WARM..WARM + SPAN;
        if within.contains(&self.began.elapsed()) {
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(LATENCY_US_MAX);
            self.latencies_us.lock().expect("nobody panics with it").saturating_record(micros.max(1));
        }
    }

    pub(crate) fn sample(self, counts: ValidateCounts) -> Result<Sample, Failure> {
        let cpu = cpu_time()?.saturating_sub(self.cpu_began);
        let requests = self.requests.into_inner().max(1);
        let latencies = self.latencies_us.into_inner().expect("nobody panics with it");
        Ok(Sample {
            per_second: latencies.len() as f64 / SPAN.as_secs_f64(),
            p50_us: latencies.value_at_quantile(0.5) as f64,
            p99_us: latencies.value_at_quantile(0.99) as f64,
            tokens_per_frame: counts.tokens as f64 / counts.frames.max(1) as f64,
            cpu_us: cpu.as_secs_f64() * 1e6 / requests as f64,
        })
    }
}

/// What a client has asked since `before`.
pub(crate) fn asked_since(client: &Client, before: ValidateCounts) -> ValidateCounts {
    let now = client.validate_counts();
    ValidateCounts { tokens: now.tokens - before.tokens, frames: now.frames - before.frames }
}

#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) tokens_per_frame: f64,
    /// Processor time of a request, in the process of the service and its callers.
    pub(crate) cpu_us: f64,
}

impl Sample {
    /// The median of each figure.
    pub(crate) fn median(all: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = all.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied().unwrap_or_default()
        };
        Self {
            per_second: of(|sample| sample.per_second),
            p50_us: of(|sample| sample.p50_us),
            p99_us: of(|sample| sample.p99_us),
            tokens_per_frame: of(|sample| sample.tokens_per_frame),
            cpu_us: of(|sample| sample.cpu_us),
        }
    }

    /// A row of a table; the spread is that of the rates.
    pub(crate) fn row(what: &str, callers: impl std::fmt::Display, all: &[Self]) {
        let Self { per_second, p50_us, p99_us, tokens_per_frame, cpu_us } = Self::median(all);
        let rates = all.iter().map(|sample| sample.per_second);
        let (least, most) =
            rates.fold((f64::MAX, 0.0_f64), |(least, most), rate| (least.min(rate), most.max(rate)));
        println!(
            "| {callers} | {what} | {per_second:.0} ({least:.0} to {most:.0}) | {p50_us:.0} | {p99_us:.0} \
             | {cpu_us:.1} | {tokens_per_frame:.1} |"
        );
    }
}
