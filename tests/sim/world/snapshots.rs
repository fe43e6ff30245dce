//! Snapshots: written step by step beside everything else, cut short by crashes, damaged now and then; and starts from them,
//! each compared with a replay of the whole log.
//!
//! Chance is drawn from a generator of its own, so that what a seed does otherwise is the same with snapshots and without.

use jeton_core::numbers::Sequence;
use jeton_core::recovery::{Replay, ReplayAnchor};
use jeton_core::snapshot::{Loading, Manifest, SnapshotError, SnapshotWriter, prune, snapshots};
use jeton_core::state::State;
use jeton_core::view::Reader;

use super::super::node::{LOG, PARTITION, config};
use super::{Event, World};

/// How often, of all the times that one could begin, one does.
const BEGINS_ONE_IN: u64 = 40;
/// A part rots before one in so many starts.
const ROTS_ONE_IN: u64 = 6;
/// How long a piece takes.
const STEP_MS: u64 = 8;

/// A snapshot under way.
pub(in super::super) struct Writing {
    writer: SnapshotWriter,
    has_all: bool,
}

/// What a start from a snapshot came to.
pub(super) enum Started {
    /// A state, to go on with.
    From(Box<State>, Reader),
    /// No snapshot that can be used.
    No,
}

impl World {
    /// Begins a snapshot now and then. Called when a commit may just have been handed out.
    pub(super) fn maybe_snapshot(&mut self) {
        let Some(node) = &mut self.node else { return };
        if node.writing.is_some() || node.has_failed || !self.snapshot_rng.one_in(BEGINS_ONE_IN) {
            return;
        }
        let is_renewing = node.sequencer.has_unpublished_renewals();
        let Some(cut) = node.sequencer.begin_snapshot() else { return };
        if is_renewing {
            self.report.seen.note("a snapshot amid a renewal");
        }
        let writer = SnapshotWriter::new(cut, self.snapshot_before.clone());
        node.writing = Some(Writing { writer, has_all: false });
        self.plan_snapshot_step();
    }

    fn plan_snapshot_step(&mut self) {
        let at = self.now + self.snapshot_rng.below(STEP_MS);
        self.schedule(at, Event::Snapshot(self.incarnation));
    }

    /// The snapshot under way goes on a little.
    pub(super) fn snapshot_step(&mut self) -> Result<(), String> {
        let Some(node) = &mut self.node else { return Ok(()) };
        let Some(mut writing) = node.writing.take() else { return Ok(()) };
        if node.has_failed {
            return Ok(()); // it is given up
        }
        for _ in 0..1 + self.snapshot_rng.below(12) {
            if !writing.has_all {
                match node.sequencer.poll_snapshot() {
                    Some(piece) => writing.writer.take(piece, &mut self.parts).map_err(|e| e.to_string())?,
                    None => writing.has_all = true,
                }
                continue;
            }
            match writing.writer.write_next(&mut self.parts) {
                Ok(true) => {}
                Ok(false) => return self.commit_snapshot(writing),
                Err(error) => return Err(format!("a snapshot cannot be written: {error}")),
            }
        }
        node.writing = Some(writing);
        self.plan_snapshot_step();
        Ok(())
    }

    fn commit_snapshot(&mut self, writing: Writing) -> Result<(), String> {
        let Some(node) = &mut self.node else { return Ok(()) };
        let durable = node.sequencer.watermarks().durable;
        if !writing.writer.may_commit(durable) {
            node.writing = Some(writing);
            self.plan_snapshot_step();
            return Ok(());
        }
        let (manifest, _) = writing.writer.commit(durable, &mut self.parts).map_err(|e| e.to_string())?;
        self.snapshot_before = Some(manifest);
        self.report.seen.note("a snapshot written");
        prune(&mut self.parts, (LOG, PARTITION)).map_err(|e| e.to_string())
    }

    /// Starts from the newest snapshot that can be used.
    pub(super) fn start_from_snapshot(&mut self, anchor: Option<ReplayAnchor>) -> Result<Started, String> {
        if self.snapshot_rng.one_in(ROTS_ONE_IN) && self.parts.rot(&mut self.snapshot_rng) {
            self.report.seen.note("a file of snapshots that rots");
        }
        self.snapshot_before = None;
        for sequence in snapshots(&self.parts).map_err(|e| e.to_string())? {
            if sequence > self.disk.head() {
                return Err(format!(
                    "there is a snapshot of {sequence}, and the log ends at {}",
                    self.disk.head()
                ));
            }
            match self.behind(sequence, anchor) {
                Ok((state, reader, manifest)) => {
                    self.report.seen.note("a start from a snapshot");
                    if manifest.sequence < self.disk.head().0 {
                        self.report.seen.note("a start from a snapshot and events behind it");
                    }
                    self.snapshot_before = Some(manifest);
                    return Ok(Started::From(Box::new(state), reader));
                }
                Err(SnapshotError::Damaged(_) | SnapshotError::NotASnapshot | SnapshotError::Version(_)) => {
                    self.report.seen.note("a damaged snapshot passed over");
                }
                // Missing parts too: a manifest is there only if everything it names is.
                Err(other) => return Err(format!("a snapshot cannot be used: {other}")),
            }
        }
        Ok(Started::No)
    }

    fn behind(
        &self,
        sequence: Sequence,
        anchor: Option<ReplayAnchor>,
    ) -> Result<(State, Reader, Manifest), SnapshotError> {
        let manifest = Manifest::read(&self.parts, sequence)?.check_log((LOG, PARTITION))?;
        let mut loading = Loading::new(manifest, &self.parts, config(self.tokens_max))?;
        for load in loading.loads() {
            load.run(&self.parts)?;
        }
        let (restored, manifest) = loading.finish()?;
        let broken =
            |error: jeton_core::recovery::ReplayError| SnapshotError::Configuration(error.to_string());
        let mut replay = Replay::behind(restored, anchor).map_err(broken)?;
        for batch in self.disk.batches().iter().filter(|batch| batch.first > sequence) {
            replay.apply(&batch.bytes).map_err(broken)?;
        }
        let (state, reader, _) = replay.finish().map_err(broken)?;
        Ok((state, reader, manifest))
    }
}
