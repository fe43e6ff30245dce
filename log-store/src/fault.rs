//! A store that fails on demand, around any other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::store::{
    Anchor, AppendError, AppendKind, Archive, Durability, LogId, LogStore, Position, ReadError, Space,
    StoredBatch,
};

/// What is to happen to one append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It succeeds.
    None,
    /// It fails and nothing is kept; the caller cannot know.
    LostIndeterminate,
    /// It fails although all of it is kept; the caller cannot know.
    KeptIndeterminate,
    /// It is refused for want of space, this once.
    Full,
    /// It succeeds late.
    Slow(Duration),
}

/// Faults to come, one for each append; shared with the test that scripts them.
#[derive(Clone, Debug, Default)]
pub struct FaultScript(Arc<Mutex<VecDeque<Fault>>>);

impl FaultScript {
    /// Adds a fault behind those to come.
    pub fn push(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(fault);
    }

    fn next(&self) -> Fault {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Fault::None)
    }
}

/// A store that does what a script says, and otherwise what the one inside does.
#[derive(Debug)]
pub struct FaultStore<S> {
    inner: S,
    script: FaultScript,
    poisoned: bool,
}

impl<S: LogStore> FaultStore<S> {
    /// A store around `inner` that fails as `script` says.
    pub fn new(inner: S, script: FaultScript) -> Self {
        Self { inner, script, poisoned: false }
    }
}

impl<S: LogStore + 'static> LogStore for FaultStore<S> {
    fn log_id(&self) -> LogId {
        self.inner.log_id()
    }

    fn head(&self) -> Position {
        self.inner.head()
    }

    fn first(&self) -> u64 {
        self.inner.first()
    }

    fn anchor(&self) -> Option<Anchor> {
        self.inner.anchor()
    }

    fn begin_writing(&mut self) -> Result<(), AppendError> {
        self.inner.begin_writing()
    }

    fn append(
        &mut self,
        expected: Position,
        batches: &[StoredBatch],
        kind: AppendKind,
    ) -> Result<Position, AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned("a scripted fault".to_owned()));
        }
        match self.script.next() {
            Fault::None => {}
            Fault::Slow(delay) => std::thread::sleep(delay),
            Fault::Full => return Err(AppendError::Full { free: 0, needed: 1 }),
            Fault::LostIndeterminate => {
                self.poisoned = true;
                return Err(AppendError::Indeterminate("a scripted fault".to_owned()));
            }
            Fault::KeptIndeterminate => {
                self.poisoned = true;
                self.inner.append(expected, batches, kind)?;
                return Err(AppendError::Indeterminate("a scripted fault".to_owned()));
            }
        }
        self.inner.append(expected, batches, kind)
    }

    fn read_from(&mut self, sequence: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
        self.inner.read_from(sequence, bytes_max)
    }

    fn open_from(&self) -> u64 {
        self.inner.open_from()
    }

    fn archive(&self) -> Box<dyn Archive> {
        self.inner.archive()
    }

    fn close_segment(&mut self) -> Result<(), AppendError> {
        self.inner.close_segment()
    }

    fn trim_before(&mut self, sequence: u64) -> Result<u64, ReadError> {
        self.inner.trim_before(sequence)
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn max_batch_bytes(&self) -> usize {
        self.inner.max_batch_bytes()
    }

    fn space(&self) -> Option<Space> {
        self.inner.space()
    }

    fn sync_anchor(&mut self) -> Result<(), AppendError> {
        self.inner.sync_anchor()
    }

    fn close(self: Box<Self>) -> Result<(), AppendError> {
        Box::new(self.inner).close()
    }
}
