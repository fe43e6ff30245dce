//! Sealed batches, as they come from a disk or from another machine: the decoder is total and allocates in proportion,
//! and what opens can be sealed again.
//!
//! A hash that does not fit ends every look at what it covers, and no fuzzer makes one that does: so each input is also
//! opened with its length and its hash put right.

use jeton_core::batch::{
    BATCH_BYTES_MAX, ChainEnd, HEADER_BYTES, OpenBatch, entry_bytes, fitting, open, seal,
};
use jeton_core::numbers::Sequence;

use crate::allocation::bounded;

const COUNT_AT: usize = 28;
const EVENTS_BYTES_AT: usize = 80;
const HASH_AT: usize = 96;

/// Opens the bytes as they are, and as a batch that somebody sealed.
pub fn run(data: &[u8]) {
    check(data);
    if let Some(sealed) = put_right(data) {
        check(&sealed);
    }
}

/// The bytes as a batch of this format whose hash is right. A length of events that is there is left, so that detached
/// values may follow; otherwise all the rest is events.
fn put_right(data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    let rest = bytes.len().checked_sub(HEADER_BYTES)?;
    bytes[..6].copy_from_slice(b"JTNB\x01\0");
    let said = u32::from_le_bytes(bytes[EVENTS_BYTES_AT..EVENTS_BYTES_AT + 4].try_into().ok()?) as usize;
    let events = if said <= rest { said } else { rest };
    bytes[EVENTS_BYTES_AT..EVENTS_BYTES_AT + 4].copy_from_slice(&u32::try_from(events).ok()?.to_le_bytes());
    // The number of events is the last field of the archive: a vector's length.
    if let Some(count) =
        events.checked_sub(4).and_then(|at| bytes.get(HEADER_BYTES + at..HEADER_BYTES + events))
        && data[0].is_multiple_of(2)
    {
        let count: [u8; 4] = count.try_into().ok()?;
        bytes[COUNT_AT..COUNT_AT + 4].copy_from_slice(&count);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..HASH_AT]).update(&bytes[HEADER_BYTES..HEADER_BYTES + events]);
    bytes[HASH_AT..HEADER_BYTES].copy_from_slice(hasher.finalize().as_bytes());
    Some(bytes)
}

fn check(bytes: &[u8]) {
    let Ok(batch) = bounded(16 * 1024 + 32 * bytes.len(), || open(bytes)) else { return };
    check_content(&batch);
    let behind = ChainEnd { sequence: Sequence(batch.first.0 - 1), hash: batch.previous, ..batch.end };
    assert_eq!(batch.follows(&behind), Ok(()), "a batch follows on what it names");
    // Those that a disk holds fit; what is no batch of ours may be larger once its padding is gone and comes again.
    let all = batch.entries.iter();
    if bytes.len() > BATCH_BYTES_MAX
        || fitting(all.clone()) < batch.entries.len()
        || all.map(entry_bytes).sum::<usize>() > BATCH_BYTES_MAX - 192
    {
        return;
    }
    let mut end = behind;
    let sealed = seal(&mut end, batch.time, batch.entries.iter().cloned());
    assert_eq!(
        (sealed.first, sealed.last, end.sequence),
        (batch.first, batch.end.sequence, batch.end.sequence)
    );
    let again = open(&sealed.bytes).expect("what was sealed opens");
    assert_eq!(again.entries, batch.entries, "to the same events");
    assert_eq!((again.end, again.time, again.previous), (end, batch.time, batch.previous));
    let mut end_again = behind;
    let sealed_again = seal(&mut end_again, again.time, again.entries.into_iter());
    assert_eq!(sealed_again, sealed, "and seals to the same bytes");
}

fn check_content(batch: &OpenBatch) {
    assert!(!batch.entries.is_empty(), "a batch holds at least one event");
    assert_eq!(batch.end.sequence.0 - batch.first.0, batch.entries.len() as u64 - 1, "and counts them");
    for entry in &batch.entries {
        if let Some(detached) = &entry.detached {
            assert_eq!(
                entry.event.fact.commitment(),
                Some(&detached.commitment()),
                "an event stands by its bytes"
            );
        }
        assert!(!entry.event.fact.name().is_empty());
    }
}
