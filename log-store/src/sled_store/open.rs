//! Opening the log: the lock, the anchor, the segments, and what is refused.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::anchor::{self, AnchorFile, Note};
use super::closed::{ClosedSegments, segments};
use super::segment::{Segment, SegmentError, sync_dir};
use super::{Live, SledStore};
use crate::store::{Anchor, Damage, LogId, Position};

/// Sizes that a store keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment that has grown to this many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// sled's cache; its real use is up to ten times this.
    pub cache_bytes: u64,
    /// With fewer bytes free on the disk only revokes and the like are written.
    pub space_reserve: u64,
    /// With fewer bytes free nothing is written.
    pub space_hard: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            cache_bytes: 32 << 20,
            space_reserve: 128 << 20,
            space_hard: 16 << 20,
        }
    }
}

/// Why a log does not open. Nothing that is refused was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else has it open.
    #[error("{path} is in use by process {holder}: a data directory serves one process at a time", path = path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// What the holder wrote down as its process id.
        holder: String,
    },
    /// There is no log to read.
    #[error("{path} holds no log", path = path.display())]
    Missing {
        /// The data directory.
        path: PathBuf,
    },
    /// What should be there is not, or is not what it was.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A log without its anchor may have lost its end, and nobody could tell.
    #[error("{path} is missing or unreadable although the log holds {events} events: without it nobody can tell whether the log lost its end", path = path.display())]
    AnchorLost {
        /// The anchor file.
        path: PathBuf,
        /// The last event that is there.
        events: u64,
    },
    /// The store did not come back from opening.
    #[error("the log's store does not open: {0}")]
    Stalled(String),
    /// The system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// What was to be used.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

/// Takes `<data>/LOCK` before anything else is touched (point 3).
fn lock(data: &Path) -> Result<File, OpenError> {
    let path = data.join("LOCK");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_at(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "(unknown)" } else { holder.trim() }.to_owned();
            return Err(OpenError::Locked { path: data.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(io_at(&path)(error)),
    }
    // For the message of whoever comes second; no more than that rests on it.
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

fn remove_scratch(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("scratch-") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

impl SledStore {
    /// Opens the log below `data` for writing; it is created, as `new_log_id`, if there is none.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(data: &Path, options: Options, new_log_id: LogId) -> Result<Self, OpenError> {
        let dir = data.join("log");
        fs::create_dir_all(&dir).map_err(io_at(&dir))?;
        let lock = lock(data)?;
        remove_scratch(&dir).map_err(io_at(&dir))?;
        let mut store = Self::survey(dir.clone(), options, lock)?;
        let anchor_path = dir.join("anchor");
        let (log_id, counter) = match anchor::read(&anchor_path).map_err(io_at(&anchor_path))? {
            Note::Valid(note, counter) => (note.log_id, counter),
            _ => (new_log_id, 0),
        };
        store.log_id = log_id;
        let mut anchor = AnchorFile::open(&anchor_path, counter).map_err(io_at(&anchor_path))?;
        if counter == 0 {
            // If we die before this is synced, the next start creates the log again: it holds nothing yet.
            let created = anchor.write(log_id, Position::START).and_then(|()| anchor.sync());
            created.and_then(|()| sync_dir(&dir)).map_err(io_at(&anchor_path))?;
        }
        store.closed.forget_all();
        let first = store.segments.last().copied().unwrap_or(1);
        let path = store.segment_path(first);
        let active = Segment::open(&path, options.cache_bytes).map_err(|error| store.open_error(error))?;
        if store.segments.is_empty() {
            store.segments.push(first);
        }
        store.live = Some(Live { active, anchor });
        Ok(store)
    }

    /// Opens the log below `data` to read it. Takes the lock, and changes nothing of what it reads.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_read_only(data: &Path, options: Options) -> Result<Self, OpenError> {
        let dir = data.join("log");
        if !dir.is_dir() {
            return Err(OpenError::Missing { path: data.to_owned() });
        }
        let lock = lock(data)?;
        Self::survey(dir, options, lock)
    }

    /// Looks at everything through copies, and refuses what is not whole.
    fn survey(dir: PathBuf, options: Options, lock: File) -> Result<Self, OpenError> {
        let anchor_path = dir.join("anchor");
        let note = anchor::read(&anchor_path).map_err(io_at(&anchor_path))?;
        let (log_id, found) = match note {
            Note::Valid(anchor, _) => (anchor.log_id, Some(anchor)),
            Note::Missing | Note::Damaged => ([0; 16], None),
        };
        let segments = segments(&dir).map_err(io_at(&dir))?;
        let mut store = Self {
            closed: ClosedSegments::new(dir.clone(), options),
            dir,
            options,
            log_id,
            _lock: lock,
            segments,
            head: Position::START,
            found: found.filter(|anchor| anchor.position.sequence > 0),
            live: None,
            poisoned: None,
        };
        store.head = store.find_head()?;
        if found.is_none() && (store.head != Position::START || note == Note::Damaged) {
            return Err(OpenError::AnchorLost { path: anchor_path, events: store.head.sequence });
        }
        if let Some(anchor) = found {
            check_end(&anchor, &store.head)?;
        }
        Ok(store)
    }

    /// Where the log ends. A last segment that holds nothing is left over from a start that a crash cut short.
    fn find_head(&mut self) -> Result<Position, OpenError> {
        while let Some(first) = self.segments.last().copied() {
            let head = self.closed.segment(first).and_then(Segment::head);
            match head.map_err(|error| self.open_error(error))? {
                Some(head) => return Ok(head),
                None if self.segments.len() == 1 => return Ok(Position::START),
                None => drop(self.segments.pop()),
            }
        }
        Ok(Position::START)
    }

    /// What a segment that does not open means: nothing from its first event on can be had, as far as is known.
    fn open_error(&self, error: SegmentError) -> OpenError {
        match error {
            SegmentError::Io(source) => OpenError::Io { path: self.dir.clone(), source },
            SegmentError::Stalled => OpenError::Stalled(error.to_string()),
            SegmentError::Damaged(reason) => {
                let first_broken = self.segments.last().copied().unwrap_or(1);
                OpenError::Damaged(Damage { first_broken, reason })
            }
        }
    }
}

/// The log may be longer than its anchor says, never shorter, and never another at the same place (point 6).
fn check_end(anchor: &Anchor, head: &Position) -> Result<(), Damage> {
    let noted = anchor.position;
    if noted.sequence > head.sequence {
        let reason = format!(
            "the log ends at {}, but its anchor says that it reached {}",
            head.sequence, noted.sequence
        );
        return Err(Damage { first_broken: head.sequence + 1, reason });
    }
    if noted.sequence == head.sequence && noted.chain != head.chain {
        let reason = "the last batch is not the one that the anchor names".to_owned();
        return Err(Damage { first_broken: head.sequence, reason });
    }
    Ok(())
}
