//! What the parts beside records and index words hold: rkyv archives of lists, read in place.

#![allow(
    missing_docs,
    reason = "the derived archive types repeat, without words, the fields documented here"
)]

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Portable, Serialize};

use super::SnapshotError;
use crate::event::Recorded;

/// Subjects, claim sets, keys and counters of one part; of the first two a full part never changes.
pub(crate) const SUBJECTS_PER_PART: usize = 16_384;
pub(crate) const CLAIM_SETS_PER_PART: usize = 1_024;
pub(crate) const KEYS_PER_PART: usize = 1_024;
pub(crate) const COUNTERS_PER_PART: usize = 1 << 18;

/// A subject.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubjectPart {
    pub(crate) tenant: u32,
    /// The event that introduced it.
    pub(crate) since: u64,
    /// `None` once erased.
    pub(crate) name: Option<String>,
}

/// A claim set.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimSetPart {
    pub(crate) tenant: u32,
    pub(crate) client: u32,
    /// The event that introduced it.
    pub(crate) since: u64,
    /// Canonical bytes; `None` once erased.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// What came of a command with an idempotency key.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyPart {
    pub(crate) client: u32,
    pub(crate) key: [u8; 16],
    pub(crate) at_ms: u64,
    pub(crate) payload: [u8; 16],
    pub(crate) outcome: Recorded,
}

/// Uses spent of the token at a slot.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CounterPart {
    pub(crate) slot: u32,
    pub(crate) spent: u64,
}

/// Rights of a client in a tenant.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RightsPart {
    pub(crate) client: u32,
    pub(crate) tenant: u32,
    pub(crate) rights: u8,
}

/// Everything that is small.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RestPart {
    /// Names by number, from 1.
    pub(crate) tenants: Vec<String>,
    /// Names by number, from 1.
    pub(crate) clients: Vec<String>,
    pub(crate) rights: Vec<RightsPart>,
    /// Claim sets that wide revokes killed.
    pub(crate) dead_claim_sets: Vec<u32>,
    /// Slots of renewals that were decided and not durable when the copy was made; they are by the time it counts.
    pub(crate) renewals: Vec<u32>,
}

/// The bytes of a part.
pub(crate) fn encode<T>(value: &T) -> Vec<u8>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Panic>>,
{
    let Ok(bytes) = rkyv::to_bytes::<rancor::Panic>(value);
    bytes.into_vec()
}

/// The archive that a part's bytes are.
pub(crate) fn access<'a, T>(bytes: &'a AlignedVec<16>, what: &'static str) -> Result<&'a T, SnapshotError>
where
    T: Portable + for<'b> CheckBytes<HighValidator<'b, rancor::Failure>>,
{
    rkyv::access::<T, rancor::Failure>(bytes)
        .map_err(|_| SnapshotError::Damaged(format!("the part with {what} does not decode")))
}
