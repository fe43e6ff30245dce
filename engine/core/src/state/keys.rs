//! The memory of idempotency keys: what came of the commands that carried one.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use rustc_hash::FxHashMap;

use crate::event::{Recorded, ScopedKey};
use crate::mutation::limit;
use crate::numbers::ClientNo;
use crate::time::Millis;

/// How long a key is remembered.
pub const KEY_MEMORY_MS: u64 = 10 * 60 * 1_000;
/// How many keys are remembered; past that, commands with a key are answered `Busy`. One of an issue counts as one more for
/// every eight of its tokens, whose ids are remembered as well: 256 tokens take twenty times the memory of a plain key.
pub const KEYS_MAX: usize = 1_000_000;
/// A client may have so many keys remembered for each that is free: the more it has used up, the less it gets, and however
/// many there are of its kind, some are always left for one that has none.
const KEYS_PER_FREE_KEY: usize = 4;

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
    /// With how many keys each counts for.
    order: VecDeque<(Millis, ScopedKey, u32)>,
    /// What all of `order` counts for, and what is whose.
    counted: usize,
    of_client: FxHashMap<ClientNo, usize>,
    /// A copy under way.
    copying: Option<Copying>,
}

/// A copy of what was remembered at one moment. What is forgotten or replaced before its turn is kept: it may be by an event
/// that is lost again.
#[derive(Debug)]
struct Copying {
    /// Where it is in `order`, and where that ended when the copy began.
    next: usize,
    end: usize,
    /// What records were that were replaced since.
    replaced: HashMap<ScopedKey, KeyRecord>,
    /// Forgotten before their turn.
    early: Vec<(ScopedKey, KeyRecord)>,
}

impl KeyMemory {
    /// What came of the command with this key, unless it was too long ago.
    pub(super) fn recall(&self, key: &ScopedKey, now: Millis) -> Option<&KeyRecord> {
        self.records.get(key).filter(|record| !is_over(record.at, now))
    }

    /// Whether there is room for one more of this client's.
    pub(super) fn has_room(&self, client: ClientNo, now: Millis) -> bool {
        let free = limit!(keys, KEYS_MAX).saturating_sub(self.counted);
        let own = self.of_client.get(&client).copied().unwrap_or(0);
        // Only when it looks full: what is too old by now is forgotten with the next that is remembered.
        own < free.saturating_mul(KEYS_PER_FREE_KEY)
            || self.order.front().is_some_and(|(at, ..)| is_over(*at, now))
    }

    #[cfg(feature = "mutations")]
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn remember(&mut self, key: ScopedKey, record: KeyRecord) {
        self.forget(record.at);
        let counts = counts_for(&record.outcome);
        self.order.push_back((record.at, key, counts));
        self.counted += counts as usize;
        *self.of_client.entry(key.client).or_default() += counts as usize;
        let before = self.records.insert(key, record);
        if let (Some(copying), Some(before)) = (&mut self.copying, before) {
            copying.replaced.entry(key).or_insert(before);
        }
    }

    fn forget(&mut self, now: Millis) {
        while let Some((at, key, counts)) = self.order.front() {
            if !is_over(*at, now) {
                break;
            }
            if let Some(copying) =
                self.copying.as_mut().filter(|copying| copying.next == 0 && copying.end > 0)
            {
                let record = recorded_at(&self.records, &copying.replaced, key, *at);
                copying.early.extend(record.map(|record| (*key, record.clone())));
            }
            // A key used again after its time has a younger record, which stays.
            if self.records.get(key).is_some_and(|record| record.at == *at) {
                self.records.remove(key);
            }
            self.counted -= *counts as usize;
            if let Entry::Occupied(mut own) = self.of_client.entry(key.client) {
                *own.get_mut() -= *counts as usize;
                if *own.get() == 0 {
                    own.remove();
                }
            }
            self.order.pop_front();
            if let Some(copying) = &mut self.copying {
                copying.next = copying.next.saturating_sub(1);
                copying.end = copying.end.saturating_sub(1);
            }
        }
    }

    /// Begins to copy what is remembered now.
    pub(super) fn begin_copy(&mut self) {
        let end = self.order.len();
        self.copying = Some(Copying { next: 0, end, replaced: HashMap::new(), early: Vec::new() });
    }

    /// Copies the next so many keys, oldest first, with what had come of them; `None` once all are.
    pub(super) fn next_copied(&mut self, keys: usize) -> Option<Vec<(ScopedKey, KeyRecord)>> {
        let copying = self.copying.as_mut()?;
        let mut copied = std::mem::take(&mut copying.early);
        if copied.is_empty() && copying.next == copying.end {
            self.copying = None;
            return None;
        }
        let from = copying.next;
        copying.next = copying.end.min(from + keys);
        for (at, key, _) in self.order.range(from..copying.next) {
            let record = recorded_at(&self.records, &copying.replaced, key, *at);
            copied.extend(record.map(|record| (*key, record.clone())));
        }
        Some(copied)
    }

    pub(super) fn end_copy(&mut self) {
        self.copying = None;
    }

    /// Every key still remembered at `now`, in no order.
    pub(super) fn iter_at(&self, now: Millis) -> impl Iterator<Item = (&ScopedKey, &KeyRecord)> {
        self.records.iter().filter(move |(_, record)| !is_over(record.at, now))
    }
}

/// The record of a key that was made at this time, whether or not another has replaced it: perhaps in the same millisecond.
fn recorded_at<'a>(
    records: &'a HashMap<ScopedKey, KeyRecord>,
    replaced: &'a HashMap<ScopedKey, KeyRecord>,
    key: &ScopedKey,
    at: Millis,
) -> Option<&'a KeyRecord> {
    [replaced, records].into_iter().filter_map(|of| of.get(key)).find(|record| record.at == at)
}

fn counts_for(outcome: &Recorded) -> u32 {
    match outcome {
        Recorded::Issued { ids } => 1 + u32::try_from(ids.len() / 8).unwrap_or(u32::MAX),
        _ => 1,
    }
}

fn is_over(at: Millis, now: Millis) -> bool {
    now.0.saturating_sub(at.0) >= KEY_MEMORY_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::IdempotencyKey;

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
    fn one_client_leaves_room_for_another_and_gets_its_own_back_in_time() {
        let mut memory = KeyMemory::default();
        let (greedy, other) = (ClientNo(1), ClientNo(2));
        let mut used = 0_u64;
        while memory.has_room(greedy, Millis(0)) {
            let key = IdempotencyKey(u128::from(used).to_le_bytes());
            memory.remember(ScopedKey { client: greedy, key }, record(0));
            used += 1;
        }
        assert_eq!(used, 800_000, "four fifths at most");
        assert!(memory.has_room(other, Millis(0)));
        assert!(memory.has_room(greedy, Millis(KEY_MEMORY_MS)));
        memory.remember(key(9), record(KEY_MEMORY_MS));
        assert_eq!(memory.of_client, FxHashMap::from_iter([(greedy, 1)]));
    }

    #[test]
    fn a_key_with_many_tokens_counts_for_more_and_all_of_it_comes_back() {
        let mut memory = KeyMemory::default();
        let client = ClientNo(1);
        let issued = || Recorded::Issued { ids: vec![[1; 16]; 256] };
        let mut used = 0_u64;
        while memory.has_room(client, Millis(0)) {
            let key = IdempotencyKey(u128::from(used).to_le_bytes());
            memory.remember(ScopedKey { client, key }, KeyRecord { outcome: issued(), ..record(0) });
            used += 1;
        }
        assert!((800_000 / 33..=800_000 / 33 + 1).contains(&used), "{used} keys: some 100 MB of ids");
        memory.remember(key(9), record(KEY_MEMORY_MS));
        assert_eq!((memory.counted, memory.order.len()), (1, 1));
        assert_eq!(memory.of_client, FxHashMap::from_iter([(client, 1)]));
    }

    #[test]
    fn a_copy_holds_what_was_remembered_when_it_began_whatever_is_replaced_or_forgotten_meanwhile() {
        let mut memory = KeyMemory::default();
        (1..6).for_each(|byte| memory.remember(key(byte), record(u64::from(byte))));
        memory.remember(key(2), record(9)); // used again: an issue is done anew
        memory.begin_copy();
        memory.remember(key(3), record(10));
        let again = Recorded::Renewed { expires_s: 99 };
        memory.remember(key(5), KeyRecord { outcome: again.clone(), ..record(5) }); // in the same millisecond
        let mut copied = memory.next_copied(1).unwrap();
        memory.remember(key(4), record(11));
        memory.remember(key(4), record(12));
        memory.remember(key(6), record(KEY_MEMORY_MS + 4)); // the first four are over
        while let Some(more) = memory.next_copied(2) {
            copied.extend(more);
        }
        assert!(copied.iter().all(|(_, record)| record.outcome != again));
        let copied: Vec<_> = copied.into_iter().map(|(key, record)| (key.key.0[0], record.at.0)).collect();
        assert_eq!(copied, [(1, 1), (3, 3), (4, 4), (5, 5), (2, 9)]);

        memory.begin_copy();
        memory.remember(key(7), record(3 * KEY_MEMORY_MS)); // nothing was copied yet, and all of it is over
        let copied: Vec<_> = std::iter::from_fn(|| memory.next_copied(9)).flatten().collect();
        assert_eq!(copied.len(), 5, "one of each key: {copied:?}");
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
