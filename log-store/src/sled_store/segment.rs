//! One sled database: a segment of the log. The only file that names sled.
//!
//! The points are those of docs/DURABILITY.md, where each is argued with the failure that taught it.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Once, mpsc};
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rustix::fs::{RawDir, SeekFrom, seek};

use super::conf;
use super::nudge::Nudger;
use crate::store::{Position, StoredBatch};

/// How long sled may take to open a segment: it can hang on damaged data (point 7).
const OPEN_PATIENCE: Duration = Duration::from_secs(120);
/// How long sled may take to let go of a database that was closed, how often to look, and what it says until then.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);
const RELEASE_LOOK: Duration = Duration::from_millis(5);
const SLED_IS_LOCKED: &str = "could not acquire lock on";
/// How the name of a snapshot ends that sled has not written whole.
const UNFINISHED: &str = "generating";
/// Before a batch's bytes: its last sequence number u64 little-endian and its chain hash.
const ENVELOPE_BYTES: usize = 8 + 32;
/// The largest value: larger ones spill into files that sled never syncs (point 2).
const VALUE_BYTES_MAX: usize = 7 * 1024;
/// The largest batch.
pub(crate) const BATCH_BYTES_MAX: usize = VALUE_BYTES_MAX - ENVELOPE_BYTES;

/// An open segment.
pub(super) struct Segment {
    /// Taken only when it is dropped.
    db: Option<sled::Db>,
    /// Our own descriptor of sled's file: its `flush` is not durable by itself (point 1).
    file: File,
    /// Of one that is written to (point 8). Goes before the database, of which it has a handle.
    nudger: Option<Nudger>,
    /// Where sled would put what it never syncs (point 2): looked into at each commit, so it stays open.
    blobs: File,
    path: PathBuf,
    /// sled's snapshots of it were damaged, and done without.
    had_damaged_snapshot: bool,
}

/// The name of a snapshot of sled's, and what is in it.
pub(super) type MadeSnapshot = (OsString, Vec<u8>);

/// Why a segment does not open or answer: sled's words, or its panic.
#[derive(Debug)]
pub(super) enum SegmentError {
    /// The system refused.
    Io(io::Error),
    /// sled found its files damaged.
    Damaged(String),
    /// sled did not come back.
    Stalled,
}

impl From<io::Error> for SegmentError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for SegmentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Damaged(what) => write!(f, "the stored data is damaged ({what})"),
            Self::Stalled => write!(f, "the store did not open within {} s", OPEN_PATIENCE.as_secs()),
        }
    }
}

fn from_sled(error: sled::Error) -> SegmentError {
    match error {
        sled::Error::Io(error) => SegmentError::Io(error),
        sled::Error::Corruption { .. } => SegmentError::Damaged("a checksum in it does not match".to_owned()),
        other => SegmentError::Damaged(first_line(&other.to_string())),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// Set once, so that what a panic inside sled says goes into the error, not to the terminal as well.
static QUIET: Once = Once::new();

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call into sled; a panic on damaged data becomes an error (point 7).
fn guarded<R>(call: impl FnOnce() -> Result<R, sled::Error>) -> Result<R, SegmentError> {
    QUIET.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_GUARDED.get() {
                told(info);
            }
        }));
    });
    let was_guarded = IS_GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(was_guarded);
    match result {
        Ok(result) => result.map_err(from_sled),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Err(SegmentError::Damaged(first_line(message)))
        }
    }
}

fn open_sled(path: &Path, cache_bytes: u64) -> Result<sled::Db, SegmentError> {
    let (send, receive) = mpsc::channel();
    let path = path.to_owned();
    // A thread of its own, so that a hang inside sled is noticed; if it hangs, the thread is left behind.
    std::thread::Builder::new().name("jeton-log-open".to_owned()).spawn(move || {
        let config = sled::Config::new()
            .path(path)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(None) // point 4: flushed by each commit, never behind its back
            .cache_capacity(cache_bytes); // point 4: real use is up to ten times this
        let _ = send.send(guarded(|| open_released(&config)));
    })?;
    receive.recv_timeout(OPEN_PATIENCE).map_err(|_| SegmentError::Stalled)?
}

/// sled's own threads let go of a database some time after its last handle was dropped, and whoever opens it meanwhile is
/// refused. Nobody else can hold it: our LOCK is taken.
fn open_released(config: &sled::Config) -> Result<sled::Db, sled::Error> {
    let began = Instant::now();
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().starts_with(SLED_IS_LOCKED) && began.elapsed() < RELEASE_PATIENCE =>
            {
                std::thread::sleep(RELEASE_LOOK);
            }
            opened => return opened,
        }
    }
}

fn is_sled_snapshot(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap."))
}

/// The snapshots that sled has of a segment, oldest first: their names are numbers of one length.
fn sled_snapshots(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut snapshots: Vec<_> = paths.into_iter().filter(|path| is_sled_snapshot(path)).collect();
    snapshots.retain(|path| !is_unfinished(path));
    snapshots.sort();
    Ok(snapshots)
}

/// Puts what sled made of a copy beside the segment it is a copy of, before sled opens that in place (point 9).
pub(super) fn give_snapshots(made: &[MadeSnapshot], to: &Path) -> io::Result<()> {
    if made.is_empty() {
        return Ok(());
    }
    // A copy has what the system alone remembers, too: bytes last before what refers to them does.
    File::open(to.join("db"))?.sync_all()?;
    for (name, bytes) in made {
        let path = to.join(name);
        if path.exists() {
            continue;
        }
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(format!(".{UNFINISHED}"));
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(unfinished, path)?;
    }
    // If we die before this, the one before is used, and all that it needs is still there. One that was there already may
    // have come from a start that died just here.
    sync_dir(to)
}

fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == UNFINISHED)
}

fn remove_files(dir: &Path, which: impl Fn(&Path) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if which(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Copies a segment's files; sled keeps no deeper folders than `blobs`, which stays empty.
pub(super) fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Has the system forget what it remembers of a segment's files, so that what is read next is what the disk holds. After
/// a failed sync the system may take for clean what it never wrote: it reads well, until the power goes, and no later
/// sync writes it. What is still to be written is not forgotten.
pub(super) fn forget_cached(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            forget_cached_file(&entry.path())?;
        }
    }
    Ok(())
}

/// As [`forget_cached`], of one file.
pub(super) fn forget_cached_file(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // All of it: to the end, wherever that is.
    Ok(posix_fadvise(file.as_raw_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Segment {
    /// Opens the segment in `path`, which is made if it is missing, and syncs what sled made (point 3).
    pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<Self, SegmentError> {
        let mut segment = Self::open_copy(path, cache_bytes)?;
        let db = segment.db().clone();
        segment.nudger = Some(Nudger::start(move || {
            let _ = guarded(|| db.flush()); // the commit is told what is wrong
        })?);
        // If we die before these, the directory holds nothing that was ever acknowledged.
        segment.file.sync_all()?;
        let conf = path.join("conf");
        if conf.exists() {
            File::open(conf)?.sync_all()?;
        }
        sync_dir(path)?;
        path.parent().map_or(Ok(()), sync_dir)?;
        // The newest is used, and is durable by now.
        let mut snapshots = sled_snapshots(path)?;
        snapshots.pop();
        for older in snapshots {
            if let Err(error) = fs::remove_file(&older) {
                tracing::warn!(path = %older.display(), %error, "an old snapshot of sled's stays");
            }
        }
        Ok(segment)
    }

    /// The snapshots that sled made of this copy, by name; none if one that it had was damaged: opening in place sees to that.
    pub(super) fn made_snapshots(&self) -> io::Result<Vec<MadeSnapshot>> {
        let made = if self.had_damaged_snapshot { Vec::new() } else { sled_snapshots(&self.path)? };
        made.into_iter()
            .map(|path| Ok((path.file_name().unwrap_or_default().to_owned(), fs::read(path)?)))
            .collect()
    }

    /// Opens a copy to read it: nothing in it has to last.
    pub(super) fn open_copy(path: &Path, cache_bytes: u64) -> Result<Self, SegmentError> {
        fs::create_dir_all(path)?;
        // Point 3: left over from a crash inside sled; it would trip over them.
        remove_files(path, |file| is_sled_snapshot(file) && is_unfinished(file))?;
        if conf::mend(path)? {
            tracing::warn!(segment = %path.display(), "its conf file was damaged or missing, and was made anew");
        }
        let (db, had_damaged_snapshot) = match open_sled(path, cache_bytes) {
            Err(SegmentError::Damaged(what)) => {
                (Self::retry_without_snapshots(path, cache_bytes, what)?, true)
            }
            opened => (opened?, false),
        };
        let file = File::options().read(true).write(true).open(path.join("db"))?;
        let blobs = File::open(path.join("blobs"))?;
        let path = path.to_owned();
        let segment = Self { db: Some(db), file, nudger: None, blobs, path, had_damaged_snapshot };
        segment.assert_no_blobs()?;
        Ok(segment)
    }

    /// Point 3: sled's own snapshots are a shortcut over its log. If one is damaged the log alone recovers, unless sled has
    /// overwritten its beginning meanwhile (point 9): then it comes out empty or as it once was, and the anchor says so, or
    /// sled finds it damaged. A copy of the directory is kept aside, once.
    fn retry_without_snapshots(
        path: &Path,
        cache_bytes: u64,
        what: String,
    ) -> Result<sled::Db, SegmentError> {
        let has_snapshots =
            fs::read_dir(path)?.filter_map(Result::ok).any(|entry| is_sled_snapshot(&entry.path()));
        if !has_snapshots {
            return Err(SegmentError::Damaged(what));
        }
        let aside = path.with_extension("damaged");
        if !aside.exists() {
            copy_dir(path, &aside)?;
        }
        tracing::warn!(segment = %path.display(), copy = %aside.display(), what, "opening without sled's snapshots");
        remove_files(path, is_sled_snapshot)?;
        open_sled(path, cache_bytes)
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("it is there until the segment is dropped")
    }

    /// Appends batches in one atomic step and makes them durable.
    pub(super) fn commit(&self, batches: &[StoredBatch]) -> Result<(), SegmentError> {
        match &self.nudger {
            Some(nudger) => nudger.watch(|| self.commit_unwatched(batches)),
            None => self.commit_unwatched(batches),
        }
    }

    fn commit_unwatched(&self, batches: &[StoredBatch]) -> Result<(), SegmentError> {
        // If we die here, nothing of the commit is on disk, and nobody was told.
        match batches {
            // One entry is atomic by itself. An atomic step of several is begun in a buffer of its own, which sled writes, and
            // waits for, before the rest: twice the time of a small commit.
            [batch] => {
                guarded(|| self.db().insert(batch.first.to_be_bytes(), encode(batch)))?;
            }
            _ => {
                let mut commit = sled::Batch::default();
                batches.iter().for_each(|batch| commit.insert(&batch.first.to_be_bytes(), encode(batch)));
                guarded(|| self.db().apply_batch(commit))?;
            }
        }
        guarded(|| self.db().flush())?;
        // If we die here, all of it or nothing may be there after power loss: sled has handed it to the system.
        self.file.sync_data()?;
        // From here on it is there, whatever happens.
        self.assert_no_blobs()
    }

    /// Point 2: nothing may lie in files that sled does not sync.
    fn assert_no_blobs(&self) -> Result<(), SegmentError> {
        seek(&self.blobs, SeekFrom::Start(0)).map_err(io::Error::from)?;
        let mut buffer = [MaybeUninit::uninit(); 1_024];
        let mut entries = RawDir::new(&self.blobs, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(io::Error::from)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Err(SegmentError::Damaged("a blob file appeared".to_owned()));
            }
        }
        Ok(())
    }

    /// Where the segment ends; `None` if it holds nothing.
    pub(super) fn head(&self) -> Result<Option<Position>, SegmentError> {
        match guarded(|| self.db().last())? {
            None => Ok(None),
            Some((key, value)) => {
                let batch = decode(&key, &value)?;
                Ok(Some(Position { sequence: batch.last, chain: batch.chain }))
            }
        }
    }

    /// Batches from the one that holds `sequence` on, as far as `bytes_max` goes, and at least one if there is one.
    /// A bounded range each time: one iterator over all would keep all it read (point 4).
    pub(super) fn read_from(
        &self,
        sequence: u64,
        bytes_max: usize,
    ) -> Result<Vec<StoredBatch>, SegmentError> {
        let from = guarded(|| self.db().range(..=sequence.to_be_bytes()).next_back().transpose())?;
        let start = from.map_or(sequence.to_be_bytes().to_vec(), |(key, _)| key.to_vec());
        let mut read: Vec<StoredBatch> = Vec::new();
        let mut bytes = 0;
        let mut range = self.db().range(start..);
        // Damage behind a good batch ends the page; the next read begins with it and says so.
        loop {
            match guarded(|| range.next().transpose()) {
                Err(error) if read.is_empty() => return Err(error),
                Err(_) | Ok(None) => return Ok(read),
                Ok(Some((key, value))) => {
                    let batch = match decode(&key, &value) {
                        Err(error) if read.is_empty() => return Err(error),
                        Err(_) => return Ok(read),
                        Ok(batch) => batch,
                    };
                    bytes += batch.bytes.len();
                    if !read.is_empty() && bytes > bytes_max {
                        return Ok(read);
                    }
                    if batch.last >= sequence {
                        read.push(batch);
                    }
                }
            }
        }
    }

    /// Bytes of sled's file.
    pub(super) fn bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.nudger = None;
        // sled syncs once more when it is dropped, and panics if that fails. All that matters was synced by then.
        let db = self.db.take();
        let closed = guarded(|| {
            drop(db);
            Ok(())
        });
        if let Err(error) = closed {
            tracing::warn!(segment = %self.path.display(), %error, "sled did not close in order");
        }
    }
}

fn encode(batch: &StoredBatch) -> Vec<u8> {
    [&batch.last.to_le_bytes(), &batch.chain[..], &batch.bytes].concat()
}

fn decode(key: &[u8], value: &[u8]) -> Result<StoredBatch, SegmentError> {
    let parts = (|| {
        let first = u64::from_be_bytes(key.try_into().ok()?);
        let (last, rest) = value.split_first_chunk::<8>()?;
        let (chain, bytes) = rest.split_first_chunk::<32>()?;
        let last = u64::from_le_bytes(*last);
        (last >= first).then(|| StoredBatch { first, last, chain: *chain, bytes: bytes.to_vec() })
    })();
    parts.ok_or_else(|| SegmentError::Damaged("an entry has no envelope".to_owned()))
}

#[cfg(test)]
mod tests;
