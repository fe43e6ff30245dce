//! `jeton snapshot`: have one written, list them, verify them. Listing and verifying read the files alone, with or without a
//! server running.

use std::time::Instant;

use anyhow::{Context as _, bail};
use jeton_core::numbers::LogId;
use jeton_core::snapshot::Manifest;
use jeton_core::state::StateConfig;
use jeton_log_store::SledStore;
use serde_json::{Value, json};

use super::Ending;
use super::log::{hex, read_all};
use super::output::{moment_ms, print};
use super::target::Target;
use crate::snapshots::{FoundSnapshot, SnapshotDir};

/// Subcommands of `snapshot`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum SnapshotCommand {
    /// Have a running server write one, and wait until it is there.
    Now {
        #[command(flatten)]
        target: Target,
    },
    /// List the snapshots of a data directory, newest first.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Compare every file of every snapshot with its hash, and put each together as a start would.
    Verify {
        #[command(flatten)]
        target: Target,
        /// Read the log too, up to the event of each snapshot, and compare what both come to.
        #[arg(long)]
        against_log: bool,
    },
}

impl SnapshotCommand {
    pub(super) fn run(self, json: bool) -> anyhow::Result<Ending> {
        super::serve::start_logging(false, "warn")?;
        match self {
            Self::Now { target } => now(&target, json),
            Self::List { target } => list(&target, json),
            Self::Verify { target, against_log } => verify(&target, against_log, json),
        }
    }
}

fn now(target: &Target, json: bool) -> anyhow::Result<Ending> {
    target.with(async |client| {
        let began = Instant::now();
        let taken = client.take_snapshot().await?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let value = json!({
            "event": taken.sequence.0, "tokens": taken.tokens, "bytes": taken.bytes,
            "bytes_written": taken.bytes_written, "took_ms": took_ms,
        });
        print(json, &value, || {
            format!(
                "a snapshot of event {}: {} tokens, {}, of which {} were written, in {took_ms} ms",
                taken.sequence,
                taken.tokens,
                size(taken.bytes),
                size(taken.bytes_written),
            )
        })
    })
}

/// What there is, newest first.
fn found(target: &Target) -> anyhow::Result<(SnapshotDir, Vec<FoundSnapshot>)> {
    if target.is_remote() {
        bail!("snapshots are listed and verified where their files are: name a data directory with --data");
    }
    let dir = SnapshotDir::of(&target.data());
    let found = dir.all_manifests().with_context(|| dir.path().display().to_string())?;
    Ok((dir, found))
}

fn is_of_this_log(target: &Target, manifest: &Manifest) -> bool {
    SledStore::check_name(&target.data(), manifest.log).is_ok()
}

fn list(target: &Target, json: bool) -> anyhow::Result<Ending> {
    let (dir, found) = found(target)?;
    if found.is_empty() && !json {
        return print(false, &Value::Null, || format!("no snapshots in {}", dir.path().display()));
    }
    for (sequence, manifest) in found {
        let (value, line) = match manifest {
            Ok(manifest) => {
                let bytes: u64 = manifest.parts().map(|part| part.bytes).sum();
                let time = moment_ms(manifest.time_ms);
                let of = if is_of_this_log(target, &manifest) { "" } else { ", of another log" };
                let value = json!({
                    "event": sequence.0, "time": time, "tokens": manifest.tokens, "bytes": bytes,
                    "parts": manifest.parts().count(), "log": LogId(manifest.log).to_string(),
                    "of_this_log": of.is_empty(), "chain": hex(&manifest.chain),
                });
                (
                    value,
                    format!("event {sequence} of {time}: {} tokens, {}{of}", manifest.tokens, size(bytes)),
                )
            }
            Err(error) => (
                json!({ "event": sequence.0, "error": error.to_string() }),
                format!("event {sequence}: unusable: {error}"),
            ),
        };
        print(json, &value, || line)?;
    }
    Ok(Ending::Done)
}

fn verify(target: &Target, against_log: bool, json: bool) -> anyhow::Result<Ending> {
    let (dir, found) = found(target)?;
    let (mut whole, mut broken) = (0, Vec::new());
    for (sequence, manifest) in found {
        let checked =
            manifest.map_err(Into::into).and_then(|manifest| check(target, &dir, manifest, against_log));
        match checked {
            Ok(digest) => {
                whole += 1;
                let value = json!({ "event": sequence.0, "ok": true, "digest": digest });
                print(json, &value, || format!("ok: event {sequence}, state digest {digest}"))?;
            }
            Err(error) => {
                print(
                    json,
                    &json!({ "event": sequence.0, "ok": false, "error": format!("{error:#}") }),
                    || format!("event {sequence}: {error:#}"),
                )?;
                broken.push(sequence);
            }
        }
    }
    match broken.first() {
        None if whole == 0 => bail!("there are no snapshots in {}", dir.path().display()),
        None => Ok(Ending::Done),
        Some(first) => bail!(
            "{} of {} snapshots cannot be used, the newest of them that of event {first}; a start passes over them, and the \
             log has everything",
            broken.len(),
            broken.len() + whole
        ),
    }
}

/// Puts a snapshot together as a start would; returns the digest of the state.
fn check(
    target: &Target,
    dir: &SnapshotDir,
    manifest: Manifest,
    against_log: bool,
) -> anyhow::Result<String> {
    if !is_of_this_log(target, &manifest) {
        bail!("it is of another log ({}) than the one in {}", LogId(manifest.log), target.data().display());
    }
    let config = StateConfig { huge_pages: false, tokens_max: i32::MAX as u32 - 1, ..StateConfig::default() };
    let (restored, manifest) = dir.load(manifest, config)?;
    let digest = restored.state.digest();
    if against_log {
        let (replay, _) = read_all(target, |batch| Ok(batch.end.sequence.0 < manifest.sequence))?;
        if replay.end() != manifest.end() {
            bail!("the log has another chain there, or does not reach that far");
        }
        if replay.state().digest() != digest {
            bail!("the log comes to another state there");
        }
    }
    Ok(hex(&digest))
}

/// A number of bytes, for people.
fn size(bytes: u64) -> String {
    if bytes < 10 << 20 { format!("{} KiB", bytes.div_ceil(1 << 10)) } else { format!("{} MiB", bytes >> 20) }
}
