//! Replacing a table by a larger one, or by one without the places of removed tokens, spread over inserts.
//!
//! The next table is put beside the full one; each insert moves a few buckets: every word is copied first and marked
//! MOVED after, so that at any moment one of the two is the one that counts and the other says so. New tokens go to the
//! next table at once.

use std::sync::Arc;

use super::{IndexFull, Writer, buckets_for};
use crate::slab::{Record, Slab};
use crate::sync::mutated;
use crate::table::{BUCKET_WORDS, Table};
use crate::word::{Place, State};

/// Buckets moved by each insert, for each bucket that the next table has less than the one before, rounded up. The next
/// table is at least a quarter larger than what the tokens need, which is room for 1.5 inserts per bucket of what they need: one
/// would do; two leave room for chance.
const BUCKETS_PER_INSERT: usize = 2;

/// The next table is twice as large as the tokens need if that takes no more than so many buckets more, 8 MiB: then few are
/// moved often while there are few. Beyond that memory counts.
const BUCKETS_SPARE: usize = if cfg!(loom) { 0 } else { 1 << 17 };

/// A move from one table to the next that is under way.
pub(super) struct Growth {
    pub(super) old: Arc<Table>,
    /// The next bucket to move.
    next: usize,
}

impl Growth {
    pub(super) fn bytes(&self) -> usize {
        self.old.bytes()
    }
}

impl Writer {
    /// Keeps the table that inserts go to below three quarters full.
    pub(super) fn make_room(&mut self) -> Result<(), IndexFull> {
        if let Some(growth) = &self.growth {
            let ratio = growth.old.buckets().div_ceil(self.new.buckets());
            self.step_growth(BUCKETS_PER_INSERT * ratio);
        }
        let limit = self.new.buckets() * BUCKET_WORDS / 4 * 3;
        if self.taken < limit {
            return Ok(());
        }
        while self.growth.is_some() {
            self.step_growth(usize::MAX); // never in practice: see BUCKETS_PER_INSERT
        }
        self.begin_growth()
    }

    /// Begins to move to a table a quarter larger than the tokens need, or up to twice as large: larger than this one if it is
    /// full of tokens, smaller if it is full of places of removed ones.
    fn begin_growth(&mut self) -> Result<(), IndexFull> {
        let needed = buckets_for(self.tokens);
        let buckets = needed + needed.div_ceil(4).max(needed.min(BUCKETS_SPARE));
        let buckets = buckets.max(self.buckets_min);
        let new = Arc::new(Table::new(buckets, self.huge_pages).map_err(|_| IndexFull::Memory)?);
        let old = std::mem::replace(&mut self.new, new);
        self.growth = Some(Growth { old, next: 0 });
        self.taken = 0;
        // Readers learn of both tables before the first word moves: one that sees MOVED finds the larger table here.
        self.publish();
        Ok(())
    }

    /// Begins to move to a smaller table, if they fill less than a fifth of this one.
    pub(super) fn shrink_if_sparse(&mut self) {
        let is_sparse = self.new.buckets() > 4 * buckets_for(self.tokens).max(self.buckets_min);
        if is_sparse && self.growth.is_none() {
            // Without memory for the smaller table the larger one serves on.
            let _ = self.begin_growth();
        }
    }

    /// Whether another table is being filled.
    #[must_use]
    pub fn is_growing(&self) -> bool {
        self.growth.is_some()
    }

    /// Moves up to `buckets` buckets to the next table, if one is being filled; returns whether there is more to
    /// move.
    pub fn step_growth(&mut self, buckets: usize) -> bool {
        let Some(growth) = &mut self.growth else { return false };
        let end = growth.next.saturating_add(buckets).min(growth.old.buckets());
        for bucket in growth.next..end {
            if let Some(capture) = &mut self.capture {
                capture.keep_words(&growth.old, bucket * BUCKET_WORDS);
            }
            self.taken += move_bucket(&self.slab, &growth.old, &self.new, bucket);
        }
        growth.next = end;
        if end < growth.old.buckets() {
            return true;
        }
        self.growth = None;
        // The table before is freed once the last reader that holds the old pair lets go of it.
        self.publish();
        false
    }
}

/// Moves the words of one bucket; returns how many places they took that were never used.
fn move_bucket(slab: &Slab, old: &Table, new: &Table, bucket: usize) -> usize {
    let words = old.bucket_words(bucket);
    let present = || words.iter().filter(|at| !at.word.is_free());
    // A bucket's records lie anywhere: ask for all of them before the first is needed.
    present().for_each(|at| slab.prefetch(at.word.slot()));
    let mut taken = 0;
    for at in present() {
        let words = slab.read(at.word.slot()).expect("a word names a record that was written");
        let place = Place::of(&Record::from_words(&words).id);
        if mutated!(MovedBeforeCopy) {
            old.mark(at.position, State::MOVED);
        }
        // First the copy, then MOVED, with Release: whoever sees MOVED finds the copy.
        taken += usize::from(new.insert(place, at.word));
        if !mutated!(ForgetMoved) {
            old.mark(at.position, State::MOVED);
        }
    }
    taken
}
