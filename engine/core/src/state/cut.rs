//! Cutting a snapshot off the state while it goes on changing.

use std::sync::Arc;

use super::State;
use crate::batch::ChainEnd;
use crate::event::ScopedKey;
use crate::mutation::mutated;
use crate::snapshot::cut::Piece;
use crate::snapshot::parts::{KEYS_PER_PART, KeyPart, RightsPart};
use crate::snapshot::{SnapshotCut, SnapshotPiece};

impl State {
    /// Begins to copy the state as it is now, at the end of the chain given; `renewals` are the slots of renewals that were
    /// decided and are not durable. `None` while revokes by subject are carried out or the index grows: then try later. A copy
    /// that was under way is given up.
    ///
    /// # Panics
    /// If the chain ends elsewhere than at the last event applied.
    pub(crate) fn begin_cut(&mut self, end: ChainEnd, renewals: Vec<u32>) -> Option<SnapshotCut> {
        assert_eq!(end.sequence, self.applied.0, "a snapshot is of the last event");
        if self.is_marking() && !mutated!(SnapshotAmidMarking) {
            return None;
        }
        let index = self.index.begin_copy()?;
        self.keys.begin_copy();
        let registry = &self.registry;
        let rights = self.callers.iter().flat_map(|(client, caller)| {
            let part = |(tenant, rights)| (client.0, tenant, rights);
            caller.grants().map(part).collect::<Vec<_>>()
        });
        let rights = rights.map(|(client, tenant, rights)| RightsPart {
            client,
            tenant: tenant.0,
            rights: rights.bits(),
        });
        let mut rights: Vec<_> = rights.collect();
        rights.sort_unstable_by_key(|part| (part.client, part.tenant));
        let dead = registry.claim_sets.iter().filter(|(_, set)| set.is_dead());
        let dead = dead.map(|(at, _)| u32::try_from(at).expect("claim sets are numbered in 32 bits"));
        Some(SnapshotCut {
            end,
            time: self.applied.1,
            tokens: self.index.len(),
            index,
            counts: [
                registry.tenants.count(),
                registry.clients.count(),
                registry.subjects.count(),
                registry.claim_sets.count(),
            ],
            rights,
            dead_claim_sets: dead.collect(),
            renewals,
            registry: Arc::clone(registry),
        })
    }

    /// The next piece of the copy under way, some ten microseconds' worth; `None` once it is whole, or if there is none.
    pub(crate) fn next_piece(&mut self) -> Option<SnapshotPiece> {
        if let Some(copied) = self.index.next_copied() {
            return Some(SnapshotPiece(Piece::Index(copied)));
        }
        let keys = self.keys.next_copied(KEYS_PER_PART)?;
        let part = |(key, record): (ScopedKey, super::keys::KeyRecord)| KeyPart {
            client: key.client.0,
            key: key.key.0,
            at_ms: record.at.0,
            payload: record.payload,
            outcome: record.outcome,
        };
        Some(SnapshotPiece(Piece::Keys(keys.into_iter().map(part).collect())))
    }

    /// Gives up the copy under way.
    pub(crate) fn end_cut(&mut self) {
        self.index.end_copy();
        self.keys.end_copy();
    }
}
