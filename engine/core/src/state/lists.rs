//! Which tokens a subject has: doubly linked lists over slot numbers, and the jobs that walk them for a revoke.
//!
//! Every slot in use is in its subject's list. A renewal that is not published yet has a slot beside the one that its
//! token still has: both lead to the same token, which is marked once.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use jeton_index::{State as Bits, Writer};
use rustc_hash::FxHashMap;

use crate::mutation::mutated;
use crate::numbers::SubjectNo;

/// The end of a list; slot 0 is never handed out.
const NO_SLOT: u32 = 0;
/// Links come in pieces of this many, so that growing never copies what is there, and what is empty can go.
const PIECE_SLOTS: usize = 1 << 16;

/// A slot's neighbours in its list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Links {
    next: u32,
    before: u32,
}

/// The links of neighbouring slots, and how many of them are in a list.
#[derive(Debug)]
struct Piece {
    links: Box<[Links]>,
    used: usize,
}

/// The heads of the subjects' lists and the links between slots.
#[derive(Debug, Default)]
pub(super) struct Lists {
    heads: Vec<u32>,
    pieces: Vec<Option<Piece>>,
    /// The piece that slots come from now: it stays even if it is empty for a moment.
    newest: usize,
}

impl Lists {
    /// Prepends a slot to the subject's list.
    pub(super) fn push(&mut self, subject: SubjectNo, slot: u32) {
        let at = subject.0 as usize;
        if self.heads.len() <= at {
            self.heads.resize(at + 1, NO_SLOT);
        }
        let next = std::mem::replace(&mut self.heads[at], slot);
        self.take_on(slot, Links { next, before: NO_SLOT });
        if next != NO_SLOT {
            self.links_mut(next).before = slot;
        }
    }

    /// Takes a slot out of the subject's list, if it is there: of a copy that contradicts itself it may not be.
    pub(super) fn remove(&mut self, subject: SubjectNo, slot: u32) {
        if !self.is_listed(subject, slot) {
            return;
        }
        let Links { next, before } = self.links(slot);
        self.join(subject, before, next);
        self.let_go(slot);
    }

    /// Puts another slot in the place of one, if that is in the list.
    pub(super) fn replace(&mut self, subject: SubjectNo, slot: u32, by: u32) {
        if !self.is_listed(subject, slot) {
            return;
        }
        let links = self.links(slot);
        self.let_go(slot);
        self.take_on(by, links);
        self.join(subject, links.before, by);
        if links.next != NO_SLOT {
            self.links_mut(links.next).before = by;
        }
    }

    /// Makes `next` follow `before`, which is the head of the list if there is none.
    fn join(&mut self, subject: SubjectNo, before: u32, next: u32) {
        if before == NO_SLOT {
            self.heads[subject.0 as usize] = next;
        } else {
            self.links_mut(before).next = next;
        }
        if next != NO_SLOT {
            self.links_mut(next).before = before;
        }
    }

    fn take_on(&mut self, slot: u32, links: Links) {
        let at = slot as usize / PIECE_SLOTS;
        if self.pieces.len() <= at {
            self.pieces.resize_with(at + 1, || None);
        }
        let empty = || Piece { links: vec![Links::default(); PIECE_SLOTS].into_boxed_slice(), used: 0 };
        let piece = self.pieces[at].get_or_insert_with(empty);
        piece.links[slot as usize % PIECE_SLOTS] = links;
        piece.used += 1;
        self.newest = at;
    }

    fn let_go(&mut self, slot: u32) {
        let at = slot as usize / PIECE_SLOTS;
        let piece = self.pieces[at].as_mut().expect("a slot in a list has links");
        // What is in no list has no neighbours.
        piece.links[slot as usize % PIECE_SLOTS] = Links::default();
        piece.used -= 1;
        if piece.used == 0 && at != self.newest {
            self.pieces[at] = None;
        }
    }

    fn links(&self, slot: u32) -> Links {
        let piece = self.pieces.get(slot as usize / PIECE_SLOTS).and_then(Option::as_ref);
        piece.map_or_else(Links::default, |piece| piece.links[slot as usize % PIECE_SLOTS])
    }

    fn is_listed(&self, subject: SubjectNo, slot: u32) -> bool {
        self.links(slot) != Links::default() || self.head(subject) == slot
    }

    fn links_mut(&mut self, slot: u32) -> &mut Links {
        let piece = self.pieces[slot as usize / PIECE_SLOTS].as_mut();
        &mut piece.expect("a slot in a list has links").links[slot as usize % PIECE_SLOTS]
    }

    fn head(&self, subject: SubjectNo) -> u32 {
        self.heads.get(subject.0 as usize).copied().unwrap_or(NO_SLOT)
    }

    /// Every slot in the subject's list.
    #[cfg(test)]
    pub(super) fn slots(&self, subject: SubjectNo) -> Vec<u32> {
        let first = Some(self.head(subject)).filter(|slot| *slot != NO_SLOT);
        let follow = |slot: &u32| Some(self.links(*slot).next).filter(|slot| *slot != NO_SLOT);
        std::iter::successors(first, follow).collect()
    }

    /// Bytes taken.
    pub(super) fn memory(&self) -> usize {
        let pieces = self.pieces.iter().flatten().count();
        self.heads.capacity() * 4 + pieces * PIECE_SLOTS * size_of::<Links>()
    }
}

/// A revoke of a subject that is still being carried out.
#[derive(Debug)]
struct MarkJob {
    subject: SubjectNo,
    /// The next slot to mark.
    next: u32,
    revoked: u64,
}

/// Revokes by subject in the order they were decided.
#[derive(Debug, Default)]
pub(super) struct MarkJobs {
    jobs: VecDeque<MarkJob>,
    /// For each subject with a job, the jobs it has and the `serials_before` of the youngest, which covers the most.
    covered: FxHashMap<SubjectNo, (usize, u64)>,
}

impl MarkJobs {
    /// Begins to revoke what the subject has now: slots with serial numbers from `serials_before` on will be handed out
    /// after this.
    pub(super) fn begin(&mut self, lists: &Lists, subject: SubjectNo, serials_before: u64) {
        self.jobs.push_back(MarkJob { subject, next: lists.head(subject), revoked: 0 });
        let (jobs, most) = self.covered.entry(subject).or_default();
        *jobs += 1;
        *most = serials_before.max(*most);
    }

    /// Slots of the subject with serial numbers below this are covered by a job that is not finished: their tokens are
    /// to die, but readers may not see it yet. 0 if there is no such job.
    pub(super) fn covered_below(&self, subject: SubjectNo) -> u64 {
        self.covered.get(&subject).map_or(0, |(_, serials_before)| *serials_before)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// A slot is about to be taken out of its list: jobs that would go on there go on behind it.
    pub(super) fn step_over(&mut self, lists: &Lists, subject: SubjectNo, slot: u32) {
        if !self.covered.contains_key(&subject) {
            return;
        }
        let next = lists.links(slot).next;
        let waiting = self.jobs.iter_mut().filter(|job| job.subject == subject && job.next == slot);
        waiting.for_each(|job| job.next = next);
    }

    /// Marks up to `budget` tokens, which is reduced by as many, of the oldest job; returns what that has revoked in
    /// all, once it is finished.
    pub(super) fn step(&mut self, lists: &Lists, index: &mut Writer, budget: &mut usize) -> Option<u64> {
        let job = self.jobs.front_mut()?;
        while *budget > 0 && job.next != NO_SLOT {
            *budget -= 1;
            let slot = job.next;
            job.next = lists.links(slot).next;
            if mutated!(SubjectRevokeForgetsOne) && slot % 3 == 0 {
                continue;
            }
            let before = index.mark_owner(slot, Bits::REVOKED);
            job.revoked += u64::from(before.is_some_and(|before| !before.contains(Bits::REVOKED)));
        }
        if job.next != NO_SLOT {
            return None;
        }
        let job = self.jobs.pop_front()?;
        if let Entry::Occupied(mut covered) = self.covered.entry(job.subject) {
            covered.get_mut().0 -= 1;
            if covered.get().0 == 0 {
                covered.remove();
            }
        }
        Some(job.revoked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: SubjectNo = SubjectNo(3);

    fn listed(slots: &[u32]) -> Lists {
        let mut lists = Lists::default();
        slots.iter().for_each(|slot| lists.push(SUBJECT, *slot));
        lists
    }

    #[test]
    fn slots_come_and_go_at_either_end_and_in_the_middle() {
        let mut lists = listed(&[1, 2, 3, 4]);
        lists.push(SubjectNo(1), 5);
        lists.remove(SUBJECT, 2);
        assert_eq!(lists.slots(SUBJECT), [4, 3, 1]);
        lists.remove(SUBJECT, 4);
        lists.remove(SUBJECT, 1);
        assert_eq!(lists.slots(SUBJECT), [3]);
        lists.replace(SUBJECT, 3, 70_000);
        assert_eq!(lists.slots(SUBJECT), [70_000]);
        lists.push(SUBJECT, 6);
        lists.replace(SUBJECT, 70_000, 7);
        assert_eq!(lists.slots(SUBJECT), [6, 7]);
        lists.replace(SUBJECT, 6, 8);
        assert_eq!((lists.slots(SUBJECT), lists.slots(SubjectNo(1))), (vec![8, 7], vec![5]));
    }

    #[test]
    fn pieces_that_are_empty_are_given_back() {
        let mut lists = listed(&[1, 70_000]);
        let before = lists.memory();
        lists.remove(SUBJECT, 1);
        assert!(lists.memory() < before);
        lists.remove(SUBJECT, 70_000);
        assert!(lists.slots(SUBJECT).is_empty());
    }
}
