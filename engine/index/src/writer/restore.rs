//! An index from a copy: the memory that its parts are read into is the memory that it serves from.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::Builder;

use super::slots::{Book, Slots};
use super::{BUCKETS_MIN, IndexConfig, IndexError, Writer, assemble, check};
use crate::memory::Words;
use crate::reader::Reader;
use crate::slab::{RECORD_WORDS, Record, SEGMENT_RECORDS, Segment, Slab, Tail, has_tail};
use crate::sync::{AtomicU64, Ordering};
use crate::table::{BUCKET_WORDS, Table, places_max};
use crate::word::{State, Word};

/// Segments of the usual size that there are at most.
const SEGMENTS_MAX: u32 = (1 << 31) / SEGMENT_RECORDS;
/// More slots than any index hands out: a million a second would take half a million years.
const SERIALS_MAX: u64 = 1 << 63;

/// Threads that look at a restored table at most, and the words that are worth one.
const SURVEY_THREADS_MAX: usize = 8;
const SURVEY_WORDS_MIN: usize = 1 << 16;

/// Memory that part of a copy is read into, all zeros at first.
pub struct Buffer(Words);

/// A segment of a copy, with its records.
#[derive(Debug)]
pub struct SegmentImage {
    /// Its number.
    pub number: u32,
    /// Slots handed out before its first, since the index began.
    pub serial: u64,
    /// Places written.
    pub used: u32,
    /// Of these, in use.
    pub live: u32,
    /// All its places, the written ones first.
    pub records: Buffer,
}

/// All of a copy.
#[derive(Debug)]
pub struct IndexImage {
    /// The table of words.
    pub table: Buffer,
    /// The segments.
    pub segments: Vec<SegmentImage>,
    /// Slots with counters that are not 0.
    pub counters: Vec<(u32, u64)>,
    /// Slots handed out before the next new segment's first, since the index began.
    pub serial: u64,
    /// The segment that was being filled.
    pub open: Option<u32>,
}

/// Why a copy is no index.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Its parts contradict one another.
    #[error("the copy of the index contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// It cannot be had with this configuration.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} words)", self.0.len())
    }
}

impl Buffer {
    /// Memory for a table of so many words.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn for_table(words: usize, huge_pages: bool) -> Result<Self, IndexError> {
        Ok(Self(Words::new(words, huge_pages)?))
    }

    /// Memory for a segment of so many records.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn for_segment(records: u32, huge_pages: bool) -> Result<Self, IndexError> {
        Ok(Self(Words::new(records as usize * RECORD_WORDS, huge_pages)?))
    }

    /// The memory as bytes: words are little-endian.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }
}

/// The index that a copy is of: its writing half, and a reading half to clone.
///
/// # Errors
/// [`RestoreError`]: no part of the copy is believed.
pub fn restore(config: IndexConfig, image: IndexImage) -> Result<(Writer, Reader), RestoreError> {
    check(&config)?;
    let IndexImage { table, segments, counters, serial, open } = image;
    ensure(table.0.len().is_multiple_of(BUCKET_WORDS), "the table is not made of whole buckets")?;
    ensure(table.0.len() >= BUCKETS_MIN * BUCKET_WORDS, "the table is smaller than the smallest there is")?;
    let mut slab = Slab::new(config.segment_records.ilog2());
    let mut slots = Slots::new(config.slots_max);
    // Slots have 31 bits. Small segments are as many as there are records at most, or what lists them would outgrow them.
    let numbers_max = ((1 << 31) / config.segment_records).min(config.slots_max.max(SEGMENTS_MAX));
    for image in segments {
        let SegmentImage { number, serial: own_serial, used, live, records } = image;
        ensure(number < numbers_max && slab.segment(number).is_none(), "a segment's number")?;
        ensure(records.0.len() == config.segment_records as usize * RECORD_WORDS, "a segment's size")?;
        ensure(live <= used && used <= config.segment_records, "a segment's places")?;
        // Slot 0 stands for none.
        ensure(number > 0 || used > 0, "the first place of all")?;
        let end = own_serial.checked_add(u64::from(config.segment_records));
        ensure(end.is_some_and(|end| end <= serial), "a segment younger than the index")?;
        slab.put(number, Arc::new(Segment::from_words(records.0)));
        slots.restore(number, Book::unknown(own_serial, used, live));
    }
    ensure(serial < SERIALS_MAX, "slots beyond number")?;
    ensure(open.is_none_or(|open| slots.book(open).is_some()), "the segment being filled is not there")?;
    slots.restore_end(open, serial);
    ensure(slots.live() <= config.slots_max, "more records than the configured maximum")?;
    let table = Table::from_words(table.0);
    let counts = survey(&table, &slab, &slots)?;
    for (slot, value) in counters {
        ensure(names_a_record(&slab, &slots, slot), "a counter's slot")?;
        let (number, at) = slab.place_of(slot);
        let segment = slab.segment(number).expect("it names a record");
        segment.set_counter(at, value).map_err(IndexError::from)?;
    }
    Ok(assemble(&config, table, slab, slots, counts))
}

/// Counts the tokens and the places that are not empty, and looks at every word: on several threads, for a table may have
/// some hundred megabytes, and nobody is answered meanwhile.
fn survey(table: &Table, slab: &Slab, slots: &Slots) -> Result<(usize, usize), RestoreError> {
    // One number for each segment instead of a book that may be there.
    let used: Vec<u32> =
        (0..slab.numbers() as u32).map(|at| slots.book(at).map_or(0, |book| book.used)).collect();
    let words = table.words();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(SURVEY_THREADS_MAX);
    let shares = words.chunks(words.len().div_ceil(threads).max(SURVEY_WORDS_MIN));
    let surveyed = std::thread::scope(|scope| {
        let survey = |share| survey_share(share, slab, &used);
        let spawn = |share| Builder::new().spawn_scoped(scope, move || survey(share)).map_err(|_| share);
        let others: Vec<_> = shares.clone().skip(1).map(spawn).collect();
        let mut all: Vec<_> = shares.take(1).map(survey).collect();
        all.extend(others.into_iter().map(|other| match other {
            Ok(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(share) => survey(share), // no thread is to be had
        }));
        all
    });
    let (mut tokens, mut taken) = (0, 0);
    for share in surveyed {
        let (its_tokens, its_taken) = share.ok_or(RestoreError::Inconsistent("a word names no record"))?;
        tokens += its_tokens;
        taken += its_taken;
    }
    // A search ends at an empty place, and an insert needs one.
    ensure(taken <= places_max(words.len()) + BUCKET_WORDS, "the table is too full")?;
    Ok((tokens, taken))
}

/// The tokens of some words and the places that are not empty, given how many records each segment has; `None` if a word
/// names none.
fn survey_share(words: &[AtomicU64], slab: &Slab, used: &[u32]) -> Option<(usize, usize)> {
    let (mut tokens, mut taken) = (0, 0);
    let mut is_sound = true;
    for word in words {
        let word = Word(word.load(Ordering::Relaxed));
        taken += usize::from(word != Word::EMPTY);
        if word.is_free() {
            continue;
        }
        tokens += 1;
        let (number, at) = slab.place_of(word.slot());
        is_sound &= used.get(number as usize).is_some_and(|used| at < *used)
            && word.slot() != 0
            && word.state().contains(State::LIVE)
            && !word.is_moved();
    }
    is_sound.then_some((tokens, taken))
}

impl Writer {
    /// Every record that a word names, in the order they were written: its slot, and what is kept of the token.
    ///
    /// The first time behind [`restore`] the books of the segments are compared with that; until then, and ever after if
    /// they are wrong, no segment is given up.
    pub fn for_each_by_age(&mut self, mut visit: impl FnMut(u32, &Record, Option<&Tail>)) {
        let places = self.slab.places() as usize;
        // First which slots are named, then their records in one sweep: looking each of them up would cost ten times that.
        let mut named = vec![0_u64; (self.slab.numbers() * places).div_ceil(64)];
        let mut are_right = true;
        let old = self.growth.as_ref().map(|growth| growth.old.words());
        for word in old.into_iter().flatten().chain(self.new.words()) {
            let word = Word(word.load(Ordering::Relaxed));
            if !word.is_free() && !word.is_moved() {
                let (names, bit) = (&mut named[word.slot() as usize / 64], 1 << (word.slot() % 64));
                are_right &= *names & bit == 0;
                *names |= bit;
            }
        }
        let numbers = 0..self.segments_end();
        let mut by_age: Vec<_> =
            numbers.filter_map(|number| Some((self.slots.book(number)?, number))).collect();
        by_age.sort_unstable_by_key(|(book, _)| book.serial);
        for (book, number) in by_age {
            let segment = self.slab.segment(number).expect("a segment with a book is there");
            let mut places_named = 0;
            for at in 0..book.used {
                let slot = self.slab.slot_at(number, at);
                if named[slot as usize / 64] & 1 << (slot % 64) != 0 {
                    let words = segment.read(at);
                    places_named += 1 + u32::from(has_tail(&words));
                    let tail = (has_tail(&words) && at + 1 < book.used).then(|| segment.read(at + 1));
                    visit(slot, &Record::from_words(&words), tail.as_ref());
                }
            }
            are_right &= places_named <= book.live;
        }
        self.books_compared(are_right);
    }
}

impl Writer {
    /// Whether a record was written at this slot.
    #[must_use]
    pub fn is_written(&self, slot: u32) -> bool {
        names_a_record(&self.slab, &self.slots, slot)
    }
}

fn names_a_record(slab: &Slab, slots: &Slots, slot: u32) -> bool {
    let (number, at) = slab.place_of(slot);
    slot != 0 && slots.book(number).is_some_and(|book| at < book.used)
}

fn ensure(holds: bool, what: &'static str) -> Result<(), RestoreError> {
    if holds { Ok(()) } else { Err(RestoreError::Inconsistent(what)) }
}

const _: () = assert!(SEGMENT_RECORDS.is_power_of_two(), "a slot is a segment's number and a place in it");
