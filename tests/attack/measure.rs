//! What the witness feels, with and without each attack, by turns.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use jeton_tests::attack::kinds::Kind;
use jeton_tests::attack::rig::{Stop, Target};
use jeton_tests::attack::witness::{Seen, Witness};
use serde_json::{Value, json};

/// An attacker gathers for so long before the witness counts.
const GATHER: Duration = Duration::from_secs(4);
/// And goes on for so long after the witness has counted.
const AFTER: Duration = Duration::from_secs(1);
/// Handshakes and what else an attack leaves behind are gone after so long.
const SETTLE: Duration = Duration::from_secs(4);

/// What a witness's p99 stays below, as a multiple of the quiet one.
const RATIO_MAX: f64 = 3.0;

/// Server and witness go before whatever else the machine does: on a shared machine the 99th percentile would be that of
/// its other users, and on the witness's core that of the attacker's own hunger for it. With a real-time priority they do
/// altogether; where the server's threads have to share their core among themselves, which that would keep them from, they
/// have a high ordinary one.
const REAL_TIME: &str = "10";
const NICE: i32 = -20;
/// The attacker is an ordinary process before other users' as well, and behind the witness: what it adds to what it is
/// started with, an ordinary 0 or [`NICE`].
const ATTACKER_BESIDE_REAL_TIME: &str = "-10";
const ATTACKER_BESIDE_NICE: &str = "5";

/// Flags of `measure`.
#[derive(Debug, clap::Args)]
pub(crate) struct Measure {
    /// Which attacks; all if none is named.
    kinds: Vec<Kind>,
    /// How often each is alternated with quiet.
    #[arg(long, default_value_t = 5)]
    alternations: u32,
    /// Seconds of each phase.
    #[arg(long, default_value_t = 4.0)]
    phase: f64,
    /// Measure revokes instead of validates.
    #[arg(long)]
    revokes: bool,
    /// The server's binary, if not the one beside this.
    #[arg(long)]
    server: Option<PathBuf>,
}

/// A server on core 0.
pub(crate) struct Pinned {
    process: Child,
    pub(crate) data: tempfile::TempDir,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a server on core 0.
pub(crate) fn start(binary: Option<&Path>, is_real_time: bool) -> anyhow::Result<(Pinned, Target)> {
    let beside = std::env::current_exe()?.with_file_name("jeton");
    let binary = binary.unwrap_or(&beside);
    let data = tempfile::tempdir()?;
    let log = std::fs::File::create(data.path().join("server.log"))?;
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]);
    if is_real_time {
        command.args(["chrt", "--fifo", REAL_TIME]);
    }
    let process = command
        .arg(binary)
        .args(["serve", "--listen", "127.0.0.1:0", "--cores", "1", "--tokens-initial", "1000000", "--data"])
        .arg(data.path())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| binary.display().to_string())?;
    let pinned = Pinned { process, data };
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(30) {
        if let Ok(target) = Target::of(pinned.data.path()) {
            return Ok((pinned, target));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = std::fs::read_to_string(pinned.data.path().join("server.log")).unwrap_or_default();
    bail!("the server did not start: {log}")
}

/// Keeps this thread, and what it starts, on core 1 and before whatever else the machine does.
pub(crate) fn stay_on_core_1(is_real_time: bool) -> anyhow::Result<()> {
    rustix::process::setpriority_process(None, NICE).context("a priority above others' needs root")?;
    if is_real_time {
        let own = std::process::id().to_string();
        let given =
            Command::new("chrt").args(["--reset-on-fork", "--fifo", "--pid", REAL_TIME, &own]).status();
        if !given.context("chrt, of util-linux")?.success() {
            bail!("a real-time priority needs root");
        }
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(1);
    rustix::thread::sched_setaffinity(None, &set).context("core 1")
}

fn attacker(kind: Kind, data: &Path, time: Duration, is_real_time: bool) -> anyhow::Result<Child> {
    let nice = if is_real_time { ATTACKER_BESIDE_REAL_TIME } else { ATTACKER_BESIDE_NICE };
    let name = kind.to_possible_value().context("a name")?;
    Ok(Command::new("nice")
        .args(["-n", nice])
        .arg(std::env::current_exe()?)
        .args(["run", name.get_name(), "--for", &time.as_secs_f64().to_string(), "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .spawn()?)
}

pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// CPU time of the server so far in seconds, and its resident memory in bytes (proc(5)).
pub(crate) fn taken(pid: Option<u32>) -> (f64, u64) {
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/{}/{file}", pid.unwrap_or_default())).unwrap_or_default()
    };
    let stat = read("stat");
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    let status = read("status");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let cpu_s = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    (cpu_s, rss.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1_024)
}

async fn watch(witness: &Witness, phase: Duration, revokes: bool) -> Seen {
    let stop = Stop::default();
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(phase).await;
        stopping.stop();
    });
    if revokes { witness.revoke_on(&stop).await } else { witness.watch(&stop).await }
}

/// One attack, alternated with quiet.
async fn alternate(config: &Measure, target: &Target, kind: Kind) -> anyhow::Result<Value> {
    let phase = Duration::try_from_secs_f64(config.phase)?;
    let witness = Witness::new(target).await?;
    let mut quiet = Vec::new();
    let mut beside = Vec::new();
    let (mut wrong, mut unanswered, mut reason, mut asked) = (0, 0, None, 0);
    let (mut busy_share, mut rss_max, mut figures) = (Vec::new(), 0, Value::Null);
    for _ in 0..config.alternations {
        let seen = watch(&witness, phase, config.revokes).await;
        (wrong, unanswered) = (wrong + seen.wrong, unanswered + seen.unanswered);
        asked += seen.latency_us.len() + seen.unanswered;
        reason = seen.reason.or(reason);
        quiet.push(seen.latency_us);
        let child = attacker(kind, &target.data, GATHER + phase + AFTER, !config.revokes)?;
        tokio::time::sleep(GATHER).await;
        let (cpu_before, began) = (taken(target.pid()).0, Instant::now());
        let seen = watch(&witness, phase, config.revokes).await;
        let (cpu_after, rss) = taken(target.pid());
        busy_share.push((cpu_after - cpu_before) / began.elapsed().as_secs_f64());
        rss_max = rss_max.max(rss);
        (wrong, unanswered) = (wrong + seen.wrong, unanswered + seen.unanswered);
        asked += seen.latency_us.len() + seen.unanswered;
        reason = seen.reason.or(reason);
        beside.push(seen.latency_us);
        let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
        figures = serde_json::from_slice(&output.stdout).context("the attacker's figures")?;
        tokio::time::sleep(SETTLE).await;
    }
    let at = |histograms: &[hdrhistogram::Histogram<u64>], quantile| {
        histograms.iter().map(|one| one.value_at_quantile(quantile) as f64).collect::<Vec<_>>()
    };
    let (quiet_p99, beside_p99) = (at(&quiet, 0.99), at(&beside, 0.99));
    let ratios = quiet_p99.iter().zip(&beside_p99).map(|(quiet, beside)| beside / quiet.max(1.0));
    let ratios: Vec<f64> = ratios.collect();
    let ratio = median(ratios.clone());
    let is_met = ratio < RATIO_MAX;
    let missed = [
        (!is_met).then(|| format!("a p99 of {ratio:.1} times the quiet one")),
        quiet
            .iter()
            .chain(&beside)
            .any(|phase| phase.is_empty())
            .then(|| "a phase without an answer".to_owned()),
        (wrong > 0).then(|| format!("{wrong} wrong answers")),
        (unanswered > 0).then(|| format!("{unanswered} requests without an answer")),
    ];
    Ok(json!({
        "attack": kind.to_possible_value().map(|value| value.get_name().to_owned()),
        "quiet_us": { "p50": median(at(&quiet, 0.5)), "p99": median(quiet_p99.clone()) },
        "attacked_us": { "p50": median(at(&beside, 0.5)), "p99": median(beside_p99) },
        "p99_ratio": { "median": ratio, "all": ratios, "below_3": is_met },
        "witness": { "asked": asked, "wrong": wrong, "unanswered": unanswered, "reason": reason },
        "server": { "cores_busy": median(busy_share), "rss_bytes_max": rss_max },
        "attacker": figures.get("figures"),
        "missed": missed.into_iter().flatten().collect::<Vec<_>>(),
    }))
}

/// Measures all attacks that were asked for, each on a server of its own.
pub(crate) fn measure(config: &Measure) -> anyhow::Result<Value> {
    let kinds = if config.kinds.is_empty() { Kind::value_variants() } else { &config.kinds };
    let mut all = Vec::new();
    let is_real_time = !config.revokes;
    stay_on_core_1(is_real_time)?;
    for kind in kinds {
        let (_server, target) = start(config.server.as_deref(), is_real_time)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let figures = runtime.block_on(alternate(config, &target, *kind))?;
        eprintln!("{figures}");
        all.push(figures);
    }
    let missed = all.iter().flat_map(|of| {
        let words = of["missed"].as_array().into_iter().flatten().filter_map(Value::as_str);
        words.map(|words| format!("{}: {words}", of["attack"].as_str().unwrap_or_default()))
    });
    let missed: Vec<String> = missed.collect();
    Ok(json!({
        "missed": missed,
        "alternations": config.alternations, "phase_s": config.phase,
        "witness": if config.revokes { "revokes" } else { "validates of 16 tokens" },
        "attacks": all,
    }))
}
