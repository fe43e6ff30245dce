//! More load than the server can carry: offered at a fixed rate, whatever becomes of it.
//!
//! The load is `jeton-load`'s open loop, in a process of its own on core 1. So that one core of generator is several times
//! what the server can do, the server gets a part of its core only (a CPU quota with a short period). Beside the load a
//! witness asks on a connection of its own: it says when things are normal again. Core 1 is kept from idling, so that what
//! the generator leaves of it is no gift to the server.
//!
//! On a machine that others use too, what a server can do changes by half within minutes. So each pass through the multiples
//! begins with finding that out, and every other one goes through them backwards. The best of several noisy figures is above
//! what there is to be had: beside the part of the best that is got through at twice the capacity stands its part of what
//! the other steps of the same pass got through, which has no such lean.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jeton_tests::attack::rig::{Stop, Target};
use jeton_tests::attack::witness::Witness;
use serde_json::{Value, json};

use super::measure::{median, start, stay_on_core_1};

/// What is offered, as multiples of what the server can do.
const MULTIPLES: [f64; 7] = [0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0];
/// The goals: goodput at twice the capacity, as a part of the peak, and how long until all is as it was.
const PART_OF_PEAK_MIN: f64 = 0.9;
const NORMAL_AGAIN_S: f64 = 5.0;
/// How often more is offered, at most, to a server that got through all there was.
const CAPACITY_TRIES: usize = 10;
/// What the server gets in each period, as little as the kernel gives: then the periods, and the pauses, are short.
const QUOTA_US: u64 = 1_000;
/// Where the kernel's controller of CPU time is, version 1 and version 2.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"];

/// Flags of `overload`.
#[derive(Debug, clap::Args)]
pub(crate) struct Overload {
    /// What is asked for: `validate` or `issue`.
    #[arg(long, default_value = "validate", value_parser = ["validate", "issue"])]
    kind: String,
    /// Tokens in a validate.
    #[arg(long, default_value_t = 4)]
    batch: u16,
    /// Connections, and requests in flight on each at most.
    #[arg(long, default_value_t = 16)]
    connections: u16,
    #[arg(long, default_value_t = 256)]
    in_flight: u16,
    /// What is due while all places are taken waits for one, to the end of the step at most, instead of being turned away.
    #[arg(long)]
    waits: bool,
    /// Seconds at each multiple, each time.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// How often to go through all multiples; figures are medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    alternations: u32,
    /// Percent of core 0 that the server gets.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100))]
    quota: u64,
    /// The server's binary, if not the one beside this.
    #[arg(long)]
    server: Option<PathBuf>,
}

/// A group of processes with a part of a core, which it gets before others do; taken apart when dropped.
struct Quota(PathBuf);

impl Quota {
    fn new(percent: u64, pid: u32) -> anyhow::Result<Self> {
        let name = format!("jeton-overload-{}", std::process::id());
        let period_us = QUOTA_US * 100 / percent;
        let is_v1 = Path::new(CGROUPS[0]).join("cpu.cfs_quota_us").exists();
        let dir = Path::new(if is_v1 { CGROUPS[0] } else { CGROUPS[1] }).join(name);
        std::fs::create_dir(&dir).with_context(|| format!("{}: a CPU quota needs root", dir.display()))?;
        let quota = Self(dir);
        if is_v1 {
            quota.write("cpu.cfs_period_us", period_us)?;
            quota.write("cpu.cfs_quota_us", QUOTA_US)?;
            quota.write("cpu.shares", 100_000)?;
        } else {
            quota.write("cpu.max", format!("{QUOTA_US} {period_us}"))?;
            quota.write("cpu.weight", 10_000)?;
        }
        quota.write("cgroup.procs", pid)?;
        Ok(quota)
    }

    fn write(&self, file: &str, value: impl std::fmt::Display) -> anyhow::Result<()> {
        let path = self.0.join(file);
        std::fs::write(&path, value.to_string()).with_context(|| format!("{} = {value}", path.display()))
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0); // once the server is gone
    }
}

/// Keeps core 1 from ever idling, behind everything else there, until it is dropped. What a machine calls two cores may be
/// two threads of one: then a server is a fifth slower while the other thread works, and a generator that has less to do
/// makes it look better.
struct NeverIdle(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl NeverIdle {
    fn begin() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let spin = move || {
            // Of this thread alone: to Linux a thread's priority is its own.
            rustix::process::setpriority_process(None, 19)
                .expect("who could take a higher priority may take a lower");
            let mut number = 1_u64;
            while !stopping.load(Ordering::Relaxed) {
                number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        };
        Self(stop, Some(std::thread::spawn(spin)))
    }
}

impl Drop for NeverIdle {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let ended = self.1.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "core 1 was left to idle");
    }
}

/// One run of the load generator; its report. Without a rate: in a closed loop.
fn load(config: &Overload, target: &Target, rate: Option<u32>) -> anyhow::Result<Value> {
    let binary = std::env::current_exe()?.with_file_name("jeton-load");
    let out = target.data.join("load-report");
    let mut command = Command::new(&binary);
    command
        .args(["run", "--json", "--tokens", "20000", "--warm-up", "1s", "--out"])
        .arg(&out)
        .args(["--mix", &format!("{}=100", config.kind)])
        .args(["--batch", &config.batch.to_string(), "--connections", &config.connections.to_string()])
        .args(["--in-flight", &config.in_flight.to_string()])
        .args(["--duration", &format!("{}s", config.seconds)])
        .arg("--data")
        .arg(&target.data)
        .stderr(Stdio::inherit());
    if config.kind == "validate" {
        // The same tokens each time: otherwise later steps would ask a server that has more of them.
        command.arg("--token-file").arg(target.data.join("tokens"));
    }
    match rate {
        Some(rate) => {
            let when_full = if config.waits { "wait" } else { "drop" };
            command.args(["--rate", &rate.to_string(), "--when-full", when_full])
        }
        None => command.arg("--closed"),
    };
    let status = command.stdout(Stdio::null()).status().with_context(|| binary.display().to_string())?;
    let text = std::fs::read_to_string(out.join("run.json")).with_context(|| format!("after {status}"))?;
    let report: Value = serde_json::from_str(&text).context(text)?;
    if report["wrong_replies"] != 0 {
        bail!("wrong replies: {report}");
    }
    Ok(report)
}

fn number(report: &Value, key: &str) -> f64 {
    report.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

/// The witness's answers, each with when it was asked for.
type Trace = Vec<(Instant, Duration)>;

async fn watch(witness: &Witness, stop: &Stop) -> (Trace, u64) {
    let (mut trace, mut failed) = (Vec::new(), 0);
    while !stop.is_over() {
        let began = Instant::now();
        match witness.ask().await {
            Ok(true) => trace.push((began, began.elapsed())),
            Ok(false) | Err(_) => failed += 1,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (trace, failed)
}

fn p99_us(trace: impl Iterator<Item = Duration>) -> f64 {
    let mut all: Vec<Duration> = trace.collect();
    all.sort_unstable();
    all.get(all.len() * 99 / 100).map_or(f64::NAN, |latency| latency.as_micros() as f64)
}

/// How long after `ended` the witness's answers are as fast as they were when it was quiet: from the first quarter of a
/// second on in which nine of ten take less than twice the quiet 90th percentile.
fn recovery_s(trace: &Trace, ended: Instant, quiet_p90_us: f64) -> Option<f64> {
    const WINDOW: Duration = Duration::from_millis(250);
    (0..40).map(|at| ended + WINDOW * at).find_map(|from| {
        let mut window: Vec<Duration> = trace
            .iter()
            .filter(|(at, _)| (from..from + WINDOW).contains(at))
            .map(|(_, latency)| *latency)
            .collect();
        window.sort_unstable();
        let p90 = window.get(window.len() * 9 / 10)?;
        (p90.as_micros() as f64 <= 2.0 * quiet_p90_us).then(|| (from - ended).as_secs_f64())
    })
}

/// One step, once.
async fn step(config: &Overload, target: &Target, capacity: f64, multiple: f64) -> anyhow::Result<Value> {
    let witness = Witness::new(target).await?;
    let stop = Stop::default();
    let stopping = stop.clone();
    let watching = tokio::spawn(async move { watch(&witness, &stopping).await });
    let quiet_from = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    let rate = (capacity * multiple).round() as u32;
    let report = tokio::task::block_in_place(|| load(config, target, Some(rate)))?;
    let ended = Instant::now();
    tokio::time::sleep(Duration::from_secs(6)).await;
    stop.stop();
    let (trace, failed) = watching.await?;
    let within = |from: Instant, to: Instant| {
        trace.iter().filter(move |(at, _)| (from..to).contains(at)).map(|(_, latency)| *latency)
    };
    let mut quiet: Vec<Duration> = within(quiet_from, began).collect();
    quiet.sort_unstable();
    let quiet_p90 = quiet.get(quiet.len() * 9 / 10).map_or(f64::NAN, |latency| latency.as_micros() as f64);
    let detail = &report["detail"];
    let kinds = detail["kinds"].as_array();
    let of_kind = kinds.and_then(|kinds| kinds.iter().find(|of| of["kind"] == config.kind.as_str()));
    // The generator ends once its last request was answered, which it sent by the end of the step and so much earlier at most.
    let longest = of_kind.and_then(|of| of["service_us"]["max"].as_f64());
    let draining_s = longest.map_or(f64::NAN, |us| us / 1e6);
    Ok(json!({
        "multiple": multiple,
        "offered_per_s": report["offered_per_s"],
        "goodput_per_s": report["achieved_per_s"],
        "busy": report["refused"],
        "not_sent": detail["not_sent"],
        "unanswered": detail["unanswered"],
        "errors": report["errors"],
        "latency_us": of_kind.map(|of| &of["latency_us"]),
        "service_us": of_kind.map(|of| &of["service_us"]),
        "generator_cpu_s": report["generator_cpu_s"],
        "generator_lag_us_max": detail["generator_lag_us_max"],
        "generator_busiest": detail["generator_busiest"],
        "generator_held_back": detail["generator_held_back"],
        "server_cpu_s": report["server_cpu_s"],
        "server_rss_bytes": report["server_rss_bytes"],
        "witness": {
            "failed": failed, "quiet_p99_us": p99_us(within(quiet_from, began)),
            "loaded_p99_us": p99_us(within(began, ended)),
            "normal_again_after_s": recovery_s(&trace, ended, quiet_p90).map(|after| after + draining_s),
        },
    }))
}

/// What was seen at one multiple, each time it was offered.
#[derive(Default)]
struct Runs(Vec<Value>);

impl Runs {
    fn all(&self, pointer: &str) -> Vec<f64> {
        let figure = |run: &Value| run.pointer(pointer).and_then(Value::as_f64);
        self.0.iter().map(|run| figure(run).unwrap_or(f64::NAN)).collect()
    }

    fn goodput(&self) -> f64 {
        median(self.all("/goodput_per_s"))
    }

    /// Medians, but for what should not be at all, which is summed up, and for the time to be normal again: the worst, and
    /// none if one run has none.
    fn summary(&self, multiple: f64) -> Value {
        let of = |pointer| median(self.all(pointer));
        let sum = |pointer| self.all(pointer).iter().sum::<f64>();
        let normal = self.all("/witness/normal_again_after_s");
        let is_always_normal = normal.iter().all(|after| after.is_finite());
        json!({
            "multiple": multiple, "offered_per_s": of("/offered_per_s"),
            "goodput_per_s": { "median": self.goodput(), "all": self.all("/goodput_per_s") },
            "busy": of("/busy"), "not_sent": of("/not_sent"),
            "unanswered": sum("/unanswered"), "errors": sum("/errors"),
            "latency_us": { "p50": of("/latency_us/p50"), "p99": of("/latency_us/p99") },
            "witness": {
                "failed": sum("/witness/failed"), "quiet_p99_us": of("/witness/quiet_p99_us"),
                "loaded_p99_us": of("/witness/loaded_p99_us"),
                "normal_again_after_s": is_always_normal.then(|| normal.iter().copied().fold(0.0, f64::max)),
            },
            "runs": self.0,
        })
    }
}

/// What was got through at twice the capacity, as a part of the mean of the other steps from once the capacity on, pass by
/// pass; the median.
fn part_of_the_others(steps: &[(f64, Runs)]) -> f64 {
    let goodputs = |of: fn(f64) -> bool| -> Vec<Vec<f64>> {
        let steps = steps.iter().filter(|(multiple, _)| of(*multiple));
        steps.map(|(_, runs)| runs.all("/goodput_per_s")).collect()
    };
    let others = goodputs(|multiple| multiple >= 1.0 && multiple != 2.0);
    let twice = goodputs(|multiple| multiple == 2.0).concat();
    let mean = |pass: usize| others.iter().map(|passes| passes[pass]).sum::<f64>() / others.len() as f64;
    median(twice.iter().enumerate().map(|(pass, goodput)| goodput / mean(pass)).collect())
}

/// What was offered at twice the capacity, as a multiple of the best that was got through in the same pass; the least. One
/// and a half or less is hardly more than the server can do.
fn least_overload(steps: &[(f64, Runs)]) -> f64 {
    let offered =
        steps.iter().find(|(multiple, _)| *multiple == 2.0).map(|(_, runs)| runs.all("/offered_per_s"));
    let best = |pass: usize| {
        let goodputs = steps.iter().map(|(_, runs)| runs.all("/goodput_per_s")[pass]);
        goodputs.fold(f64::NAN, f64::max)
    };
    let times = offered.into_iter().flatten().enumerate().map(|(pass, offered)| offered / best(pass));
    times.fold(f64::NAN, f64::min)
}

/// The most that the server gets through, a second: of half as much again each time, until that is no more by a twentieth. Of
/// several times what it can do it may do less, for refusing costs too, or more, for requests that come close together
/// share datagrams. `known` is what it got through before, `achieved` what it gets through of what is offered.
///
/// # Errors
/// That of `achieved`, or that the server never falls behind.
fn capacity(known: f64, mut achieved: impl FnMut(f64) -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let (mut offered, mut best) = (known, 0.0_f64);
    for _ in 0..CAPACITY_TRIES {
        offered *= 1.5;
        let got = achieved(offered)?;
        if got < offered * 0.9 && got < best * 1.05 {
            return Ok(best.max(got));
        }
        best = best.max(got);
    }
    bail!("the server gets through more and more, {best} a second of {offered}")
}

/// What of the goals was missed, in words: goodput at twice the capacity, every answer explicit, normal again in time.
fn missed(part_of_peak: f64, steps: &[Value]) -> Vec<String> {
    let mut missed = Vec::new();
    if part_of_peak.is_nan() || part_of_peak < PART_OF_PEAK_MIN {
        missed.push(format!("{:.0} % of the peak at twice the capacity", 100.0 * part_of_peak));
    }
    for step in steps {
        let at = &step["multiple"];
        for (pointer, what) in [
            ("/unanswered", "requests without an answer"),
            ("/errors", "requests that failed"),
            ("/witness/failed", "requests of the witness that failed"),
        ] {
            let count = step.pointer(pointer).and_then(Value::as_f64);
            if count != Some(0.0) {
                missed.push(format!("{} {what} at {at} times the capacity", count.unwrap_or(f64::NAN)));
            }
        }
        let after_s = step.pointer("/witness/normal_again_after_s").and_then(Value::as_f64);
        if !after_s.is_some_and(|after_s| after_s <= NORMAL_AGAIN_S) {
            missed.push(format!("not normal within {NORMAL_AGAIN_S} s after {at} times the capacity"));
        }
    }
    missed
}

/// Finds the capacity and offers multiples of it.
pub(crate) fn overload(config: &Overload) -> anyhow::Result<Value> {
    stay_on_core_1(false)?;
    let (server, target) = start(config.server.as_deref(), false)?;
    let quota = Quota::new(config.quota, target.pid().context("a process")?)?;
    let never_idle = NeverIdle::begin();
    // A closed loop only says how much that is. What comes first is not counted: then the server has come to the size that it
    // has in the steps.
    let full = number(&load(config, &target, None)?, "requests_per_s");
    let achieved = |offered: f64| {
        let report = load(config, &target, Some(offered.round() as u32))?;
        Ok(number(&report, "achieved_per_s"))
    };
    let mut known = capacity(full, achieved)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut steps = MULTIPLES.map(|multiple| (multiple, Runs::default()));
    let mut capacities = Vec::new();
    for pass in 0..config.alternations {
        known = capacity(known, achieved)?;
        eprintln!("capacity: {known} requests/s, in a closed loop at first {full}");
        capacities.push(known);
        for at in 0..steps.len() {
            let at = if pass % 2 == 0 { at } else { steps.len() - 1 - at };
            let (multiple, runs) = &mut steps[at];
            let figures = runtime.block_on(step(config, &target, known, *multiple))?;
            eprintln!("{figures}");
            runs.0.push(figures);
        }
    }
    let best = steps.iter().fold(f64::NAN, |best, (_, runs)| best.max(runs.goodput()));
    let at_twice =
        steps.iter().find(|(multiple, _)| *multiple == 2.0).map_or(f64::NAN, |(_, runs)| runs.goodput());
    drop((server, never_idle));
    std::thread::sleep(Duration::from_millis(200));
    drop(quota);
    let summaries: Vec<Value> = steps.iter().map(|(multiple, runs)| runs.summary(*multiple)).collect();
    Ok(json!({
        "missed": missed(at_twice / best, &summaries),
        "kind": config.kind, "batch": config.batch, "connections": config.connections,
        "waits": config.waits, "alternations": config.alternations, "seconds": config.seconds,
        "in_flight_each": config.in_flight, "server_percent_of_a_core": config.quota,
        "quota_us": QUOTA_US, "capacity_per_s": { "median": median(capacities.clone()), "all": capacities },
        "closed_loop_per_s": full, "peak_goodput_per_s": best, "goodput_at_2x_of_peak": at_twice / best,
        "goodput_at_2x_of_the_others": part_of_the_others(&steps), "twice_was_of_the_best": least_overload(&steps),
        "steps": summaries,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_was_missed_is_named() {
        let step = |unanswered: u32, after: Option<f64>| {
            let witness = json!({ "failed": 0, "normal_again_after_s": after });
            json!({ "multiple": 2.0, "unanswered": f64::from(unanswered), "errors": 0.0, "witness": witness })
        };
        assert_eq!(missed(0.93, &[step(0, Some(0.4)), step(0, Some(4.9))]), Vec::<String>::new());
        assert_eq!(missed(0.83, &[step(0, Some(0.4))]), ["83 % of the peak at twice the capacity"]);
        assert_eq!(missed(f64::NAN, &[]).len(), 1, "nothing measured is nothing met");
        assert_eq!(
            missed(1.0, &[step(3, Some(0.4))]),
            ["3 requests without an answer at 2.0 times the capacity"]
        );
        for after in [None, Some(5.1)] {
            assert_eq!(
                missed(1.0, &[step(0, after)]),
                ["not normal within 5 s after 2.0 times the capacity"]
            );
        }
        assert_eq!(missed(1.0, &[json!({ "multiple": 1.0 })]).len(), 4, "what was not counted is missed");
    }

    #[test]
    fn a_machine_that_slows_down_between_passes_changes_no_part() {
        let passes = |each: [f64; 3]| {
            Runs(each.map(|goodput| json!({ "goodput_per_s": goodput, "offered_per_s": 200.0 })).into())
        };
        let steps = [
            (0.5, passes([50.0, 25.0, 5.0])),
            (1.0, passes([100.0, 50.0, 10.0])),
            (2.0, passes([60.0, 30.0, 6.0])),
            (5.0, passes([50.0, 25.0, 5.0])),
        ];
        assert!((part_of_the_others(&steps) - 0.8).abs() < 1e-9);
        assert!((least_overload(&steps) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_capacity_is_found_from_far_below_it_and_never_invented() {
        // Refusing costs this one a tenth of what it is offered beyond what it can do.
        let server = |offered: f64| Ok(offered.min(1_000.0 - 0.1 * (offered - 1_000.0).max(0.0)));
        for known in [30.0, 300.0, 900.0, 1_000.0] {
            let found = capacity(known, server).unwrap();
            assert!((900.0..=1_000.0).contains(&found), "{found} from {known}");
        }
        // One that does more of more up to four times what it did first.
        let batching = |offered: f64| Ok(offered.min(400.0 + offered / 2.0).min(2_000.0));
        assert!((capacity(400.0, batching).unwrap() - 2_000.0).abs() < 1.0);
        assert!(capacity(100.0, Ok).is_err(), "a server that gets through everything has no capacity yet");
        assert!(capacity(100.0, |_| bail!("the server is gone")).is_err());
    }
}
