//! Recovery: from a log's batches to the state they stand for.
//!
//! The same folding that the sequencer does, with everything published at once: what is read from a log is durable.

use jeton_index::{IndexError, Reader};

use crate::batch::{BatchError, ChainEnd, OpenBatch, open};
use crate::mutation::mutated;
use crate::numbers::{LogId, Partition, Sequence};
use crate::snapshot::Restored;
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
    /// The chain is whole, but is not the one that was anchored.
    #[error("the log is broken at sequence number {at}: its chain does not pass through the anchor")]
    AnotherChain {
        /// The event whose batch the anchor names with another hash, or that no batch ends with.
        at: Sequence,
    },
    /// The log ends before its anchor.
    #[error(
        "the log is broken at sequence number {at}: it ends there, but its anchor says that it reached {reached}"
    )]
    LostTail {
        /// The first event that is missing.
        at: Sequence,
        /// The event that was there once.
        reached: Sequence,
    },
}

/// What is known from elsewhere of how far a log came: it must pass through here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayAnchor {
    /// The last event of a batch.
    pub sequence: Sequence,
    /// The hash of that batch.
    pub hash: [u8; 32],
}

/// A replay under way.
#[derive(Debug)]
pub struct Replay {
    state: State,
    reader: Reader,
    end: ChainEnd,
    anchor: Option<ReplayAnchor>,
}

impl Replay {
    /// A replay that has seen nothing yet, of a log that must pass through `anchor`.
    ///
    /// # Errors
    /// If the memory cannot be had.
    pub fn new(
        log: LogId,
        partition: Partition,
        config: StateConfig,
        anchor: Option<ReplayAnchor>,
    ) -> Result<Self, IndexError> {
        let (state, reader) = State::new(log, partition, config)?;
        Ok(Self { state, reader, end: ChainEnd::genesis(log, partition), anchor })
    }

    /// A replay that goes on behind a snapshot, of a log that must pass through `anchor`.
    ///
    /// # Errors
    /// [`ReplayError::AnotherChain`] if the anchor is at the event of the snapshot, and says otherwise.
    pub fn behind(restored: Restored, anchor: Option<ReplayAnchor>) -> Result<Self, ReplayError> {
        let Restored { state, reader, end } = restored;
        match anchor {
            Some(anchor) if anchor.sequence == end.sequence && anchor.hash != end.hash => {
                Err(ReplayError::AnotherChain { at: anchor.sequence })
            }
            _ => Ok(Self { state, reader, end, anchor }),
        }
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
        self.state.make_room_for(&batch.entries);
        batch.entries.iter().for_each(|entry| self.state.prefetch_for(entry));
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
        if let Some(anchor) = &self.anchor
            && (self.end.sequence < anchor.sequence && anchor.sequence <= batch.end.sequence)
            && (batch.end.sequence, batch.end.hash) != (anchor.sequence, anchor.hash)
        {
            return Err(ReplayError::AnotherChain { at: anchor.sequence });
        }
        self.end = batch.end;
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::KeysForgottenInReplay) {
            self.state.forget_keys();
        }
        Ok(batch)
    }

    /// The log has no more batches: the state, the reading half of its index and the end of the chain, ready to go on.
    ///
    /// # Errors
    /// [`ReplayError::LostTail`].
    pub fn finish(self) -> Result<(State, Reader, ChainEnd), ReplayError> {
        if let Some(anchor) = self.anchor.filter(|anchor| anchor.sequence > self.end.sequence) {
            return Err(ReplayError::LostTail { at: self.end.sequence.next(), reached: anchor.sequence });
        }
        self.state.registry().set_published(self.end.sequence);
        Ok((self.state, self.reader, self.end))
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
    if !mutated!(ChainNotAsked) {
        batch.follows(end).map_err(|cause| ReplayError::Broken { at: next, cause })?;
    }
    Ok(batch)
}
