//! Copying the index as it is at one moment, while it goes on changing.
//!
//! Records never change, so a copy holds on to their segments. Words and counters do: they are copied piece by piece, and a
//! piece that is about to change before its turn is copied just then. So the copy is exact, the writer never stops for longer
//! than a piece takes, and readers notice nothing.
//!
//! Only the writer writes, so its own loads need no order.

use std::sync::Arc;

use super::Writer;
use crate::slab::{RECORD_WORDS, Segment};
use crate::sync::Ordering;
use crate::table::Table;
use crate::word::{State, Word};

/// Words copied at a time: 64 KiB, some ten microseconds. Under an interpreter tables are small, and are to have several pieces
/// all the same.
const PIECE_WORDS: usize = if cfg!(miri) { 64 } else { 8 * 1_024 };

/// What a copy of the index consists of beside its words and counters.
pub struct IndexCut {
    /// Words of the table.
    pub table_words: usize,
    /// The segments there are.
    pub segments: Vec<SegmentCut>,
    /// Slots handed out before the next new segment's first, since the index began.
    pub serial: u64,
    /// The segment that is being filled.
    pub open: Option<u32>,
    /// Places of a segment.
    pub segment_records: u32,
}

/// A segment, as it was when the copy began.
#[derive(Clone)]
pub struct SegmentCut {
    /// Its number.
    pub number: u32,
    /// Slots handed out before its first, since the index began.
    pub serial: u64,
    /// Places written: these do not change any more.
    pub used: u32,
    /// Of these, in use.
    pub live: u32,
    segment: Arc<Segment>,
}

/// A piece of a copy.
#[derive(Debug)]
pub enum Copied {
    /// Words of the table.
    Words(WordsCopy),
    /// Counters of a segment.
    Counters(CountersCopy),
}

/// Neighbouring words of the table, as they were when the copy began.
#[derive(Debug)]
pub struct WordsCopy {
    /// Where the first of them stands.
    pub first: usize,
    words: Box<[u64]>,
}

/// The counters of a segment that were not 0 when the copy began.
#[derive(Debug)]
pub struct CountersCopy {
    /// Slots with their counters.
    pub counters: Vec<(u32, u64)>,
}

/// A copy under way.
pub(super) struct Capture {
    table: Arc<Table>,
    /// Which pieces of the table were copied.
    words_done: Vec<bool>,
    words_next: usize,
    /// Segments with counters, by number, that were not copied yet.
    counters: Vec<(u32, Arc<Segment>)>,
    segment_records: u32,
    /// Copied before their turn.
    early: Vec<Copied>,
}

impl std::fmt::Debug for IndexCut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IndexCut({} words, {} segments)", self.table_words, self.segments.len())
    }
}

impl std::fmt::Debug for SegmentCut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentCut({}: {} of {} in use)", self.number, self.live, self.used)
    }
}

impl SegmentCut {
    /// Appends the bytes of records `from..to`, little-endian, to `bytes`.
    ///
    /// # Panics
    /// If they are not among those in use when the copy began.
    pub fn append_records(&self, from: u32, to: u32, bytes: &mut Vec<u8>) {
        assert!(from <= to && to <= self.used, "records behind these may still change");
        bytes.reserve((to - from) as usize * RECORD_WORDS * 8);
        for at in from..to {
            bytes.extend_from_slice(self.segment.read(at).map(u64::to_le_bytes).as_flattened());
        }
    }
}

impl WordsCopy {
    /// How many bytes [`Self::write_published`] writes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    /// Writes the words, little-endian, with every token published: whoever uses the copy waits until all that was decided
    /// before it began is durable.
    ///
    /// # Panics
    /// If there is room for more or fewer bytes than these.
    pub fn write_published(&self, into: &mut [u8]) {
        assert_eq!(into.len(), self.bytes(), "a piece has its place");
        for (word, bytes) in self.words.iter().zip(into.as_chunks_mut::<8>().0) {
            let is_token = !Word(*word).is_free();
            *bytes = (if is_token { word | State::LIVE.in_word() } else { *word }).to_le_bytes();
        }
    }
}

impl Capture {
    /// A word of this table is about to change.
    pub(super) fn keep_words(&mut self, table: &Arc<Table>, position: usize) {
        let piece = position / PIECE_WORDS;
        if Arc::ptr_eq(table, &self.table) && !self.words_done[piece] {
            let copy = self.copy_words(piece);
            self.early.push(Copied::Words(copy));
        }
    }

    /// A counter of this segment is about to change.
    pub(super) fn keep_counters(&mut self, number: u32) {
        if let Some(at) = self.counters.iter().position(|(waiting, _)| *waiting == number) {
            let (_, segment) = self.counters.swap_remove(at);
            let copy = copy_counters(number, &segment, self.segment_records);
            self.early.push(Copied::Counters(copy));
        }
    }

    fn copy_words(&mut self, piece: usize) -> WordsCopy {
        let all = self.table.words();
        let first = piece * PIECE_WORDS;
        let words = &all[first..all.len().min(first + PIECE_WORDS)];
        self.words_done[piece] = true;
        WordsCopy { first, words: words.iter().map(|word| word.load(Ordering::Relaxed)).collect() }
    }

    fn next(&mut self) -> Option<Copied> {
        if let Some(early) = self.early.pop() {
            return Some(early);
        }
        while self.words_next < self.words_done.len() {
            let piece = self.words_next;
            self.words_next += 1;
            if !self.words_done[piece] {
                return Some(Copied::Words(self.copy_words(piece)));
            }
        }
        let (number, segment) = self.counters.pop()?;
        Some(Copied::Counters(copy_counters(number, &segment, self.segment_records)))
    }
}

fn copy_counters(number: u32, segment: &Segment, records: u32) -> CountersCopy {
    let first = number * records;
    let counters =
        (0..records).map(|at| (first + at, segment.counter(at))).filter(|(_, counter)| *counter != 0);
    CountersCopy { counters: counters.collect() }
}

impl Writer {
    /// Begins to copy the index as it is now; [`Self::next_copied`] gives the pieces. `None` while it grows into another
    /// table: then try later. A copy that was under way is given up.
    pub fn begin_copy(&mut self) -> Option<IndexCut> {
        if self.growth.is_some() {
            return None;
        }
        let numbers = 0..self.segments_end();
        let segments: Vec<SegmentCut> = numbers
            .filter_map(|number| {
                let (book, segment) = (self.slots.book(number)?, Arc::clone(self.slab.segment(number)?));
                Some(SegmentCut { number, serial: book.serial, used: book.used, live: book.live, segment })
            })
            .collect();
        let table_words = self.new.words().len();
        let counting = segments.iter().filter(|cut| cut.segment.has_counters());
        self.capture = Some(Capture {
            table: Arc::clone(&self.new),
            words_done: vec![false; table_words.div_ceil(PIECE_WORDS)],
            words_next: 0,
            counters: counting.map(|cut| (cut.number, Arc::clone(&cut.segment))).collect(),
            segment_records: self.slab.places(),
            early: Vec::new(),
        });
        Some(IndexCut {
            table_words,
            segments,
            serial: self.slots.serial_of_next(),
            open: self.slots.open(),
            segment_records: self.slab.places(),
        })
    }

    /// Copies the next piece. `None` once the copy is whole, or if none is under way.
    pub fn next_copied(&mut self) -> Option<Copied> {
        let copied = self.capture.as_mut()?.next();
        if copied.is_none() {
            self.capture = None;
        }
        copied
    }

    /// Gives up a copy that is under way.
    pub fn end_copy(&mut self) {
        self.capture = None;
    }
}
