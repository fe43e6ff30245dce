//! The disk: keeps what was synced, and of the rest what chance leaves over.

use jeton_core::batch::SealedBatch;
use jeton_core::numbers::Sequence;
use jeton_core::recovery::ReplayAnchor;
use jeton_core::sequencer::Commit;

use super::rng::Rng;

/// What is written whole or not at all: little, as the batches are little too.
const SECTOR_BYTES: usize = 64;

/// What lies on the disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Synced: survives.
    synced: Vec<SealedBatch>,
    /// Written, not synced: a crash leaves all of it, a beginning or nothing.
    written: Vec<SealedBatch>,
    /// The last event it has said to be synced.
    reported: Sequence,
    /// The anchor as synced, and as written since.
    anchor: Option<ReplayAnchor>,
    anchor_written: Option<ReplayAnchor>,
}

fn anchor_at(batch: &SealedBatch) -> ReplayAnchor {
    ReplayAnchor { sequence: batch.last, hash: batch.hash }
}

impl Disk {
    /// Takes the bytes of a commit; nothing of it is safe yet.
    pub(super) fn write(&mut self, commit: &Commit) {
        self.written.extend(commit.batches.iter().cloned());
    }

    /// Makes safe what was written, and notes in the anchor how far that is.
    pub(super) fn sync(&mut self) {
        self.synced.append(&mut self.written);
        self.reported = self.reported.max(self.head());
        self.anchor_written = self.synced.last().map(anchor_at);
    }

    /// Says that it made safe what was written, and did not; the anchor believes it.
    pub(super) fn lie(&mut self) {
        self.anchor_written = self.written.last().or(self.synced.last()).map(anchor_at);
        self.reported = self.written.last().map_or(self.reported, |batch| batch.last);
    }

    pub(super) fn sync_anchor(&mut self) {
        self.anchor = self.anchor_written;
    }

    /// The power is cut. What was synced is there, and of what was only written a beginning; the rest may have come to the
    /// disk in any order and in parts, which is drawn from `torn`.
    pub(super) fn crash(&mut self, rng: &mut Rng, torn: &mut Rng) -> Crash {
        let kept = match rng.below(3) {
            0 => 0,
            1 => self.written.len(),
            _ => rng.below(self.written.len() as u64 + 1) as usize,
        };
        self.synced.extend(self.written.drain(..kept));
        let lost: Vec<_> = self.written.drain(..).collect();
        let wreck = wreck(&lost, torn);
        let lied_about = lost.into_iter().filter(|batch| batch.last <= self.reported).collect();
        self.reported = self.reported.max(self.head());
        if rng.one_in(2) {
            // Its page reached the disk by itself.
            self.anchor = self.anchor_written;
        }
        self.anchor_written = self.anchor;
        Crash { lied_about, wreck }
    }

    /// How far the disk has said that it holds the log.
    pub(super) fn reported(&self) -> Sequence {
        self.reported
    }

    pub(super) fn head(&self) -> Sequence {
        self.synced.last().map_or(Sequence(0), |batch| batch.last)
    }

    pub(super) fn batches(&self) -> &[SealedBatch] {
        &self.synced
    }

    pub(super) fn anchor(&self) -> Option<ReplayAnchor> {
        self.anchor
    }

    /// Flips a bit of some batch; returns the events of the batch and how to undo it.
    pub(super) fn rot(&mut self, rng: &mut Rng) -> Option<(std::ops::RangeInclusive<Sequence>, BitFlip)> {
        if self.synced.is_empty() {
            return None;
        }
        let batch = rng.below(self.synced.len() as u64) as usize;
        let at = rng.below(self.synced[batch].bytes.len() as u64) as usize;
        let flip = BitFlip { batch, at, bit: 1 << rng.below(8) };
        self.flip(&flip);
        Some((self.synced[batch].first..=self.synced[batch].last, flip))
    }

    pub(super) fn flip(&mut self, flip: &BitFlip) {
        self.synced[flip.batch].bytes[flip.at] ^= flip.bit;
    }

    /// Cuts off the last batch, behind everybody's back; returns it.
    pub(super) fn lose_tail(&mut self) -> Option<SealedBatch> {
        self.synced.pop()
    }

    /// Takes a batch out from before the last; returns where it was.
    pub(super) fn tear_out(&mut self, rng: &mut Rng) -> Option<(usize, SealedBatch)> {
        let others = self.synced.len().checked_sub(1).filter(|others| *others > 0)?;
        let at = rng.below(others as u64) as usize;
        Some((at, self.synced.remove(at)))
    }

    pub(super) fn put_back(&mut self, at: usize, batch: SealedBatch) {
        self.synced.insert(at, batch);
    }

    pub(super) fn restore(&mut self, batches: impl IntoIterator<Item = SealedBatch>) {
        self.synced.extend(batches);
    }
}

/// What a crash has left.
#[derive(Debug)]
pub(super) struct Crash {
    /// What the disk had said was safe and was not.
    pub(super) lied_about: Vec<SealedBatch>,
    /// What lies behind the end of the log: not one whole batch that belongs there.
    pub(super) wreck: Vec<SealedBatch>,
}

/// What is on the disk of batches of which the first did not get there whole.
fn wreck(lost: &[SealedBatch], rng: &mut Rng) -> Vec<SealedBatch> {
    let fate = |(at, batch): (usize, &SealedBatch)| match rng.below(3) {
        0 if at > 0 => Some(batch.clone()),
        1 => {
            let mut torn = batch.clone();
            tear(&mut torn.bytes, rng).then_some(torn)
        }
        _ => None,
    };
    lost.iter().enumerate().filter_map(fate).collect()
}

/// Leaves of what was written some sectors and others not, or nothing from somewhere on. Returns whether that makes a
/// difference.
pub(super) fn tear(bytes: &mut Vec<u8>, rng: &mut Rng) -> bool {
    let whole = bytes.clone();
    for sector in bytes.chunks_mut(SECTOR_BYTES) {
        if rng.one_in(2) {
            sector.fill(0);
        }
    }
    if rng.one_in(2) {
        bytes.truncate(rng.below(whole.len() as u64 + 1) as usize);
    }
    *bytes != whole
}

/// A bit that rotted.
#[derive(Debug)]
pub(super) struct BitFlip {
    batch: usize,
    at: usize,
    bit: u8,
}
