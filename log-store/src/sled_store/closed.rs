//! Closed segments: read through copies, because opening a sled database writes to it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::open::Options;
use super::segment::{Segment, SegmentError, copy_dir};
use crate::store::{Archive, Damage, ReadError, StoredBatch};

/// sled's cache for a copy: it is read once from front to back.
const COPY_CACHE_BYTES: u64 = 4 << 20;
/// The name of a copy within its temporary directory.
const COPY: &str = "segment";
/// Copies that whoever opens the log keeps at a time: a replay goes from front to back, and an open sled database takes
/// some 100 MB.
pub(super) const COPIES_FOR_REPLAY: usize = 1;
/// Copies that auditors' reads keep at a time, so that two readers in different segments do not copy anew for every page.
pub(super) const COPIES_FOR_AUDIT: usize = 2;

/// Reads segments that nobody writes to.
pub(super) struct ClosedSegments {
    /// `<data>/log`.
    dir: PathBuf,
    options: Options,
    copies_max: usize,
    /// Copies at hand, the one used last in front.
    copies: VecDeque<Copied>,
}

/// A copy of a segment, open for reading. The segment is dropped before its directory.
struct Copied {
    first: u64,
    segment: Segment,
    _dir: tempfile::TempDir,
}

/// The directory of the segment that begins with this event.
pub(super) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}"))
}

/// The first sequence numbers of the segments in `dir`, in order.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let first: Option<u64> =
            name.to_str().filter(|name| name.len() == 20).and_then(|name| name.parse().ok());
        firsts.extend(first.filter(|_| entry.path().is_dir()));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Of segments in order, the one that would hold `sequence`.
pub(super) fn segment_of(segments: &[u64], sequence: u64) -> Option<u64> {
    segments.iter().rev().find(|first| **first <= sequence).copied()
}

/// Of what a segment gave, the batches that follow on one another from `sequence` on. What does not is left for the
/// next read to complain of.
pub(super) fn following(
    read: Result<Vec<StoredBatch>, SegmentError>,
    sequence: u64,
) -> Result<Vec<StoredBatch>, ReadError> {
    let damaged = |reason: String| ReadError::Damaged(Damage { first_broken: sequence, reason });
    let mut batches = read.map_err(|error| match error {
        SegmentError::Io(error) => ReadError::Io(error.to_string()),
        other => damaged(other.to_string()),
    })?;
    let follow = batches.windows(2).take_while(|pair| pair[1].first == pair[0].last + 1).count();
    batches.truncate(follow + 1);
    match batches.first() {
        Some(batch) if (batch.first..=batch.last).contains(&sequence) => Ok(batches),
        _ => Err(damaged("no batch holds it".to_owned())),
    }
}

impl ClosedSegments {
    pub(super) fn new(dir: PathBuf, options: Options, copies_max: usize) -> Self {
        Self { dir, options, copies_max, copies: VecDeque::new() }
    }

    /// A copy of a segment, kept until others were asked for.
    pub(super) fn segment(&mut self, first: u64) -> Result<&Segment, SegmentError> {
        match self.copies.iter().position(|copied| copied.first == first) {
            Some(at) => self.copies.swap(0, at),
            None => {
                self.copies.truncate(self.copies_max - 1); // before the new one: this frees its space first
                let copied = Copied::of(&segment_path(&self.dir, first), first, &self.dir, &self.options)?;
                self.copies.push_front(copied);
            }
        }
        Ok(&self.copies[0].segment)
    }

    /// Drops the copy of a segment, if there is one.
    pub(super) fn forget(&mut self, first: u64) {
        self.copies.retain(|copied| copied.first != first);
    }

    /// Drops every copy.
    pub(super) fn forget_all(&mut self) {
        self.copies.clear();
    }

    pub(super) fn read_from(
        &mut self,
        first: u64,
        sequence: u64,
        bytes_max: usize,
    ) -> Result<Vec<StoredBatch>, ReadError> {
        following(self.segment(first).and_then(|segment| segment.read_from(sequence, bytes_max)), sequence)
    }
}

impl Archive for ClosedSegments {
    fn read_from(&mut self, sequence: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
        // Looked up anew each time: the writer closes segments and removes them.
        let segments = segments(&self.dir).map_err(|error| ReadError::Io(error.to_string()))?;
        match segment_of(&segments, sequence) {
            Some(first) => Self::read_from(self, first, sequence, bytes_max),
            None => Err(ReadError::Trimmed { first: segments.first().copied().unwrap_or(sequence) }),
        }
    }
}

impl Copied {
    fn of(path: &Path, first: u64, near: &Path, options: &Options) -> Result<Self, SegmentError> {
        // Beside the log if we may write there and there is room, since it may be large; elsewhere if not.
        let dir = match Self::copy(path, tempfile::Builder::new().prefix("scratch-").tempdir_in(near)) {
            Ok(dir) => dir,
            Err(_) => Self::copy(path, tempfile::tempdir())?,
        };
        Ok(Self {
            first,
            segment: Segment::open_copy(&dir.path().join(COPY), options.cache_bytes.min(COPY_CACHE_BYTES))?,
            _dir: dir,
        })
    }

    fn copy(path: &Path, dir: io::Result<tempfile::TempDir>) -> io::Result<tempfile::TempDir> {
        let dir = dir?;
        copy_dir(path, &dir.path().join(COPY))?;
        Ok(dir)
    }
}
