//! The sequencer, sans-IO: commands in, sealed commits and answers out.
//!
//! Its watermarks, each at most the next: `replied <= published <= durable <= appended <= assigned`. A command is
//! decided and applied when it is assigned, in memory: denials take effect then. What lets something become valid
//! waits for [`Sequencer::handle_durable`]. Every answer, a rejection or a no-op too, is held until `published` has
//! reached what was assigned when it was decided: otherwise it could rest on an event that a crash takes back.
//!
//! Once the log has failed, nothing is decided any more and every answer still held becomes `Indeterminate`; what was
//! denied stays denied.
//!
//! Methods: `handle_*` take input, `poll_*` give output. Whoever drives it owns the clock, the entropy, the log and the
//! way back to clients; `T` is that way.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::batch::{ChainEnd, SealedBatch};
use crate::command::{Command, Submission};
use crate::event::{Entry, Event, Fact};
use crate::mutation::{limit, mutated};
use crate::numbers::{ClientNo, IdempotencyKey, Sequence, TenantNo};
use crate::outcome::{LimitName, Outcome, Rejection, Reply, RevokeReport};
use crate::registry::Registry;
use crate::rights::Rights;
use crate::snapshot::{SnapshotCut, SnapshotPiece};
use crate::state::{Decided, Entropy, Publication, State};
use crate::time::Millis;

pub use unsealed::COMMIT_BATCHES_MAX;
use unsealed::Unsealed;

/// Events assigned and not yet durable; past that a command is answered `Busy`.
pub const EVENTS_IN_FLIGHT_MAX: usize = 1 << 16;
/// Answers held; past that a command is answered `Busy`.
pub const ANSWERS_HELD_MAX: usize = 1 << 16;
/// Events assigned and not handed to the log past which it is ahead ([`Sequencer::is_ahead`]): what it takes to keep a fast disk busy,
/// and no more, for all of it goes before what somebody else asks for now.
pub const EVENTS_AHEAD_MAX: usize = 2_048;
/// Commands that these come from, past which it is ahead as well: thousands of events take much longer to make if each
/// has a command of its own, while a commit of hundreds hardly takes longer than one of ten.
pub const COMMANDS_AHEAD_MAX: usize = 256;
/// Answers held past which it is ahead as well: rejections and no-ops make no event.
pub const ANSWERS_AHEAD_MAX: usize = 4_096;
/// Of what is in flight and held, the part kept for commands that take something from somebody: whoever issues as fast as the server lets him
/// is busy with himself, and never keeps anybody from revoking.
pub const TAKING_SHARE: usize = 8;
/// Tokens that a revoke by subject marks at a time: about a millisecond, so that nothing waits long behind it.
const MARK_STEP: usize = 4_096;
const BUSY_RETRY_MS: u32 = 5;
/// Publications ahead of the one under way for which memory is asked: a few lines come at a time.
const FETCHED_AHEAD: usize = 8;

/// The name of the tenant that a new log begins with.
pub const FIRST_TENANT: &str = "default";

/// How far things have come; see the module's first words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// The last event decided and applied.
    pub assigned: Sequence,
    /// The last event handed to the log.
    pub appended: Sequence,
    /// The last event the log has made durable.
    pub durable: Sequence,
    /// The last event whose permissions readers see.
    pub published: Sequence,
    /// The last event an answer given rests on.
    pub replied: Sequence,
}

/// Why some commands are refused for the time being.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// The wall clock is in doubt: no issue, no renewal.
    pub clock_in_doubt: bool,
    /// The disk is nearly full: revokes only.
    pub disk_low: bool,
    /// The server is stopping: nothing new.
    pub stopping: bool,
}

/// What one durable append carries.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Where the log has to end for it to follow.
    pub behind: ChainEnd,
    /// Batches in order.
    pub batches: Vec<SealedBatch>,
    /// Whether anything in it takes something from somebody: such a commit may use the last of the disk.
    pub denies: bool,
}

impl Commit {
    /// The last event in it.
    #[must_use]
    pub fn last(&self) -> Sequence {
        self.batches.last().map_or(Sequence(0), |batch| batch.last)
    }
}

/// An answer that waits until `basis` is published.
struct Held<T> {
    basis: Sequence,
    ticket: T,
    result: Result<Outcome, Rejection>,
}

/// The sequencer of one log.
pub struct Sequencer<T> {
    state: State,
    registry: Arc<Registry>,
    /// Where the next batch is sealed to.
    end: ChainEnd,
    watermarks: Watermarks,
    /// Assigned, not yet handed to the log.
    unsealed: Unsealed,
    /// To be published when durable.
    publications: VecDeque<(Sequence, Publication)>,
    held: VecDeque<Held<T>>,
    ready: VecDeque<(T, Reply)>,
    /// Who waits for revokes by subject, in the order of the marking jobs, and the keys they came with.
    marking: VecDeque<(T, Submission)>,
    marking_keys: HashSet<(ClientNo, IdempotencyKey)>,
    restrictions: Restrictions,
    has_failed: bool,
}

impl<T> std::fmt::Debug for Sequencer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sequencer({:?})", self.watermarks)
    }
}

impl<T> Sequencer<T> {
    /// A sequencer that goes on behind `end` with the state that the log up to there stands for.
    ///
    /// # Panics
    /// If state and chain do not end at the same event.
    #[must_use]
    pub fn new(state: State, end: ChainEnd) -> Self {
        assert_eq!(state.sequence(), end.sequence, "the state is that of the whole log");
        let at = end.sequence;
        let registry = Arc::clone(state.registry());
        registry.set_published(at);
        Self {
            state,
            registry,
            end,
            watermarks: Watermarks { assigned: at, appended: at, durable: at, published: at, replied: at },
            unsealed: Unsealed::default(),
            publications: VecDeque::new(),
            held: VecDeque::new(),
            ready: VecDeque::new(),
            marking: VecDeque::new(),
            marking_keys: HashSet::new(),
            restrictions: Restrictions::default(),
            has_failed: false,
        }
    }

    // ---- what it knows ----

    /// How far things have come.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        self.watermarks
    }

    /// The state, for figures and digests.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What was assigned and not sealed yet, oldest first.
    pub fn unsealed(&self) -> impl Iterator<Item = &Entry> {
        self.unsealed.entries()
    }

    /// Answers held until the log has what they rest on.
    #[must_use]
    pub fn answers_held(&self) -> usize {
        self.held.len()
    }

    /// Whether the log has failed: nothing is decided any more, and no snapshot is cut.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Whether something was decided that was not handed to the log yet.
    #[must_use]
    pub fn has_unsealed(&self) -> bool {
        !self.unsealed.is_empty()
    }

    /// Whether everything that was taken on has been answered and handed to the log.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.unsealed.is_empty() && self.held.is_empty() && self.ready.is_empty() && self.marking.is_empty()
    }

    /// Whether there is a revoke to carry on with, the growth of the index, or dead tokens to look for
    /// ([`Self::handle_work`]).
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.state.is_marking() || self.state.is_growing() || self.state.is_reclaiming()
    }

    /// Whether enough was decided for the next commit: what is decided now makes that larger and is itself answered no
    /// earlier, and a revoke that comes a moment later waits for it. Then there is a commit to come that ends this.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.unsealed.len() >= limit!(events_ahead, EVENTS_AHEAD_MAX)
            || self.unsealed.commands() >= COMMANDS_AHEAD_MAX
            || self.held.len() >= ANSWERS_AHEAD_MAX
    }

    /// The answer that has waited for the shortest time.
    #[cfg(test)]
    pub(crate) fn last_held(&self) -> Option<&Result<Outcome, Rejection>> {
        self.held.back().map(|held| &held.result)
    }

    // ---- input ----

    /// Writes the first events of a new log: a tenant, and a client with every right.
    ///
    /// # Panics
    /// If the log has begun already.
    pub fn handle_creation(&mut self, admin: &str, now: Millis) {
        assert_eq!(self.watermarks.assigned, Sequence(0), "a log is created once");
        let facts = [
            Fact::TenantCreated { tenant: 1, name: FIRST_TENANT.to_owned() },
            Fact::ClientNamed { client: 1, name: admin.to_owned() },
            Fact::RightsChanged { client: 1, tenant: TenantNo::EVERY.0, rights: Rights::ALL.bits() },
        ];
        self.assign(now, facts.map(of_the_engine));
    }

    /// Changes what is refused for the time being.
    pub fn set_restrictions(&mut self, restrictions: Restrictions) {
        self.restrictions = restrictions;
    }

    /// Takes a command: decides it and applies its events at once. The answer comes from [`Self::poll_reply`].
    ///
    /// `now` should not be before that of an earlier call; if it is before the last event, the time of that counts.
    pub fn handle_submission<'a>(
        &mut self,
        ticket: T,
        submission: Submission,
        now: Millis,
        entropy: &'a mut Entropy<'a>,
    ) {
        if let Some(rejection) = self.refusal(&submission) {
            self.refuse(ticket, rejection);
            return;
        }
        self.state.make_whole();
        let now = now.max(self.state.last_time());
        let decision = self.state.decide(&submission, now, entropy);
        let has_no_room = matches!(
            decision.answer,
            Decided::Rejected(Rejection::Limit(LimitName::Tokens | LimitName::Family))
        );
        let tells_time = has_no_room && self.state.may_find_dead_at(now);
        self.assign(
            now,
            decision.entries.into_iter().chain(tells_time.then(|| of_the_engine(Fact::TimePassed))),
        );
        match decision.answer {
            Decided::Done(outcome) => self.hold(ticket, Ok(outcome)),
            Decided::Rejected(rejection) => self.hold(ticket, Err(rejection)),
            Decided::Marking => {
                self.marking_keys.extend(submission.key.map(|key| (submission.actor, key)));
                self.marking.push_back((ticket, submission));
            }
        }
    }

    /// Takes a command for which there was no room where it would have waited: it is answered `Busy`.
    pub fn handle_overflow(&mut self, ticket: T) {
        self.refuse(ticket, Rejection::Busy { retry_ms: BUSY_RETRY_MS });
    }

    fn refuse(&mut self, ticket: T, rejection: Rejection) {
        // Rests on nothing that was decided: told at once.
        let sequence = self.watermarks.published;
        self.ready.push_back((ticket, Reply { sequence, result: Err(rejection) }));
    }

    fn refusal(&self, submission: &Submission) -> Option<Rejection> {
        let command = &submission.command;
        // The first outcome of this key is not known yet: whoever repeats a revoke while it goes on asks again.
        let is_repeat =
            submission.key.is_some_and(|key| self.marking_keys.contains(&(submission.actor, key)));
        let may_be_valid_after = matches!(command, Command::IssueTokens(_) | Command::RenewToken { .. })
            || mutated!(RevokeRefusedOnDoubt);
        let may_go_on = command.takes() && !mutated!(RevokeRefusedOnLowDisk);
        let rules = [
            (self.has_failed, Rejection::LogFailed),
            (self.restrictions.stopping && !mutated!(StopNotAsked), Rejection::Stopping),
            (self.restrictions.clock_in_doubt && may_be_valid_after, Rejection::ClockInDoubt),
            (self.restrictions.disk_low && !may_go_on, Rejection::DiskFull),
            (self.is_full(command.takes()) || is_repeat, Rejection::Busy { retry_ms: BUSY_RETRY_MS }),
        ];
        rules.into_iter().find(|(holds, _)| *holds).map(|(_, rejection)| rejection)
    }

    fn is_full(&self, takes: bool) -> bool {
        let may_have_all = takes || mutated!(KeptRoomGivenAway);
        let room = |max: usize| {
            let max = if mutated!(BusyTooEarly) { max / 2 } else { max };
            if may_have_all { max } else { max - max / TAKING_SHARE }
        };
        let in_flight = self.watermarks.assigned.0 - self.watermarks.durable.0;
        in_flight >= room(limit!(events_in_flight, EVENTS_IN_FLIGHT_MAX)) as u64
            || self.held.len() + self.marking.len() >= room(ANSWERS_HELD_MAX)
    }

    /// Numbers and applies the events of one command.
    fn assign(&mut self, time: Millis, entries: impl IntoIterator<Item = Entry>) {
        let mut entries = entries.into_iter().peekable();
        while let Some(entry) = entries.next() {
            let sequence = self.watermarks.assigned.next();
            let publication = self
                .state
                .apply(sequence, time, &entry)
                .expect("what was decided on this state can be applied to it");
            self.watermarks.assigned = sequence;
            if mutated!(PublishAtOnce) {
                publication.iter().for_each(|publication| self.state.publish(publication));
            }
            self.publications.extend(publication.map(|publication| (sequence, publication)));
            self.unsealed.push(time, entry, entries.peek().is_none());
        }
    }

    fn hold(&mut self, ticket: T, result: Result<Outcome, Rejection>) {
        if mutated!(AnswerBeforeDurable) && result.is_err() {
            self.ready.push_back((ticket, Reply { sequence: self.watermarks.assigned, result }));
            return;
        }
        self.held.push_back(Held { basis: self.watermarks.assigned, ticket, result });
        self.release();
    }

    /// Carries revokes by subject on for about a millisecond, and growth of the index and reclaiming for less. The answers of the
    /// revokes wait for the last token of the subject. After a failure of the log too: what was decided is denied.
    pub fn handle_work(&mut self, now: Millis) {
        self.state.growth_step();
        self.state.reclaim_step();
        let mut budget = limit!(mark_step, MARK_STEP);
        while let Some(revoked) = self.state.mark_step(&mut budget) {
            // Nobody waits any more if the log has failed.
            let Some((ticket, submission)) = self.marking.pop_front() else { continue };
            if let Some(key) = submission.key {
                self.marking_keys.remove(&(submission.actor, key));
            }
            let outcome = Outcome::Revoked(RevokeReport { revoked, broader: 0 });
            let now = now.max(self.state.last_time());
            let completed = self.state.complete(&submission, &outcome, now);
            self.assign(now, completed);
            self.hold(ticket, Ok(outcome));
        }
    }

    /// Seals what the next commit begins with, as far as that is known already: for while the log is busy with the one before.
    pub fn seal_ahead(&mut self) {
        if !self.has_failed {
            self.unsealed.seal_ahead(&mut self.end);
        }
    }

    /// The log has made everything up to `sequence` durable: publishes it and releases the answers that rest on it.
    ///
    /// # Panics
    /// If that was never handed out.
    pub fn handle_durable(&mut self, sequence: Sequence) {
        if self.has_failed {
            return; // too late: what waited for it was told that nobody knows
        }
        assert!(sequence <= self.watermarks.appended, "only what was handed out can become durable");
        assert!(sequence >= self.watermarks.durable, "nothing durable is taken back");
        self.watermarks.durable = sequence;
        for _ in 0..self.publications.partition_point(|(at, _)| *at <= sequence) {
            if let Some((_, ahead)) = self.publications.get(FETCHED_AHEAD) {
                self.state.prefetch(ahead);
            }
            let (_, publication) = self.publications.pop_front().expect("there are so many");
            self.state.publish(&publication);
        }
        self.watermarks.published = sequence;
        self.registry.set_published(sequence);
        self.release();
    }

    /// The log has failed. What was not known to be durable is indeterminate; what was denied stays denied; nothing
    /// is decided any more.
    pub fn handle_failure(&mut self) {
        self.has_failed = true;
        self.registry.set_log_failed();
        self.unsealed = Unsealed::default();
        self.publications.clear();
        let sequence = self.watermarks.published;
        if mutated!(FailureAcknowledged) {
            let held = self.held.drain(..);
            self.ready.extend(held.map(|held| (held.ticket, Reply { sequence, result: held.result })));
        }
        let held = self.held.drain(..).map(|held| held.ticket);
        let marking = self.marking.drain(..).map(|(ticket, _)| ticket);
        for ticket in held.chain(marking) {
            self.ready.push_back((ticket, Reply { sequence, result: Err(Rejection::Indeterminate) }));
        }
    }

    fn release(&mut self) {
        while let Some(held) = self.held.front() {
            if held.basis > self.watermarks.published {
                break;
            }
            let held = self.held.pop_front().expect("it was there a moment ago");
            self.watermarks.replied = self.watermarks.replied.max(held.basis);
            self.ready.push_back((held.ticket, Reply { sequence: held.basis, result: held.result }));
        }
    }

    // ---- output ----

    /// What to append next, if anything was assigned: as much as one commit takes.
    pub fn poll_commit(&mut self) -> Option<Commit> {
        if self.has_failed {
            return None;
        }
        let commit = self.unsealed.seal_commit(&mut self.end)?;
        self.watermarks.appended = self.end.sequence;
        Some(commit)
    }

    /// Begins a snapshot of what was decided so far. `None` if there is nothing to be cut off right now: while something waits
    /// to be sealed, a revoke by subject is carried out or the index grows. A snapshot that was under way is given up.
    pub fn begin_snapshot(&mut self) -> Option<SnapshotCut> {
        if self.has_failed || !self.unsealed.is_empty() || self.end.sequence == Sequence(0) {
            return None;
        }
        let renewals = self.publications.iter().filter_map(|(_, publication)| match publication {
            Publication::Renewal(_, slot) => Some(*slot),
            Publication::Token(_) | Publication::Rights(..) => None,
        });
        let renewals = renewals.collect();
        self.state.begin_cut(self.end, renewals)
    }

    /// Whether a renewal is decided and not published.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn has_unpublished_renewals(&self) -> bool {
        self.publications.iter().any(|(_, publication)| matches!(publication, Publication::Renewal(..)))
    }

    /// The next piece of the snapshot under way, some ten microseconds' worth. `None` once it has all, or if there is none.
    pub fn poll_snapshot(&mut self) -> Option<SnapshotPiece> {
        self.state.next_piece()
    }

    /// Gives up the snapshot under way.
    pub fn end_snapshot(&mut self) {
        self.state.end_cut();
    }

    /// Makes what a restored state lacks; see [`State::make_whole`].
    pub fn handle_start(&mut self) {
        self.state.make_whole();
    }

    /// The next answer that may be given.
    pub fn poll_reply(&mut self) -> Option<(T, Reply)> {
        self.ready.pop_front()
    }
}

mod unsealed;

fn of_the_engine(fact: Fact) -> Entry {
    Entry { event: Event { actor: ClientNo::ENGINE.0, fact }, detached: None }
}

#[cfg(test)]
mod tests;
