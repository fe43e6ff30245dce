//! The thread that reads the log for auditors, so that nobody who reads an old segment holds up a commit.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use crossbeam_channel::Receiver;
use jeton_core::numbers::Sequence;
use jeton_log_store::{Archive, LogStore, ReadError, StoredBatch};
use jeton_net::doors::{DoorReply, LogPage};

use super::ReplyTo;
use super::post::Post;

/// The most that one read of the log brings.
const READ_BYTES_MAX: usize = 256 * 1024;

/// A question for the log.
pub(super) struct LogRead {
    /// Who asks.
    pub(super) reply_to: ReplyTo,
    /// The event to begin with.
    pub(super) from: Sequence,
    /// About so many bytes.
    pub(super) bytes_max: usize,
}

/// From where to where the log goes, and what of it is closed. The log's thread writes it.
#[derive(Debug, Default)]
pub(super) struct Reach {
    first: AtomicU64,
    head: AtomicU64,
    open_from: AtomicU64,
}

impl Reach {
    pub(super) fn update(&self, store: &dyn LogStore) {
        self.first.store(store.first(), Release);
        self.head.store(store.head().sequence, Release);
        self.open_from.store(store.open_from(), Release);
    }

    /// Answers a read with what was found.
    pub(super) fn answer(&self, reply_to: &ReplyTo, found: Result<Vec<StoredBatch>, ReadError>) {
        let page = found.map(|batches| LogPage {
            first: Sequence(self.first.load(Acquire)),
            head: Sequence(self.head.load(Acquire)),
            batches: batches.into_iter().map(|batch| batch.bytes).collect(),
        });
        reply_to.send(DoorReply::Log(page.map_err(|error| error.to_string())));
        reply_to.ring();
    }
}

pub(super) struct ReaderThread {
    pub(super) archive: Box<dyn Archive>,
    pub(super) reach: Arc<Reach>,
    pub(super) input: Receiver<LogRead>,
    /// What is not closed yet is read by the thread that writes it.
    pub(super) writer: Post<LogRead>,
}

impl ReaderThread {
    /// Reads what is closed of this store, and hands the rest on.
    pub(super) fn new(store: &dyn LogStore, input: Receiver<LogRead>, writer: Post<LogRead>) -> Self {
        let reach = Arc::new(Reach::default());
        reach.update(store);
        Self { archive: store.archive(), reach, input, writer }
    }

    /// Runs until nobody can ask any more.
    pub(super) fn run(mut self) {
        for read in &self.input {
            let LogRead { reply_to, from, bytes_max } = read;
            let bytes_max = bytes_max.min(READ_BYTES_MAX);
            if from.0 >= self.reach.open_from.load(Acquire) {
                let _ = self.writer.send(LogRead { reply_to, from, bytes_max });
            } else {
                self.reach.answer(&reply_to, self.archive.read_from(from.0, bytes_max));
            }
        }
    }
}
