//! Which tokens a subject has: singly linked lists over slot numbers, and the jobs that walk them for a revoke.
//!
//! A list is only ever prepended to. A slot left behind by a renewal stays in it: it leads to the same token, which is
//! marked once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use jeton_index::{State as Bits, Writer};

use crate::mutation::mutated;
use crate::numbers::SubjectNo;

/// The end of a list; slot 0 is never handed out.
const NO_SLOT: u32 = 0;
/// Links come in pieces of this many, so that growing never copies what is there.
const PIECE_SLOTS: usize = 1 << 16;

/// The heads of the subjects' lists and the links between slots.
#[derive(Debug, Default)]
pub(super) struct Lists {
    heads: Vec<u32>,
    links: Vec<Box<[u32]>>,
}

impl Lists {
    /// Prepends a slot to the subject's list.
    pub(super) fn push(&mut self, subject: SubjectNo, slot: u32) {
        let at = subject.0 as usize;
        if self.heads.len() <= at {
            self.heads.resize(at + 1, NO_SLOT);
        }
        let piece = slot as usize / PIECE_SLOTS;
        while self.links.len() <= piece {
            self.links.push(vec![NO_SLOT; PIECE_SLOTS].into_boxed_slice());
        }
        self.links[piece][slot as usize % PIECE_SLOTS] = std::mem::replace(&mut self.heads[at], slot);
    }

    fn head(&self, subject: SubjectNo) -> u32 {
        self.heads.get(subject.0 as usize).copied().unwrap_or(NO_SLOT)
    }

    fn next(&self, slot: u32) -> u32 {
        self.links
            .get(slot as usize / PIECE_SLOTS)
            .map_or(NO_SLOT, |piece| piece[slot as usize % PIECE_SLOTS])
    }

    /// Bytes taken.
    pub(super) fn memory(&self) -> usize {
        self.heads.capacity() * 4 + self.links.len() * PIECE_SLOTS * 4
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
    /// For each subject with a job, the jobs it has and the `slots_before` of the youngest, which covers the most.
    covered: HashMap<SubjectNo, (usize, u32)>,
}

impl MarkJobs {
    /// Begins to revoke what the subject has now: slots from `slots_before` on will be handed out after this.
    pub(super) fn begin(&mut self, lists: &Lists, subject: SubjectNo, slots_before: u32) {
        self.jobs.push_back(MarkJob { subject, next: lists.head(subject), revoked: 0 });
        let (jobs, most) = self.covered.entry(subject).or_default();
        *jobs += 1;
        *most = slots_before.max(*most);
    }

    /// Whether a job that is not finished covers the token in this slot: it is to die, but readers may not see it yet.
    pub(super) fn cover(&self, subject: SubjectNo, slot: u32) -> bool {
        self.covered.get(&subject).is_some_and(|(_, slots_before)| slot < *slots_before)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Marks up to `budget` tokens, which is reduced by as many, of the oldest job; returns what that has revoked in
    /// all, once it is finished.
    pub(super) fn step(&mut self, lists: &Lists, index: &mut Writer, budget: &mut usize) -> Option<u64> {
        let job = self.jobs.front_mut()?;
        while *budget > 0 && job.next != NO_SLOT {
            *budget -= 1;
            if mutated!(SubjectRevokeForgetsOne) && job.next % 3 == 0 {
                job.next = lists.next(job.next);
                continue;
            }
            let before = index.mark_owner(job.next, Bits::REVOKED);
            job.revoked += u64::from(before.is_some_and(|before| !before.contains(Bits::REVOKED)));
            job.next = lists.next(job.next);
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
