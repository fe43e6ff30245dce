//! Recovery: from a log's batches to the state they stand for.
//!
//! The same folding that the sequencer does, with everything published at once: what is read from a log is durable.

use jeton_index::{IndexError, Reader};

use crate::batch::{BatchError, ChainEnd, OpenBatch, open};
use crate::numbers::{LogId, Partition, Sequence};
use crate::state::{ApplyError, State, StateConfig};

/// Tokens marked at a time; nothing else waits during a replay.
const MARK_STEP: usize = 1 << 20;

/// Why a log does not replay. Each names the first sequence number that is in doubt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A batch is damaged, or is not the one that belongs there.
    #[error("the log is broken at sequence number {at}: {cause}")]
    Broken {
        /// The first event that cannot be trusted.
        at: Sequence,
        /// What is wrong with it.
        cause: BatchError,
    },
    /// A whole batch holds an event that makes no sense to this state machine.
    #[error("event {at} cannot be applied: {cause}")]
    Inapplicable {
        /// The event.
        at: Sequence,
        /// Why.
        cause: ApplyError,
    },
}

/// A replay under way.
#[derive(Debug)]
pub struct Replay {
    state: State,
    reader: Reader,
    end: ChainEnd,
}

impl Replay {
    /// A replay that has seen nothing yet.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn new(log: LogId, partition: Partition, config: StateConfig) -> Result<Self, IndexError> {
        let (state, reader) = State::new(log, partition, config)?;
        Ok(Self { state, reader, end: ChainEnd::genesis(log, partition) })
    }

    /// Where the chain ends so far.
    #[must_use]
    pub fn end(&self) -> ChainEnd {
        self.end
    }

    /// The state so far.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Opens the next batch, verifies that it follows, and applies it. Returns it for whoever wants to show it.
    ///
    /// # Errors
    /// [`ReplayError`]: the replay cannot go on.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<OpenBatch, ReplayError> {
        let batch = next_in_chain(&self.end, bytes)?;
        let mut sequence = self.end.sequence;
        for entry in &batch.entries {
            sequence = sequence.next();
            let publication = self
                .state
                .apply(sequence, batch.time, entry)
                .map_err(|cause| ReplayError::Inapplicable { at: sequence, cause })?;
            if let Some(publication) = publication {
                self.state.publish(&publication);
            }
            while self.state.is_marking() {
                self.state.mark_step(&mut { MARK_STEP });
            }
        }
        self.end = batch.end;
        Ok(batch)
    }

    /// The state, the reading half of its index and the end of the chain, ready to go on.
    #[must_use]
    pub fn finish(self) -> (State, Reader, ChainEnd) {
        self.state.registry().set_published(self.end.sequence);
        (self.state, self.reader, self.end)
    }
}

/// Opens the batch that comes after `end`.
///
/// # Errors
/// [`ReplayError::Broken`] at the sequence number after `end`, unless a detached value further on is to blame.
pub fn next_in_chain(end: &ChainEnd, bytes: &[u8]) -> Result<OpenBatch, ReplayError> {
    let next = end.sequence.next();
    let batch = open(bytes).map_err(|cause| ReplayError::Broken {
        at: match cause {
            BatchError::Commitment(at) if at >= next => at,
            _ => next,
        },
        cause,
    })?;
    batch.follows(end).map_err(|cause| ReplayError::Broken { at: next, cause })?;
    Ok(batch)
}
