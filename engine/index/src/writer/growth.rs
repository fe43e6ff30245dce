//! Replacing a table by a larger one, or by one without the places of removed tokens, spread over inserts.
//!
//! Memory that is new comes page by page, as it is touched first, and a huge page may take milliseconds. Words lie anywhere
//! in a table, so the first few moved would touch all of it. The next table is therefore touched a piece at a time, in steps
//! of their own, before anybody sees it, while the full one takes a few tokens more.
//!
//! Then it is put beside the full one; each insert moves a few buckets: every word is copied first and marked MOVED after,
//! so that at any moment one of the two is the one that counts and the other says so. New tokens go to the next table at
//! once. The table before is kept until no reader has it any more: none of them is to give so much memory back.

use std::sync::Arc;

use super::{IndexFull, Writer, buckets_for};
use crate::slab::{Record, Slab};
use crate::sync::{Ordering, mutated};
use crate::table::{BUCKET_WORDS, Table, places_max};
use crate::word::{Place, State};

/// Buckets moved by each insert, for each bucket that the next table has less than the one before, rounded up. The next
/// table is made a quarter larger than what the tokens need, and used if it still is by an eighth: room for 0.75 inserts per
/// bucket of what they need. With two buckets an insert a move takes half an insert per bucket.
const BUCKETS_PER_INSERT: usize = 2;

/// The next table is twice as large as the tokens need if that takes no more than so many buckets more, 8 MiB: then few are
/// moved often while there are few. Beyond that memory counts.
const BUCKETS_SPARE: usize = if cfg!(loom) { 0 } else { 1 << 17 };

/// The next table is touched in pieces of so many words: a huge page.
const PIECE_WORDS: usize = (2 << 20) / 8;

/// The next table while its memory is had.
pub(super) struct Coming {
    table: Table,
    /// Words of it that were touched.
    touched: usize,
}

impl Coming {
    pub(super) fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// Touches the next piece; returns whether that was the last.
    fn touch(&mut self) -> bool {
        /// The smallest page, for who has no huge ones.
        const PAGE_WORDS: usize = 4_096 / 8;
        let end = self.table.words().len().min(self.touched + PIECE_WORDS);
        if cfg!(not(loom)) {
            for word in self.table.words()[self.touched..end].iter().step_by(PAGE_WORDS) {
                word.store(0, Ordering::Relaxed); // it is ours alone, and this is what is there
            }
        }
        self.touched = end;
        end == self.table.words().len()
    }
}

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
    /// Keeps the table that inserts go to below three quarters full, and a little more while the next one is made ready.
    pub(super) fn make_room(&mut self) -> Result<(), IndexFull> {
        if let Some(growth) = &self.growth {
            let ratio = growth.old.buckets().div_ceil(self.new.buckets());
            self.step_growth(BUCKETS_PER_INSERT * ratio);
        }
        self.release_tables();
        let places = self.new.buckets() * BUCKET_WORDS;
        if self.taken < places / 4 * 3 {
            return Ok(());
        }
        while self.growth.is_some() {
            self.step_growth(usize::MAX); // never in practice: see BUCKETS_PER_INSERT
        }
        if self.coming.is_none() {
            self.coming = Some(self.next_table()?);
            self.prepare_growth();
        }
        // The rest of a large one is for `step_growth`, until this table is too full to wait for it.
        if self.coming.is_some() && self.taken >= places_max(places) { self.begin_growth() } else { Ok(()) }
    }

    /// A table a quarter larger than the tokens need, or up to twice as large: larger than this one if it is full of tokens,
    /// smaller if it is full of places of removed ones.
    fn next_table(&self) -> Result<Coming, IndexFull> {
        let needed = buckets_for(self.tokens);
        let buckets = needed + needed.div_ceil(4).max(needed.min(BUCKETS_SPARE));
        let table = Table::new(buckets.max(self.buckets_min), self.huge_pages);
        Ok(Coming { table: table.map_err(|_| IndexFull::Memory)?, touched: 0 })
    }

    /// Begins to move to the next table, which is made anew if the tokens have outgrown it since it was: it has to have room for
    /// those that come while it is moved to.
    fn begin_growth(&mut self) -> Result<(), IndexFull> {
        let needed = buckets_for(self.tokens);
        let coming =
            self.coming.take().filter(|coming| coming.table.buckets() >= needed + needed.div_ceil(8));
        let next = coming.map_or_else(|| self.next_table(), Ok)?;
        let old = std::mem::replace(&mut self.new, Arc::new(next.table));
        self.growth = Some(Growth { old, next: 0 });
        self.taken = 0;
        // Readers learn of both tables before the first word moves: one that sees MOVED finds the larger table here.
        self.publish();
        Ok(())
    }

    /// Begins to move to a smaller table, if they fill less than a fifth of this one.
    pub(super) fn shrink_if_sparse(&mut self) {
        let is_sparse = self.new.buckets() > 4 * buckets_for(self.tokens).max(self.buckets_min);
        if is_sparse && self.growth.is_none() && self.coming.is_none() {
            // Without memory for the smaller table the larger one serves on.
            self.coming = self.next_table().ok();
            self.prepare_growth();
        }
    }

    /// Touches a piece of the next table, if there is one, and begins to move to it behind the last; returns whether there is
    /// one.
    fn prepare_growth(&mut self) -> bool {
        let Some(coming) = &mut self.coming else { return false };
        if coming.touch() {
            let _ = self.begin_growth(); // as above; an insert that needs the room tries again
        }
        true
    }

    /// Lets go of tables that no reader has any more.
    pub(super) fn release_tables(&mut self) {
        self.tables_before.retain(|table| Arc::strong_count(table) > 1);
    }

    /// Whether another table is being filled, or made ready for that.
    #[must_use]
    pub fn is_growing(&self) -> bool {
        self.growth.is_some() || self.coming.is_some()
    }

    /// Moves up to `buckets` buckets to the next table, if one is being filled, or makes a piece of it ready; returns whether
    /// there is more to do.
    pub fn step_growth(&mut self, buckets: usize) -> bool {
        let Some(growth) = &mut self.growth else { return self.prepare_growth() };
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
        self.tables_before.extend(self.growth.take().map(|growth| growth.old));
        self.publish();
        self.release_tables();
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
