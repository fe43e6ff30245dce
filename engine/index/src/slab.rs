//! The slab: 64-byte records in segments, numbered from 1, each written once before anything names it.
//!
//! Records are read and written word by word through atomics. A record is written before the index word that names it
//! is, with Release, and read after that word was, with Acquire; so Relaxed suffices here. Segments never move and are
//! never given back while the index lives.

use std::sync::OnceLock;

use crate::memory::{MemoryError, Words};
use crate::prefetch::prefetch;
use crate::sync::{AtomicU64, Ordering};

/// Words of a record: one cache line.
pub(crate) const RECORD_WORDS: usize = 8;
/// Records of a segment: 4 MiB, two huge pages.
#[cfg(not(loom))]
const SEGMENT_RECORDS: usize = 1 << 16;
#[cfg(loom)]
const SEGMENT_RECORDS: usize = 4;

/// What is kept of a token. The index looks at the id alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The public id.
    pub id: [u8; 16],
    /// The digest of the whole token.
    pub digest: [u8; 32],
    /// First second at which the token is no longer valid.
    pub expires_s: u32,
    /// The second of its issue.
    pub issued_s: u32,
    /// Its claim set.
    pub claims: u32,
    /// Its subject, or where more is to be found of it; the index does not say which.
    pub link: u32,
}

impl Record {
    pub(crate) fn to_words(self) -> [u64; RECORD_WORDS] {
        let mut words = [0; RECORD_WORDS];
        let bytes = self.id.as_chunks::<8>().0.iter().chain(self.digest.as_chunks::<8>().0);
        for (word, bytes) in words.iter_mut().zip(bytes) {
            *word = u64::from_le_bytes(*bytes);
        }
        words[6] = u64::from(self.expires_s) | u64::from(self.issued_s) << 32;
        words[7] = u64::from(self.claims) | u64::from(self.link) << 32;
        words
    }

    pub(crate) fn from_words(words: &[u64; RECORD_WORDS]) -> Self {
        let (mut id, mut digest) = ([0; 16], [0; 32]);
        let bytes = id.as_chunks_mut::<8>().0.iter_mut().chain(digest.as_chunks_mut::<8>().0);
        for (bytes, word) in bytes.zip(words) {
            *bytes = word.to_le_bytes();
        }
        Self {
            id,
            digest,
            expires_s: words[6] as u32,
            issued_s: (words[6] >> 32) as u32,
            claims: words[7] as u32,
            link: (words[7] >> 32) as u32,
        }
    }
}

/// Segments of records.
pub(crate) struct Slab {
    segments: Box<[OnceLock<Words>]>,
    huge_pages: bool,
}

impl Slab {
    /// Room for records up to number `records_max`; memory comes as they do.
    pub(crate) fn new(records_max: u32, huge_pages: bool) -> Self {
        let segments = records_max as usize / SEGMENT_RECORDS + 1;
        Self { segments: (0..segments).map(|_| OnceLock::new()).collect(), huge_pages }
    }

    /// Writes a record that nothing names yet.
    ///
    /// # Errors
    /// [`MemoryError`] if its segment cannot be had.
    ///
    /// # Panics
    /// If the number is beyond the room that was asked for.
    pub(crate) fn write(&self, number: u32, words: &[u64; RECORD_WORDS]) -> Result<(), MemoryError> {
        let segment = &self.segments[number as usize / SEGMENT_RECORDS];
        if segment.get().is_none() {
            let memory = Words::new(SEGMENT_RECORDS * RECORD_WORDS, self.huge_pages)?;
            let is_first = segment.set(memory).is_ok();
            assert!(is_first, "only one writer adds segments");
        }
        let record = self.record(number).expect("its segment is there");
        for (atomic, word) in record.iter().zip(words) {
            atomic.store(*word, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The record's atomics; `None` for a number that was never written.
    #[inline]
    fn record(&self, number: u32) -> Option<&[AtomicU64]> {
        let segment = self.segments.get(number as usize / SEGMENT_RECORDS)?.get()?;
        let start = number as usize % SEGMENT_RECORDS * RECORD_WORDS;
        segment.get(start..start + RECORD_WORDS)
    }

    #[inline]
    pub(crate) fn read(&self, number: u32) -> Option<[u64; RECORD_WORDS]> {
        let record = self.record(number)?;
        Some(std::array::from_fn(|at| record[at].load(Ordering::Relaxed)))
    }

    /// Just the id of a record, which is all that a search needs.
    #[inline]
    pub(crate) fn has_id(&self, number: u32, id: &[u8; 16]) -> bool {
        let Some(record) = self.record(number) else { return false };
        let [low, high] = [0, 1].map(|at| record[at].load(Ordering::Relaxed));
        let [id_low, id_high] = id.as_chunks::<8>().0 else { return false };
        low == u64::from_le_bytes(*id_low) && high == u64::from_le_bytes(*id_high)
    }

    #[inline]
    pub(crate) fn prefetch(&self, number: u32) {
        if let Some([first, ..]) = self.record(number) {
            prefetch(first);
        }
    }

    /// Bytes of the segments that are there.
    pub(crate) fn bytes(&self) -> usize {
        let present = self.segments.iter().filter(|segment| segment.get().is_some()).count();
        present * SEGMENT_RECORDS * RECORD_WORDS * 8
    }
}
