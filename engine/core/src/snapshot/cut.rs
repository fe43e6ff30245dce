//! A cut: the state at one event, as far as it will not change any more, and the pieces of what will.

use std::sync::Arc;

use jeton_index::{Copied, IndexCut};

use super::parts::{KeyPart, RightsPart};
use crate::batch::ChainEnd;
use crate::registry::Registry;
use crate::time::Millis;

/// The state at one event, to be made into a snapshot by another thread.
///
/// It holds on to what is only ever added to (records, names, claim sets) and says how much of it counts; what changes comes
/// as [`SnapshotPiece`]s.
#[derive(Debug)]
pub struct SnapshotCut {
    pub(crate) end: ChainEnd,
    pub(crate) time: Millis,
    pub(crate) tokens: usize,
    pub(crate) index: IndexCut,
    pub(crate) registry: Arc<Registry>,
    /// How many tenants, clients, subjects and claim sets there are.
    pub(crate) counts: [usize; 4],
    pub(crate) rights: Vec<RightsPart>,
    pub(crate) dead_claim_sets: Vec<u32>,
    pub(crate) renewals: Vec<u32>,
}

/// Something that was copied as it was at the event of the cut.
#[derive(Debug)]
pub struct SnapshotPiece(pub(crate) Piece);

#[derive(Debug)]
pub(crate) enum Piece {
    /// Words or counters of the index.
    Index(Copied),
    /// Idempotency keys, oldest first.
    Keys(Vec<KeyPart>),
}

impl SnapshotCut {
    /// Where the chain ends at the event of the cut.
    #[must_use]
    pub fn end(&self) -> ChainEnd {
        self.end
    }
}
