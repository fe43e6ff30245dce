//! The reading half: lookups without a lock, for one token or a frame of them.

use std::sync::Arc;

use crate::slab::{RECORD_WORDS, Record, Slab};
use crate::sync::{Shared, SharedGuard, mutated};
use crate::table::{At, Generation, Moved, Table};
use crate::word::{Place, State, Word};

/// How often a lookup begins anew because the writer moved its word away at that very moment. Each time needs a whole
/// growth, or a renewal of the same token, between two loads.
const RETRIES_MAX: usize = 64;

/// What writer and readers share.
pub(crate) struct Core {
    pub(crate) tables: Shared<Generation>,
    pub(crate) slab: Slab,
    pub(crate) extras: Slab,
}

/// The reading half. Cheap to clone; one for each thread.
#[derive(Clone)]
pub struct Reader {
    pub(crate) core: Arc<Core>,
}

/// A reader that holds on to the tables of a moment: taken once per frame.
pub struct Pin<'a> {
    core: &'a Core,
    tables: SharedGuard<Generation>,
}

/// Where a token probably is: found by its tag, its record not read yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidate(Spot);

impl Candidate {
    /// What a candidate is before it was located.
    pub const NOWHERE: Self = Self(Spot::Nowhere);
}

#[derive(Clone, Copy, Debug, Default)]
enum Spot {
    /// The tables hold no such token.
    #[default]
    Nowhere,
    /// In this word of one of the tables.
    Here { is_old: bool, position: usize, word: Word },
    /// A search has to find out.
    Search,
}

/// A token, as it was at one moment during the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What is kept of it.
    pub record: Record,
    /// Its state bits.
    pub state: State,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    /// Holds on to the tables of this moment.
    #[must_use]
    pub fn pin(&self) -> Pin<'_> {
        Pin { core: &self.core, tables: self.core.tables.load() }
    }
}

impl Pin<'_> {
    /// Asks for the cache lines of the index that these ids need.
    #[inline]
    pub fn prefetch<'i>(&self, ids: impl IntoIterator<Item = &'i [u8; 16]>) {
        for id in ids {
            let place = Place::of(id);
            if let Some(old) = &self.tables.old {
                old.prefetch(place);
            }
            self.tables.new.prefetch(place);
        }
    }

    /// Finds where each token probably is and asks for the cache lines of the records.
    ///
    /// # Panics
    /// If there are fewer candidates than ids.
    #[inline]
    pub fn locate<'i>(&self, ids: impl IntoIterator<Item = &'i [u8; 16]>, candidates: &mut [Candidate]) {
        let mut places = candidates.iter_mut();
        for id in ids {
            *places.next().expect("there is a candidate for every id") = self.locate_one(id);
        }
    }

    #[inline]
    fn locate_one(&self, id: &[u8; 16]) -> Candidate {
        let place = Place::of(id);
        // While a table grows: a word of the smaller one counts unless it is marked MOVED, one of the larger always
        // does, for it was copied after everything that was done to the token before.
        if let Some(old) = &self.tables.old
            && let (Some(At { position, word }), _) = old.first_with_tag(place)
            && (mutated!(IgnoreMoved) || !word.is_moved())
        {
            return self.here(true, position, word);
        }
        match self.tables.new.first_with_tag(place) {
            (Some(At { position, word }), _) => self.here(false, position, word),
            // While a table grows only a search of both can say that there is none.
            (None, true) if self.tables.old.is_none() => Candidate(Spot::Nowhere),
            (None, _) => Candidate(Spot::Search),
        }
    }

    #[inline]
    fn here(&self, is_old: bool, position: usize, word: Word) -> Candidate {
        self.core.slab.prefetch(word.slot());
        Candidate(Spot::Here { is_old, position, word })
    }

    /// The token with this id, if there is one.
    #[inline]
    #[must_use]
    pub fn resolve(&self, id: &[u8; 16], candidate: &Candidate) -> Option<Found> {
        match candidate.0 {
            Spot::Nowhere => None,
            Spot::Here { is_old, position, word } if self.core.slab.has_id(word.slot(), id) => {
                let table = if is_old { self.tables.old.as_ref()? } else { &self.tables.new };
                match self.read(table, At { position, word }) {
                    Some(found) => Some(found),
                    None => self.lookup(id),
                }
            }
            Spot::Here { .. } | Spot::Search => self.lookup(id),
        }
    }

    /// Reads the record that a word names, then looks at the word again: that second look is the moment the answer
    /// is true of. `None` if the word no longer names that record.
    #[inline]
    fn read(&self, table: &Table, at: At) -> Option<Found> {
        let words: [u64; RECORD_WORDS] = self.core.slab.read(at.word.slot())?;
        let now = table.load(at.position);
        let is_same = now.slot() == at.word.slot() && (mutated!(IgnoreMoved) || !now.is_moved());
        is_same.then(|| Found { record: Record::from_words(&words), state: now.state() })
    }

    /// The token with this id, if there is one. Searches the tables of now, not those of the pin.
    #[must_use]
    pub fn lookup(&self, id: &[u8; 16]) -> Option<Found> {
        for _ in 0..RETRIES_MAX {
            // Loaded anew each time: a word seen with MOVED means that there are newer tables than those at hand.
            let tables = self.core.tables.load();
            match lookup_in(self, &tables, id) {
                Search::Done(found) => return found,
                Search::Again => {}
            }
        }
        // The writer has moved this token between every two loads. Denying is the safe way out of such a race.
        None
    }

    /// An extra record.
    #[inline]
    #[must_use]
    pub fn extra(&self, number: u32) -> Option<[u64; 8]> {
        self.core.extras.read(number)
    }
}

enum Search {
    Done(Option<Found>),
    Again,
}

fn lookup_in(pin: &Pin<'_>, tables: &Generation, id: &[u8; 16]) -> Search {
    let slab = &pin.core.slab;
    if let Some(old) = &tables.old {
        let seen = if mutated!(IgnoreMoved) { Moved::Seen } else { Moved::Skipped };
        if let Some(found) = old.find(slab, id, seen).and_then(|at| pin.read(old, at)) {
            return Search::Done(Some(found));
        }
        // Not there, or moved meanwhile: then its copy was written before MOVED was set.
    }
    match tables.new.find(slab, id, Moved::Seen) {
        None => Search::Done(None),
        Some(at) => match pin.read(&tables.new, at) {
            Some(found) => Search::Done(Some(found)),
            None => Search::Again,
        },
    }
}
