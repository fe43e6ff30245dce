//! What a process does with a store, step by step. It says what it tried and what was acknowledged by marks in the trace,
//! and what came of each step on its output.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jeton_log_store::{AppendError, AppendKind, LogStore as _, Options, SledStore};

use super::history::{History, Size};
use crate::sim::rng::Rng;

/// The log's id in every script.
pub(super) const LOG_ID: [u8; 16] = [5; 16];
/// Steps that may fail before a script is given up.
const FAILURES_MAX: u32 = 8;

/// The mark of what is not looked at for itself.
pub(super) const ASIDE: &str = "aside";

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A mark, to name what follows.
    Phase(&'static str),
    /// Segments have this size from the next opening on.
    SegmentBytes(u64),
    /// Opens the log, reads it, and makes it ready to be written.
    Open,
    /// Appends the next commit, which has this size.
    Append(Size),
    /// Syncs the anchor, as the engine does each second.
    SyncAnchor,
    /// Closes the segment that is being written, as the engine does behind a snapshot.
    CloseSegment,
    /// Removes the segments before the last so many commits.
    TrimTo(usize),
    /// Ends in order.
    Close,
    /// Ends without a word.
    Drop,
    /// Leaves what a crash in a rotation leaves: the next segment, half made.
    LeaveRotation,
    /// Damages sled's own snapshot in the last segment.
    DamageSnapshot,
}

/// Steps, and the seed of what is appended.
#[derive(Clone, Debug)]
pub struct Script {
    /// Of the history.
    pub seed: u64,
    /// In order.
    pub steps: Vec<Step>,
}

/// Sizes of a script's store.
pub(super) fn options(segment_bytes: u64) -> Options {
    Options { segment_bytes, cache_bytes: 4 << 20, space_reserve: 0, space_hard: 0 }
}

impl Script {
    /// So many commits with all that happens in a log's life: anchors synced now and then, rotations, restarts with and
    /// without an end in order, old segments removed.
    #[must_use]
    pub fn life(seed: u64, commits: usize) -> Self {
        let (mut rng, mut closing) = (Rng::new(seed ^ 0x11fe), Rng::new(seed ^ 0xc105e));
        let mut steps = vec![Step::SegmentBytes(*rng.pick(&[256 << 10, 1 << 20, 3 << 20])), Step::Open];
        for number in 1..=commits {
            steps.push(Step::Append(Size::Mixed));
            if rng.one_in(6) {
                steps.push(Step::SyncAnchor);
            }
            if closing.one_in(20) {
                steps.push(Step::CloseSegment);
            }
            if rng.one_in(40) {
                steps.extend([*rng.pick(&[Step::Close, Step::Drop]), Step::Open]);
            }
            if number % 50 == 0 {
                steps.push(Step::TrimTo(40));
            }
        }
        steps.push(Step::Close);
        Self { seed, steps }
    }

    /// Each thing that a store does to its files, under a mark of its own.
    #[must_use]
    pub fn steps_of_a_store() -> Self {
        let (small, large) = (Step::SegmentBytes(1), Step::SegmentBytes(256 << 20));
        let steps = vec![
            large,
            Step::Phase("first start"),
            Step::Open,
            Step::Phase("first commit"),
            Step::Append(Size::Large),
            Step::Phase("commit"),
            Step::Append(Size::Large),
            Step::Phase("commit of one batch"),
            Step::Append(Size::OneBatch),
            Step::Phase("small commit"),
            Step::Append(Size::Small),
            Step::Append(Size::Small),
            Step::Phase("each second"),
            Step::SyncAnchor,
            Step::Phase("end"),
            Step::Close,
            small,
            Step::Phase("restart"),
            Step::Open,
            Step::Phase("rotation"),
            Step::Append(Size::Large),
            Step::Append(Size::Large),
            Step::Phase("close of a segment"),
            Step::CloseSegment,
            Step::Drop,
            Step::Phase("restart behind a closed segment"),
            Step::Open,
            Step::Append(Size::Large),
            Step::Phase("trim"),
            Step::TrimTo(1),
            Step::Phase(ASIDE),
            Step::Append(Size::Large),
            Step::Close,
            Step::LeaveRotation,
            Step::Phase("restart in a rotation"),
            Step::Open,
            Step::Append(Size::Large),
            Step::Phase(ASIDE),
            Step::Close,
            large,
            Step::Open, // sled writes a snapshot when it opens
            Step::Append(Size::Large),
            Step::Close,
            Step::DamageSnapshot,
            Step::Phase("restart with a damaged snapshot"),
            Step::Open,
            Step::Append(Size::Large),
            Step::Phase(ASIDE),
            Step::Append(Size::Large),
            Step::Close,
        ];
        Self { seed: 1, steps }
    }

    /// What it appends at most, and one commit more for whoever goes on behind it.
    #[must_use]
    pub fn history(&self) -> History {
        let sizes = self.steps.iter().filter_map(|step| match step {
            Step::Append(size) => Some(*size),
            _ => None,
        });
        History::new(self.seed, sizes.chain([Size::Mixed]))
    }

    /// The largest segment size in it.
    pub(super) fn segment_bytes(&self) -> u64 {
        let sizes = self.steps.iter().filter_map(|step| match step {
            Step::SegmentBytes(bytes) => Some(*bytes),
            _ => None,
        });
        sizes.max().unwrap_or(1 << 20)
    }
}

struct Driver<'r> {
    root: &'r Path,
    data: PathBuf,
    history: History,
    segment_bytes: u64,
    store: Option<SledStore>,
    failures: u32,
}

/// Takes the steps on `<root>/data`.
///
/// # Errors
/// What cannot be gone on from: a log that does not come back, or one that does not hold what it must.
pub fn drive(script: &Script, root: &Path) -> Result<(), String> {
    let mut driver = Driver {
        root,
        data: root.join("data"),
        history: script.history(),
        segment_bytes: 1 << 20,
        store: None,
        failures: 0,
    };
    script.steps.iter().try_for_each(|step| driver.take(*step))
}

impl Driver<'_> {
    fn mark(&self, mark: &str) {
        // The shim takes it as a mark and makes nothing; without it there is nobody to be told.
        let _ = fs::create_dir(self.root.join("mark").join(mark));
    }

    fn say(&self, words: &str) {
        let _ = writeln!(io::stdout(), "{words}");
    }

    fn take(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Phase(name) => {
                self.mark(name);
                Ok(())
            }
            Step::SegmentBytes(bytes) => {
                self.segment_bytes = bytes;
                Ok(())
            }
            Step::Open => self.open(),
            Step::Append(_) => self.append(),
            Step::SyncAnchor => {
                let synced = self.store().sync_anchor();
                self.unless_poisoned("sync", synced)
            }
            Step::CloseSegment => {
                let closed = self.store().close_segment();
                self.unless_poisoned("close of a segment", closed)
            }
            Step::TrimTo(commits) => self.trim(commits),
            Step::Close => {
                let closed = self.store.take().map_or(Ok(()), |store| Box::new(store).close());
                if let Err(error) = closed {
                    self.failed("close", &error.to_string())?;
                }
                Ok(())
            }
            Step::Drop => {
                self.store = None;
                Ok(())
            }
            Step::LeaveRotation => self.leave_rotation().map_err(|error| error.to_string()),
            Step::DamageSnapshot => self.damage_snapshot().map_err(|error| error.to_string()),
        }
    }

    fn store(&mut self) -> &mut SledStore {
        self.store.as_mut().expect("the script opened it")
    }

    fn failed(&mut self, step: &str, error: &str) -> Result<(), String> {
        self.say(&format!("failed {step}: {error}"));
        self.failures += 1;
        if self.failures > FAILURES_MAX { Err(format!("it does not come back: {error}")) } else { Ok(()) }
    }

    /// Opens the log, again and again until it opens.
    fn open(&mut self) -> Result<(), String> {
        loop {
            match SledStore::open(&self.data, options(self.segment_bytes), LOG_ID) {
                Err(error) => self.failed("open", &error.to_string())?,
                Ok(store) => {
                    if self.go_live(store)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Reads all of it, as an engine does before it serves it, and makes it ready to be written.
    fn go_live(&mut self, mut store: SledStore) -> Result<bool, String> {
        if let Err(words) = self.history.compare(&mut store) {
            self.failed("open", &words)?;
            return Ok(false);
        }
        if let Err(error) = store.begin_writing() {
            self.failed("begin", &error.to_string())?;
            return Ok(false);
        }
        let commits = self.history.commits_until(store.head()).expect("it was compared");
        self.store = Some(store);
        // From here on it is served.
        self.mark(&format!("ack-{commits}"));
        Ok(true)
    }

    fn append(&mut self) -> Result<(), String> {
        let head = self.store().head();
        let commits = self.history.commits_until(head).ok_or("the log ends in the middle of a commit")?;
        if commits + 1 >= self.history.len() {
            return Ok(()); // a failed append was there after all, and everything was appended
        }
        self.mark(&format!("try-{}", commits + 1));
        let batches = self.history.commit(commits).to_vec();
        match self.store().append(head, &batches, AppendKind::Ordinary) {
            Ok(_) => {
                self.mark(&format!("ack-{}", commits + 1));
                Ok(())
            }
            failed => self.unless_poisoned("append", failed.map(drop)),
        }
    }

    /// After a failure nothing more is written, everything acknowledged is still read, and a new opening heals.
    fn unless_poisoned(&mut self, step: &str, result: Result<(), AppendError>) -> Result<(), String> {
        let Err(error) = result else { return Ok(()) };
        self.failed(step, &error.to_string())?;
        let head = self.store().head();
        let commits = self.history.commits_until(head).ok_or("a failed step moved the log's head")?;
        let next = self.history.commit(commits).to_vec();
        match self.store().append(head, &next, AppendKind::Essential) {
            Err(AppendError::Poisoned(_)) => self.say("poisoned"),
            other => return Err(format!("a failed store took another append: {other:?}")),
        }
        let store = self.store.as_mut().expect("it failed, and is there");
        self.history.compare(store)?;
        self.store = None;
        self.open()
    }

    fn trim(&mut self, commits: usize) -> Result<(), String> {
        let head = self.store().head();
        let held = self.history.commits_until(head).ok_or("the log ends in the middle of a commit")?;
        let before = self.history.end(held.saturating_sub(commits)).sequence + 1;
        self.mark(&format!("trim-{before}"));
        match self.store().trim_before(before) {
            Ok(_) => Ok(()),
            Err(error) => self.failed("trim", &error.to_string()),
        }
    }

    fn leave_rotation(&mut self) -> io::Result<()> {
        let log = self.data.join("log");
        let store =
            SledStore::open_read_only(&self.data, options(self.segment_bytes)).map_err(io::Error::other)?;
        let (before, next) = (store.open_from(), store.head().sequence + 1);
        let [before, next] = [before, next].map(|first| log.join(format!("{first:020}")));
        fs::create_dir(&next)?;
        // sled writes this file in two steps.
        let conf = fs::read(before.join("conf"))?;
        fs::write(next.join("conf"), &conf[..conf.len() / 2])?;
        fs::write(next.join("db"), "")?;
        for path in [next.join("conf"), next.join("db"), next, log] {
            fs::File::open(path)?.sync_all()?;
        }
        Ok(())
    }

    fn damage_snapshot(&mut self) -> io::Result<()> {
        let segments = fs::read_dir(self.data.join("log"))?.map(|entry| entry.map(|entry| entry.path()));
        let mut segments: Vec<PathBuf> = segments.collect::<Result<_, _>>()?;
        segments.retain(|path| path.file_name().is_some_and(|name| name.len() == 20));
        let last = segments.into_iter().max().ok_or_else(|| io::Error::other("there is a segment"))?;
        for entry in fs::read_dir(&last)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")) {
                fs::write(&path, "damaged")?;
                fs::File::open(&path)?.sync_all()?;
            }
        }
        fs::File::open(&last)?.sync_all()
    }
}
