//! The log on disk, in sled, hardened until it survived every power cut we could simulate (docs/DURABILITY.md).
//!
//! ```text
//! <data>/LOCK                       held by whoever has the log open
//! <data>/log/anchor                 how far the log came (anchor.rs)
//! <data>/log/<first, 20 digits>/    one sled database for each segment (segment.rs)
//! <data>/log/scratch-*/             copies being read; removed when they are no longer
//! <data>/log/<first>.trimmed/       a segment being removed
//! ```
//!
//! Only the last segment is ever opened in place, and only to be written: after a copy of it opened well and ended where
//! the anchor says it must, and after whoever opens the log has read all of it. Opening a sled database cuts off what it
//! takes for a torn tail, so opening a damaged one would destroy what there is left to repair. Everything else is read
//! from copies. Nothing that is refused is changed.

mod anchor;
mod closed;
mod conf;
mod nudge;
mod open;
mod segment;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use open::{DataLock, OpenError, Options};
pub(crate) use segment::BATCH_BYTES_MAX;

use self::anchor::AnchorFile;
use self::closed::{COPIES_FOR_AUDIT, ClosedSegments, following, segment_of, segment_path};
use self::segment::{Segment, SegmentError, give_snapshots, sync_dir};
use crate::store::{
    Anchor, AppendError, AppendKind, Archive, Durability, LogId, LogStore, Position, ReadError, Space,
    StoredBatch, assert_append, end_of,
};

/// What a segment is called while it is removed.
const TRIMMED: &str = "trimmed";

/// A log in sled segments below a data directory.
pub struct SledStore {
    /// `<data>/log`.
    dir: PathBuf,
    options: Options,
    log_id: LogId,
    /// Held for as long as this value lives.
    _lock: DataLock,
    /// First sequence numbers of the segments, in order.
    segments: Vec<u64>,
    head: Position,
    found: Option<Anchor>,
    /// `None` until the log is written to.
    live: Option<Live>,
    writing: Writing,
    /// Segments behind the head that a crash left: empty, or not whole enough to be opened.
    leftovers: Vec<u64>,
    closed: ClosedSegments,
    /// The active segment is to be closed once it is worth it ([`LogStore::close_segment`]).
    is_to_close: bool,
    /// When free space was found ample last, if it was.
    ample_since: Option<Instant>,
    poisoned: Option<String>,
}

/// A segment is not closed before its time for less than this: an open one takes some 100 ms for each 200 MiB at a start.
const CLOSED_BYTES_MIN: u64 = 16 << 20;

/// With so much more than the reserve free space is not looked at for each commit, but after this time again. Whoever takes
/// all of it meanwhile, at once, makes a write fail: the log is poisoned, as if it had been taken between look and write.
const SPACE_AMPLE: u64 = 256 << 20;
const SPACE_LOOK: Duration = Duration::from_millis(20);

/// Whether there is enough for what is to be written, and so much that it need not be asked for at once again.
fn judge_space(free: u64, needed: u64, reserve: u64) -> (bool, bool) {
    (free >= needed, free >= reserve.max(needed).saturating_add(SPACE_AMPLE))
}

/// Whether the log may be written, and what its anchor goes on with.
#[derive(Clone, Copy)]
enum Writing {
    Never,
    Behind { counter: u64 },
}

/// What is needed to write.
struct Live {
    active: Segment,
    anchor: AnchorFile,
    /// The active segment holds nothing acknowledged yet.
    is_fresh: bool,
}

impl std::fmt::Debug for SledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SledStore({}, head {})", self.dir.display(), self.head.sequence)
    }
}

impl SledStore {
    fn segment_path(&self, first: u64) -> PathBuf {
        segment_path(&self.dir, first)
    }

    /// Closes the active segment and begins another one behind it, if it has grown to its size or is to be closed (point 5).
    fn rotate(&mut self) -> Result<(), SegmentError> {
        let next = self.head.sequence + 1;
        let path = self.segment_path(next);
        let Some(live) = &mut self.live else { return Ok(()) };
        let enough = if self.is_to_close { CLOSED_BYTES_MIN } else { self.options.segment_bytes };
        let enough = enough.min(self.options.segment_bytes);
        if live.active.bytes() < enough || self.segments.last() == Some(&next) {
            return Ok(());
        }
        self.is_to_close = false;
        live.anchor.sync()?;
        // If we die after this line, the next start finds an empty segment, and goes on in it if it is whole.
        // Only a segment that is durable, with its name, takes the place of the one that readers still read from.
        live.active = Segment::open(&path, self.options.cache_bytes)?;
        live.is_fresh = true;
        self.segments.push(next);
        Ok(())
    }

    /// Opens the last segment in place.
    fn go_live(&mut self) -> Result<(), SegmentError> {
        let counter = match self.writing {
            _ if self.live.is_some() => return Ok(()),
            Writing::Never => return Err(SegmentError::Damaged("it was opened to be read only".to_owned())),
            Writing::Behind { counter } => counter,
        };
        let mut anchor = AnchorFile::open(&self.dir.join("anchor"), counter)?;
        if counter == 0 {
            // If we die before this is synced, the next start creates the log again: it holds nothing yet.
            anchor.write(self.log_id, Position::START)?;
            anchor.sync()?;
            sync_dir(&self.dir)?;
        }
        let made = match self.segments.last().copied() {
            Some(first) => self.closed.segment(first)?.made_snapshots()?,
            None => Vec::new(),
        };
        self.closed.forget_all(); // before anything is written: this frees the space of copies
        for leftover in std::mem::take(&mut self.leftovers) {
            set_aside(&self.segment_path(leftover))?;
        }
        let first = self.segments.last().copied().unwrap_or(1);
        let path = self.segment_path(first);
        give_snapshots(&made, &path)?;
        let active = Segment::open(&path, self.options.cache_bytes)?;
        if self.segments.is_empty() {
            self.segments.push(first);
        }
        if self.head.sequence > self.found.map_or(0, |anchor| anchor.position.sequence) {
            // What a crash left behind the anchor is about to be served: from here on it counts as acknowledged.
            anchor.write(self.log_id, self.head)?;
            anchor.sync()?;
        }
        self.live = Some(Live { active, anchor, is_fresh: self.head.sequence < first });
        Ok(())
    }

    fn write(&mut self, batches: &[StoredBatch]) -> Result<(), SegmentError> {
        self.go_live()?;
        self.rotate()?;
        let end = end_of(batches);
        let live = self.live.as_mut().expect("it was made live a moment ago");
        live.active.commit(batches)?;
        // The log is durable; if we die before the anchor is written, the log is only longer than its anchor says.
        live.anchor.write(self.log_id, end)?;
        if std::mem::take(&mut live.is_fresh) {
            // A segment that the anchor does not reach holds nothing acknowledged: so a start can tell what a crash
            // left of a rotation from what was damaged.
            live.anchor.sync()?;
        }
        self.head = end;
        Ok(())
    }

    fn poison(&mut self, error: &SegmentError) -> AppendError {
        let reason = error.to_string();
        tracing::error!(reason, "the log failed: nothing more is written until it is opened anew");
        self.poisoned = Some(reason.clone());
        AppendError::Indeterminate(reason)
    }

    fn check_space(&mut self, kind: AppendKind) -> Result<(), AppendError> {
        let needed = match kind {
            AppendKind::Ordinary => self.options.space_reserve,
            AppendKind::Essential => self.options.space_hard,
        };
        if self.ample_since.is_some_and(|since| since.elapsed() < SPACE_LOOK) {
            return Ok(());
        }
        let Some(Space { free, reserve }) = self.space() else { return Ok(()) };
        let (is_enough, is_ample) = judge_space(free, needed, reserve);
        self.ample_since = is_ample.then(Instant::now);
        if is_enough { Ok(()) } else { Err(AppendError::Full { free, needed }) }
    }
}

/// Renames a segment that a crash left empty or torn; an older one of that name goes.
fn set_aside(path: &Path) -> io::Result<()> {
    let aside = path.with_extension("leftover");
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(path, aside)
}

/// Removes a segment, all of it or nothing.
fn remove_segment(path: &Path, dir: &Path) -> io::Result<()> {
    let aside = path.with_extension(TRIMMED);
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(path, &aside)?;
    sync_dir(dir)?;
    // If we die in the middle of this, the rest has a name that is no segment's, and the next opening removes it.
    fs::remove_dir_all(&aside)
}

impl LogStore for SledStore {
    fn log_id(&self) -> LogId {
        self.log_id
    }

    fn head(&self) -> Position {
        self.head
    }

    fn first(&self) -> u64 {
        self.segments.first().copied().unwrap_or_else(|| self.head.sequence + 1)
    }

    fn anchor(&self) -> Option<Anchor> {
        self.found
    }

    fn begin_writing(&mut self) -> Result<(), AppendError> {
        self.go_live().map_err(|error| self.poison(&error))
    }

    fn append(
        &mut self,
        expected: Position,
        batches: &[StoredBatch],
        kind: AppendKind,
    ) -> Result<Position, AppendError> {
        assert_append(expected, batches, BATCH_BYTES_MAX);
        if let Some(reason) = &self.poisoned {
            return Err(AppendError::Poisoned(reason.clone()));
        }
        if self.head != expected {
            return Err(AppendError::Conflict { head: self.head });
        }
        self.check_space(kind)?;
        match self.write(batches) {
            Ok(()) => Ok(self.head),
            Err(error) => Err(self.poison(&error)),
        }
    }

    fn read_from(&mut self, sequence: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
        let first = self.first();
        if sequence < first {
            return Err(ReadError::Trimmed { first });
        }
        if sequence > self.head.sequence {
            return Ok(Vec::new());
        }
        match &self.live {
            Some(live) if sequence >= self.open_from() => {
                let mut read = live.active.read_from(sequence, bytes_max);
                // What a failed append may have left behind the head was never acknowledged.
                read.iter_mut().for_each(|batches| batches.retain(|batch| batch.last <= self.head.sequence));
                following(read, sequence)
            }
            _ => {
                let first = segment_of(&self.segments, sequence).unwrap_or(first);
                self.closed.read_from(first, sequence, bytes_max)
            }
        }
    }

    fn open_from(&self) -> u64 {
        self.segments.last().copied().unwrap_or(1)
    }

    fn archive(&self) -> Box<dyn Archive> {
        Box::new(ClosedSegments::new(self.dir.clone(), self.options, COPIES_FOR_AUDIT))
    }

    fn close_segment(&mut self) -> Result<(), AppendError> {
        if let Some(reason) = &self.poisoned {
            return Err(AppendError::Poisoned(reason.clone()));
        }
        self.is_to_close = true;
        if self.check_space(AppendKind::Ordinary).is_err() {
            return Ok(());
        }
        self.rotate().map_err(|error| self.poison(&error))
    }

    fn trim_before(&mut self, sequence: u64) -> Result<u64, ReadError> {
        // A segment goes when the next one begins at or before the given number; the last one that holds something never does:
        // without it nobody could tell an empty one behind it from a log that was lost.
        let holds_something = |next: &u64| *next <= self.head.sequence;
        while self.live.is_some()
            && self.segments.get(1).is_some_and(|next| *next <= sequence && holds_something(next))
        {
            let first = self.segments[0];
            self.closed.forget(first);
            let path = self.segment_path(first);
            remove_segment(&path, &self.dir).map_err(|e| ReadError::Io(e.to_string()))?;
            self.segments.remove(0);
        }
        Ok(self.first())
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }

    fn max_batch_bytes(&self) -> usize {
        BATCH_BYTES_MAX
    }

    fn space(&self) -> Option<Space> {
        let stat = rustix::fs::statvfs(&self.dir).ok()?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        Some(Space { free, reserve: self.options.space_reserve })
    }

    fn sync_anchor(&mut self) -> Result<(), AppendError> {
        if let Some(reason) = &self.poisoned {
            return Err(AppendError::Poisoned(reason.clone()));
        }
        let synced = self.live.as_ref().map_or(Ok(()), |live| live.anchor.sync());
        synced.map_err(|error| self.poison(&error.into()))
    }

    fn close(mut self: Box<Self>) -> Result<(), AppendError> {
        self.sync_anchor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_ample_only_far_above_the_reserve_and_what_is_needed() {
        const RESERVE: u64 = 384 << 20;
        const HARD: u64 = 16 << 20;
        for (free, needed, judged) in [
            (0, HARD, (false, false)),
            (HARD - 1, HARD, (false, false)),
            (HARD, HARD, (true, false)),
            (RESERVE - 1, RESERVE, (false, false)),
            (RESERVE, RESERVE, (true, false)),
            (RESERVE + SPACE_AMPLE - 1, HARD, (true, false)),
            (RESERVE + SPACE_AMPLE, HARD, (true, true)),
            (RESERVE + SPACE_AMPLE, RESERVE, (true, true)),
            (u64::MAX - 1, u64::MAX, (false, false)),
        ] {
            assert_eq!(judge_space(free, needed, RESERVE), judged, "{free} of {needed}");
        }
    }
}
