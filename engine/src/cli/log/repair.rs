//! `jeton log repair`: from a log that is refused to one that is served, out of all that can be verified.
//!
//! It never guesses and throws nothing away: events that verify, from the first to the last before the damage, are sealed
//! anew into a log with an id of its own, because numbers of the rest will be handed out again and no client may take one
//! history for the other; the old directory is kept beside it. Whether to do without the rest is for a person to say.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jeton_core::batch::{ChainEnd, open, seal};
use jeton_core::numbers::{LogId, Partition, Sequence};
use jeton_core::recovery::Replay;
use jeton_core::state::StateConfig;
use jeton_log_store::{AppendKind, LogStore as _, Options, SledStore, StoredBatch};
use serde_json::json;

use crate::cli::Ending;
use crate::cli::output::print;
use crate::config::default_data;

const PAGE_BYTES: usize = 1 << 20;

/// Flags of `log repair`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Repair {
    /// The data directory, with no server running on it.
    #[arg(long, value_name = "DIR", env = "JETON_DATA")]
    data: Option<PathBuf>,
    /// Do it, without whatever cannot be verified; without this it is only said what would be done.
    #[arg(long)]
    accept_loss: bool,
}

/// What the damaged log still holds.
struct Found {
    log: LogId,
    batches: u64,
    /// The last event that can be verified.
    last: Sequence,
    /// How far the anchor says that the log came.
    anchored: Option<u64>,
    /// Why it ends there, if not because the log does.
    broken: Option<String>,
}

impl Repair {
    pub(in crate::cli) fn run(self, json: bool) -> anyhow::Result<Ending> {
        let data = self.data.unwrap_or_else(default_data);
        finish_interrupted(&data)?;
        let mut store = SledStore::open_for_repair(&data, Options::default())?;
        let found = survey(&mut store)?;
        let is_whole =
            found.broken.is_none() && found.anchored.is_some_and(|anchored| anchored <= found.last.0);
        let is_to_be_done = self.accept_loss && !is_whole;
        let kept = is_to_be_done.then(|| rebuild(&data, store, &found)).transpose()?;
        let value = json!({
            "log": found.log.to_string(),
            "whole": is_whole,
            "verified_events": found.last.0,
            "anchored_at": found.anchored,
            "broken": found.broken,
            "repaired": kept.is_some(),
            "old_log": kept,
        });
        print(json, &value, || describe(&found, is_whole, kept.as_deref()))
    }
}

/// A repair that was cut short between its two renames is carried to its end.
fn finish_interrupted(data: &Path) -> anyhow::Result<()> {
    let fresh = data.join("log.repaired");
    if !data.join("log").exists() && fresh.join("log").is_dir() {
        put_in_place(data, &fresh)?;
    }
    Ok(())
}

fn put_in_place(data: &Path, fresh: &Path) -> anyhow::Result<()> {
    fs::rename(fresh.join("log"), data.join("log"))?;
    fs::rename(fresh.join("log.id"), data.join("log.id"))?;
    fs::File::open(data)?.sync_all()?;
    let _ = fs::remove_dir_all(fresh);
    Ok(())
}

fn describe(found: &Found, is_whole: bool, kept: Option<&Path>) -> String {
    let mut text =
        format!("log {}: events 1 to {} verify, in {} batches\n", found.log, found.last, found.batches);
    if let Some(broken) = &found.broken {
        text += &format!("what comes behind them does not: {broken}\n");
    }
    match found.anchored {
        Some(anchored) if anchored > found.last.0 => {
            text += &format!("acknowledged events up to {anchored} at least are lost with it\n");
        }
        None => text += "the anchor is missing or unreadable: how far the log once came cannot be told\n",
        _ => {}
    }
    match kept {
        Some(old) => text += &format!("the log was written anew; the old one is in {}", old.display()),
        None if is_whole => text += "nothing is to be repaired",
        None => {
            text += "with --accept-loss the log is written anew without the rest, and the old one kept";
        }
    }
    text
}

/// Reads as far as everything verifies.
fn survey(store: &mut SledStore) -> anyhow::Result<Found> {
    let anchored = store.anchor().map(|anchor| anchor.position.sequence);
    let first = match store.read_from(1, 1) {
        Ok(batches) => batches.into_iter().next(),
        Err(error) => bail!("nothing of this log can be verified: {error}"),
    };
    let first = first.context("this log holds nothing")?;
    let log = open(&first.bytes).context("nothing of this log can be verified")?.end.log;
    let config = StateConfig { huge_pages: false, tokens_max: i32::MAX as u32 - 1, ..StateConfig::default() };
    let mut replay = Replay::new(log, Partition(0), config, None)?;
    let mut found = Found { log, batches: 0, last: Sequence(0), anchored, broken: None };
    loop {
        match store.read_from(found.last.0 + 1, PAGE_BYTES) {
            Ok(batches) if batches.is_empty() => return Ok(found),
            Ok(batches) => {
                for batch in batches {
                    if let Err(error) = replay.apply(&batch.bytes) {
                        found.broken = Some(error.to_string());
                        return Ok(found);
                    }
                    (found.batches, found.last) = (found.batches + 1, replay.end().sequence);
                }
            }
            Err(error) => {
                found.broken = Some(error.to_string());
                return Ok(found);
            }
        }
    }
}

/// Writes what was verified to a new log and puts it in the old one's place; returns where the old one is.
fn rebuild(data: &Path, mut store: SledStore, found: &Found) -> anyhow::Result<PathBuf> {
    let fresh = data.join("log.repaired");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| fresh.display().to_string())?; // of a repair cut short
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let mut into = SledStore::open(&fresh, Options::default(), id)?;
    let mut end = ChainEnd::genesis(LogId(id), Partition(0));
    while end.sequence < found.last {
        let page = store.read_from(end.sequence.0 + 1, PAGE_BYTES)?;
        let mut batches = Vec::new();
        for batch in page.into_iter().take_while(|batch| batch.last <= found.last.0) {
            let opened = open(&batch.bytes)?;
            let sealed = seal(&mut end, opened.time, opened.entries.into_iter());
            let (first, last) = (sealed.first.0, sealed.last.0);
            batches.push(StoredBatch { first, last, chain: sealed.hash, bytes: sealed.bytes });
        }
        let head = into.head();
        into.append(head, &batches, AppendKind::Essential)?;
    }
    Box::new(into).close()?;
    drop(store); // and the copies it has read from, which lie in the old directory
    let old = (1..1_000)
        .map(|number| data.join(format!("log.damaged-{number}")))
        .find(|path| !path.exists())
        .context("there are a thousand damaged logs here already")?;
    // If we die between these, both are there under their names, and the next repair goes on.
    fs::rename(data.join("log"), &old)?;
    put_in_place(data, &fresh)?;
    Ok(old)
}
