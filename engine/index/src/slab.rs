//! The slab: 64-byte records in segments, each written once before anything names it.
//!
//! Records are read and written word by word through atomics. A record is written before the index word that names it
//! is, with Release, and read after that word was, with Acquire; so Relaxed suffices here. A record's place is not used
//! again while its segment lives: a segment is given up as a whole, once no word names a record in it, and its memory
//! goes when the last reader that could still look into it has let go of the tables it pinned.

use std::sync::{Arc, OnceLock};

use crate::memory::{MemoryError, Words};
use crate::prefetch::prefetch;
use crate::sync::{AtomicU64, Ordering};

/// Words of a record: one cache line.
pub(crate) const RECORD_WORDS: usize = 8;
/// Records of a segment unless it is said otherwise: 4 MiB, two huge pages.
pub const SEGMENT_RECORDS: u32 = 1 << 16;

/// In [`Record::link`]: the record behind this one belongs to it.
const TAIL_BIT: u32 = 1 << 31;

/// What is kept of a token. The index looks at the id, and at whether there is a tail.
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
    /// Its subject: 31 bits.
    pub link: u32,
}

/// What a few tokens have beside their record: another record behind it, in the owner's own layout.
pub type Tail = [u64; RECORD_WORDS];

/// The places of one token in the slab, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) words: [u64; RECORD_WORDS],
    pub(crate) tail: Option<Tail>,
}

impl Record {
    /// # Panics
    /// If the link needs more than 31 bits.
    pub(crate) fn to_words(self, has_tail: bool) -> [u64; RECORD_WORDS] {
        assert!(self.link < TAIL_BIT, "a link has 31 bits");
        let link = if has_tail { self.link | TAIL_BIT } else { self.link };
        let mut words = [0; RECORD_WORDS];
        let bytes = self.id.as_chunks::<8>().0.iter().chain(self.digest.as_chunks::<8>().0);
        for (word, bytes) in words.iter_mut().zip(bytes) {
            *word = u64::from_le_bytes(*bytes);
        }
        words[6] = u64::from(self.expires_s) | u64::from(self.issued_s) << 32;
        words[7] = u64::from(self.claims) | u64::from(link) << 32;
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
            expires_s: expires_s(words),
            issued_s: (words[6] >> 32) as u32,
            claims: claims(words),
            link: link(words),
        }
    }
}

#[inline]
pub(crate) fn digest_words(words: &[u64; RECORD_WORDS]) -> [u64; 4] {
    [words[2], words[3], words[4], words[5]]
}

/// Whether this is the record of the token with this id.
#[inline]
pub(crate) fn is_of(words: &[u64; RECORD_WORDS], id: &[u8; 16]) -> bool {
    let ids = id.as_chunks::<8>().0;
    words[0] == u64::from_le_bytes(ids[0]) && words[1] == u64::from_le_bytes(ids[1])
}

#[inline]
pub(crate) fn expires_s(words: &[u64; RECORD_WORDS]) -> u32 {
    words[6] as u32
}

#[inline]
pub(crate) fn claims(words: &[u64; RECORD_WORDS]) -> u32 {
    words[7] as u32
}

#[inline]
pub(crate) fn link(words: &[u64; RECORD_WORDS]) -> u32 {
    (words[7] >> 32) as u32 & !TAIL_BIT
}

#[inline]
pub(crate) fn has_tail(words: &[u64; RECORD_WORDS]) -> bool {
    (words[7] >> 32) as u32 & TAIL_BIT != 0
}

/// Places for some records.
pub(crate) struct Segment {
    records: Words,
    /// A number beside each record that changes; there once the first is not 0.
    counters: OnceLock<Words>,
}

impl Segment {
    pub(crate) fn new(places: u32, huge_pages: bool) -> Result<Self, MemoryError> {
        let records = Words::new(places as usize * RECORD_WORDS, huge_pages)?;
        Ok(Self { records, counters: OnceLock::new() })
    }

    /// A segment of records that were filled in elsewhere.
    pub(crate) fn from_words(records: Words) -> Self {
        Self { records, counters: OnceLock::new() }
    }

    pub(crate) fn has_counters(&self) -> bool {
        self.counters.get().is_some()
    }

    #[inline(always)]
    fn record(&self, at: u32) -> &[AtomicU64; RECORD_WORDS] {
        &self.records.as_chunks().0[at as usize]
    }

    /// Writes a record that nothing names yet.
    pub(crate) fn write(&self, at: u32, words: &[u64; RECORD_WORDS]) {
        for (atomic, word) in self.record(at).iter().zip(words) {
            atomic.store(*word, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub(crate) fn read(&self, at: u32) -> [u64; RECORD_WORDS] {
        let record = self.record(at);
        std::array::from_fn(|word| record[word].load(Ordering::Relaxed))
    }

    /// Relaxed: a counter is read beside the sequencer for inspections alone, in no order with anything else.
    pub(crate) fn counter(&self, at: u32) -> u64 {
        self.counters.get().map_or(0, |counters| counters[at as usize].load(Ordering::Relaxed))
    }

    pub(crate) fn set_counter(&self, at: u32, value: u64) -> Result<(), MemoryError> {
        if self.counters.get().is_none() {
            let is_first = self.counters.set(Words::new(self.records.len() / RECORD_WORDS, false)?).is_ok();
            assert!(is_first, "only one writer sets counters");
        }
        let counters = self.counters.get().expect("they were put there a moment ago");
        counters[at as usize].store(value, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        (self.records.len() + self.counters.get().map_or(0, |counters| counters.len())) * 8
    }
}

/// The segments of one moment, by number.
#[derive(Clone)]
pub(crate) struct Slab {
    segments: Vec<Option<Arc<Segment>>>,
    /// The logarithm of the places of a segment.
    places_log2: u32,
}

impl Slab {
    /// No segments, of so many places each.
    pub(crate) fn new(places_log2: u32) -> Self {
        Self { segments: Vec::new(), places_log2 }
    }

    /// Places of a segment.
    pub(crate) fn places(&self) -> u32 {
        1 << self.places_log2
    }

    /// The segment and the place in it that a slot is.
    #[inline]
    pub(crate) fn place_of(&self, slot: u32) -> (u32, u32) {
        (slot >> self.places_log2, slot & (self.places() - 1))
    }

    /// The slot at a place.
    pub(crate) fn slot_at(&self, number: u32, at: u32) -> u32 {
        number << self.places_log2 | at
    }

    /// Numbers that have been in use.
    pub(crate) fn numbers(&self) -> usize {
        self.segments.len()
    }

    #[inline]
    pub(crate) fn segment(&self, number: u32) -> Option<&Arc<Segment>> {
        self.segments.get(number as usize)?.as_ref()
    }

    pub(crate) fn put(&mut self, number: u32, segment: Arc<Segment>) {
        let at = number as usize;
        if self.segments.len() <= at {
            self.segments.resize(at + 1, None);
        }
        assert!(self.segments[at].is_none(), "a number is used by one segment at a time");
        self.segments[at] = Some(segment);
    }

    pub(crate) fn take(&mut self, number: u32) -> Option<Arc<Segment>> {
        self.segments.get_mut(number as usize)?.take()
    }

    /// What lies at a slot; `None` if these tables know no such segment.
    #[inline(always)]
    pub(crate) fn read(&self, slot: u32) -> Option<[u64; RECORD_WORDS]> {
        let (number, at) = self.place_of(slot);
        Some(self.segment(number)?.read(at))
    }

    /// The record at a slot with what belongs to it.
    #[inline(always)]
    pub(crate) fn read_whole(&self, slot: u32) -> Option<Written> {
        let words = self.read(slot)?;
        let tail = if has_tail(&words) { Some(self.read(slot + 1)?) } else { None };
        Some(Written { words, tail })
    }

    /// Whether the record at a slot has this id, which is all that a search needs; `None` if these tables know no such
    /// segment.
    #[inline]
    pub(crate) fn has_id(&self, slot: u32, id: &[u8; 16]) -> Option<bool> {
        let (number, at) = self.place_of(slot);
        let record = self.segment(number)?.record(at);
        let [low, high] = [0, 1].map(|word| record[word].load(Ordering::Relaxed));
        let ids = id.as_chunks::<8>().0;
        Some(low == u64::from_le_bytes(ids[0]) && high == u64::from_le_bytes(ids[1]))
    }

    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        let (number, at) = self.place_of(slot);
        if let Some(segment) = self.segment(number) {
            prefetch(&segment.record(at)[0]);
        }
    }

    pub(crate) fn counter(&self, slot: u32) -> u64 {
        let (number, at) = self.place_of(slot);
        self.segment(number).map_or(0, |segment| segment.counter(at))
    }

    /// Bytes of the segments that are there.
    pub(crate) fn bytes(&self) -> usize {
        self.segments.iter().flatten().map(|segment| segment.bytes()).sum()
    }
}
