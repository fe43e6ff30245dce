//! The memory of idempotency keys: what came of the commands that carried one.

use std::collections::{HashMap, VecDeque};

use crate::event::{Recorded, ScopedKey};
use crate::mutation::limit;
use crate::time::Millis;

/// How long a key is remembered.
pub const KEY_MEMORY_MS: u64 = 10 * 60 * 1_000;
/// How many keys are remembered; past that, commands with a key are answered `Busy`.
pub const KEYS_MAX: usize = 1_000_000;

/// What came of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    pub(crate) at: Millis,
    pub(crate) payload: [u8; 16],
    pub(crate) outcome: Recorded,
}

/// Keys with what came of them, oldest first out.
#[derive(Debug, Default)]
pub(super) struct KeyMemory {
    records: HashMap<ScopedKey, KeyRecord>,
    order: VecDeque<(Millis, ScopedKey)>,
}

impl KeyMemory {
    /// What came of the command with this key, unless it was too long ago.
    pub(super) fn recall(&self, key: &ScopedKey, now: Millis) -> Option<&KeyRecord> {
        self.records.get(key).filter(|record| !is_over(record.at, now))
    }

    /// Whether there is room for one more.
    pub(super) fn has_room(&self, now: Millis) -> bool {
        // Only when it looks full: what is too old by now is forgotten with the next that is remembered.
        self.order.len() < limit!(keys, KEYS_MAX)
            || self.order.front().is_some_and(|(at, _)| is_over(*at, now))
    }

    #[cfg(feature = "mutations")]
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn remember(&mut self, key: ScopedKey, record: KeyRecord) {
        self.forget(record.at);
        self.order.push_back((record.at, key));
        self.records.insert(key, record);
    }

    fn forget(&mut self, now: Millis) {
        while let Some((at, key)) = self.order.front() {
            if !is_over(*at, now) {
                break;
            }
            // A key used again after its time has a younger record, which stays.
            if self.records.get(key).is_some_and(|record| record.at == *at) {
                self.records.remove(key);
            }
            self.order.pop_front();
        }
    }

    /// Every key still remembered at `now`, in no order.
    pub(super) fn iter_at(&self, now: Millis) -> impl Iterator<Item = (&ScopedKey, &KeyRecord)> {
        self.records.iter().filter(move |(_, record)| !is_over(record.at, now))
    }
}

fn is_over(at: Millis, now: Millis) -> bool {
    now.0.saturating_sub(at.0) >= KEY_MEMORY_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::{ClientNo, IdempotencyKey};

    fn key(byte: u8) -> ScopedKey {
        ScopedKey { client: ClientNo(1), key: IdempotencyKey([byte; 16]) }
    }

    fn record(at: u64) -> KeyRecord {
        KeyRecord { at: Millis(at), payload: [0; 16], outcome: Recorded::Renewed { expires_s: 1 } }
    }

    #[test]
    fn a_key_is_forgotten_after_its_time_and_not_before() {
        let mut memory = KeyMemory::default();
        memory.remember(key(1), record(1_000));
        assert!(memory.recall(&key(1), Millis(1_000 + KEY_MEMORY_MS - 1)).is_some());
        assert!(memory.recall(&key(1), Millis(1_000 + KEY_MEMORY_MS)).is_none());
        memory.remember(key(2), record(1_000 + KEY_MEMORY_MS));
        assert_eq!(memory.records.len(), 1, "the memory does not keep what it no longer recalls");
    }

    #[test]
    fn a_key_used_again_after_its_time_is_remembered_from_then() {
        let mut memory = KeyMemory::default();
        memory.remember(key(1), record(0));
        memory.remember(key(1), record(KEY_MEMORY_MS + 5));
        memory.remember(key(2), record(KEY_MEMORY_MS + 6));
        assert!(memory.recall(&key(1), Millis(KEY_MEMORY_MS + 6)).is_some());
    }
}
