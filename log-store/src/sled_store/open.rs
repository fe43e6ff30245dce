//! Opening the log: the lock, the anchor, the segments, and what is refused.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::anchor::{self, Note};
use super::closed::{COPIES_FOR_REPLAY, ClosedSegments, segment_path, segments};
use super::segment::{Segment, SegmentError, forget_cached, forget_cached_file, sync_dir};
use super::{SledStore, TRIMMED, Writing};
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
    #[error("{path} holds no log: mount or restore it, or name another data directory", path = path.display())]
    Missing {
        /// The data directory.
        path: PathBuf,
    },
    /// What should be there is not, or is not what it was.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A log without its anchor may have lost its end, and nobody could tell.
    #[error("{path} is missing or unreadable although the log holds {events} events: without it nobody can tell whether the log lost its end; `jeton log repair` shows what can be verified", path = path.display())]
    AnchorLost {
        /// The anchor file.
        path: PathBuf,
        /// The last event that is there.
        events: u64,
    },
    /// There was a log, and there is none.
    #[error("{path} names a log, but {dir} holds none: mount or restore it; to begin a new log, remove {path}", path = path.display(), dir = dir.display())]
    Gone {
        /// The file that names the log.
        path: PathBuf,
        /// Where it should be.
        dir: PathBuf,
    },
    /// There is another log than there was.
    #[error("{path} names another log than the one in {dir}: restore the right one, or remove {path} to serve this one", path = path.display(), dir = dir.display())]
    Another {
        /// The file that names the log.
        path: PathBuf,
        /// Where another is.
        dir: PathBuf,
    },
    /// The store did not come back from opening.
    #[error("the log's store does not open: {0}")]
    Stalled(String),
    /// The system refused.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        /// What was to be used.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> OpenError + '_ {
    move |cause| OpenError::Io { path: path.to_owned(), cause }
}

/// Held by whoever uses a data directory; it is free again when this is dropped.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes `<data>/LOCK`, before anything else there is touched (point 3).
    ///
    /// # Errors
    /// [`OpenError::Locked`] and [`OpenError::Io`].
    pub fn take(data: &Path) -> Result<Self, OpenError> {
        let path = data.join("LOCK");
        let open = |write| File::options().read(true).write(write).create(write).truncate(false).open(&path);
        // Where nothing can be written it is enough to hold the file that is there.
        let is_read_only = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
        };
        let file = match open(true) {
            Err(error) if is_read_only(&error) => open(false),
            opened => opened,
        };
        let mut file = file.map_err(io_at(&path))?;
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
        Ok(Self { _file: file })
    }
}

/// The id of the log that belongs here, kept outside of it: so that a log that is gone is missed. In hexadecimal.
fn named_log(path: &Path) -> Result<Option<LogId>, OpenError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_at(path)(error)),
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            // Nothing in it: of a start that a crash cut short.
            if text.trim().is_empty() {
                return Ok(None);
            }
            let number = u128::from_str_radix(text.trim(), 16);
            let unreadable = "it holds no log id: remove it if the log beside it is the right one";
            let number = number.map_err(|_| io_at(path)(io::Error::other(unreadable)))?;
            Ok(Some(number.to_be_bytes()))
        }
    }
}

fn name_log(path: &Path, log_id: LogId) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    write!(file, "{:032x}", u128::from_be_bytes(log_id))?;
    file.sync_all()?;
    fs::rename(next, path)
}

/// Makes the data directory's own name durable, and those of the directories above it: whoever made them did not.
/// Those that may not be read are older than this user's data.
fn sync_above(data: &Path) -> io::Result<()> {
    for dir in data.canonicalize()?.ancestors().skip(1) {
        match sync_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// What a failed sync may have left in the system's memory only: the anchor, and the segments that were written last,
/// two of them if that was in a rotation. Closed ones were synced before the next was begun.
fn forget_cached_end(dir: &Path) -> io::Result<()> {
    let anchor = dir.join("anchor");
    if anchor.exists() {
        forget_cached_file(&anchor)?;
    }
    segments(dir)?.iter().rev().take(2).try_for_each(|first| forget_cached(&segment_path(dir, *first)))
}

/// Removes copies that nobody reads any more, and what is left of segments whose removal was cut short.
fn remove_scratch(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_trimmed = entry.path().extension().is_some_and(|extension| extension == TRIMMED);
        if is_trimmed || entry.file_name().to_string_lossy().starts_with("scratch-") {
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
        fs::create_dir_all(data).map_err(io_at(data))?;
        Self::open_locked(DataLock::take(data)?, data, options, new_log_id)
    }

    /// As [`Self::open`], for whoever has locked the directory already.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_locked(
        lock: DataLock,
        data: &Path,
        options: Options,
        new_log_id: LogId,
    ) -> Result<Self, OpenError> {
        let (dir, name_path) = (data.join("log"), data.join("log.id"));
        let named = named_log(&name_path)?;
        fs::create_dir_all(&dir).and_then(|()| sync_dir(data)).map_err(io_at(&dir))?;
        remove_scratch(&dir).map_err(io_at(&dir))?;
        forget_cached_end(&dir).map_err(io_at(&dir))?;
        let mut store = Self::survey(dir.clone(), options, lock)?;
        let anchor_path = dir.join("anchor");
        let (log_id, counter) = match anchor::read(&anchor_path).map_err(io_at(&anchor_path))? {
            Note::Valid(note, counter) => (note.log_id, counter),
            _ if named.is_some() => return Err(OpenError::Gone { path: name_path, dir }),
            _ => (new_log_id, 0),
        };
        if named.is_some_and(|named| named != log_id) {
            return Err(OpenError::Another { path: name_path, dir });
        }
        (store.log_id, store.writing) = (log_id, Writing::Behind { counter });
        if counter == 0 {
            sync_above(data).map_err(io_at(data))?;
            store.go_live().map_err(|error| store.open_error(error))?; // there is nothing yet that could be changed
        } else if named.is_none() {
            // A start that was cut short may have written the anchor and not synced it: its name must not outlive it.
            let sync = || File::open(&anchor_path)?.sync_all().and_then(|()| sync_dir(&dir));
            sync().map_err(io_at(&anchor_path))?;
        }
        if named.is_none() {
            // Only now that there is a log: if we die before this, the next start names what it finds.
            name_log(&name_path, log_id).and_then(|()| sync_dir(data)).map_err(io_at(&name_path))?;
        }
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
        let lock = DataLock::take(data)?;
        let _ = remove_scratch(&dir); // of readers that were interrupted
        let store = Self::survey(dir, options, lock)?;
        // Not even an anchor: empty folders are no log.
        let holds_nothing = store.head == Position::START && store.log_id == LogId::default();
        if holds_nothing { Err(OpenError::Missing { path: data.to_owned() }) } else { Ok(store) }
    }

    /// Opens the log below `data` to read what can be read of it, whatever its anchor says. Takes the lock, and changes
    /// nothing.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_for_repair(data: &Path, options: Options) -> Result<Self, OpenError> {
        let dir = data.join("log");
        if !dir.is_dir() {
            return Err(OpenError::Missing { path: data.to_owned() });
        }
        let mut store = Self::unread(dir, options, DataLock::take(data)?)?;
        // A last segment that does not open has no end that could be known.
        store.head = store.find_head().unwrap_or(Position { sequence: u64::MAX, ..Position::START });
        Ok(store)
    }

    /// Checks that the log in `data` is the one that belongs there, as a start does; a directory without a `log.id` takes
    /// any.
    ///
    /// # Errors
    /// [`OpenError::Another`], and [`OpenError::Io`] if it cannot be read.
    pub fn check_name(data: &Path, log_id: LogId) -> Result<(), OpenError> {
        let path = data.join("log.id");
        match named_log(&path)? {
            Some(named) if named != log_id => Err(OpenError::Another { path, dir: data.join("log") }),
            _ => Ok(()),
        }
    }

    /// The files that hold the segments' content, in order: for whoever has to read them without their structure.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn content_files(&self) -> Result<Vec<PathBuf>, OpenError> {
        let firsts = segments(&self.dir).map_err(io_at(&self.dir))?;
        Ok(firsts.into_iter().map(|first| segment_path(&self.dir, first).join("db")).collect())
    }

    /// A store of which nothing but the anchor and the names of its segments was looked at.
    fn unread(dir: PathBuf, options: Options, lock: DataLock) -> Result<Self, OpenError> {
        let anchor_path = dir.join("anchor");
        let (log_id, found) = match anchor::read(&anchor_path).map_err(io_at(&anchor_path))? {
            Note::Valid(anchor, _) => (anchor.log_id, Some(anchor)),
            Note::Missing | Note::Damaged => (LogId::default(), None),
        };
        Ok(Self {
            segments: segments(&dir).map_err(io_at(&dir))?,
            closed: ClosedSegments::new(dir.clone(), options, COPIES_FOR_REPLAY),
            dir,
            options,
            log_id,
            _lock: lock,
            head: Position::START,
            found: found.filter(|anchor| anchor.position.sequence > 0),
            live: None,
            writing: Writing::Never,
            leftovers: Vec::new(),
            is_to_close: false,
            ample_since: None,
            poisoned: None,
        })
    }

    /// Looks at everything through copies, and refuses what is not whole.
    fn survey(dir: PathBuf, options: Options, lock: DataLock) -> Result<Self, OpenError> {
        let anchor_path = dir.join("anchor");
        let note = anchor::read(&anchor_path).map_err(io_at(&anchor_path))?;
        let mut store = Self::unread(dir, options, lock)?;
        store.head = store.find_head()?;
        let is_missed = note == Note::Damaged || store.head != Position::START;
        if !matches!(note, Note::Valid(..)) && is_missed {
            return Err(OpenError::AnchorLost { path: anchor_path, events: store.head.sequence });
        }
        if let Some(anchor) = store.found {
            check_end(&anchor, &store.head)?;
        }
        Ok(store)
    }

    /// Where the log ends. A last segment that holds nothing and begins right behind the anchor was made when that was
    /// durable: the log ends there, and the segment before it need not be opened. Any other that the anchor does not reach and
    /// that holds nothing, or does not open, is what a crash left of a rotation: the log goes on in the one before.
    fn find_head(&mut self) -> Result<Position, OpenError> {
        let anchored = self.found.map_or(0, |anchor| anchor.position.sequence);
        while let Some(first) = self.segments.last().copied() {
            let head = self.closed.segment(first).and_then(Segment::head);
            let is_reached = first <= anchored;
            match head {
                Ok(Some(head)) => return Ok(head),
                Err(SegmentError::Damaged(_)) if !is_reached && self.precedes(first)? => {}
                Err(error) => return Err(self.open_error(error)),
                Ok(None) if self.segments.len() == 1 => return Ok(Position::START),
                Ok(None) if first == anchored + 1 && self.holds_something_before_last() => {
                    return Ok(self.found.map_or(Position::START, |it| it.position));
                }
                Ok(None) => {}
            }
            self.closed.forget(first);
            self.leftovers.push(first);
            self.segments.pop();
        }
        Ok(Position::START)
    }

    /// Whether the segment before the last has any content. What it is, nobody looks at here.
    fn holds_something_before_last(&self) -> bool {
        let before = self.segments.iter().rev().nth(1);
        let db = before.map(|first| segment_path(&self.dir, *first).join("db"));
        db.is_some_and(|db| fs::metadata(db).is_ok_and(|found| found.len() > 0))
    }

    /// Whether the segment before the one that begins with `first` ends just before it; so does an empty log before 1.
    fn precedes(&mut self, first: u64) -> Result<bool, OpenError> {
        let Some(before) = self.segments.iter().rev().nth(1).copied() else { return Ok(first == 1) };
        let head = self.closed.segment(before).and_then(Segment::head);
        let head = head.map_err(|error| self.open_error(error))?;
        Ok(head.is_some_and(|head| head.sequence + 1 == first))
    }

    /// What a segment that does not open means: nothing from its first event on can be had, as far as is known.
    fn open_error(&self, error: SegmentError) -> OpenError {
        match error {
            SegmentError::Io(cause) => OpenError::Io { path: self.dir.clone(), cause },
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
