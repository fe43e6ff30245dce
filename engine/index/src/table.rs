//! One table of index words: buckets of a cache line each, searched from a home bucket onwards.
//!
//! A search ends at the first bucket with an empty place: words are never made empty again, so no search ends early.
//! Only the writer writes.

use std::sync::Arc;

use crate::memory::{MemoryError, Words};
use crate::prefetch::prefetch;
use crate::slab::Slab;
use crate::sync::{AtomicU64, Ordering, mutated};
use crate::word::{Place, State, Word};

/// Words of a bucket: one cache line.
#[cfg(not(loom))]
pub(crate) const BUCKET_WORDS: usize = 8;
/// Few, so that the models stay small.
#[cfg(loom)]
pub(crate) const BUCKET_WORDS: usize = 2;

/// How many of a table's places may be taken at most. Growth begins at three quarters, and waits for the next table's memory as
/// far as this.
pub(crate) const fn places_max(places: usize) -> usize {
    places / 16 * 13
}

pub(crate) struct Table {
    words: Words,
    buckets: usize,
}

/// A word of a table: where it is and what it was when it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) position: usize,
    pub(crate) word: Word,
}

/// A word names a record in a segment younger than the tables at hand: there are newer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unseen;

/// Whether words with MOVED count as found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// They do: the caller goes on in the larger table.
    Seen,
    /// They do not.
    Skipped,
}

impl Table {
    pub(crate) fn new(buckets: usize, huge_pages: bool) -> Result<Self, MemoryError> {
        assert!(buckets > 0, "a table has a bucket");
        Ok(Self { words: Words::new(buckets * BUCKET_WORDS, huge_pages)?, buckets })
    }

    /// A table of words that were filled in elsewhere.
    pub(crate) fn from_words(words: Words) -> Self {
        let buckets = words.len() / BUCKET_WORDS;
        assert!(buckets > 0 && words.len() == buckets * BUCKET_WORDS, "a table is made of whole buckets");
        Self { words, buckets }
    }

    /// All words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    pub(crate) fn buckets(&self) -> usize {
        self.buckets
    }

    pub(crate) fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    fn bucket(&self, bucket: usize) -> &[AtomicU64] {
        &self.words[bucket * BUCKET_WORDS..][..BUCKET_WORDS]
    }

    #[inline]
    pub(crate) fn prefetch(&self, place: Place) {
        self.prefetch_bucket(place, 0);
    }

    /// The bucket so many behind the home bucket.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, place: Place, behind: usize) {
        prefetch(&self.words[self.start_of(place, behind)]);
    }

    /// Where the bucket so many behind the home bucket begins; fewer than there are buckets.
    #[inline]
    fn start_of(&self, place: Place, behind: usize) -> usize {
        let bucket = place.bucket(self.buckets) + behind;
        (if bucket < self.buckets { bucket } else { bucket - self.buckets }) * BUCKET_WORDS
    }

    /// Loads one word.
    ///
    /// Acquire: pairs with the Release of every store and mark, so that the record named by the word, and in a word
    /// with MOVED its copy in the larger table, are seen as they were written before it.
    #[inline]
    pub(crate) fn load(&self, position: usize) -> Word {
        load(&self.words[position])
    }

    /// The first word of one bucket alone, the home bucket or one behind it, that seems to be the token's, by its tag. Only a
    /// hint, made in haste: the word may be another token's, or that of a free place. The fast half of [`Self::find`],
    /// which touches no record.
    #[inline(always)]
    pub(crate) fn first_with_tag(&self, place: Place, behind: usize) -> Option<At> {
        let start = self.start_of(place, behind);
        let bucket = &self.words[start..][..BUCKET_WORDS];
        // Every word is compared, whichever it is: where to stop is a guess for the processor, and a wrong one for most
        // tokens.
        let hits = bucket.iter().rev().fold(0_u32, |hits, word| {
            let differs = load(word).0 ^ Word::of_tag(place.tag).0;
            hits << 1 | u32::from(differs < Word::of_tag(1).0)
        });
        (hits != 0).then(|| {
            let at = hits.trailing_zeros() as usize & (BUCKET_WORDS - 1);
            At { position: start + at, word: load(&bucket[at]) }
        })
    }

    /// Whether a search ends in this bucket, the home bucket or one behind it.
    pub(crate) fn ends_in(&self, place: Place, behind: usize) -> bool {
        let start = self.start_of(place, behind);
        self.words[start..][..BUCKET_WORDS].iter().any(|word| load(word) == Word::EMPTY)
    }

    /// The word of the token with this id.
    ///
    /// # Errors
    /// [`Unseen`]: a word that may be the token's names a segment that `slab` does not know.
    pub(crate) fn find(&self, slab: &Slab, id: &[u8; 16], moved: Moved) -> Result<Option<At>, Unseen> {
        let place = Place::of(id);
        let home = place.bucket(self.buckets);
        for step in 0..self.buckets {
            let start = (home + step) % self.buckets * BUCKET_WORDS;
            let mut has_empty = false;
            for position in start..start + BUCKET_WORDS {
                let word = self.load(position);
                if word == Word::EMPTY {
                    has_empty = true;
                    continue;
                }
                let is_candidate = word != Word::REMOVED
                    && word.tag() == place.tag
                    && (moved == Moved::Seen || !word.is_moved());
                if is_candidate && slab.has_id(word.slot(), id).ok_or(Unseen)? {
                    return Ok(Some(At { position, word }));
                }
            }
            if has_empty {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// The first free place from the home bucket on, with what is there. Writer only.
    ///
    /// # Panics
    /// If every place is taken: the writer grows long before.
    pub(crate) fn free_place(&self, place: Place) -> At {
        let home = place.bucket(self.buckets);
        for step in 0..self.buckets {
            let start = (home + step) % self.buckets * BUCKET_WORDS;
            for position in start..start + BUCKET_WORDS {
                let word = self.load(position);
                if word.is_free() {
                    return At { position, word };
                }
            }
        }
        panic!("a table is grown before it is full");
    }

    /// Puts a word into the first free place; returns whether that was never used. Writer only.
    pub(crate) fn insert(&self, place: Place, word: Word) -> bool {
        let free = self.free_place(place);
        self.store(free.position, word);
        free.word == Word::EMPTY
    }

    /// Replaces a word. Writer only, so no other change can come between what it read and this.
    ///
    /// Release: the record that the word names was written before, and whoever sees the word sees the record.
    pub(crate) fn store(&self, position: usize, word: Word) {
        let order = if mutated!(RelaxedPublish) { Ordering::Relaxed } else { Ordering::Release };
        self.words[position].store(word.0, order);
    }

    /// Adds state bits to a word and returns what it was. Writer only.
    ///
    /// An OR, not a store: publishing and revoking then hold whatever order they come in, and would even if there
    /// were two writers. Release: as in [`Self::store`]; for MOVED it is the copy that must be seen.
    pub(crate) fn mark(&self, position: usize, bits: State) -> Word {
        if mutated!(MarkByStore) {
            let was = self.load(position);
            let only = Word::new(was.tag(), bits, was.slot());
            self.words[position].store(only.0, Ordering::Release);
            return was;
        }
        let order = if mutated!(RelaxedPublish) { Ordering::Relaxed } else { Ordering::Release };
        Word(self.words[position].fetch_or(bits.in_word(), order))
    }

    /// The words of one bucket with their positions.
    pub(crate) fn bucket_words(&self, bucket: usize) -> [At; BUCKET_WORDS] {
        let start = bucket * BUCKET_WORDS;
        debug_assert!(self.bucket(bucket).len() == BUCKET_WORDS, "buckets are whole");
        std::array::from_fn(|at| At { position: start + at, word: self.load(start + at) })
    }
}

#[inline(always)]
fn load(word: &AtomicU64) -> Word {
    let order = if mutated!(RelaxedRead) { Ordering::Relaxed } else { Ordering::Acquire };
    Word(word.load(order))
}

/// The tables of one moment. While `old` is there, tokens are moving from it to `new`.
///
/// Whoever holds this holds every segment that a word of its tables could name when it was made, and until then:
/// the writer publishes a segment before a word names a record in it, and gives one up only after no word does.
pub(crate) struct Generation {
    pub(crate) old: Option<Arc<Table>>,
    pub(crate) new: Arc<Table>,
    pub(crate) slab: Slab,
}
