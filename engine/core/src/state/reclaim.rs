//! Reclaiming dead tokens, so that memory follows the tokens that live.
//!
//! Rounds walk all records in the order they were written, a little at a time: what is dead is taken out of the index,
//! and what is left in a segment under half in use is moved, so that the segment can be given up. Nothing that a
//! decision or a digest counts changes by it: a dead token means nothing any more, except to whoever inspects it. Of a
//! family, only what has expired is reclaimed.
//!
//! A segment in which nothing can have died since it was last walked through is passed over: none of its tokens has expired,
//! none was denied before its time, none was found dead and left there, and no claim set was killed since; so that segments of
//! tokens that live cost a round nothing.
//!
//! Dead is judged at the time of the last event, never by a clock, so that no token is gone that a replay of the same
//! events would still have.

use jeton_index::{Entry as Found, State as Bits, Walk};

use super::State;
use crate::event::{Entry, Fact};
use crate::extra::Extra;
use crate::judge::{Facts, is_dead};
use crate::mutation::{limit, mutated};
use crate::numbers::SubjectNo;
use crate::time::{Millis, Seconds};
use crate::token::TokenId;

/// How long an expired token is still told by that name to those who inspect it.
const KEPT_MS: u64 = 60_000;
/// One that was revoked or spent before it expired is told so for one to two of these, like a key is remembered.
const EPOCH_MS: u64 = 600_000;
/// A round begins when so many records were written since the last one began, or a quarter of those in use.
const RECORDS_PER_ROUND: usize = 1 << 16;
/// And not less often than this, while a server runs and there are events.
const ROUND_MS: u64 = 60_000;
/// Looks at the index in one step, each at a few dozen records: some hundred microseconds.
const STEP_WALKS: usize = 64;

/// Which dead tokens go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// Those that were dead for a while.
    None,
    /// All.
    Every,
}

/// The round under way, and when the last began.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    walk: Option<(Walk, Pass)>,
    /// A claim set was killed: its tokens lie anywhere, and no segment says so. The next round walks through all, and this one
    /// does.
    next_walks_all: bool,
    walks_all: bool,
    began: (u64, Millis),
    /// When the last ended: nothing was found dead since.
    ended: Millis,
    /// What a step looks at; kept for its memory.
    found: Vec<Found>,
}

/// What is done with the records of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// The dead are taken out.
    Sift,
    /// What is left is moved elsewhere.
    Move,
}

impl State {
    /// Whether a round is under way or due ([`Self::reclaim_step`]).
    #[must_use]
    pub fn is_reclaiming(&self) -> bool {
        // A revoke on its way through a subject's list counts on the order of its slots.
        if self.is_marking() {
            return false;
        }
        let (_, at) = self.reclaim.began;
        self.is_due_by_records()
            || (self.applied.1.0.saturating_sub(at.0) >= ROUND_MS && !self.index.is_empty())
    }

    /// Whether a round is under way, or as many records were written since the last began as make one due.
    fn is_due_by_records(&self) -> bool {
        let (serials, _) = self.reclaim.began;
        let enough = limit!(reclaim_records, RECORDS_PER_ROUND).max(self.index.slots_used() as usize / 4);
        self.reclaim.walk.is_some() || self.index.serials_used() - serials >= enough as u64
    }

    /// Whether tokens may have died since the last event of which nobody takes notice before another one comes: a round would be
    /// due by time at this moment.
    pub(crate) fn may_find_dead_at(&self, now: Millis) -> bool {
        now.0.saturating_sub(self.applied.1.0) >= ROUND_MS && !self.index.is_empty()
    }

    /// Carries the round under way on, or begins one: for some hundred microseconds.
    pub fn reclaim_step(&mut self) {
        if self.is_reclaiming() {
            self.reclaim_walks(limit!(reclaim_walks, STEP_WALKS), Haste::None);
        }
    }

    /// Reclaims on behalf of a replay before these events: a whole round if one is due by the records that were written, and
    /// everything that is dead if there is too little room. That time has passed is no reason here: in an
    /// hour of events that would be sixty rounds over all tokens, and whoever starts the server would wait for each. It begins
    /// one when it goes on.
    ///
    /// The state that wrote these events had room for what lived then, and so has this one without what is dead.
    pub(crate) fn make_room_for(&mut self, entries: &[Entry]) {
        let needed: usize = entries.iter().map(|entry| records_of(&entry.event.fact)).sum();
        while self.room() < needed {
            // A round may leave what the next one takes: the root of a family stays for as long as it has members.
            let before = self.room();
            self.end_walk();
            while self.reclaim_walks(usize::MAX, Haste::Every) {}
            if self.room() == before {
                break;
            }
        }
        if self.is_due_by_records() && !self.is_marking() {
            while self.reclaim_walks(usize::MAX, Haste::None) {}
        }
    }

    /// The next round is due as if one had begun and ended just now.
    pub(super) fn begin_rounds_here(&mut self) {
        self.reclaim.began = (self.index.serials_used(), self.applied.1);
        self.reclaim.ended = self.applied.1;
    }

    /// Gives up the round under way.
    fn end_walk(&mut self) {
        if let Some((walk, _)) = self.reclaim.walk.take() {
            self.index.doubt(walk.segment());
            self.reclaim.next_walks_all |= self.reclaim.walks_all;
            self.reclaim.ended = self.applied.1;
        }
    }

    /// A claim set was killed.
    pub(super) fn note_killed_claims(&mut self) {
        self.reclaim.next_walks_all = true;
    }

    /// When it is for who judges what is dead: the time of the last event.
    fn judged_at(&self) -> Millis {
        if mutated!(ReclaimedAlive) { Millis(self.applied.1.0 + 1_000) } else { self.applied.1 }
    }

    /// Looks at the next few records, unless nothing can have died in their segment. Returns where to go on in it.
    fn walk_on(&mut self, walk: Walk, pass: Pass, haste: Haste) -> Option<Walk> {
        if walk.is_at_start() && pass == Pass::Sift {
            let now_s = self.judged_at().floor_seconds().0;
            if !self.reclaim.walks_all && !self.index.may_hold_dead(walk.segment(), now_s) {
                return None;
            }
            self.index.begin_sift(walk.segment());
        }
        let mut found = std::mem::take(&mut self.reclaim.found);
        let next = self.index.walk(walk, &mut found);
        for entry in found.drain(..) {
            match pass {
                Pass::Sift => self.sift(&entry, haste),
                Pass::Move => self.relocate(&entry),
            }
        }
        self.reclaim.found = found;
        next
    }

    /// Goes on by so many walks; returns whether the round has more to do.
    fn reclaim_walks(&mut self, walks: usize, haste: Haste) -> bool {
        self.make_whole();
        for _ in 0..walks {
            let (walk, pass) = match self.reclaim.walk {
                Some(under_way) => under_way,
                None => {
                    self.reclaim.began = (self.index.serials_used(), self.applied.1);
                    self.reclaim.walks_all = std::mem::take(&mut self.reclaim.next_walks_all);
                    (Walk::default(), Pass::Sift)
                }
            };
            let next = self.walk_on(walk, pass, haste);
            self.reclaim.walk = next.map(|next| (next, pass)).or_else(|| self.after(walk.segment(), pass));
            if self.reclaim.walk.is_none() {
                // What the round itself has moved is no reason for another.
                self.reclaim.began.0 = self.index.serials_used();
                self.reclaim.ended = self.applied.1;
                self.index.tidy();
                return false;
            }
        }
        true
    }

    /// What comes after a segment was walked through: the same again if it is sparse now, or the next.
    fn after(&self, segment: u32, pass: Pass) -> Option<(Walk, Pass)> {
        let is_sparse = self.index.segment_use(segment).is_some_and(|segment| segment.is_sparse());
        if pass == Pass::Sift && is_sparse {
            return Some((Walk::from_segment(segment), Pass::Move));
        }
        let next = segment + 1;
        (next < self.index.segments_end()).then(|| (Walk::from_segment(next), Pass::Sift))
    }

    /// Takes a token out if it is dead for long enough.
    fn sift(&mut self, entry: &Found, haste: Haste) {
        let id = TokenId(entry.record.id);
        let extra = entry.tail.as_ref().map(Extra::from_words);
        let Some(claims) = self.registry.claim_sets.get(entry.record.claims as usize) else {
            self.index.keep(entry, true);
            return;
        };
        let expires = self.pending.renewed_until(&id).unwrap_or(Seconds(entry.record.expires_s));
        let facts = Facts { bits: entry.state, expires, claims, extra: extra.as_ref() };
        let judged_at = self.judged_at();
        if !is_dead(&facts, judged_at) {
            self.index.keep(entry, false);
            return;
        }
        let family = extra.and_then(|extra| extra.family);
        let has_members = self.members.contains_key(&id);
        let kept_ms = if haste == Haste::Every { 0 } else { limit!(reclaim_kept_ms, KEPT_MS) };
        let goes = if judged_at.0 >= expires.millis().0.saturating_add(kept_ms) {
            // The root stays as long as there is a member to be found through it.
            !has_members
        } else if family.is_some() || has_members {
            // Whoever comes with one that was replaced long ago has stolen it: the family is to be found by it.
            false
        } else {
            haste == Haste::Every || self.was_dead_long_ago(entry)
        };
        if goes {
            self.forget(entry, &id, family);
        } else {
            self.index.keep(entry, true);
        }
    }

    /// Whether an earlier round, at least a whole epoch ago, found the token dead; if none did, notes that this one has.
    fn was_dead_long_ago(&mut self, entry: &Found) -> bool {
        let epoch_ms = limit!(reclaim_epoch_ms, EPOCH_MS);
        let epoch = self.applied.1.0 / epoch_ms;
        if let Some(epochs) = entry.state.epochs_dead(epoch) {
            // Epochs are told apart up to four: of one that was found a multiple of that ago, the rounds say so. What was
            // moved in this one may have been found in it.
            let is_of_an_earlier_round = self.index.serial(entry.slot) < self.reclaim.began.0;
            let since_ms = self.applied.1.0.saturating_sub(self.reclaim.ended.0);
            return epochs >= 2 || (is_of_an_earlier_round && since_ms >= epoch_ms);
        }
        self.index.mark(&entry.record.id, Bits::found_dead_in(epoch));
        false
    }

    fn forget(&mut self, entry: &Found, id: &TokenId, family: Option<TokenId>) {
        self.unlist(SubjectNo(entry.record.link), entry.slot);
        self.index.remove(&id.0);
        let Some(root) = family else { return };
        if let Some(members) = self.members.get_mut(&root) {
            // Members die in about the order they came: it is mostly found soon.
            if let Some(at) = members.iter().position(|member| member == id) {
                members.swap_remove(at);
            }
            if members.is_empty() {
                self.members.remove(&root);
            }
        }
    }

    fn relocate(&mut self, entry: &Found) {
        // Without memory for it the segment stays as it is, sparse.
        let Ok(Some(moved)) = self.index.relocate(entry.slot) else { return };
        if mutated!(MovedAndUnlisted) {
            // Taken out, not left as it was: a list with a slot that is given out again may have no end.
            self.lists.remove(SubjectNo(entry.record.link), entry.slot);
            return;
        }
        self.lists.replace(SubjectNo(entry.record.link), entry.slot, moved);
        if mutated!(UsesForgottenInMove) && self.index.counter(moved) > 0 {
            let _ = self.index.set_counter(&entry.record.id, 0);
        }
    }
}

/// Records that an event takes at most.
fn records_of(fact: &Fact) -> usize {
    match fact {
        Fact::TokenIssued { terms, .. } => 1 + usize::from(terms.is_some()),
        Fact::TokenRenewed { .. } => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
