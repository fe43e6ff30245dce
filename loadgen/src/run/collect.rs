//! Collecting: what workers say interval by interval becomes rows, and one whole.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use serde::{Deserialize, Serialize};

use crate::interrupt;
use crate::live::View;
use crate::measure::{cpu_of, own_cpu, rss_of, wall};
use crate::recorder::{Counts, Sample};
use crate::report::hdr::IntervalLog;
use crate::target::Server;
use crate::worker::{Crew, Said, Worker};

/// Intervals that wait to be collected at most.
const WAITING_MAX: usize = 1_024;
/// How often the server's process is looked at while nothing is said.
const LOOK: Duration = Duration::from_millis(500);
/// Bands of the heat map: powers of the square root of two, from 1 us on.
pub(crate) const BANDS: usize = 60;

/// What happened in one interval.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    /// From the beginning of the measured part to the end of the interval, and how long that was.
    pub(crate) at_s: f64,
    pub(crate) seconds: f64,
    pub(crate) offered_per_s: f64,
    pub(crate) achieved_per_s: f64,
    pub(crate) refused_per_s: f64,
    pub(crate) tokens_per_s: f64,
    pub(crate) errors: u64,
    pub(crate) wrong_replies: u64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p99_9_us: u64,
    pub(crate) max_us: u64,
    /// Requests by latency: band `n` begins at 2^(n/2) us.
    pub(crate) bands: Vec<u64>,
    /// Cores in use.
    pub(crate) server_cores: Option<f64>,
    pub(crate) generator_cores: f64,
    pub(crate) server_rss_bytes: Option<u64>,
}

/// Everything that came of a run.
pub(crate) struct Outcome {
    /// How long was measured: up to the last answer, if something ended the run early.
    pub(crate) seconds: f64,
    /// How long it was counted what was due: until the silence was noticed.
    pub(crate) counted_seconds: f64,
    pub(crate) whole: Sample,
    pub(crate) rows: Vec<Row>,
    /// Interval by interval: latencies, and service times.
    pub(crate) log: IntervalLog,
    pub(crate) service_log: IntervalLog,
    pub(crate) generator_cpu_s: f64,
    pub(crate) server_cpu_s: Option<f64>,
    pub(crate) server_rss_bytes: Option<u64>,
    /// The part of the time in which the busiest worker had something to do.
    pub(crate) busiest: f64,
    /// The part of the time in which one worker at worst had something to do and was not let.
    pub(crate) held_back: f64,
    pub(crate) ran_dry: bool,
    /// Whether what was asked came from a trace.
    pub(crate) is_replay: bool,
    /// What ended the run early.
    pub(crate) failed: Option<anyhow::Error>,
}

impl Outcome {
    /// Whether anything that was asked in the time was answered as asked; otherwise there is nothing to tell of the server
    /// but that.
    pub(crate) fn check_answers(&self) -> anyhow::Result<()> {
        let Counts { offered, achieved, refused, errors, wrong_replies, unanswered, .. } = self.whole.counts;
        let is_answered = self.whole.service.iter().any(|times| !times.is_empty());
        ensure!(
            (achieved > 0 && is_answered) || offered == 0 || wrong_replies > 0,
            "nothing was answered as asked: {refused} requests were refused, {errors} answers were errors, {unanswered} \
             never came"
        );
        Ok(())
    }
}

/// What a process had used at some time.
#[derive(Clone, Copy)]
struct Used {
    at: Instant,
    own: Duration,
    server: Option<Duration>,
}

impl Used {
    fn now(pid: Option<u32>) -> Self {
        Self { at: Instant::now(), own: own_cpu(), server: pid.and_then(cpu_of) }
    }

    /// CPU seconds of this process and of the server since then.
    fn until(&self, later: &Self) -> (f64, Option<f64>) {
        let server = self.server.zip(later.server).map(|(from, to)| to.saturating_sub(from).as_secs_f64());
        ((later.own - self.own).as_secs_f64(), server)
    }
}

struct Collector<'a> {
    crew: &'a Crew,
    pid: Option<u32>,
    from: Instant,
    /// Intervals of which some workers have not spoken yet: the sum so far, and how many have.
    open: BTreeMap<usize, (Box<Sample>, u16)>,
    used: Used,
    /// The server's CPU time when it was last seen: what it used stays known once it is gone.
    server_cpu: Option<Duration>,
    rows: Vec<Row>,
    whole: Sample,
    log: IntervalLog,
    service_log: IntervalLog,
    rss_max: Option<u64>,
    /// Of each worker.
    idle: Vec<Duration>,
    held_back: Vec<Duration>,
}

/// Runs the workers of a crew to their end.
pub(crate) fn collect(crew: &Crew, server: &Server, view: &mut dyn View) -> anyhow::Result<Outcome> {
    let workload = &crew.shared.workload;
    interrupt::listen()?;
    let (say, said) = bounded(WAITING_MAX);
    let (give_back, spare) = bounded(WAITING_MAX);
    std::thread::scope(|scope| {
        for number in 0..workload.workers {
            let (say, spare) = (say.clone(), spare.clone());
            let connections = share(workload.connections, workload.workers, number);
            let worker = Worker { crew, number, say, spare };
            std::thread::Builder::new()
                .name(format!("jeton-load-{number}"))
                .spawn_scoped(scope, move || {
                    worker.run(|| {
                        server.bind(number)?;
                        server.connect(connections, workload.streams)
                    })
                })
                .context("a worker's thread")?;
        }
        drop(say);
        crew.barrier.wait();
        let mut collector = Collector::new(crew, server.pid());
        collector.listen(&said, &give_back, view)
    })
}

/// A worker's share of connections: the first ones have one more.
fn share(connections: u16, workers: u16, number: u16) -> u16 {
    connections / workers + u16::from(number < connections % workers)
}

impl<'a> Collector<'a> {
    fn new(crew: &'a Crew, pid: Option<u32>) -> Self {
        let (from, _) = crew.window();
        let workers = usize::from(crew.shared.workload.workers);
        // What was used while warming up is not counted.
        while Instant::now() < from && !crew.stop.load(Relaxed) && !interrupt::is_wanted() {
            std::thread::sleep(from.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        }
        Self {
            crew,
            pid,
            from,
            open: BTreeMap::new(),
            used: Used::now(pid),
            server_cpu: None,
            rows: Vec::new(),
            whole: Sample::default(),
            log: IntervalLog::new("latency from the intended start", wall()),
            service_log: IntervalLog::new("service time from when it was sent", wall()),
            rss_max: None,
            idle: vec![Duration::ZERO; workers],
            held_back: vec![Duration::ZERO; workers],
        }
    }

    fn listen(
        &mut self,
        said: &Receiver<Said>,
        give_back: &crossbeam_channel::Sender<Box<Sample>>,
        view: &mut dyn View,
    ) -> anyhow::Result<Outcome> {
        let (began, mut ran_dry, mut failed) = (self.used, false, None);
        let (mut heard, mut counted, mut ended) = (self.from, self.from, None);
        loop {
            match said.recv_timeout(LOOK) {
                Ok(Said::Interval(worker, interval, sample)) => {
                    let is_last = self.take(worker, interval, &sample, view);
                    if is_last {
                        ended = Some(self.used);
                    }
                    let _ = give_back.try_send(sample);
                }
                Ok(Said::Done { heard: at, counted: until, ran_dry: is_dry, result }) => {
                    (heard, counted, ran_dry) = (heard.max(at), counted.max(until), ran_dry | is_dry);
                    failed = failed.or(result.err());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if failed.is_none() && interrupt::is_wanted() {
                failed = Some(anyhow::anyhow!(interrupt::WITH_FIGURES));
                self.crew.stop.store(true, Relaxed);
            }
            let is_there = self.look();
            if failed.is_none() && !is_there {
                failed = Some(anyhow::anyhow!("the server's process is gone"));
                self.crew.stop.store(true, Relaxed);
            }
        }
        view.end();
        while let Some((interval, (sample, _))) = self.open.pop_first() {
            self.close(interval, &sample, view);
        }
        let (_, until) = self.crew.window();
        // A server that fell silent is measured up to its last word; what was due, and what the workers did, up to when
        // they gave up.
        let up_to = |at: Instant| at.clamp(self.from, until).duration_since(self.from).as_secs_f64();
        let (seconds, counted_seconds) =
            if failed.is_some() { (up_to(heard), up_to(counted)) } else { (up_to(until), up_to(until)) };
        let (generator_cpu_s, server_cpu_s) = began.until(&ended.unwrap_or(self.used));
        let part = |time: Duration| {
            let part = time.as_secs_f64() / counted_seconds;
            if counted_seconds > 0.0 { part.clamp(0.0, 1.0) } else { 0.0 }
        };
        let idle = self.idle.iter().min().copied().unwrap_or_default();
        let held_back = self.held_back.iter().max().copied().unwrap_or_default();
        Ok(Outcome {
            seconds,
            counted_seconds,
            whole: std::mem::take(&mut self.whole),
            rows: std::mem::take(&mut self.rows),
            log: std::mem::take(&mut self.log),
            service_log: std::mem::take(&mut self.service_log),
            generator_cpu_s,
            server_cpu_s,
            server_rss_bytes: self.rss_max,
            busiest: if counted_seconds > 0.0 { 1.0 - part(idle) } else { 0.0 },
            held_back: part(held_back),
            ran_dry,
            is_replay: self.crew.shared.trace.is_some(),
            failed,
        })
    }

    /// Looks at the server's process; returns whether it is there, as far as one can know.
    fn look(&mut self) -> bool {
        let Some(pid) = self.pid else { return true };
        let cpu = cpu_of(pid);
        self.server_cpu = cpu.or(self.server_cpu);
        cpu.is_some()
    }

    /// Adds one worker's interval; returns whether it was the last of the measured part.
    fn take(&mut self, worker: u16, interval: usize, sample: &Sample, view: &mut dyn View) -> bool {
        let workers = self.crew.shared.workload.workers;
        let (sum, spoken) = self.open.entry(interval).or_default();
        sum.add(sample);
        *spoken += 1;
        self.idle[usize::from(worker)] += sample.idle;
        self.held_back[usize::from(worker)] += sample.held_back;
        if *spoken < workers {
            return false;
        }
        let Some((sum, _)) = self.open.remove(&interval) else { return false };
        self.close(interval, &sum, view);
        self.from + self.crew.interval * (interval as u32 + 1) >= self.crew.window().1
    }

    fn close(&mut self, interval: usize, sample: &Sample, view: &mut dyn View) {
        self.whole.add(sample);
        let begin = self.from + self.crew.interval * interval as u32;
        let end = (begin + self.crew.interval).min(self.crew.window().1);
        let seconds = end.saturating_duration_since(begin).as_secs_f64();
        // What came after the end is in no interval, and in no row.
        if seconds == 0.0 {
            return;
        }
        let mut used = Used::now(self.pid);
        used.server = used.server.or(self.server_cpu);
        let passed = (used.at - self.used.at).as_secs_f64().max(1e-3);
        let (own, server) = self.used.until(&used);
        self.used = used;
        let latency = sample.all_latency();
        self.log.add(&latency, begin - self.from, end - begin);
        self.service_log.add(&sample.all_service(), begin - self.from, end - begin);
        let rss = self.pid.and_then(rss_of);
        self.rss_max = self.rss_max.max(rss);
        let Counts { offered, achieved, tokens, refused, errors, wrong_replies, .. } = sample.counts;
        let per_s = |count: u64| count as f64 / seconds;
        let row = Row {
            at_s: (end - self.from).as_secs_f64(),
            seconds,
            offered_per_s: per_s(offered),
            achieved_per_s: per_s(achieved),
            refused_per_s: per_s(refused),
            tokens_per_s: per_s(tokens),
            errors,
            wrong_replies,
            p50_us: latency.value_at_quantile(0.5),
            p90_us: latency.value_at_quantile(0.9),
            p99_us: latency.value_at_quantile(0.99),
            p99_9_us: latency.value_at_quantile(0.999),
            max_us: latency.max(),
            bands: bands(&latency),
            server_cores: server.map(|cpu_s| cpu_s / passed),
            generator_cores: own / passed,
            server_rss_bytes: rss,
        };
        view.row(&row);
        self.rows.push(row);
    }
}

fn bands(latency: &hdrhistogram::Histogram<u64>) -> Vec<u64> {
    let mut bands = vec![0; BANDS];
    for value in latency.iter_recorded() {
        let band = (2.0 * (value.value_iterated_to().max(1) as f64).log2()) as usize;
        bands[band.min(BANDS - 1)] += value.count_since_last_iteration();
    }
    while bands.last() == Some(&0) {
        bands.pop();
    }
    bands
}
