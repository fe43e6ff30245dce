//! `jeton demo`: the whole life of tokens, for real: a server of its own as a separate process, QUIC on loopback, a
//! log on disk. Every promise is checked; a broken one ends the demo with an error.

mod act;
mod host;

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use self::act::Actors;
use self::host::Host;
use super::Ending;
use super::output::print;
use super::target::Target;

/// Tokens issued in bulk.
const TOKENS: usize = 200_000;
/// Of those, how many one subject has.
const CROWD: usize = 5_000;
/// How long the mixed load goes on.
const LOAD: Duration = Duration::from_secs(5);

/// Flags of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {}

/// What was seen, for the report.
#[derive(Debug, Default)]
struct Figures {
    issue_per_s: f64,
    validate_per_s: f64,
    validated: u64,
    revoked: u64,
    latency_us: [u64; 4],
    revoke_subject_ms: f64,
    restart_ms: f64,
    log_bytes: u64,
    events: u64,
    bytes_per_token: f64,
}

impl Demo {
    pub(super) fn run(self, json: bool) -> anyhow::Result<Ending> {
        let began = Instant::now();
        let stage = Stage::new();
        let dir = tempfile::Builder::new().prefix("jeton-demo-").tempdir()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let figures = runtime.block_on(async {
            tokio::select! {
                figures = play(&stage, dir.path()) => figures,
                // The directory goes, and the server with us.
                _ = interrupted() => Err(anyhow::anyhow!("interrupted")),
            }
        })?;
        stage.bar.finish_and_clear();
        report(json, &figures, began.elapsed())
    }
}

async fn interrupted() -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = term.recv() => {}
    }
    Ok(())
}

/// The progress bar and the lines above it; on standard error, so that the report alone is on standard output.
struct Stage {
    bar: ProgressBar,
}

impl Stage {
    fn new() -> Self {
        let bar = ProgressBar::new(TOKENS as u64);
        if let Ok(style) = ProgressStyle::with_template("{msg:32} {bar:40} {pos:>7}/{len} {per_sec}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    fn begin(&self, what: &'static str, steps: u64) {
        self.bar.reset();
        self.bar.set_length(steps);
        self.bar.set_message(what);
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("  {line}"));
    }
}

async fn play(stage: &Stage, data: &std::path::Path) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    let mut host = Host::start(data).await?;
    stage.say(&format!("a server listens on {}", host.address()));
    let mut actors = Actors::connect(data).await?;

    stage.begin("issuing", TOKENS as u64);
    let began = Instant::now();
    actors.issue_all(&stage.bar, TOKENS, CROWD).await?;
    figures.issue_per_s = TOKENS as f64 / began.elapsed().as_secs_f64();
    stage.say(&format!("issued {TOKENS} tokens, each durable: {:.0}/s", figures.issue_per_s));

    stage.begin("validating, issuing and revoking", LOAD.as_secs());
    let load = actors.mixed_load(&stage.bar, LOAD).await?;
    figures.validate_per_s = load.validated as f64 / LOAD.as_secs_f64();
    (figures.validated, figures.revoked, figures.latency_us) =
        (load.validated, load.revoked, load.latency_us);
    stage.say(&format!(
        "{} validated, every answer as it must be: {:.0}/s",
        load.validated, figures.validate_per_s
    ));

    let began = Instant::now();
    let revoked = actors.revoke_crowd().await?;
    figures.revoke_subject_ms = began.elapsed().as_secs_f64() * 1e3;
    actors.assert_crowd_denied().await?;
    stage
        .say(&format!("revoked a subject with {revoked} tokens; the very next validates denied all of them"));

    actors.use_once().await?;
    stage.say("a one-use token opened once, and not again");
    actors.expire().await?;
    stage.say("a one-second token was good, and then was not");

    figures.bytes_per_token = actors.bytes_per_token().await?;
    drop(actors.disconnect());
    host.stop().await?;
    let began = Instant::now();
    host = Host::start(data).await?;
    actors.reconnect(data).await?;
    figures.restart_ms = began.elapsed().as_secs_f64() * 1e3;
    actors.assert_crowd_denied().await?;
    actors.assert_as_planned().await?;
    stage.say(&format!(
        "restarted in {:.0} ms: what was revoked is dead, the rest is alive",
        figures.restart_ms
    ));

    drop(actors.disconnect());
    host.stop().await?;
    let target = Target::of_data(data);
    let (replay, events) = tokio::task::block_in_place(|| super::log::read_all_offline(&target))?;
    figures.events = events;
    figures.log_bytes = host::bytes_below(&data.join("log"))?;
    let digest = replay.state().digest();
    stage.say(&format!(
        "verified and replayed {events} events; state digest {}",
        super::log::hex(&digest[..8])
    ));
    Ok(figures)
}

fn report(json: bool, figures: &Figures, took: Duration) -> anyhow::Result<Ending> {
    let [p50, p90, p99, max] = figures.latency_us;
    let value = json!({
        "issued": TOKENS,
        "issue_per_s": figures.issue_per_s.round(),
        "validated": figures.validated,
        "validate_per_s": figures.validate_per_s.round(),
        "validate_frame_latency_us": { "p50": p50, "p90": p90, "p99": p99, "max": max },
        "revoked_under_load": figures.revoked,
        "revoke_subject_ms": figures.revoke_subject_ms,
        "restart_ms": figures.restart_ms.round(),
        "log_bytes": figures.log_bytes,
        "events": figures.events,
        "bytes_per_token": figures.bytes_per_token,
        "seconds": took.as_secs_f64(),
    });
    print(json, &value, || {
        format!(
            "\nissued     {TOKENS} tokens, durably, {:.0}/s\n\
             validated  {} tokens in frames of 64, {:.0}/s; a frame took p50 {p50} us, p99 {p99} us, max {max} us\n\
             revoked    {} one by one under load; a subject with {CROWD} in {:.1} ms\n\
             restarted  in {:.0} ms, with everything revoked still dead\n\
             log        {} events, {:.1} MiB on disk, verified and replayed\n\
             memory     {:.0} bytes a token\n\
             all promises kept, in {:.0} s",
            figures.issue_per_s,
            figures.validated,
            figures.validate_per_s,
            figures.revoked,
            figures.revoke_subject_ms,
            figures.restart_ms,
            figures.events,
            figures.log_bytes as f64 / f64::from(1 << 20),
            figures.bytes_per_token,
            took.as_secs_f64(),
        )
    })
}
