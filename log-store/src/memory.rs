//! A log in memory: for tests, and for an engine that is to forget.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::{
    Anchor, AppendError, AppendKind, Archive, Durability, LogId, LogStore, Position, ReadError, Space,
    StoredBatch, assert_append, end_of,
};

/// The largest batch it takes: that of the sled store, so that what works with one works with the other.
const BATCH_BYTES_MAX: usize = crate::sled_store::BATCH_BYTES_MAX;

/// A log in memory. Clones share it: opening a clone again is a restart.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    log_id: LogId,
    batches: Arc<Mutex<BTreeMap<u64, StoredBatch>>>,
}

impl MemoryStore {
    /// An empty log.
    #[must_use]
    pub fn new(log_id: LogId) -> Self {
        Self { log_id, batches: Arc::default() }
    }

    fn with<R>(&self, act: impl FnOnce(&mut BTreeMap<u64, StoredBatch>) -> R) -> R {
        act(&mut self.batches.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Archive for MemoryStore {
    fn read_from(&mut self, sequence: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
        LogStore::read_from(self, sequence, bytes_max)
    }
}

impl LogStore for MemoryStore {
    fn log_id(&self) -> LogId {
        self.log_id
    }

    fn head(&self) -> Position {
        self.with(|batches| {
            batches
                .last_key_value()
                .map_or(Position::START, |(_, last)| Position { sequence: last.last, chain: last.chain })
        })
    }

    fn first(&self) -> u64 {
        self.with(|batches| batches.keys().next().copied()).unwrap_or(self.head().sequence + 1)
    }

    fn anchor(&self) -> Option<Anchor> {
        let position = self.head();
        (position != Position::START).then_some(Anchor { log_id: self.log_id, position })
    }

    fn append(
        &mut self,
        expected: Position,
        batches: &[StoredBatch],
        _kind: AppendKind,
    ) -> Result<Position, AppendError> {
        assert_append(expected, batches, BATCH_BYTES_MAX);
        let head = self.head();
        if head != expected {
            return Err(AppendError::Conflict { head });
        }
        self.with(|all| all.extend(batches.iter().map(|batch| (batch.first, batch.clone()))));
        Ok(end_of(batches))
    }

    fn read_from(&mut self, sequence: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
        let first = self.first();
        if sequence < first {
            return Err(ReadError::Trimmed { first });
        }
        let mut left = bytes_max;
        Ok(self.with(|all| {
            let start = all.range(..=sequence).next_back().map_or(sequence, |(at, _)| *at);
            let from = all.range(start..).map(|(_, batch)| batch).filter(|batch| batch.last >= sequence);
            let mut read: Vec<StoredBatch> = Vec::new();
            for batch in from {
                if !read.is_empty() && batch.bytes.len() > left {
                    break;
                }
                left = left.saturating_sub(batch.bytes.len());
                read.push(batch.clone());
            }
            read
        }))
    }

    fn open_from(&self) -> u64 {
        0
    }

    fn archive(&self) -> Box<dyn Archive> {
        Box::new(self.clone())
    }

    fn trim_before(&mut self, _sequence: u64) -> Result<u64, ReadError> {
        Ok(self.first()) // one segment, never whole before its own head
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn max_batch_bytes(&self) -> usize {
        BATCH_BYTES_MAX
    }

    fn space(&self) -> Option<Space> {
        None
    }

    fn sync_anchor(&mut self) -> Result<(), AppendError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), AppendError> {
        Ok(())
    }
}
