//! Places in the slab: which are in use, which segment is being filled, and which may be given up.
//!
//! A segment is filled from its first place to its last, then never written again. Once no record in it is in use it is
//! retired: readers no longer get it, and its number is used again only after the last reader that could still have it
//! is through, so that one number never means two records to anybody.

use std::sync::Arc;

use super::{IndexFull, Writer};
use crate::slab::{Segment, Written, has_tail};
use crate::sync::mutated;

/// What the writer knows of one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Book {
    /// Slots handed out before the first of this segment, since the index began.
    pub(super) serial: u64,
    /// Places written.
    pub(super) used: u32,
    /// Of these, places whose record is in use.
    pub(super) live: u32,
    /// No token in it expires before this, in seconds since the Unix epoch; of those that were looked at, while somebody does.
    /// Below what is true at times.
    pub(super) expires_s: u32,
    /// Whether one may have been denied before its time, or be dead for a reason that is not known here.
    pub(super) has_denied: bool,
}

impl Book {
    /// Of a segment of which nobody knows what is in it.
    pub(super) fn unknown(serial: u64, used: u32, live: u32) -> Self {
        Self { serial, used, live, expires_s: 0, has_denied: true }
    }
}

/// Whether the books say what the words do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Books {
    /// They were kept here from the first record on, or compared.
    Right,
    /// They are of a copy, and nobody has compared them yet: no segment is given up on their word.
    Unproven,
    /// They are of a copy that contradicts itself: no segment is given up any more, and the index serves on.
    Wrong,
}

/// Which places are in use.
pub(super) struct Slots {
    /// By the number of the segment.
    books: Vec<Option<Book>>,
    standing: Books,
    /// The segment being filled.
    open: Option<u32>,
    /// Numbers that no segment has.
    free: Vec<u32>,
    /// Given up; some reader may still hold them.
    retired: Vec<(u32, Arc<Segment>)>,
    serial: u64,
    live: u32,
    live_max: u32,
}

impl Slots {
    pub(super) fn new(live_max: u32) -> Self {
        Self {
            books: Vec::new(),
            standing: Books::Right,
            open: None,
            free: Vec::new(),
            retired: Vec::new(),
            serial: 0,
            live: 0,
            live_max,
        }
    }

    pub(super) fn live(&self) -> u32 {
        self.live
    }

    pub(super) fn retired_bytes(&self) -> usize {
        self.retired.iter().map(|(_, segment)| segment.bytes()).sum()
    }

    pub(super) fn book(&self, number: u32) -> Option<Book> {
        self.books.get(number as usize).copied().flatten()
    }

    pub(super) fn book_mut(&mut self, number: u32) -> Option<&mut Book> {
        self.books.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn open(&self) -> Option<u32> {
        self.open
    }

    /// Slots handed out before the first of the next new segment, since the index began.
    pub(super) fn serial_of_next(&self) -> u64 {
        self.serial
    }

    /// Takes on a segment of a copy.
    pub(super) fn restore(&mut self, number: u32, book: Book) {
        let at = number as usize;
        if self.books.len() <= at {
            self.books.resize(at + 1, None);
        }
        self.books[at] = Some(book);
        self.live += book.live;
    }

    /// Takes on what else there is to a copy, once its segments are there.
    pub(super) fn restore_end(&mut self, open: Option<u32>, serial: u64) {
        (self.open, self.serial, self.standing) = (open, serial, Books::Unproven);
        let numbers = (0..self.books.len() as u32).rev();
        self.free = numbers.filter(|number| self.books[*number as usize].is_none()).collect();
    }

    pub(super) fn is_open(&self, number: u32) -> bool {
        self.open == Some(number)
    }

    /// A number for one more segment.
    fn take_number(&mut self, places: u32) -> Result<u32, IndexFull> {
        if let Some(number) = self.free.pop() {
            return Ok(number);
        }
        let number = u32::try_from(self.books.len()).map_err(|_| IndexFull::Configured)?;
        // Slots have 31 bits.
        if number >= (1 << 31) / places {
            return Err(IndexFull::Configured);
        }
        self.books.push(None);
        Ok(number)
    }

    /// Whether the configured maximum leaves room for this.
    pub(super) fn check_room(&self, written: &Written) -> Result<(), IndexFull> {
        if self.live_max - self.live < places(written) { Err(IndexFull::Configured) } else { Ok(()) }
    }
}

fn places(written: &Written) -> u32 {
    1 + u32::from(written.tail.is_some())
}

impl Writer {
    /// How many slots had been handed out before this one, since the index began: of two slots in use, the one with the
    /// lower number was written first.
    ///
    /// # Panics
    /// If the slot is not in use.
    #[must_use]
    pub fn serial(&self, slot: u32) -> u64 {
        let (number, at) = self.slab.place_of(slot);
        let book = self.slots.book(number).expect("the slot is in use");
        book.serial + u64::from(at)
    }

    /// Slots handed out since the index began.
    #[must_use]
    pub fn serials_used(&self) -> u64 {
        let open = self.slots.open.and_then(|number| self.slots.book(number));
        open.map_or(self.slots.serial, |book| book.serial + u64::from(book.used))
    }

    /// Writes a record into the segment being filled, or into the next. Returns its slot.
    pub(super) fn write(&mut self, written: &Written) -> Result<u32, IndexFull> {
        let number = self.segment_for(places(written))?;
        let segment = Arc::clone(self.slab.segment(number).expect("it is being filled"));
        let book = self.slots.books[number as usize].as_mut().expect("it is being filled");
        let at = book.used;
        segment.write(at, &written.words);
        if let Some(tail) = &written.tail {
            segment.write(at + 1, tail);
        }
        book.used += places(written);
        book.live += places(written);
        self.slots.live += places(written);
        Ok(self.slab.slot_at(number, at))
    }

    /// The segment being filled, if it has so many places left, or a new one.
    fn segment_for(&mut self, places: u32) -> Result<u32, IndexFull> {
        if let Some(number) = self.slots.open {
            let book = self.slots.books[number as usize].expect("it is being filled");
            if self.slab.places() - book.used >= places {
                return Ok(number);
            }
        }
        self.release_retired();
        let segment = Segment::new(self.slab.places(), self.huge_pages).map_err(|_| IndexFull::Memory)?;
        let number = self.slots.take_number(self.slab.places())?;
        let filled = self.slots.open.replace(number);
        // Slot 0 stands for none: it is the first place of the first segment, and never used.
        let used = u32::from(number == 0);
        self.slots.books[number as usize] =
            Some(Book { serial: self.slots.serial, used, live: 0, expires_s: u32::MAX, has_denied: false });
        self.slots.serial += u64::from(self.slab.places());
        self.slab.put(number, Arc::new(segment));
        if !mutated!(SegmentUnpublished) {
            // Before any word names a record in it.
            self.publish();
        }
        if let Some(filled) = filled {
            self.retire_if_dead(filled);
        }
        Ok(number)
    }

    /// A record is in use no longer: nothing names it, and nothing will.
    pub(super) fn give_up(&mut self, slot: u32) {
        let (number, _) = self.slab.place_of(slot);
        let words = self.slab.read(slot).expect("the slot is in use");
        let places = 1 + u32::from(has_tail(&words));
        let book = self.slots.books[number as usize].as_mut().expect("the slot is in use");
        if book.live < places || self.slots.live < places {
            assert!(self.slots.standing != Books::Right, "no more is given up than was in use");
            self.slots.standing = Books::Wrong;
            return;
        }
        book.live -= places;
        self.slots.live -= places;
        self.retire_if_dead(number);
    }

    /// Gives a segment up if it is full and nothing in it is in use.
    fn retire_if_dead(&mut self, number: u32) {
        let is_dead = self.slots.book(number).is_some_and(|book| book.live == 0);
        if !is_dead || self.slots.is_open(number) || self.slots.standing != Books::Right {
            return;
        }
        let segment = self.slab.take(number).expect("a segment with a book is there");
        self.slots.books[number as usize] = None;
        self.slots.retired.push((number, segment));
        // Every word that named a record in it was changed before this: whoever gets these tables finds none.
        self.publish();
    }

    /// Takes note of whether the books of a copy say what its words do, and catches up on what waited for that.
    pub(super) fn books_compared(&mut self, are_right: bool) {
        if self.slots.standing != Books::Unproven {
            return;
        }
        if !are_right {
            self.slots.standing = Books::Wrong;
            return;
        }
        self.slots.standing = Books::Right;
        for number in 0..self.segments_end() {
            self.retire_if_dead(number);
        }
    }

    /// Frees tables and retired segments that no reader holds any more. Returns how many segments are left.
    pub fn release_retired(&mut self) -> usize {
        self.release_tables();
        let Self { slots, .. } = self;
        let Slots { retired, free, .. } = slots;
        retired.retain_mut(|(number, segment)| {
            let is_ours_alone = Arc::get_mut(segment).is_some();
            if is_ours_alone {
                free.push(*number);
            }
            !is_ours_alone
        });
        retired.len()
    }

    pub(super) fn set_counter_at(&mut self, slot: u32, value: u64) -> Result<(), IndexFull> {
        let (number, at) = self.slab.place_of(slot);
        if let Some(capture) = &mut self.capture {
            capture.keep_counters(number);
        }
        let segment = self.slab.segment(number).expect("the slot is in use");
        segment.set_counter(at, value).map_err(|_| IndexFull::Memory)
    }
}
