//! Making memory follow the tokens: walking a segment's records, and moving what is left of a sparse one elsewhere.

use super::{Entry, IndexFull, Writer};
use crate::slab::{Record, has_tail};
use crate::word::Place;

/// Records looked at together, so that the cache lines of their words come while others are asked for.
const CHUNK: usize = 32;

/// How a segment of records is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentUse {
    /// Its number.
    pub number: u32,
    /// Places written.
    pub used: u32,
    /// Of these, in use.
    pub live: u32,
    /// Whether nothing more will be written into it.
    pub is_full: bool,
}

impl SegmentUse {
    /// Whether it is worth moving what is left in it: under half of it is in use.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        self.is_full && self.live < self.used / 2
    }
}

/// Where a walk through the segments is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    segment: u32,
    at: u32,
}

impl Walk {
    /// A walk that begins with this segment.
    #[must_use]
    pub fn from_segment(number: u32) -> Self {
        Self { segment: number, at: 0 }
    }

    /// The segment that comes next.
    #[must_use]
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Whether nothing of that was looked at yet.
    #[must_use]
    pub fn is_at_start(&self) -> bool {
        self.at == 0
    }
}

impl Writer {
    /// How a segment is used; `None` if there is none with this number.
    #[must_use]
    pub fn segment_use(&self, number: u32) -> Option<SegmentUse> {
        let book = self.slots.book(number)?;
        let is_full = !self.slots.is_open(number);
        Some(SegmentUse { number, used: book.used, live: book.live, is_full })
    }

    /// Whether a token in this segment may have expired by then, in seconds since the Unix epoch, or was denied before its
    /// time, or was said to be dead when it was last looked at ([`Self::keep`]). `false` is certain, except while somebody looks
    /// at its tokens.
    #[must_use]
    pub fn may_hold_dead(&self, number: u32, now_s: u32) -> bool {
        self.slots.book(number).is_some_and(|book| book.has_denied || book.expires_s <= now_s)
    }

    /// Somebody begins to look at every token in this segment, and will say of each that stays that it does ([`Self::keep`]).
    pub fn begin_sift(&mut self, number: u32) {
        if let Some(book) = self.slots.book_mut(number) {
            (book.expires_s, book.has_denied) = (u32::MAX, false);
        }
    }

    /// A token that was looked at stays; whether it is dead all the same.
    pub fn keep(&mut self, entry: &Entry, is_dead: bool) {
        self.note(entry.slot, entry.record.expires_s, is_dead);
    }

    /// Nobody knows what is in this segment: not all of it was looked at.
    pub fn doubt(&mut self, number: u32) {
        if let Some(book) = self.slots.book_mut(number) {
            book.has_denied = true;
        }
    }

    /// Whether a token in the segment of this slot may have been denied before its time.
    pub(super) fn may_hold_denied(&self, slot: u32) -> bool {
        let (number, _) = self.slab.place_of(slot);
        self.slots.book(number).is_some_and(|book| book.has_denied)
    }

    /// Takes note of when a token at this slot expires, and of whether it was denied before.
    pub(super) fn note(&mut self, slot: u32, expires_s: u32, is_denied: bool) {
        let (number, _) = self.slab.place_of(slot);
        let book = self.slots.book_mut(number).expect("the slot is in use");
        book.expires_s = book.expires_s.min(expires_s);
        book.has_denied |= is_denied;
    }

    /// The numbers that segments have are below this.
    #[must_use]
    pub fn segments_end(&self) -> u32 {
        u32::try_from(self.slab.numbers()).expect("slots are numbered in 31 bits")
    }

    /// The tokens whose records come next, in the order they were written: looks at a few records and adds those that a
    /// word names to `found`. Returns where to go on; `None` once there is nothing more in this segment.
    pub fn walk(&self, mut walk: Walk, found: &mut Vec<Entry>) -> Option<Walk> {
        let segment = self.slab.segment(walk.segment)?;
        let book = self.slots.book(walk.segment)?;
        walk.at = walk.at.max(u32::from(walk.segment == 0));
        let mut records = [(0, [0; 8]); CHUNK];
        let mut count = 0;
        while count < CHUNK && walk.at < book.used {
            let words = segment.read(walk.at);
            records[count] = (self.slab.slot_at(walk.segment, walk.at), words);
            count += 1;
            walk.at += 1 + u32::from(has_tail(&words));
            self.prefetch(&Record::from_words(&words).id);
        }
        for (slot, words) in &records[..count] {
            let id = Record::from_words(words).id;
            let named = self.locate(&id).filter(|(_, at)| at.word.slot() == *slot);
            found.extend(named.and_then(|(_, at)| self.entry(at.word)));
        }
        (walk.at < book.used).then_some(walk)
    }

    /// Asks for the memory in which the word of this token is, or would be.
    pub fn prefetch(&self, id: &[u8; 16]) {
        let place = Place::of(id);
        if let Some(growth) = &self.growth {
            growth.old.prefetch(place);
        }
        self.new.prefetch(place);
    }

    /// Moves a token's record into the segment being filled, if it lies in a full one. Returns its new slot; the old one
    /// is given up.
    ///
    /// # Errors
    /// [`IndexFull::Memory`]; the record stays where it is.
    pub fn relocate(&mut self, slot: u32) -> Result<Option<u32>, IndexFull> {
        let (number, _) = self.slab.place_of(slot);
        if self.slots.is_open(number) {
            return Ok(None);
        }
        let Some(written) = self.slab.read_whole(slot) else { return Ok(None) };
        let id = Record::from_words(&written.words).id;
        if self.locate(&id).is_none_or(|(_, at)| at.word.slot() != slot) {
            return Ok(None);
        }
        // Not held to the configured maximum: one record takes the place of another.
        let moved = self.write(&written)?;
        if self.swap(moved) == slot { Ok(Some(moved)) } else { Err(IndexFull::Memory) }
    }

    /// Frees what nobody uses any more, and begins to shrink a table that has become far too large.
    pub fn tidy(&mut self) {
        self.release_retired();
        self.shrink_if_sparse();
    }
}
