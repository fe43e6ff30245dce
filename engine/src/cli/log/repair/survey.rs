//! What a damaged log still holds: events that verify, from the first one on, read by the store as long as it can, and
//! past it if that leads further.
//!
//! A batch carries its own seal and names the one before. So where sled's structure is damaged, or says that there is
//! nothing more, its files are searched for batches, and those that continue the chain are as good as if sled had given
//! them: none of them can be another, and none can be passed over.

use std::fs;

use anyhow::{Context as _, bail};
use jeton_core::batch::{OpenBatch, open, open_front};
use jeton_core::numbers::{LogId, Partition, Sequence};
use jeton_core::recovery::Replay;
use jeton_core::state::StateConfig;
use jeton_log_store::{Anchor, LogStore as _, SledStore};

use crate::engine::anchor_of;

const PAGE_BYTES: usize = 1 << 20;
const BATCH_MAGIC: &[u8] = b"JTNB";

/// How the batches of a log are got at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Through the store.
    Store,
    /// By search in its files.
    Search,
}

/// What the damaged log still holds.
pub(super) struct Found {
    pub(super) log: LogId,
    pub(super) way: Way,
    pub(super) batches: u64,
    /// The last event that can be verified.
    pub(super) last: Sequence,
    /// How far the anchor says that the log came.
    pub(super) anchored: Option<u64>,
    /// Why it ends there, if not because the log does.
    pub(super) broken: Option<String>,
    /// The first and the last event of what is there behind a hole, and cannot follow on anything.
    pub(super) beyond: Option<(u64, u64)>,
}

impl Found {
    /// Whether the log is one that a start accepts.
    pub(super) fn is_whole(&self) -> bool {
        self.way == Way::Store && self.broken.is_none() && !self.has_loss()
    }

    /// Whether anything that was acknowledged is known to be lost, or nobody can tell.
    pub(super) fn has_loss(&self) -> bool {
        self.beyond.is_some() || self.anchored.is_none_or(|anchored| anchored > self.last.0)
    }
}

/// Reads as far as everything verifies, the way that leads further.
pub(super) fn survey(store: &mut SledStore) -> anyhow::Result<Found> {
    let by_store = survey_by(store, Way::Store);
    match by_store {
        Ok(found) if found.is_whole() => Ok(found),
        by_store => match (by_store, survey_by(store, Way::Search)) {
            // What came of the search, with the reason that there had to be one.
            (Ok(usual), Ok(found)) if found.last > usual.last => {
                let ends = || format!("the store gives nothing behind event {}", usual.last);
                Ok(Found { broken: Some(usual.broken.unwrap_or_else(ends)), ..found })
            }
            (Ok(usual), found) => {
                let beyond = found.ok().and_then(|found| found.beyond);
                Ok(Found { beyond: beyond.or(usual.beyond), ..usual })
            }
            (Err(error), Ok(found)) => Ok(Found { broken: Some(format!("{error:#}")), ..found }),
            (Err(error), Err(_)) => Err(error),
        },
    }
}

fn survey_by(store: &mut SledStore, way: Way) -> anyhow::Result<Found> {
    let anchor = store.anchor();
    let mut state: Option<(Replay, u64)> = None;
    let mut passed: Option<String> = None;
    let walked = walk(store, way, &mut |bytes| {
        let (replay, batches) = match &mut state {
            Some(state) => state,
            none => none.insert((begin(bytes, anchor)?, 0)),
        };
        match replay.apply(bytes) {
            Ok(_) => {
                *batches += 1;
                Ok(true)
            }
            Err(error) => {
                passed = Some(error.to_string());
                Ok(false)
            }
        }
    })?;
    let Some((replay, batches)) = state.filter(|(_, batches)| *batches > 0) else {
        let reason = passed.or(walked.broken).unwrap_or_else(|| "it holds nothing".to_owned());
        bail!(
            "nothing of this log can be verified, its first event included: {reason}; restore a copy of it, or remove \
             log and log.id to begin a new one"
        );
    };
    let own = anchor.filter(|anchor| anchor.log_id == replay.end().log.0);
    let is_foreign = anchor.is_some() && own.is_none();
    let foreign = is_foreign.then(|| "the anchor beside it is that of another log".to_owned());
    Ok(Found {
        log: replay.end().log,
        way,
        batches,
        last: replay.end().sequence,
        anchored: own.map(|anchor| anchor.position.sequence),
        broken: passed.or(walked.broken).or(foreign),
        beyond: walked.beyond,
    })
}

/// A replay of the log that this batch begins; it must pass through the anchor, if that is of this log.
fn begin(bytes: &[u8], anchor: Option<Anchor>) -> anyhow::Result<Replay> {
    let log = open(bytes).context("nothing of this log can be verified")?.end.log;
    let anchor = anchor.filter(|anchor| anchor.log_id == log.0).map(|anchor| anchor_of(&anchor));
    let config = StateConfig { huge_pages: false, tokens_max: i32::MAX as u32 - 1, ..StateConfig::default() };
    Ok(Replay::new(log, Partition(0), config, anchor)?)
}

/// Why there are no more batches.
#[derive(Default)]
pub(super) struct Walked {
    broken: Option<String>,
    beyond: Option<(u64, u64)>,
}

/// Shows batches from the first one on, until `visit` has enough or there are no more.
pub(super) fn walk(
    store: &mut SledStore,
    way: Way,
    visit: &mut dyn FnMut(&[u8]) -> anyhow::Result<bool>,
) -> anyhow::Result<Walked> {
    match way {
        Way::Store => walk_store(store, visit),
        Way::Search => search(store, visit),
    }
}

fn walk_store(
    store: &mut SledStore,
    visit: &mut dyn FnMut(&[u8]) -> anyhow::Result<bool>,
) -> anyhow::Result<Walked> {
    let mut next = 1;
    loop {
        let page = match store.read_from(next, PAGE_BYTES) {
            Ok(page) => page,
            Err(error) => return Ok(Walked { broken: Some(error.to_string()), beyond: None }),
        };
        let Some(last) = page.last() else { return Ok(Walked::default()) };
        next = last.last + 1;
        for batch in page {
            if !visit(&batch.bytes)? {
                return Ok(Walked::default());
            }
        }
    }
}

/// A batch that was found in a file.
struct Candidate {
    batch: OpenBatch,
    at: usize,
    length: usize,
}

fn candidates(bytes: &[u8]) -> Vec<Candidate> {
    let positions =
        (0..bytes.len().saturating_sub(BATCH_MAGIC.len())).filter(|at| bytes[*at..].starts_with(BATCH_MAGIC));
    let opened = positions.filter_map(|at| {
        let (batch, length) = open_front(&bytes[at..]).ok()?;
        Some(Candidate { batch, at, length })
    });
    let mut found: Vec<Candidate> = opened.collect();
    found.sort_by_key(|candidate| candidate.batch.first);
    found
}

/// Follows the chain through the store's files, one after another.
fn search(store: &SledStore, visit: &mut dyn FnMut(&[u8]) -> anyhow::Result<bool>) -> anyhow::Result<Walked> {
    let mut end: Option<(Sequence, [u8; 32])> = None;
    let mut beyond: Option<(u64, u64)> = None;
    for file in store.content_files()? {
        let Ok(bytes) = fs::read(&file) else { continue }; // one that is gone is a hole
        for Candidate { batch, at, length } in candidates(&bytes) {
            let (last, hash) = end.unwrap_or_default();
            let follows = batch.first == last.next() && batch.previous == hash;
            if follows && beyond.is_none() {
                if !visit(&bytes[at..at + length])? {
                    return Ok(Walked::default());
                }
                end = Some((batch.end.sequence, batch.end.hash));
            } else if batch.end.sequence > last {
                let (first, furthest) = beyond.unwrap_or((batch.first.0, batch.end.sequence.0));
                beyond = Some((first.min(batch.first.0), furthest.max(batch.end.sequence.0)));
            }
        }
    }
    let broken = beyond.map(|(first, _)| {
        let next = end.unwrap_or_default().0.next();
        format!("event {next} is not to be found, and the next one that is there is {first}")
    });
    Ok(Walked { broken, beyond })
}
