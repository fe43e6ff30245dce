//! Snapshots: the state at one event, in files that a start can serve from without reading the log up to there.
//!
//! The way of one: the sequencer makes a [`SnapshotCut`] between two commits and gives the pieces that change
//! ([`SnapshotPiece`]) while it goes on; a [`SnapshotWriter`] makes parts of them, files named by the blake3 hash of what is
//! in them, so that what has not changed since the last snapshot is not written again; once the event of the cut is durable,
//! the [`Manifest`] that names the parts is written, and from then on the snapshot exists. A start reads the newest manifest,
//! [`Loading`] has the parts read and verified, and the log is replayed from there.
//!
//! A snapshot never replaces the log: all of them may be deleted at any time, at the price of a replay. docs/FORMATS.md
//! describes the files to the byte.

pub(crate) mod cut;
pub(crate) mod load;
mod manifest;
pub(crate) mod parts;
mod store;
mod write;

pub use cut::{SnapshotCut, SnapshotPiece};
pub use load::{Load, LoadTarget, Loading, Restored, SnapshotError};
pub use manifest::{MANIFEST_BYTES_MAX, Manifest, PartRef, SegmentRef};
pub use store::{
    PartStore, SNAPSHOTS_KEPT, is_part_name, manifest_name, part_name, prune, sequence_of_manifest, snapshots,
};
pub use write::{SnapshotReport, SnapshotWriter};

#[cfg(test)]
mod tests;
