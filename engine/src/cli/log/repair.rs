//! `jeton log repair`: from a log that is refused to one that is served, out of all that can be verified.
//!
//! It never guesses and throws nothing away: events that verify, from the first to the last before the damage, are sealed
//! anew into a log with an id of its own, because numbers of the rest will be handed out again and no client may take one
//! history for the other; the old directory is kept beside it. Whether to do without the rest is for a person to say.

mod survey;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jeton_core::batch::{ChainEnd, open, seal};
use jeton_core::numbers::{LogId, Partition};
use jeton_log_store::{AppendKind, LogStore as _, Options, SledStore, StoredBatch};
use serde_json::json;

use self::survey::{Found, Way, survey, walk};
use crate::cli::Ending;
use crate::cli::output::print;
use crate::config::default_data;

/// Batches written in one step.
const COMMIT_BATCHES: usize = 128;

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

impl Repair {
    pub(in crate::cli) fn run(self, json: bool) -> anyhow::Result<Ending> {
        let data = self.data.unwrap_or_else(default_data);
        finish_interrupted(&data)?;
        let mut store = SledStore::open_for_repair(&data, Options::default())?;
        let found = survey(&mut store)?;
        SledStore::check_name(&data, found.log.0)?; // another log is not the one to repair
        let is_to_be_done = self.accept_loss && !found.is_whole();
        let kept = is_to_be_done.then(|| rebuild(&data, store, &found)).transpose()?;
        let value = json!({
            "log": found.log.to_string(),
            "whole": found.is_whole(),
            "verified_events": found.last.0,
            "anchored_at": found.anchored,
            "broken": found.broken,
            "lost": found.has_loss(),
            "beyond": found.beyond,
            "repaired": kept.is_some(),
            "old_log": kept,
        });
        print(json, &value, || describe(&found, kept.as_deref()))
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

fn describe(found: &Found, kept: Option<&Path>) -> String {
    let mut text =
        format!("log {}: events 1 to {} verify, in {} batches\n", found.log, found.last, found.batches);
    if let Some(broken) = &found.broken {
        text += &match found.way {
            Way::Store => format!("what comes behind them does not: {broken}\n"),
            Way::Search => {
                format!("they were found in the store's files, which do not open as they should: {broken}\n")
            }
        };
    }
    if let Some((first, last)) = found.beyond {
        text += &format!(
            "events {first} to {last} are there in part, but what leads to them is not: they are lost\n"
        );
    }
    match found.anchored {
        Some(anchored) if anchored > found.last.0 => {
            text += &format!("acknowledged events up to {anchored} at least are lost with it\n");
        }
        None => text += "the anchor is missing or unreadable: how far the log once came cannot be told\n",
        Some(anchored) if !found.has_loss() && !found.is_whole() => {
            text += &format!("nothing is lost that the anchor knows of, which says {anchored}\n");
        }
        _ => {}
    }
    match kept {
        Some(old) => text += &format!("the log was written anew; the old one is in {}", old.display()),
        None if found.is_whole() => text += "nothing is to be repaired",
        None => {
            text += "with --accept-loss the log is written anew without the rest, and the old one kept";
        }
    }
    text
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
    let mut batches = Vec::new();
    walk(&mut store, found.way, &mut |bytes| {
        let opened = open(bytes)?;
        if opened.end.sequence > found.last {
            return Ok(false);
        }
        let sealed = seal(&mut end, opened.time, opened.entries.into_iter());
        let (first, last) = (sealed.first.0, sealed.last.0);
        batches.push(StoredBatch { first, last, chain: sealed.hash, bytes: sealed.bytes });
        if batches.len() == COMMIT_BATCHES || end.sequence == found.last {
            let head = into.head();
            into.append(head, &batches, AppendKind::Essential)?;
            batches.clear();
        }
        Ok(end.sequence < found.last)
    })?;
    anyhow::ensure!(end.sequence == found.last, "the log was read to event {} only", end.sequence);
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
