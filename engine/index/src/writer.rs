//! The writing half: one owner, the sequencer.
//!
//! Growth is spread over inserts. A table a quarter larger is put beside the full one; each insert moves a few
//! buckets: every word is copied first and marked MOVED after, so that at any moment one of the two is the one that
//! counts and the other says so. New tokens go to the larger table at once.

use std::sync::Arc;

use crate::memory::MemoryError;
use crate::reader::{Core, Reader};
use crate::slab::{Record, Slab};
use crate::sync::{Shared, mutated};
use crate::table::{At, BUCKET_WORDS, Generation, Moved, Table};
use crate::word::{Place, State, Word};

/// Buckets moved by each insert while a table grows. The larger table has room for 1.5 inserts per bucket of the
/// smaller before it must grow itself, so one per insert would do; two leave room for chance.
const BUCKETS_PER_INSERT: usize = 2;
/// The smallest table.
#[cfg(not(loom))]
const BUCKETS_MIN: usize = 8;
#[cfg(loom)]
const BUCKETS_MIN: usize = 2;

/// How much room to prepare.
#[derive(Clone, Copy, Debug)]
pub struct IndexConfig {
    /// Tokens to have room for before the table has to grow.
    pub tokens_initial: usize,
    /// The highest number of a record, and of an extra record: tokens ever issued and renewed, while records are not
    /// used again. Below 2^31.
    pub slots_max: u32,
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
    #[error("the index holds 1 to 2^31 - 2 tokens, not {0}")]
    SlotsMax(u32),
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
}

/// What the index takes, in bytes of memory that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Tables of words.
    pub index_bytes: usize,
    /// Records.
    pub slab_bytes: usize,
    /// Extra records.
    pub extra_bytes: usize,
}

/// The writing half.
pub struct Writer {
    core: Arc<Core>,
    new: Arc<Table>,
    growth: Option<Growth>,
    tokens: usize,
    /// Places that are not empty in the table that inserts go to: tokens and removed ones.
    taken: usize,
    slots_used: u32,
    extras_used: u32,
    slots_max: u32,
    huge_pages: bool,
}

/// A move from one table to the next that is under way.
struct Growth {
    old: Arc<Table>,
    /// The next bucket to move.
    next: usize,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({} tokens)", self.tokens)
    }
}

/// An empty index: its writing half, and a reading half to clone.
///
/// # Errors
/// [`IndexError`].
pub fn new(config: IndexConfig) -> Result<(Writer, Reader), IndexError> {
    if !(1..(1 << 31) - 1).contains(&config.slots_max) {
        return Err(IndexError::SlotsMax(config.slots_max));
    }
    let buckets = buckets_for(config.tokens_initial);
    let table = Arc::new(Table::new(buckets, config.huge_pages)?);
    let core = Arc::new(Core {
        tables: Shared::new(Generation { old: None, new: Arc::clone(&table) }),
        slab: Slab::new(config.slots_max, config.huge_pages),
        extras: Slab::new(config.slots_max, config.huge_pages),
    });
    let reader = Reader { core: Arc::clone(&core) };
    let writer = Writer {
        core,
        new: table,
        growth: None,
        tokens: 0,
        taken: 0,
        slots_used: 0,
        extras_used: 0,
        slots_max: config.slots_max,
        huge_pages: config.huge_pages,
    };
    Ok((writer, reader))
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

    /// The highest record number given out; they are given out in order.
    #[must_use]
    pub fn slots_used(&self) -> u32 {
        self.slots_used
    }

    /// What the index takes.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let old = self.growth.as_ref().map_or(0, |growth| growth.old.bytes());
        Memory {
            index_bytes: self.new.bytes() + old,
            slab_bytes: self.core.slab.bytes(),
            extra_bytes: self.core.extras.bytes(),
        }
    }

    fn locate(&self, id: &[u8; 16]) -> Option<(&Arc<Table>, At)> {
        let slab = &self.core.slab;
        let old = self.growth.as_ref().map(|growth| &growth.old);
        old.and_then(|old| old.find(slab, id, Moved::Skipped).map(|at| (old, at)))
            .or_else(|| self.new.find(slab, id, Moved::Skipped).map(|at| (&self.new, at)))
    }

    /// The token with this id.
    #[must_use]
    pub fn find(&self, id: &[u8; 16]) -> Option<Entry> {
        let (_, at) = self.locate(id)?;
        self.entry(at.word)
    }

    fn entry(&self, word: Word) -> Option<Entry> {
        let record = self.record(word.slot())?;
        Some(Entry { slot: word.slot(), state: word.state(), record })
    }

    /// A record by its number, whether or not a word still names it.
    #[must_use]
    pub fn record(&self, slot: u32) -> Option<Record> {
        let is_used = (1..=self.slots_used).contains(&slot);
        is_used.then(|| self.core.slab.read(slot)).flatten().map(|words| Record::from_words(&words))
    }

    /// Adds a token that is not there yet, with these state bits.
    ///
    /// # Errors
    /// [`IndexFull`]; nothing was added.
    pub fn insert(&mut self, record: &Record, state: State) -> Result<u32, IndexFull> {
        debug_assert!(self.find(&record.id).is_none(), "a token is inserted once");
        let slot = self.write_record(record)?;
        self.make_room()?;
        let place = Place::of(&record.id);
        self.new.insert(place, Word::new(place.tag, state, slot));
        self.taken += 1;
        self.tokens += 1;
        Ok(slot)
    }

    fn write_record(&mut self, record: &Record) -> Result<u32, IndexFull> {
        if self.slots_used >= self.slots_max {
            return Err(IndexFull::Configured);
        }
        let slot = self.slots_used + 1;
        self.core.slab.write(slot, &record.to_words()).map_err(|_| IndexFull::Memory)?;
        self.slots_used = slot;
        Ok(slot)
    }

    /// Adds state bits to a token; returns what it had before. `None` if there is no such token.
    pub fn mark(&mut self, id: &[u8; 16], bits: State) -> Option<State> {
        let (table, at) = self.locate(id)?;
        Some(table.mark(at.position, bits).state())
    }

    /// As [`Self::mark`], for the token that this record is or was of, whatever record its word names by now; `None` if
    /// there is no such token any more.
    pub fn mark_owner(&mut self, slot: u32, bits: State) -> Option<State> {
        let record = self.record(slot)?;
        self.mark(&record.id, bits)
    }

    /// Writes another record for a token; no word names it before [`Self::swap`]. Returns its number.
    ///
    /// # Errors
    /// [`IndexFull`]; nothing was written.
    pub fn prepare(&mut self, record: &Record) -> Result<u32, IndexFull> {
        self.write_record(record)
    }

    /// Lets the token's word name a record that was prepared, and keeps its state bits. Returns whether there is such
    /// a token.
    ///
    /// # Panics
    /// If no record has this number.
    pub fn swap(&mut self, slot: u32) -> bool {
        let record = self.record(slot).expect("a record is prepared before it is named");
        let Some((table, at)) = self.locate(&record.id) else { return false };
        // One store of the whole word: no mark can be lost, because only this thread marks.
        table.store(at.position, Word::new(at.word.tag(), at.word.state(), slot));
        true
    }

    /// Takes a token out; its record is not used again. Returns whether it was there.
    pub fn remove(&mut self, id: &[u8; 16]) -> bool {
        let Some((table, at)) = self.locate(id) else { return false };
        table.store(at.position, Word::REMOVED);
        self.tokens -= 1;
        true
    }

    /// Adds an extra record; they are numbered from 0.
    ///
    /// # Errors
    /// [`IndexFull`]; nothing was added.
    pub fn push_extra(&mut self, words: [u64; 8]) -> Result<u32, IndexFull> {
        let number = self.extras_used;
        if number >= self.slots_max {
            return Err(IndexFull::Configured);
        }
        self.core.extras.write(number, &words).map_err(|_| IndexFull::Memory)?;
        self.extras_used = number + 1;
        Ok(number)
    }

    /// An extra record.
    #[must_use]
    pub fn extra(&self, number: u32) -> Option<[u64; 8]> {
        if number < self.extras_used { self.core.extras.read(number) } else { None }
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

    // ---- growth ----

    /// Keeps the table that inserts go to below three quarters full.
    fn make_room(&mut self) -> Result<(), IndexFull> {
        self.step_growth(BUCKETS_PER_INSERT);
        let limit = self.new.buckets() * BUCKET_WORDS / 4 * 3;
        if self.taken < limit {
            return Ok(());
        }
        while self.growth.is_some() {
            self.step_growth(usize::MAX); // never in practice: see BUCKETS_PER_INSERT
        }
        self.begin_growth()
    }

    fn begin_growth(&mut self) -> Result<(), IndexFull> {
        let buckets = self.new.buckets() + self.new.buckets().div_ceil(4);
        let new = Arc::new(Table::new(buckets, self.huge_pages).map_err(|_| IndexFull::Memory)?);
        let old = std::mem::replace(&mut self.new, Arc::clone(&new));
        // Readers learn of both tables before the first word moves: one that sees MOVED finds the larger table here.
        self.core.tables.store(Generation { old: Some(Arc::clone(&old)), new });
        self.growth = Some(Growth { old, next: 0 });
        self.taken = 0;
        Ok(())
    }

    /// Whether a larger table is being filled.
    #[must_use]
    pub fn is_growing(&self) -> bool {
        self.growth.is_some()
    }

    /// Moves up to `buckets` buckets to the larger table, if one is being filled; returns whether there is more to
    /// move.
    pub fn step_growth(&mut self, buckets: usize) -> bool {
        let Some(growth) = &mut self.growth else { return false };
        let end = growth.next.saturating_add(buckets).min(growth.old.buckets());
        for bucket in growth.next..end {
            self.taken += move_bucket(&self.core.slab, &growth.old, &self.new, bucket);
        }
        growth.next = end;
        if end < growth.old.buckets() {
            return true;
        }
        self.growth = None;
        // The smaller table is freed once the last reader that holds the old pair lets go of it.
        self.core.tables.store(Generation { old: None, new: Arc::clone(&self.new) });
        false
    }
}

/// Moves the words of one bucket and returns how many there were.
fn move_bucket(slab: &Slab, old: &Table, new: &Table, bucket: usize) -> usize {
    let words = old.bucket_words(bucket);
    let present = || words.iter().filter(|at| !at.word.is_free());
    // A bucket's records lie anywhere: ask for all of them before the first is needed.
    present().for_each(|at| slab.prefetch(at.word.slot()));
    for at in present() {
        let words = slab.read(at.word.slot()).expect("a word names a record that was written");
        let place = Place::of(&Record::from_words(&words).id);
        if mutated!(MovedBeforeCopy) {
            old.mark(at.position, State::MOVED);
        }
        // First the copy, then MOVED, with Release: whoever sees MOVED finds the copy.
        new.insert(place, at.word);
        if !mutated!(ForgetMoved) {
            old.mark(at.position, State::MOVED);
        }
    }
    present().count()
}
