//! From what lies on the disk to the state: a snapshot with the log behind it, or the whole log.
//!
//! The log has everything that a snapshot has. So one that is of no use, for whatever reason, is said to be and passed over;
//! only what the whole log comes to is an error. One thing more is: a snapshot that knows of events that the log has lost.

use std::time::Instant;

use jeton_core::IndexFull;
use jeton_core::batch::ChainEnd;
use jeton_core::numbers::{LogId, Partition, Sequence};
use jeton_core::recovery::{Replay, ReplayAnchor, ReplayError};
use jeton_core::snapshot::{Manifest, SnapshotError};
use jeton_core::state::{ApplyError, State};
use jeton_core::view::Reader;
use jeton_log_store::{Anchor, LogStore};

use super::{EngineConfig, OpenError};
use crate::snapshots::SnapshotDir;

/// What one read of the replay brings: bounded, because sled keeps what an iterator has read.
const REPLAY_BYTES: usize = 1 << 20;

/// What a log comes to.
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) reader: Reader,
    pub(super) end: ChainEnd,
    /// The snapshot that it was read behind.
    pub(super) snapshot: Option<Manifest>,
    /// Bytes of the batches that were read, behind the snapshot if there is one.
    pub(super) read_bytes: u64,
}

/// Why a snapshot is of no use.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the log does not go on from it: {0}")]
    Log(OpenError),
}

/// A store's anchor as a replay wants it.
pub(crate) fn anchor_of(anchor: &Anchor) -> ReplayAnchor {
    ReplayAnchor { sequence: Sequence(anchor.position.sequence), hash: anchor.position.chain }
}

/// Reads a log: behind its newest snapshot that can be used, or all of it.
///
/// # Errors
/// [`OpenError`] with the first sequence number that is broken; [`OpenError::SnapshotAhead`].
pub(super) fn recover(store: &mut dyn LogStore, config: &EngineConfig) -> Result<Recovered, OpenError> {
    let log = (LogId(store.log_id()), Partition(0));
    if let Some((dir, _)) = &config.snapshots {
        let found = dir.manifests(log).unwrap_or_else(|error| {
            tracing::warn!(%error, "the snapshots cannot be listed");
            Vec::new()
        });
        for (at, manifest) in found {
            match manifest.map_err(Useless::from).and_then(|manifest| behind(store, config, dir, manifest)) {
                Ok(recovered) => return Ok(recovered),
                Err(Useless::Log(error @ OpenError::SnapshotAhead { .. })) => return Err(error),
                Err(error) => tracing::warn!(event = at.0, %error, "a snapshot is passed over"),
            }
        }
    }
    let anchor = store.anchor().map(|anchor| anchor_of(&anchor));
    replay(store, Replay::new(log.0, log.1, config.state, anchor)?, config, None)
}

fn behind(
    store: &mut dyn LogStore,
    config: &EngineConfig,
    dir: &SnapshotDir,
    manifest: Manifest,
) -> Result<Recovered, Useless> {
    let (snapshot, head) = (Sequence(manifest.sequence), Sequence(store.head().sequence));
    if snapshot > head {
        return Err(Useless::Log(OpenError::SnapshotAhead { snapshot, head }));
    }
    if config.read_whole_log {
        return Err(SnapshotError::Configuration("the whole log is to be read".to_owned()).into());
    }
    let began = Instant::now();
    let (restored, manifest) = dir.load(manifest, config.state)?;
    let (tokens, loaded_ms) = (restored.state.tokens(), began.elapsed().as_millis() as u64);
    tracing::info!(event = snapshot.0, tokens, loaded_ms, "a snapshot is loaded");
    let anchor = store.anchor().map(|anchor| anchor_of(&anchor));
    let replayed = Replay::behind(restored, anchor).map_err(OpenError::from);
    replayed.and_then(|it| replay(store, it, config, Some(manifest))).map_err(Useless::Log)
}

/// Reads on to the end of the log.
fn replay(
    store: &mut dyn LogStore,
    mut replay: Replay,
    config: &EngineConfig,
    snapshot: Option<Manifest>,
) -> Result<Recovered, OpenError> {
    let mut read_bytes = 0;
    loop {
        let batches = store.read_from(replay.end().sequence.next().0, REPLAY_BYTES)?;
        if batches.is_empty() {
            let (state, reader, end) = replay.finish()?;
            return Ok(Recovered { state, reader, end, snapshot, read_bytes });
        }
        for batch in &batches {
            replay.apply(&batch.bytes).map_err(|error| broken_or_full(error, config))?;
            read_bytes += batch.bytes.len() as u64;
        }
    }
}

/// That there is no room for a token is nothing that the log can help.
fn broken_or_full(error: ReplayError, config: &EngineConfig) -> OpenError {
    match error {
        ReplayError::Inapplicable { at, cause: ApplyError::Room(IndexFull::Configured) } => {
            OpenError::TooManyTokens { at, tokens_max: config.state.tokens_max }
        }
        error => error.into(),
    }
}
