//! kill -9 of the real server, again and again: under mixed load, while it starts, and while it stops in order.
//!
//! After each restart everything that was acknowledged is checked ([`Ledger`]): what was issued is good, what was revoked
//! is dead, no use is given back, a key has its first outcome. A write that a kill cut off may have happened or not; what
//! it turned out to be stays. In half of the rounds snapshots are ordered all the while, so that kills fall into those too; most
//! starts go on from one. The schedule follows from the seed; when exactly a kill falls does not.

mod ledger;
mod load;

use std::path::Path;
use std::time::{Duration, Instant};

use jeton_client::{Client, Config, Error, Identity};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use ledger::{Ledger, Target, Told, Write};

use crate::sim::rng::Rng;
use crate::{PATIENCE, Server, run, work_dir};
use load::Worker;

const WORKERS: usize = 4;
/// How long the load goes on before a kill, in milliseconds.
const LOAD_MS: std::ops::Range<u64> = 5..501;
/// How long after its beginning a start is killed; most are through by then.
const START_MS: std::ops::Range<u64> = 1..400;
/// How long after the signal a stop in order is killed.
const STOP_MS: std::ops::Range<u64> = 0..60;
/// `jeton log verify` is asked so often.
const VERIFY_ROUNDS: u64 = 10;
/// The smallest segments there are, so that some kills fall while the log goes on to the next.
const ENVIRONMENT: [(&str, &str); 1] = [("JETON_SEGMENT_MIB", "1")];
/// A log is ended after so long: what died ten minutes ago may be reclaimed, and is then told as unknown, which the ledger does
/// not expect.
const LOG_AGE_MAX: Duration = Duration::from_secs(8 * 60);
const FLAGS: [&str; 4] = ["--listen", "127.0.0.1:0", "--cores", "1"];

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What everything but the clock follows from.
    pub seed: u64,
    /// How many kills under load or in a stop.
    pub rounds: u64,
    /// A new log after so many: a log that only grows takes ever longer to replay.
    pub rounds_per_log: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Kills under load.
    pub kills: u64,
    /// Kills of a start.
    pub kills_in_start: u64,
    /// Kills of a stop in order.
    pub kills_in_stop: u64,
    /// Stops in order that were let be.
    pub stops: u64,
    /// Logs verified by the command.
    pub verified: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Writes that a kill cut off.
    pub cut_off: u64,
    /// Tokens that were known and checked after the last restart of each log.
    pub tokens: u64,
    /// Segments of the last log.
    pub segments: u64,
    /// Snapshots that were written.
    pub snapshots: u64,
    /// Starts that went on from one.
    pub from_snapshots: u64,
    /// The event of the last one that was reported as written, in the last log; 0 if none was.
    pub last_snapshot: u64,
}

/// Runs a plan.
///
/// # Errors
/// What was not as acknowledged, with the line that runs the plan again.
pub async fn kill(plan: Plan) -> Result<Report, String> {
    let mut report = Report::default();
    let mut round = 0;
    while round < plan.rounds {
        let rounds = plan.rounds_per_log.min(plan.rounds - round);
        let dir = work_dir();
        let result = one_log(plan.seed, round, rounds, dir.path(), &mut report).await;
        round += result.map_err(|what| {
            let kept = dir.keep();
            format!(
                "{what}\nseed {}, log from round {round} on; its directory is kept: {}\n\
                 cargo run -p jeton-tests --bin kill -- --seed {} --rounds {} --rounds-per-log {}",
                plan.seed,
                kept.display(),
                plan.seed,
                plan.rounds,
                plan.rounds_per_log
            )
        })?;
        println!("{round} rounds: {report:?}");
    }
    Ok(report)
}

/// Returns the rounds that it came to.
async fn one_log(seed: u64, first: u64, rounds: u64, dir: &Path, report: &mut Report) -> Result<u64, String> {
    let began = Instant::now();
    let mut workers: Vec<Worker> =
        (0..WORKERS).map(|number| Worker::new(number, seed ^ first << 8)).collect();
    create_identities(dir, &workers)?;
    report.last_snapshot = 0;
    let mut done = 0;
    for round in first..first + rounds {
        if began.elapsed() > LOG_AGE_MAX {
            break;
        }
        done += 1;
        let mut rng = Rng::new(seed.wrapping_add(round << 20));
        workers = one_round(&mut rng, dir, workers, report)
            .await
            .map_err(|what| format!("round {round}: {what}"))?;
        check_snapshots(dir, report.last_snapshot, &[]).map_err(|what| format!("round {round}: {what}"))?;
        if round % VERIFY_ROUNDS == VERIFY_ROUNDS - 1 {
            verify(dir, report)?;
        }
    }
    let server = start(dir)?;
    for worker in &mut workers {
        let client = connect(&server, worker).await?;
        worker.recover(&client).await?;
        report.writes += worker.ledger.writes;
        report.cut_off += worker.ledger.cut_off;
        report.tokens += worker.ledger.tokens().len() as u64;
        client.close().await;
    }
    server.terminate();
    verify(dir, report)?;
    let log = std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
    report.from_snapshots += log.matches("a snapshot is loaded").count() as u64;
    let entries = std::fs::read_dir(dir.join("log")).map_err(|error| error.to_string())?;
    let is_segment = |entry: &std::fs::DirEntry| entry.file_name().len() == 20;
    report.segments = entries.filter_map(Result::ok).filter(is_segment).count() as u64;
    Ok(done)
}

fn start(dir: &Path) -> Result<Server, String> {
    Server::try_start(dir, &ENVIRONMENT).map_err(|failure| format!("a start failed: {failure:?}"))
}

/// A client that is as patient as the machine is slow: no answer is only an answer once a kill says so.
async fn connect(server: &Server, worker: &Worker) -> Result<Client, String> {
    let identity = Identity::from_dir(server.data.join("identities").join(worker.identity()));
    let identity = identity.map_err(|error| error.to_string())?;
    let config = Config { deadline: PATIENCE, ..Config::new(server.address, identity) };
    Client::connect(config).await.map_err(|error| format!("client {}: {error}", worker.number))
}

fn create_identities(dir: &Path, workers: &[Worker]) -> Result<(), String> {
    let server = start(dir)?;
    for worker in workers {
        let rights = "issue,validate,revoke,inspect";
        let created = run(dir, &["identity", "create", &worker.identity(), "--rights", rights], "");
        if !created.status.success() {
            return Err(format!("an identity: {created:?}"));
        }
    }
    server.kill9();
    Ok(())
}

fn verify(dir: &Path, report: &mut Report) -> Result<(), String> {
    let verified = run(dir, &["log", "verify"], "");
    report.verified += 1;
    if !verified.status.success() {
        return Err(format!("the log does not verify: {verified:?}"));
    }
    check_snapshots(dir, report.last_snapshot, &["--against-log"])
}

/// Every snapshot there is whole, and the newest is that of the event `reported`, or a younger one that nobody was told of.
fn check_snapshots(dir: &Path, reported: u64, flags: &[&str]) -> Result<(), String> {
    let verified = run(dir, &[&["--json", "snapshot", "verify"], flags].concat(), "");
    let told = String::from_utf8_lossy(&verified.stdout);
    let snapshots = told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let newest = snapshots.filter_map(|told| told["event"].as_u64()).max().unwrap_or(0);
    // That there are none is an error as well.
    if newest > 0 && !verified.status.success() {
        return Err(format!("a snapshot does not verify: {verified:?}"));
    }
    if newest < reported {
        return Err(format!("a snapshot of event {reported} was written, and now: {verified:?}"));
    }
    Ok(())
}

/// Start, check, load, kill.
async fn one_round(
    rng: &mut Rng,
    dir: &Path,
    mut workers: Vec<Worker>,
    report: &mut Report,
) -> Result<Vec<Worker>, String> {
    while rng.one_in(4) {
        let after = Duration::from_millis(rng.within(START_MS));
        Server::start_and_kill(dir, &FLAGS, &ENVIRONMENT, after);
        report.kills_in_start += 1;
    }
    let server = start(dir)?;
    let mut clients = Vec::new();
    for worker in &mut workers {
        let client = connect(&server, worker).await?;
        worker.recover(&client).await.map_err(|what| format!("client {}: {what}", worker.number))?;
        clients.push(client);
    }
    let (is_over, over) = watch::channel(false);
    let mut loads = JoinSet::new();
    for (mut worker, client) in workers.into_iter().zip(clients) {
        let mut over = over.clone();
        loads.spawn(async move {
            let worked = worker.work(&client, &mut over).await;
            worked.map(|()| worker)
        });
    }
    let snapshots = tokio::spawn(order_snapshots(rng.one_in(2), server.admin().await, over.clone()));
    tokio::time::sleep(Duration::from_millis(rng.within(LOAD_MS))).await;
    end(rng, server, report).await;
    let _ = is_over.send(true);
    let mut workers: Vec<Worker> = Vec::new();
    for worked in loads.join_all().await {
        workers.push(worked?);
    }
    workers.sort_by_key(|worker| worker.number);
    let written = snapshots.await.map_err(|error| error.to_string())??;
    report.snapshots += written.len() as u64;
    report.last_snapshot = written.last().copied().unwrap_or(report.last_snapshot);
    let log = std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
    if log.contains("panicked") {
        return Err(format!("a panic: {log}"));
    }
    Ok(workers)
}

/// Orders one snapshot after the other until the server is gone; returns the events of those that were written.
async fn order_snapshots(
    are_wanted: bool,
    admin: Client,
    mut over: watch::Receiver<bool>,
) -> Result<Vec<u64>, String> {
    let mut written = Vec::new();
    if !are_wanted {
        return Ok(written);
    }
    loop {
        let taken = tokio::select! {
            biased;
            taken = admin.take_snapshot() => taken,
            // Nobody answers any more: its connection would be given up after ten seconds.
            _ = over.wait_for(|is_over| *is_over) => break,
        };
        match taken {
            Ok(taken) => written.push(taken.sequence.0),
            // It stops, or was killed.
            Err(Error::Closed(_) | Error::Connect { .. } | Error::Deadline | Error::Busy) => break,
            Err(Error::Failed(words)) if words.contains("stops") => break,
            Err(other) => return Err(format!("a snapshot: {other}")),
        }
    }
    Ok(written)
}

/// Ends a server under load: most are killed, some while they stop, and a few are let stop.
async fn end(rng: &mut Rng, server: Server, report: &mut Report) {
    match rng.below(20) {
        0 => {
            report.stops += 1;
            server.terminate();
        }
        1..5 => {
            report.kills_in_stop += 1;
            server.ask_to_stop();
            tokio::time::sleep(Duration::from_millis(rng.within(STOP_MS))).await;
            server.kill9();
        }
        _ => {
            report.kills += 1;
            server.kill9();
        }
    }
}

#[cfg(test)]
mod tests;
