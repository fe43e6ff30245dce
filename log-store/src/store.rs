//! The contract of a log store.

/// 16 random bytes, fixed when the log is created.
pub type LogId = [u8; 16];

/// Where a log ends, or where an append expects it to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last event; 0 in an empty log.
    pub sequence: u64,
    /// The hash of the last batch; zeros in an empty log. Opaque to the store.
    pub chain: [u8; 32],
}

impl Position {
    /// The end of an empty log.
    pub const START: Self = Self { sequence: 0, chain: [0; 32] };
}

/// A batch as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Its first event.
    pub first: u64,
    /// Its last event, not before the first.
    pub last: u64,
    /// The hash of the log up to its end.
    pub chain: [u8; 32],
    /// Its content, at most [`LogStore::max_batch_bytes`].
    pub bytes: Vec<u8>,
}

/// A note beside the log of how far it once came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The log.
    pub log_id: LogId,
    /// Where it ended.
    pub position: Position,
}

/// Why an append matters: some may use what is kept back of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendKind {
    /// Refused below the first free-space watermark.
    Ordinary,
    /// Takes something from somebody: goes on until the second, hard watermark.
    Essential,
}

/// How an acknowledged append survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// As long as the process.
    Memory,
    /// Power loss: it was synced to the disk.
    Synced,
}

/// Room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes free.
    pub free: u64,
    /// Below this only [`AppendKind::Essential`] is taken.
    pub reserve: u64,
}

impl Space {
    /// Whether only essential appends are taken.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.free < self.reserve
    }
}

/// Why an append was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log ends elsewhere than expected. Nothing was written.
    #[error("the log ends at {}, not where the append expects it to", head.sequence)]
    Conflict {
        /// Where it ends.
        head: Position,
    },
    /// Too little space. Nothing was written; the same append may be tried again.
    #[error("{free} bytes are free on the log's disk; such an append needs {needed}")]
    Full {
        /// Bytes free.
        free: u64,
        /// Bytes that must be.
        needed: u64,
    },
    /// It may or may not have been written. The store is poisoned.
    #[error("the append may or may not have been written: {0}")]
    Indeterminate(String),
    /// Another writer has taken over. Nothing was written.
    #[error("another writer has taken over")]
    Fenced,
    /// An earlier failure forbids all further appends. Nothing was written.
    #[error("the log failed earlier: {0}")]
    Poisoned(String),
}

/// Stored bytes that are not what was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is broken at sequence number {first_broken}: {reason}")]
pub struct Damage {
    /// The first event that cannot be had.
    pub first_broken: u64,
    /// What is wrong there.
    pub reason: String,
}

/// Why nothing was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// What should be there is not.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// It was removed with an old segment.
    #[error("the log begins at {first}: what came before was removed")]
    Trimmed {
        /// The first event that is still there.
        first: u64,
    },
    /// The system refused.
    #[error("the log cannot be read: {0}")]
    Io(String),
}

/// One log, one writer.
///
/// An append is all or nothing and returns once it is durable; what is durable is never taken back. Any failure after
/// which that could be in doubt poisons the store for good: it is to be opened anew.
pub trait LogStore: Send {
    /// The log's identity.
    fn log_id(&self) -> LogId;

    /// Where the log ends.
    fn head(&self) -> Position;

    /// The first event still there; one past the head if there is none.
    fn first(&self) -> u64;

    /// The note found when the log was opened; the chain must pass through it. `None` in a new log.
    fn anchor(&self) -> Option<Anchor>;

    /// Makes the log ready to be written, once it was read and found whole; until then nothing of it is changed. The
    /// first append does it otherwise.
    ///
    /// # Errors
    /// [`AppendError::Indeterminate`]: it cannot be written.
    fn begin_writing(&mut self) -> Result<(), AppendError> {
        Ok(())
    }

    /// Appends batches behind `expected` and makes them durable, all or none. Returns where the log ends now.
    ///
    /// # Errors
    /// [`AppendError`]; each variant says whether anything was written.
    ///
    /// # Panics
    /// If the batches do not follow on one another, or one is too large: the caller's mistake.
    fn append(
        &mut self,
        expected: Position,
        batches: &[StoredBatch],
        kind: AppendKind,
    ) -> Result<Position, AppendError>;

    /// Batches from the one that holds `sequence` on, about `bytes_max` bytes of them and at least one; none past the
    /// head.
    ///
    /// # Errors
    /// [`ReadError`].
    fn read_from(&mut self, sequence: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError>;

    /// The first event that only this handle can read. What comes before is closed, and an [`Archive`] reads it too.
    fn open_from(&self) -> u64;

    /// A handle that reads what is closed, on a thread of its own, so that no reader holds up the writer.
    fn archive(&self) -> Box<dyn Archive>;

    /// What comes next has a segment of its own, if the one before has a size worth it: a start that has no use for older
    /// events need not open them then. Without enough free space it is put off to the next append; a store without segments
    /// has nothing to do.
    ///
    /// # Errors
    /// Those of an append that may have written.
    fn close_segment(&mut self) -> Result<(), AppendError> {
        Ok(())
    }

    /// Removes whole segments that hold only events before `sequence`; returns the first event still there.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    fn trim_before(&mut self, sequence: u64) -> Result<u64, ReadError>;

    /// What an acknowledged append survives.
    fn durability(&self) -> Durability;

    /// The largest batch.
    fn max_batch_bytes(&self) -> usize;

    /// Room for more; `None` if there is no limit.
    fn space(&self) -> Option<Space>;

    /// Makes the anchor durable. Called about once a second.
    ///
    /// # Errors
    /// [`AppendError::Indeterminate`] and [`AppendError::Poisoned`].
    fn sync_anchor(&mut self) -> Result<(), AppendError>;

    /// Ends the log's use in order.
    ///
    /// # Errors
    /// As [`Self::sync_anchor`].
    fn close(self: Box<Self>) -> Result<(), AppendError>;
}

/// Reads the closed part of a log, beside its writer.
pub trait Archive: Send {
    /// As [`LogStore::read_from`], for events before [`LogStore::open_from`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn read_from(&mut self, sequence: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError>;
}

/// Checks what every append must keep to.
///
/// # Panics
/// If the caller did not.
pub(crate) fn assert_append(expected: Position, batches: &[StoredBatch], bytes_max: usize) {
    assert!(!batches.is_empty(), "an append carries at least one batch");
    let mut next = expected.sequence + 1;
    for batch in batches {
        assert_eq!(batch.first, next, "batches follow on one another");
        assert!(batch.last >= batch.first, "a batch holds at least one event");
        assert!(batch.bytes.len() <= bytes_max, "a batch keeps to the store's limit");
        next = batch.last + 1;
    }
}

/// Where a log ends after these batches.
pub(crate) fn end_of(batches: &[StoredBatch]) -> Position {
    let last = batches.last().expect("an append carries at least one batch");
    Position { sequence: last.last, chain: last.chain }
}
