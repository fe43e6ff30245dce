//! What is noted every few seconds: what the server's process takes, what the server says of itself, and how long answers
//! took.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::control::{CONTROLS, Control};
use super::load::{CLASSES, Latencies, Load, latencies};
use crate::Server;

/// Latencies of one class between two samples, from the intended start on.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Operations answered.
    pub count: u64,
    /// Half took no longer, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 took no longer, in microseconds.
    pub p99_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
}

/// One moment of a run.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Seconds since the load began.
    pub at_s: f64,
    /// Resident memory of the server, in bytes.
    pub rss: u64,
    /// What the server accounts for in its index, slab and lists, in bytes.
    pub accounted: u64,
    /// Tokens in its index, dead ones included.
    pub tokens: u64,
    /// Open descriptors of the server.
    pub descriptors: u64,
    /// Its threads.
    pub threads: u64,
    /// Its connections.
    pub connections: u64,
    /// CPU time since the last sample, in hundredths of one core.
    pub cpu_percent: f64,
    /// Bytes in the files of the log.
    pub log_files: u64,
    /// Bytes of batches written to the log since the start.
    pub log_written: u64,
    /// Wrong answers and requests without one, so far.
    pub errors: u64,
    /// Of validates, writes, visits and audits, in this order.
    pub latency: [Latency; CLASSES.len()],
    /// What a plain sync of the disk and an echo over loopback took meanwhile.
    pub control: [Latency; CONTROLS.len()],
}

impl Latency {
    fn of(recorded: &Latencies) -> Self {
        Self {
            count: recorded.len(),
            p50_us: recorded.value_at_quantile(0.5),
            p99_us: recorded.value_at_quantile(0.99),
            max_us: recorded.max(),
        }
    }

    fn to_json(&self) -> Value {
        json!({ "count": self.count, "p50_us": self.p50_us, "p99_us": self.p99_us, "max_us": self.max_us })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let number = |name: &str| value.get(name)?.as_u64();
        Some(Self {
            count: number("count")?,
            p50_us: number("p50_us")?,
            p99_us: number("p99_us")?,
            max_us: number("max_us")?,
        })
    }
}

impl Sample {
    /// Resident memory beyond what the server accounts for.
    pub fn unaccounted(&self) -> f64 {
        self.rss as f64 - self.accounted as f64
    }

    pub(super) fn to_json(&self) -> Value {
        let named = |(name, of): (&str, &Latency)| (name.to_owned(), of.to_json());
        let classes = CLASSES.iter().map(|class| class.name());
        let latency: serde_json::Map<String, Value> = classes.zip(&self.latency).map(named).collect();
        let control: serde_json::Map<String, Value> =
            CONTROLS.into_iter().zip(&self.control).map(named).collect();
        json!({
            "at_s": self.at_s,
            "rss": self.rss,
            "accounted": self.accounted,
            "tokens": self.tokens,
            "descriptors": self.descriptors,
            "threads": self.threads,
            "connections": self.connections,
            "cpu_percent": self.cpu_percent,
            "log_files": self.log_files,
            "log_written": self.log_written,
            "errors": self.errors,
            "latency": latency,
            "control": control,
        })
    }

    /// Reads a line back; `None` if it is no sample.
    pub fn from_json(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let number = |name: &str| value.get(name)?.as_u64();
        let real = |name: &str| value.get(name)?.as_f64();
        let latency = CLASSES.map(|class| Latency::from_json(value.get("latency")?.get(class.name())?));
        let control = CONTROLS.map(|name| Latency::from_json(value.get("control")?.get(name)?));
        let [Some(disk), Some(echo)] = control else { return None };
        let [Some(validate), Some(write), Some(visit), Some(audit)] = latency else { return None };
        Some(Self {
            at_s: real("at_s")?,
            rss: number("rss")?,
            accounted: number("accounted")?,
            tokens: number("tokens")?,
            descriptors: number("descriptors")?,
            threads: number("threads")?,
            connections: number("connections")?,
            cpu_percent: real("cpu_percent")?,
            log_files: number("log_files")?,
            log_written: number("log_written")?,
            errors: number("errors")?,
            latency: [validate, write, visit, audit],
            control: [disk, echo],
        })
    }
}

/// Takes samples of one server.
pub(super) struct Sampler {
    pid: u32,
    log: PathBuf,
    began: Instant,
    /// When the last sample was taken, and the CPU time of the server until then, in ticks.
    last: (Instant, u64),
}

impl Sampler {
    pub(super) fn new(server: &Server, began: Instant) -> Self {
        let pid = server.pid();
        Self { pid, log: server.data.join("log"), began, last: (began, cpu_ticks(pid)) }
    }

    pub(super) async fn take(&mut self, load: &Load, control: &Control) -> Sample {
        let stats = load.client().stats().await.expect("the server's figures");
        let stats: Value = serde_json::from_str(&stats).expect("they are JSON");
        let figure = |name: &str| stats.get(name).and_then(Value::as_u64).unwrap_or_default();
        let shards = stats.get("shards").and_then(Value::as_array).cloned().unwrap_or_default();
        let (now, ticks) = (Instant::now(), cpu_ticks(self.pid));
        let per_second = rustix::param::clock_ticks_per_second().max(1) as f64;
        let seconds = now.duration_since(self.last.0).as_secs_f64().max(f64::EPSILON);
        let cpu_percent = 100.0 * (ticks - self.last.1) as f64 / per_second / seconds;
        self.last = (now, ticks);
        let recorded = load.drain_latencies();
        Sample {
            at_s: now.duration_since(self.began).as_secs_f64(),
            rss: status(self.pid, "VmRSS:") * 1_024,
            accounted: figure("memory_bytes"),
            tokens: figure("tokens"),
            descriptors: descriptors(self.pid),
            threads: status(self.pid, "Threads:"),
            connections: shards.iter().filter_map(|shard| shard.get("connections")?.as_u64()).sum(),
            cpu_percent,
            log_files: bytes_below(&self.log),
            log_written: figure("log_bytes_written"),
            errors: load.errors().0,
            latency: std::array::from_fn(|class| Latency::of(recorded.get(class).unwrap_or(&latencies()))),
            control: control.drain().each_ref().map(Latency::of),
        }
    }
}

/// A number of /proc/<pid>/status.
fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server is there");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("proc(5) names it");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

fn descriptors(pid: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the server is there").count() as u64
}

/// User and system time so far, in clock ticks.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server is there");
    // The name, in parentheses, may hold spaces: fields count from behind it (proc(5)). utime and stime are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    [11, 12].into_iter().filter_map(|at| fields.get(at)?.parse::<u64>().ok()).sum()
}

/// Bytes of all files below a folder; a file that goes meanwhile counts for nothing.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(of) if of.is_dir() => bytes_below(&entry.path()),
        Ok(of) => of.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
