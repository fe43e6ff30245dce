//! What each answer must be: a function of the token's position, of how it was asked about, and of what was asked to be
//! done to it before.
//!
//! All workers share one [`Truth`]. What is certain is noted in two steps, around each write: that it was asked for
//! before it is sent, that it was acknowledged when its answer has come. An answer is compared with what was acknowledged
//! when its request was sent, and with what was asked for when it came: in between, the old and the new answer are right.
//! A read that is a little behind another worker's note only makes both of these sets larger, never wrong.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU8, AtomicU32};

use jeton_core::verdict::Verdict;

use crate::layout::{GROUP_TOKENS, Layout, Role, USES};
use crate::workload::kind::Ask;

/// How far a revoke is.
const UNTOUCHED: u8 = 0;
const ASKED: u8 = 1;
const DEAD: u8 = 2;

/// A token in a validate: its position in 26 bits, how it is asked about in 3, and whether it was dead for certain when
/// the request was sent. Or one that the run issued itself: then its place among those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe(u32);

const POSITION_BITS: u32 = 26;
const DEAD_BEFORE: u32 = 1 << 31;
const OF_ISSUED: u32 = 1 << 30;

const _: () = assert!(crate::workload::TOKENS_MAX <= 1 << POSITION_BITS, "positions fit into a probe");

impl Probe {
    /// A question about a token that the run issued, which is good.
    pub(crate) fn of_issued(place: u32) -> Self {
        Self(place | (Ask::Live as u32) << POSITION_BITS | OF_ISSUED)
    }

    pub(crate) fn is_of_issued(self) -> bool {
        self.0 & OF_ISSUED != 0
    }

    pub(crate) fn position(self) -> u32 {
        self.0 & ((1 << POSITION_BITS) - 1)
    }

    pub(crate) fn ask(self) -> Ask {
        crate::workload::kind::ASKS[(self.0 >> POSITION_BITS & 7) as usize]
    }
}

/// What was asked for and acknowledged so far.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) layout: Layout,
    victims: Vec<AtomicU8>,
    groups: Vec<AtomicU8>,
    next_victim: AtomicU32,
    next_group: AtomicU32,
    /// Consumes of each limited token: asked for, and acknowledged.
    uses_asked: Vec<AtomicU32>,
    uses_done: Vec<AtomicU32>,
    /// The latest end of life that was acknowledged for each renewable token, in seconds.
    expires: Vec<AtomicU32>,
}

fn zeros<T: Default>(count: u32) -> Vec<T> {
    (0..count).map(|_| T::default()).collect()
}

impl Truth {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            layout,
            victims: zeros(layout.count(Role::Victim)),
            groups: zeros(layout.count(Role::Member) / GROUP_TOKENS),
            next_victim: AtomicU32::new(0),
            next_group: AtomicU32::new(0),
            uses_asked: zeros(layout.count(Role::Limited)),
            uses_done: zeros(layout.count(Role::Limited)),
            expires: zeros(layout.count(Role::Renewable)),
        }
    }

    // ---- what is done ----

    /// The next victim, noted as asked for; `None` once all were.
    pub(crate) fn next_victim(&self) -> Option<u32> {
        Self::next(&self.next_victim, &self.victims)
    }

    /// The next group, likewise.
    pub(crate) fn next_group(&self) -> Option<u32> {
        Self::next(&self.next_group, &self.groups)
    }

    fn next(next: &AtomicU32, states: &[AtomicU8]) -> Option<u32> {
        let number =
            next.fetch_update(SeqCst, SeqCst, |n| ((n as usize) < states.len()).then_some(n + 1)).ok()?;
        states[number as usize].store(ASKED, SeqCst);
        Some(number)
    }

    /// How many victims were taken so far.
    pub(crate) fn victims_taken(&self) -> u32 {
        self.next_victim.load(SeqCst)
    }

    pub(crate) fn victim_is_dead(&self, number: u32) {
        self.victims[number as usize].store(DEAD, SeqCst);
    }

    pub(crate) fn group_is_dead(&self, number: u32) {
        self.groups[number as usize].store(DEAD, SeqCst);
    }

    /// Notes that a limited token is about to be consumed; returns how many consumes of it were acknowledged.
    pub(crate) fn consume(&self, number: u32) -> u32 {
        self.uses_asked[number as usize].fetch_add(1, SeqCst);
        self.uses_done[number as usize].load(SeqCst)
    }

    /// Notes an acknowledged consume; returns whether its answer is right. `before` is what [`Self::consume`] said.
    pub(crate) fn consumed(&self, number: u32, before: u32, verdict: Verdict, uses_left: u32) -> bool {
        let number = number as usize;
        let asked = self.uses_asked[number].load(SeqCst);
        if verdict == Verdict::Valid {
            self.uses_done[number].fetch_add(1, SeqCst);
            // Between what had been spent for certain, and what may have been spent meanwhile.
            let spent = USES.wrapping_sub(uses_left);
            return (before + 1..=asked.min(USES)).contains(&spent);
        }
        asked > USES && is_denial_for(verdict, &[Verdict::Spent, Verdict::Unknown])
    }

    /// The latest end of life that a renewal was told, in seconds.
    pub(crate) fn expires_at(&self, number: u32) -> u32 {
        self.expires[number as usize].load(SeqCst)
    }

    /// Notes a renewal; returns whether the life did not become shorter than `before`.
    pub(crate) fn renewed(&self, number: u32, before: u32, expires_s: u32) -> bool {
        self.expires[number as usize].fetch_max(expires_s, SeqCst);
        expires_s >= before
    }

    // ---- what is asked ----

    /// A question about a token, with what is certain of it now: to be made right before its request is sent.
    pub(crate) fn probe(&self, position: u32, ask: Ask) -> Probe {
        let (role, number) = self.layout.role(position);
        let number = number as usize;
        let is_dead = match role {
            Role::Victim => self.victims[number].load(SeqCst) == DEAD,
            Role::Member => self.groups[number / GROUP_TOKENS as usize].load(SeqCst) == DEAD,
            Role::Limited => self.uses_done[number].load(SeqCst) >= USES,
            Role::Live | Role::Renewable | Role::Expired => false,
        };
        Probe(position | (ask as u32) << POSITION_BITS | if is_dead { DEAD_BEFORE } else { 0 })
    }

    /// Whether an answer is right. A generator that may inspect is told why a token is denied; one that may not is told
    /// that it is.
    pub(crate) fn is_right(&self, probe: Probe, verdict: Verdict) -> bool {
        if probe.is_of_issued() {
            return verdict == Verdict::Valid;
        }
        match probe.ask() {
            Ask::Unknown => return is_denial_for(verdict, &[Verdict::Unknown]),
            Ask::WrongSecret => return is_denial_for(verdict, &[Verdict::WrongSecret]),
            Ask::Forbidden => return verdict == Verdict::Forbidden,
            Ask::Live | Ask::Revoked | Ask::Expired | Ask::Granted => {}
        }
        let (role, number) = self.layout.role(probe.position());
        let number = number as usize;
        let was_dead = probe.0 & DEAD_BEFORE != 0;
        // What died long ago is reclaimed: then it is as if it had never been.
        let is_dead = |cause| is_denial_for(verdict, &[cause, Verdict::Unknown]);
        let is_right = |alive: Verdict, cause: Verdict, may_be_dead: bool| {
            (verdict == alive && !was_dead) || (is_dead(cause) && (was_dead || may_be_dead))
        };
        let is_asked = |states: &[AtomicU8], number: usize| states[number].load(SeqCst) != UNTOUCHED;
        match role {
            Role::Live | Role::Renewable => verdict == Verdict::Valid,
            Role::Victim => is_right(Verdict::Valid, Verdict::Revoked, is_asked(&self.victims, number)),
            Role::Member => {
                let group = number / GROUP_TOKENS as usize;
                is_right(Verdict::Valid, Verdict::Revoked, is_asked(&self.groups, group))
            }
            Role::Limited => {
                let may_be_spent = self.uses_asked[number].load(SeqCst) >= USES;
                is_right(Verdict::ConsumeRequired, Verdict::Spent, may_be_spent)
            }
            Role::Expired => is_dead(Verdict::Expired),
        }
    }

    // ---- between runs ----

    /// What a later run over the same tokens has to know: how far revokes were taken, and which of those are uncertain.
    pub(crate) fn progress(&self) -> Progress {
        let uncertain = |states: &[AtomicU8]| {
            let asked = states.iter().enumerate().filter(|(_, state)| state.load(SeqCst) == ASKED);
            asked.map(|(number, _)| number as u32).collect()
        };
        let load = |values: &[AtomicU32]| values.iter().map(|value| value.load(SeqCst)).collect();
        Progress {
            victims: self.next_victim.load(SeqCst),
            groups: self.next_group.load(SeqCst),
            uncertain_victims: uncertain(&self.victims),
            uncertain_groups: uncertain(&self.groups),
            uses_asked: load(&self.uses_asked),
            uses_done: load(&self.uses_done),
        }
    }

    /// Goes on from there; `None` from a run that never said how far it came: then every revoke is uncertain.
    pub(crate) fn restore(&self, progress: Option<&Progress>) {
        let set = |states: &[AtomicU8], taken: u32, uncertain: &[u32]| {
            states.iter().take(taken as usize).for_each(|state| state.store(DEAD, SeqCst));
            let asked = uncertain.iter().filter_map(|number| states.get(*number as usize));
            asked.for_each(|state| state.store(ASKED, SeqCst));
        };
        let Some(progress) = progress else {
            for state in self.victims.iter().chain(&self.groups) {
                state.store(ASKED, SeqCst);
            }
            self.next_victim.store(self.victims.len() as u32, SeqCst);
            self.next_group.store(self.groups.len() as u32, SeqCst);
            self.uses_asked.iter().for_each(|uses| uses.store(USES * 2, SeqCst));
            return;
        };
        set(&self.victims, progress.victims, &progress.uncertain_victims);
        set(&self.groups, progress.groups, &progress.uncertain_groups);
        self.next_victim.store(progress.victims, SeqCst);
        self.next_group.store(progress.groups, SeqCst);
        let copy = |to: &[AtomicU32], from: &[u32]| {
            to.iter().zip(from).for_each(|(to, from)| to.store(*from, SeqCst));
        };
        copy(&self.uses_asked, &progress.uses_asked);
        copy(&self.uses_done, &progress.uses_done);
    }
}

/// How far the writes of a run came.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    victims: u32,
    groups: u32,
    uncertain_victims: Vec<u32>,
    uncertain_groups: Vec<u32>,
    uses_asked: Vec<u32>,
    uses_done: Vec<u32>,
}

/// Whether a verdict denies for one of these reasons, or without one.
fn is_denial_for(verdict: Verdict, causes: &[Verdict]) -> bool {
    causes.iter().any(|cause| verdict == *cause || verdict == cause.concealed())
}

#[cfg(test)]
mod tests;
