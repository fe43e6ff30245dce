//! The reading half: lookups without a lock, for one token or a frame of them.

use std::sync::Arc;

use crate::slab::{self, RECORD_WORDS, Record, Tail};
use crate::sync::{Shared, SharedGuard, mutated};
use crate::table::{At, Generation, Moved, Table, Unseen};
use crate::word::{Place, State, Word};

/// How often a lookup begins anew because the writer moved its word or record away at that very moment. Each time needs
/// a whole growth, a new segment, or a renewal of the same token, between two loads.
const RETRIES_MAX: usize = 64;

/// How many buckets behind the home bucket a frame's tokens are looked for in together, each bucket asked for before it is
/// needed. Of a table three quarters full one token in 400 lies further off; those are searched for one by one. A
/// table has more buckets than that.
const BEHIND_MAX: usize = if cfg!(loom) { 1 } else { 4 };

/// What writer and readers share.
pub(crate) struct Core {
    pub(crate) tables: Shared<Generation>,
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
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    spot: Spot,
    /// Of a word, if it is in one of the tables.
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)] // as wide as what lies beside it: written as a byte and read as a word it would be on its way for long
enum Spot {
    /// The tables hold no such token.
    Nowhere,
    /// Not in its home bucket, nor in those behind it that were looked at: they are full.
    Further,
    /// In a word of the table.
    Here,
    /// In a word of the smaller table, while that grows.
    InOld,
    /// A search has to find out.
    Search,
}

impl Candidate {
    /// What a candidate is before it was located.
    pub const NOWHERE: Self = Self::without_word(Spot::Nowhere);

    const fn without_word(spot: Spot) -> Self {
        Self { spot, at: At { position: 0, word: Word::EMPTY } }
    }
}

impl Default for Candidate {
    fn default() -> Self {
        Self::NOWHERE
    }
}

/// A token, as it was at one moment during the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its record as it was read: a validate needs a few of these words, and has no time to put them elsewhere.
    words: [u64; RECORD_WORDS],
    /// What else is kept of it, if there is more.
    pub tail: Option<Tail>,
    /// The number that changes; 0 for a token without a tail.
    pub counter: u64,
    /// Its state bits.
    pub state: State,
}

impl Found {
    /// What is kept of it.
    #[must_use]
    pub fn record(&self) -> Record {
        Record::from_words(&self.words)
    }

    /// The digest of the whole token, as four words, little-endian.
    #[inline]
    #[must_use]
    pub fn digest_words(&self) -> [u64; 4] {
        slab::digest_words(&self.words)
    }

    /// First second at which the token is no longer valid.
    #[inline]
    #[must_use]
    pub fn expires_s(&self) -> u32 {
        slab::expires_s(&self.words)
    }

    /// Its claim set.
    #[inline]
    #[must_use]
    pub fn claims(&self) -> u32 {
        slab::claims(&self.words)
    }

    /// Its subject: 31 bits.
    #[inline]
    #[must_use]
    pub fn link(&self) -> u32 {
        slab::link(&self.words)
    }
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

    /// Finds where each token probably is and asks for the cache lines of the records. Returns whether there are tokens
    /// whose home buckets are full: it has asked for the buckets behind those, and once there was something else to do,
    /// [`Self::locate_further`] finds them.
    ///
    /// # Panics
    /// If there are fewer candidates than ids.
    #[inline]
    pub fn locate<'i>(
        &self,
        ids: impl IntoIterator<Item = &'i [u8; 16], IntoIter: Clone>,
        candidates: &mut [Candidate],
    ) -> bool {
        let ids = ids.into_iter();
        let candidates = &mut candidates[..ids.clone().count()];
        let all = ids.clone().zip(&mut *candidates);
        match &self.tables.old {
            None => all.for_each(|(id, candidate)| *candidate = self.locate_home(id)),
            Some(old) => all.for_each(|(id, candidate)| *candidate = self.locate_in_both(old, id)),
        }
        // All at once, with nothing in between: the processor waits for the page of each line, and for several at a time.
        let mut are_some_further = false;
        for (id, candidate) in ids.zip(&*candidates) {
            match candidate.spot {
                Spot::Here | Spot::InOld => self.tables.slab.prefetch(candidate.at.word.slot()),
                Spot::Further => {
                    are_some_further = true;
                    self.tables.new.prefetch_bucket(Place::of(id), 1);
                }
                Spot::Nowhere | Spot::Search => {}
            }
        }
        are_some_further
    }

    /// Finds those that [`Self::locate`] has not, bucket by bucket, and asks for their records. A token that was left out is
    /// searched for when it is resolved.
    pub fn locate_further<'i>(
        &self,
        ids: impl IntoIterator<Item = &'i [u8; 16], IntoIter: Clone>,
        candidates: &mut [Candidate],
    ) {
        let ids = ids.into_iter();
        for behind in 1..=BEHIND_MAX {
            let mut are_some_further = false;
            for (id, candidate) in ids.clone().zip(&mut *candidates) {
                if candidate.spot == Spot::Further {
                    *candidate = self.locate_behind(id, behind);
                    are_some_further |= candidate.spot == Spot::Further;
                }
            }
            if !are_some_further {
                return;
            }
        }
    }

    #[inline(always)]
    fn locate_home(&self, id: &[u8; 16]) -> Candidate {
        let place = Place::of(id);
        match self.tables.new.first_with_tag(place, 0) {
            Some(at) => Candidate { spot: Spot::Here, at },
            None if self.tables.new.ends_in(place, 0) => Candidate::NOWHERE,
            None => Candidate::without_word(Spot::Further),
        }
    }

    /// Looks into a bucket behind the home bucket, and asks for the next if that is full as well.
    fn locate_behind(&self, id: &[u8; 16], behind: usize) -> Candidate {
        let place = Place::of(id);
        match self.tables.new.first_with_tag(place, behind) {
            Some(at) => {
                self.tables.slab.prefetch(at.word.slot());
                Candidate { spot: Spot::Here, at }
            }
            None if self.tables.new.ends_in(place, behind) => Candidate::NOWHERE,
            None if behind == BEHIND_MAX => Candidate::without_word(Spot::Search),
            None => {
                self.tables.new.prefetch_bucket(place, behind + 1);
                Candidate::without_word(Spot::Further)
            }
        }
    }

    /// While a table grows: a word of the smaller one counts unless it is marked MOVED, one of the larger always does, for
    /// it was copied after everything that was done to the token before; only a search of both can say that there is
    /// none.
    fn locate_in_both(&self, old: &Table, id: &[u8; 16]) -> Candidate {
        let place = Place::of(id);
        if let Some(at) = old.first_with_tag(place, 0)
            && (mutated!(IgnoreMoved) || !at.word.is_moved())
        {
            return Candidate { spot: Spot::InOld, at };
        }
        match self.tables.new.first_with_tag(place, 0) {
            Some(at) => Candidate { spot: Spot::Here, at },
            None => Candidate::without_word(Spot::Search),
        }
    }

    /// The token with this id if it is still where it was located and has no tail, which is so with nearly all; otherwise
    /// [`Self::resolve`] has to say.
    #[inline(always)] // so that what it found is used where it was read, and never copied
    #[must_use]
    pub fn resolve_plain(&self, id: &[u8; 16], candidate: &Candidate) -> Option<Found> {
        if candidate.spot != Spot::Here {
            return None;
        }
        let words = self.tables.slab.read(candidate.at.word.slot())?;
        if !slab::is_of(&words, id) || slab::has_tail(&words) {
            return None;
        }
        let state = reread(&self.tables.new, candidate.at)?;
        Some(Found { words, tail: None, counter: 0, state })
    }

    /// The token with this id, if there is one.
    #[must_use]
    pub fn resolve(&self, id: &[u8; 16], candidate: &Candidate) -> Option<Found> {
        let table = match candidate.spot {
            Spot::Nowhere => return None,
            Spot::Here => &self.tables.new,
            Spot::InOld => self.tables.old.as_ref()?,
            Spot::Further | Spot::Search => return self.lookup(id),
        };
        let found = read(&self.tables, table, candidate.at).filter(|found| slab::is_of(&found.words, id));
        found.or_else(|| self.lookup(id))
    }

    /// The token with this id, if there is one. Searches the tables of now, not those of the pin.
    #[must_use]
    #[inline(never)]
    pub fn lookup(&self, id: &[u8; 16]) -> Option<Found> {
        for _ in 0..RETRIES_MAX {
            // Loaded anew each time: a word seen with MOVED means that there are newer tables than those at hand.
            let tables = self.core.tables.load();
            match lookup_in(&tables, id) {
                Search::Done(found) => return found,
                Search::Again => {}
            }
        }
        // The writer has moved this token between every two loads. Denying is the safe way out of such a race.
        None
    }
}

enum Search {
    Done(Option<Found>),
    Again,
}

fn lookup_in(tables: &Generation, id: &[u8; 16]) -> Search {
    if let Some(old) = &tables.old {
        let seen = if mutated!(IgnoreMoved) { Moved::Seen } else { Moved::Skipped };
        match old.find(&tables.slab, id, seen) {
            Ok(Some(at)) => {
                if let Some(found) = read(tables, old, at) {
                    return Search::Done(Some(found));
                }
            }
            // Not there, or moved meanwhile: then its copy was written before MOVED was set.
            Ok(None) => {}
            Err(unseen) => return unseen.into(),
        }
    }
    match tables.new.find(&tables.slab, id, Moved::Seen) {
        Ok(None) => Search::Done(None),
        Ok(Some(at)) => {
            read(tables, &tables.new, at).map_or(Search::Again, |found| Search::Done(Some(found)))
        }
        Err(unseen) => unseen.into(),
    }
}

impl From<Unseen> for Search {
    /// A record in a segment younger than the tables: whoever loads the tables anew sees it, for it was published
    /// before the word was written.
    fn from(_: Unseen) -> Self {
        if mutated!(UnseenIsNone) { Self::Done(None) } else { Self::Again }
    }
}

/// Reads the record that a word names, then looks at the word again ([`reread`]). `None` if the word no longer names that
/// record, or names one that these tables do not know.
fn read(tables: &Generation, table: &Table, at: At) -> Option<Found> {
    let written = tables.slab.read_whole(at.word.slot())?;
    let counter = if written.tail.is_some() { tables.slab.counter(at.word.slot()) } else { 0 };
    let state = reread(table, at)?;
    Some(Found { words: written.words, tail: written.tail, counter, state })
}

/// Looks at a word again once its record was read: that is the moment the answer is true of. `None` if it no longer names that
/// record, or none: that of a free place has a tag like any other.
#[inline(always)]
fn reread(table: &Table, at: At) -> Option<State> {
    let now = table.load(at.position);
    let is_same = now.slot() == at.word.slot()
        && (mutated!(FreeIsAToken) || !now.is_free())
        && (mutated!(IgnoreMoved) || !now.is_moved());
    is_same.then(|| now.state())
}
