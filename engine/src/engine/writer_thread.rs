//! The log's thread: the only one that touches the store. Appends, makes durable, reads for auditors.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, never};
use crossbeam_utils::sync::Parker;
use jeton_core::sequencer::Commit;
use jeton_log_store::{AppendError, AppendKind, LogStore, Position, StoredBatch};

use super::Figures;
use super::post::Post;
use super::reader_thread::{LogRead, Reach};
use super::sequencer_thread::LogEvent;

/// How often the anchor is made durable and the disk is looked at.
const ANCHOR_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before a commit that found no space is tried again, and how often that is told.
const FULL_RETRY: Duration = Duration::from_millis(100);
const FULL_WARN: Duration = Duration::from_secs(10);
pub(super) struct WriterThread {
    pub(super) store: Box<dyn LogStore>,
    /// Where it waits for `commits` and `reads`.
    pub(super) parker: Parker,
    /// At most one at a time.
    pub(super) commits: Receiver<Commit>,
    /// Reads of what is not closed yet.
    pub(super) reads: Receiver<LogRead>,
    pub(super) reach: Arc<Reach>,
    pub(super) events: Post<LogEvent>,
    pub(super) figures: Arc<Figures>,
    /// The engine is to stop: a commit that finds no space is given up.
    pub(super) is_stopping: Arc<AtomicBool>,
    /// Set by whoever wrote a snapshot.
    pub(super) close_segment: Arc<AtomicBool>,
    pub(super) is_low: bool,
    pub(super) has_failed: bool,
}

impl WriterThread {
    /// Runs until nobody can ask any more, then closes the log.
    pub(super) fn run(mut self) -> Result<(), String> {
        let mut anchored = Instant::now();
        let mut open = 2;
        while open > 0 {
            // Commits first: whoever reads waits.
            match self.commits.try_recv() {
                Ok(commit) => self.commit(commit),
                Err(TryRecvError::Disconnected) => {
                    self.commits = never();
                    open -= 1;
                }
                Err(TryRecvError::Empty) => match self.reads.try_recv() {
                    Ok(LogRead { reply_to, from, bytes_max }) => {
                        self.reach.answer(&reply_to, self.store.read_from(from.0, bytes_max));
                    }
                    Err(TryRecvError::Disconnected) => {
                        self.reads = never();
                        open -= 1;
                    }
                    Err(TryRecvError::Empty) => self.parker.park_timeout(ANCHOR_EVERY),
                },
            }
            if anchored.elapsed() >= ANCHOR_EVERY {
                anchored = Instant::now();
                self.look_around();
            }
        }
        if !self.has_failed
            && let Err(error) = self.close_segment()
        {
            self.fail(&error);
        }
        if self.has_failed {
            return Err("it failed earlier".to_owned());
        }
        self.store.close().map_err(|error| error.to_string())
    }

    fn commit(&mut self, commit: Commit) {
        if self.has_failed {
            return;
        }
        let mut kind = if commit.denies { AppendKind::Essential } else { AppendKind::Ordinary };
        let last = commit.last();
        let behind = Position { sequence: commit.behind.sequence.0, chain: commit.behind.hash };
        let batches: Vec<StoredBatch> = commit
            .batches
            .into_iter()
            .map(|batch| StoredBatch {
                first: batch.first.0,
                last: batch.last.0,
                chain: batch.hash,
                bytes: batch.bytes,
            })
            .collect();
        let began = Instant::now();
        let mut warned: Option<Instant> = None;
        loop {
            match self.store.append(behind, &batches, kind) {
                Ok(_) => break,
                // Nothing was written. What is in this commit was decided before the disk was known to be low, and
                // revokes will come behind it: it may use the reserve, and from here on nothing else but they do.
                Err(AppendError::Full { .. }) if kind == AppendKind::Ordinary => {
                    self.report_space();
                    kind = AppendKind::Essential;
                }
                // Below the hard watermark answers wait until there is space; sled was not even asked.
                Err(error @ AppendError::Full { .. }) if !self.is_stopping.load(Acquire) => {
                    if warned.is_none_or(|at| at.elapsed() >= FULL_WARN) {
                        warned = Some(Instant::now());
                        tracing::warn!(%error, "a commit waits for space");
                    }
                    self.report_space();
                    let _ = self.events.send(LogEvent::StillTrying);
                    std::thread::sleep(FULL_RETRY);
                }
                Err(error) => {
                    self.fail(&error);
                    return;
                }
            }
        }
        self.figures.commits.fetch_add(1, Relaxed);
        self.figures
            .commit_ns
            .fetch_add(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.figures.log_bytes.fetch_add(batches.iter().map(|batch| batch.bytes.len() as u64).sum(), Relaxed);
        self.reach.update(&*self.store);
        let _ = self.events.send(LogEvent::Durable(last));
    }

    fn fail(&mut self, error: &AppendError) {
        tracing::error!(%error, "the log failed: validation goes on, writes are refused; restart to repair");
        self.has_failed = true;
        let _ = self.events.send(LogEvent::Failed);
    }

    fn look_around(&mut self) {
        if !self.has_failed
            && let Err(error) = self.store.sync_anchor().and_then(|()| self.close_segment())
        {
            self.fail(&error);
        }
        self.report_space();
    }

    /// Once there is a snapshot, what comes from here on has a segment of its own, whether or not anything comes: a start behind
    /// the snapshot has less to open.
    fn close_segment(&mut self) -> Result<(), AppendError> {
        if !self.close_segment.swap(false, Acquire) {
            return Ok(());
        }
        let closed = self.store.close_segment();
        self.reach.update(&*self.store);
        closed
    }

    fn report_space(&mut self) {
        let is_low = self.store.space().is_some_and(|space| space.is_low());
        if is_low != self.is_low {
            self.is_low = is_low;
            tracing::warn!(is_low, "free space on the log's disk crossed its watermark");
            let _ = self.events.send(LogEvent::DiskLow(is_low));
        }
    }
}
