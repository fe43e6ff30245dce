//! The writing half: one owner, the sequencer.
//!
//! Words are written here and in `growth`, which replaces a table that is full by another; records in `slots`, which
//! hands out places in the slab and gives up whole segments.

use std::sync::Arc;

use self::capture::Capture;
use self::growth::{Coming, Growth};
use self::slots::Slots;
use crate::memory::MemoryError;
use crate::reader::{Core, Reader};
use crate::slab::{Record, SEGMENT_RECORDS, Slab, Tail, Written};
use crate::sync::{Shared, mutated};
use crate::table::{At, BUCKET_WORDS, Generation, Moved, Table};
use crate::word::{Place, State, Word};

mod capture;
mod growth;
mod reclaim;
mod restore;
mod slots;

pub use self::capture::{Copied, CountersCopy, IndexCut, SegmentCut, WordsCopy};
pub use self::reclaim::{SegmentUse, Walk};
pub use self::restore::{Buffer, IndexImage, RestoreError, SegmentImage, restore};

/// The smallest table.
#[cfg(not(loom))]
const BUCKETS_MIN: usize = 8;
#[cfg(loom)]
const BUCKETS_MIN: usize = 2;

/// How much room to prepare.
#[derive(Clone, Copy, Debug)]
pub struct IndexConfig {
    /// Tokens to have room for before the table has to grow; no table that takes its place has room for fewer.
    pub tokens_initial: usize,
    /// The most records at a time: one for each token, one more for each with a tail, and one for each renewal that is
    /// prepared. Below 2^31.
    pub slots_max: u32,
    /// Places of a segment of records: a power of two from 4 to [`SEGMENT_RECORDS`], which is what serves best; smaller
    /// ones let tests see many.
    pub segment_records: u32,
    /// Whether to ask for huge pages: lookups are three times slower without.
    pub huge_pages: bool,
}

/// Why there is no index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The memory cannot be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The configured maximum is out of range.
    #[error("the index holds 1 to 2^31 - 2 records, not {0}")]
    SlotsMax(u32),
    /// The size of a segment is out of range.
    #[error("a segment holds a power of two of records, 4 to 65,536, not {0}")]
    SegmentRecords(u32),
}

/// There is no room for another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexFull {
    /// The configured maximum is reached.
    #[error("the configured maximum of token records is reached")]
    Configured,
    /// The system gives no more memory.
    #[error("the system gives no more memory")]
    Memory,
}

/// A token, as the writer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of its record.
    pub slot: u32,
    /// Its state bits.
    pub state: State,
    /// What is kept of it.
    pub record: Record,
    /// What else is kept of it, if there is more.
    pub tail: Option<Tail>,
}

/// What the index takes, in bytes of memory that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Tables of words.
    pub index_bytes: usize,
    /// Segments of records, those too that readers have yet to let go of.
    pub slab_bytes: usize,
}

/// The writing half.
pub struct Writer {
    core: Arc<Core>,
    /// The table that inserts go to.
    new: Arc<Table>,
    /// The table that comes next, before anybody sees it.
    coming: Option<Coming>,
    growth: Option<Growth>,
    /// Tables that a reader may still have.
    tables_before: Vec<Arc<Table>>,
    /// A copy that is being taken.
    capture: Option<Capture>,
    /// The segments there are; readers have them in their generation.
    slab: Slab,
    slots: Slots,
    tokens: usize,
    /// Places that are not empty in the table that inserts go to: tokens and removed ones.
    taken: usize,
    /// No table is made smaller.
    buckets_min: usize,
    huge_pages: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({} tokens)", self.tokens)
    }
}

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// The one that tokens move from, if there is one.
    Old,
    /// The one that inserts go to.
    New,
}

/// An empty index: its writing half, and a reading half to clone.
///
/// # Errors
/// [`IndexError`].
pub fn new(config: IndexConfig) -> Result<(Writer, Reader), IndexError> {
    check(&config)?;
    let table = Table::new(buckets_for(config.tokens_initial), config.huge_pages)?;
    let slab = Slab::new(config.segment_records.ilog2());
    Ok(assemble(&config, table, slab, Slots::new(config.slots_max), (0, 0)))
}

/// Both halves of an index of these parts: with so many tokens, and so many places taken in the table.
fn assemble(
    config: &IndexConfig,
    table: Table,
    slab: Slab,
    slots: Slots,
    (tokens, taken): (usize, usize),
) -> (Writer, Reader) {
    let table = Arc::new(table);
    let first = Generation { old: None, new: Arc::clone(&table), slab: slab.clone() };
    let core = Arc::new(Core { tables: Shared::new(first) });
    let reader = Reader { core: Arc::clone(&core) };
    let writer = Writer {
        core,
        new: table,
        coming: None,
        growth: None,
        tables_before: Vec::new(),
        capture: None,
        slab,
        slots,
        tokens,
        taken,
        buckets_min: buckets_for(config.tokens_initial),
        huge_pages: config.huge_pages,
    };
    (writer, reader)
}

/// Whether an index can be made like this.
fn check(config: &IndexConfig) -> Result<(), IndexError> {
    if !(1..(1 << 31) - 1).contains(&config.slots_max) {
        return Err(IndexError::SlotsMax(config.slots_max));
    }
    let places = config.segment_records;
    if !places.is_power_of_two() || !(4..=SEGMENT_RECORDS).contains(&places) {
        return Err(IndexError::SegmentRecords(places));
    }
    Ok(())
}

/// The buckets that hold so many tokens at three quarters full.
fn buckets_for(tokens: usize) -> usize {
    (tokens * 4 / 3 / BUCKET_WORDS + 1).max(BUCKETS_MIN)
}

impl Writer {
    /// Another reading half.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { core: Arc::clone(&self.core) }
    }

    /// Tokens in the index.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Records in use, counted against [`IndexConfig::slots_max`].
    #[must_use]
    pub fn slots_used(&self) -> u32 {
        self.slots.live()
    }

    /// What the index takes.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let old = self.growth.as_ref().map_or(0, Growth::bytes);
        let coming = self.coming.as_ref().map_or(0, Coming::bytes);
        let before: usize = self.tables_before.iter().map(|table| table.bytes()).sum();
        Memory {
            index_bytes: self.new.bytes() + old + coming + before,
            slab_bytes: self.slab.bytes() + self.slots.retired_bytes(),
        }
    }

    /// Shows readers the tables and segments of now.
    fn publish(&self) {
        let old = self.growth.as_ref().map(|growth| Arc::clone(&growth.old));
        let slab = self.slab.clone();
        self.core.tables.store(Generation { old, new: Arc::clone(&self.new), slab });
    }

    fn locate(&self, id: &[u8; 16]) -> Option<(Which, At)> {
        let find = |which| {
            let found = self.table(which)?.find(&self.slab, id, Moved::Skipped);
            Some((which, found.expect("the writer knows every segment that is named")?))
        };
        find(Which::Old).or_else(|| find(Which::New))
    }

    fn table(&self, which: Which) -> Option<&Arc<Table>> {
        match which {
            Which::Old => self.growth.as_ref().map(|growth| &growth.old),
            Which::New => Some(&self.new),
        }
    }

    /// The table with a word that is about to change: a copy under way has it as it was.
    fn table_to_change(&mut self, which: Which, position: usize) -> &Table {
        let table = match (which, &self.growth) {
            (Which::Old, Some(growth)) => &growth.old,
            _ => &self.new,
        };
        if let Some(capture) = &mut self.capture {
            capture.keep_words(table, position);
        }
        table
    }

    /// The token with this id.
    #[must_use]
    pub fn find(&self, id: &[u8; 16]) -> Option<Entry> {
        let (_, at) = self.locate(id)?;
        self.entry(at.word)
    }

    fn entry(&self, word: Word) -> Option<Entry> {
        let written = self.slab.read_whole(word.slot())?;
        let record = Record::from_words(&written.words);
        Some(Entry { slot: word.slot(), state: word.state(), record, tail: written.tail })
    }

    /// The record at a slot that is in use, whether or not a word names it yet.
    #[must_use]
    pub fn record(&self, slot: u32) -> Option<Record> {
        self.slab.read(slot).map(|words| Record::from_words(&words))
    }

    /// Adds a token that is not there yet, with these state bits. Returns its slot.
    ///
    /// # Errors
    /// [`IndexFull`]; nothing was added.
    pub fn insert(&mut self, record: &Record, tail: Option<&Tail>, state: State) -> Result<u32, IndexFull> {
        debug_assert!(self.find(&record.id).is_none(), "a token is inserted once");
        self.make_room()?;
        let slot = self.prepare(record, tail)?;
        let place = Place::of(&record.id);
        let free = self.new.free_place(place);
        let word = Word::new(place.tag, state, slot);
        self.table_to_change(Which::New, free.position).store(free.position, word);
        self.note(slot, record.expires_s, state.is_denied());
        self.taken += usize::from(free.word == Word::EMPTY);
        self.tokens += 1;
        Ok(slot)
    }

    /// Adds state bits to a token; returns what it had before. `None` if there is no such token.
    pub fn mark(&mut self, id: &[u8; 16], bits: State) -> Option<State> {
        let (which, at) = self.locate(id)?;
        if bits.is_denied() {
            self.note(at.word.slot(), u32::MAX, true);
        }
        Some(self.table_to_change(which, at.position).mark(at.position, bits).state())
    }

    /// As [`Self::mark`], for the token that the record at this slot is of, whatever record its word names by now; `None`
    /// if there is no such token any more.
    pub fn mark_owner(&mut self, slot: u32, bits: State) -> Option<State> {
        let record = self.record(slot)?;
        self.mark(&record.id, bits)
    }

    /// Writes another record for a token; no word names it before [`Self::swap`]. Returns its slot.
    ///
    /// # Errors
    /// [`IndexFull`]; nothing was written.
    pub fn prepare(&mut self, record: &Record, tail: Option<&Tail>) -> Result<u32, IndexFull> {
        let written = Written { words: record.to_words(tail.is_some()), tail: tail.copied() };
        self.slots.check_room(&written)?;
        self.write(&written)
    }

    /// Lets the token's word name a record that was prepared, keeping its state bits and its counter. Returns the slot
    /// that is given up: the one that the token had; or `slot` itself if the token is gone, or if there is no memory to
    /// keep its counter in.
    ///
    /// # Panics
    /// If no record was prepared there.
    pub fn swap(&mut self, slot: u32) -> u32 {
        let record = self.record(slot).expect("a record is prepared before it is named");
        let given_up = match self.locate(&record.id) {
            // Without a place for the counter, uses that were spent would be forgotten: the record stays as it was.
            Some((which, at)) if self.copy_counter(at.word.slot(), slot).is_ok() => {
                assert!(at.word.slot() != slot, "a record is named once");
                let word = Word::new(at.word.tag(), at.word.state(), slot);
                if mutated!(GivenUpTooEarly) {
                    self.give_up(at.word.slot());
                    self.table_to_change(which, at.position).store(at.position, word);
                    return at.word.slot();
                }
                // One store of the whole word: no mark can be lost, because only this thread marks.
                self.table_to_change(which, at.position).store(at.position, word);
                // Why its old segment was to be walked through may be this token, and no bit of its word says so.
                let doubt = self.may_hold_denied(at.word.slot()) || at.word.state().is_denied();
                self.note(slot, record.expires_s, doubt);
                at.word.slot()
            }
            _ => slot,
        };
        self.give_up(given_up);
        given_up
    }

    fn copy_counter(&mut self, from: u32, to: u32) -> Result<(), IndexFull> {
        match self.slab.counter(from) {
            0 => Ok(()),
            counter => self.set_counter_at(to, counter),
        }
    }

    /// Sets the number that changes of a token with a tail. Returns whether there is such a token.
    ///
    /// # Errors
    /// [`IndexFull::Memory`]; nothing was set.
    pub fn set_counter(&mut self, id: &[u8; 16], value: u64) -> Result<bool, IndexFull> {
        let Some((_, at)) = self.locate(id) else { return Ok(false) };
        self.set_counter_at(at.word.slot(), value).map(|()| true)
    }

    /// The number that changes of the token at this slot; 0 at first.
    #[must_use]
    pub fn counter(&self, slot: u32) -> u64 {
        self.slab.counter(slot)
    }

    /// Takes a token out and gives up its record. Returns the slot that it had.
    pub fn remove(&mut self, id: &[u8; 16]) -> Option<u32> {
        let (which, at) = self.locate(id)?;
        self.table_to_change(which, at.position).store(at.position, Word::REMOVED);
        self.tokens -= 1;
        self.give_up(at.word.slot());
        Some(at.word.slot())
    }

    /// Every token, in no order.
    pub fn for_each(&self, mut visit: impl FnMut(Entry)) {
        let old = self.growth.as_ref().map(|growth| &growth.old);
        for table in old.into_iter().chain(std::iter::once(&self.new)) {
            for bucket in 0..table.buckets() {
                let words = table.bucket_words(bucket);
                let present =
                    words.iter().map(|at| at.word).filter(|word| !word.is_free() && !word.is_moved());
                present.filter_map(|word| self.entry(word)).for_each(&mut visit);
            }
        }
    }
}
