//! One worker's run: sends what is due, checks what comes, records how long it took.
//!
//! Knows neither sockets nor the wire: a [`Peer`] has those. Asks a clock that it is given, so that tests run on a time of
//! their own. Every request lives in a slot that was made beforehand and belongs to one connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::checker::{Probe, Truth};
use crate::keyspace::KeySpace;
use crate::layout::Role;
use crate::peer::{CheckNo, Peer, Question, TokenBytes};
use crate::picker::Picker;
use crate::recorder::Sample;
use crate::schedule::DueTimes;
use crate::trace::{Trace, Traced};
use crate::workload::kind::{Ask, Kind};
use crate::workload::{WhenFull, Workload};

mod answer;
mod issued;
mod slot;

use self::issued::Issued;
use self::slot::Slots;

/// Requests put on their way before answers are taken again.
const SENDS_PER_TURN: usize = 256;
/// Revokes that were refused and are asked for again; more are left alone.
const AGAIN_MAX: usize = 4_096;
/// Of the tokens that are asked about as live, one in so many is one that the run issued, if it issues any.
const ISSUED_EVERY: u32 = 16;
/// In how many groups requests are noted that were never sent.
const WAITING_GROUPS: u64 = 1_000;

/// What all workers have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) workload: Workload,
    pub(crate) keys: KeySpace,
    pub(crate) truth: Truth,
    /// What is asked again, if this is a replay.
    pub(crate) trace: Option<Arc<Trace>>,
}

/// The time.
pub(crate) type Clock<'a> = &'a dyn Fn() -> Instant;

/// One worker's run.
pub(crate) struct Engine<'a> {
    shared: Arc<Shared>,
    clock: Clock<'a>,
    picker: Picker,
    /// Of requests in an open loop; a closed one has none.
    due: Option<DueTimes>,
    slots: Slots,
    /// Nothing is sent from then on, and what is answered later is no longer achieved.
    until: Instant,
    /// What was answered before is not counted as achieved, and of what was due before the latency is not recorded.
    from: Instant,
    /// Whether all slots were taken when the last turn ended: then lateness is the server's.
    was_full: bool,
    again: VecDeque<(Kind, u32)>,
    issued: Issued,
    tokens: Vec<TokenBytes>,
    checks: Vec<u16>,
    random: SmallRng,
    pub(crate) sample: Box<Sample>,
    /// When something was answered last.
    pub(crate) heard: Instant,
    /// Since when an answer is waited for, if anything is under way.
    waits_since: Instant,
    /// Requests of this phase that were sent or given up, and those that were noted as offered.
    given_out: u64,
    noted: u64,
    /// Whether the victims or groups set aside have been used up.
    pub(crate) ran_dry: bool,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(shared: Arc<Shared>, worker: u16, connections: usize, clock: Clock<'a>) -> Self {
        let workload = &shared.workload;
        let now = clock();
        let live = shared.truth.layout.count(Role::Live);
        Self {
            picker: Picker::new(workload, live, worker),
            due: None,
            slots: Slots::new(connections, workload, now),
            until: now,
            from: now,
            was_full: false,
            again: VecDeque::with_capacity(AGAIN_MAX),
            issued: Issued::new(),
            tokens: Vec::with_capacity(usize::from(workload.batch.max(workload.issue_batch))),
            checks: Vec::with_capacity(usize::from(workload.batch)),
            random: SmallRng::seed_from_u64(workload.seed ^ u64::from(worker) << 48 ^ 0x746f_6b65_6e73),
            sample: Box::default(),
            heard: now,
            waits_since: now,
            given_out: 0,
            noted: 0,
            ran_dry: false,
            clock,
            shared,
        }
    }

    /// Begins a phase: requests are due as `due` says, or in a closed loop, until `until`.
    pub(crate) fn begin(&mut self, due: Option<DueTimes>, from: Instant, until: Instant) {
        (self.due, self.from, self.until) = (due, from, until);
        (self.given_out, self.noted) = (0, 0);
        (self.heard, self.was_full) = ((self.clock)(), false);
        self.waits_since = self.heard;
    }

    /// How long what is under way has been waiting for any answer at all: since the last one, or since it was sent if
    /// nothing was under way before.
    pub(crate) fn silence(&self) -> Duration {
        if self.under_way() == 0 {
            return Duration::ZERO;
        }
        (self.clock)().saturating_duration_since(self.waits_since)
    }

    /// Requests that are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.slots.under_way()
    }

    /// When there is something to send next, if it is known.
    pub(crate) fn next_send(&self) -> Option<Instant> {
        match &self.due {
            _ if self.slots.is_full() => None,
            Some(due) => Some(due.peek()),
            None => self.slots.next_free(),
        }
    }

    /// One round; returns whether there was anything to do.
    pub(crate) fn turn(&mut self, peer: &mut dyn Peer) -> anyhow::Result<bool> {
        let sent = self.send(peer)?;
        let is_moved = peer.turn(&mut |at, id, reply| self.take(at, id, &reply))?;
        self.sample.counts.reconnects += self.slots.replace_connections(peer, (self.clock)())?;
        Ok(sent || is_moved)
    }

    /// Sends what is due, as long as there is room for it.
    fn send(&mut self, peer: &mut dyn Peer) -> anyhow::Result<bool> {
        let mut now = (self.clock)();
        let mut has_sent = false;
        for _ in 0..SENDS_PER_TURN {
            if now >= self.until {
                break;
            }
            if let Some(due) = &self.due
                && (due.peek() > now || due.peek() >= self.until)
            {
                break;
            }
            let Some(slot) = self.slots.take(now) else {
                self.was_full = true;
                self.drop_due(now);
                break;
            };
            let due = self.due.as_mut().and_then(|due| due.next_due(now));
            if let Some(due) = due.filter(|_| !self.was_full && !has_sent) {
                let lag = crate::recorder::micros(now - due);
                self.sample.counts.lag_us_max = self.sample.counts.lag_us_max.max(lag);
            }
            self.sample.counts.no_room += u64::from(due.is_some() && self.was_full);
            let traced = self.due.as_ref().and_then(DueTimes::traced);
            self.ask(peer, slot, (due.unwrap_or(now), now), traced)?;
            has_sent = true;
            now = (self.clock)();
        }
        self.was_full &= self.slots.is_full();
        Ok(has_sent)
    }

    /// Gives up what is due and has no room, unless that waits. All of it, however much: what stayed would be sent once
    /// there is room, as if it had waited, and a server that is offered too much would be offered no more than it can take.
    fn drop_due(&mut self, now: Instant) {
        let Some(due) = self.due.as_mut().filter(|_| self.shared.workload.when_full == WhenFull::Drop) else {
            return;
        };
        while due.peek() < self.until && due.next_due(now).is_some() {
            self.given_out += 1;
            self.sample.counts.not_sent += 1;
            self.sample.counts.no_room += 1;
        }
    }

    fn ask(
        &mut self,
        peer: &mut dyn Peer,
        slot: u32,
        (due, at): (Instant, Instant),
        traced: Option<Traced>,
    ) -> anyhow::Result<()> {
        let shared = Arc::clone(&self.shared);
        let (kind, number, is_again) = self.choose(traced.map(|traced| traced.kind));
        let batch = traced.map_or(shared.workload.batch, |traced| traced.tokens);
        let issue_batch = traced.map_or(shared.workload.issue_batch, |traced| traced.tokens);
        if self.under_way() == 0 {
            self.waits_since = at;
        }
        let id = self.slots.begin(slot, kind, number, due, at);
        let place = self.slots.of(slot);
        (place.is_again, place.tokens) = (is_again, issue_batch);
        let connection = self.slots.connection(slot);
        let position = |role| shared.truth.layout.region(role).start;
        self.given_out += 1;
        match kind {
            Kind::Validate => self.ask_validate(peer, slot, batch, id)?,
            Kind::Issue => self.ask_issue(peer, connection, usize::from(issue_batch), id)?,
            Kind::Revoke => {
                peer.ask(
                    connection,
                    id,
                    &Question::Revoke(&shared.keys.at(position(Role::Victim) + number)),
                )?;
            }
            Kind::RevokeSubject => {
                let subject = shared.keys.group_subject(number);
                peer.ask(connection, id, &Question::RevokeSubject(&subject))?;
            }
            Kind::Consume => {
                self.slots.of(slot).before = shared.truth.consume(number);
                peer.ask(
                    connection,
                    id,
                    &Question::Consume(&shared.keys.at(position(Role::Limited) + number)),
                )?;
            }
            Kind::Renew => {
                self.slots.of(slot).before = shared.truth.expires_at(number);
                peer.ask(
                    connection,
                    id,
                    &Question::Renew(&shared.keys.at(position(Role::Renewable) + number)),
                )?;
            }
        }
        Ok(())
    }

    /// What to ask next, and of the writes, of which token of its region, and whether that was refused before.
    fn choose(&mut self, traced: Option<Kind>) -> (Kind, u32, bool) {
        let truth = &self.shared.truth;
        let kind = traced.unwrap_or_else(|| self.picker.kind());
        let next = match kind {
            Kind::Validate | Kind::Issue => return (kind, 0, false),
            Kind::Consume => return (kind, self.picker.below(truth.layout.count(Role::Limited)), false),
            Kind::Renew => return (kind, self.picker.below(truth.layout.count(Role::Renewable)), false),
            Kind::Revoke | Kind::RevokeSubject => {
                if let Some((kind, number)) = self.again.pop_front() {
                    return (kind, number, true);
                }
                if kind == Kind::Revoke { truth.next_victim() } else { truth.next_group() }
            }
        };
        match next {
            Some(number) => (kind, number, false),
            None => {
                self.ran_dry = true;
                (Kind::Validate, 0, false)
            }
        }
    }

    fn ask_validate(&mut self, peer: &mut dyn Peer, slot: u32, batch: u16, id: u64) -> anyhow::Result<()> {
        let shared = Arc::clone(&self.shared);
        self.tokens.clear();
        self.checks.clear();
        let mut has_checks = false;
        let has_issues = shared.workload.mix.issue > 0.0;
        let probes = &mut self.slots.of(slot).probes;
        for _ in 0..batch {
            let mut probe = self.picker.probe(&shared.truth);
            // Drawn for every one of them, so that what is asked of all others does not depend on when answers come.
            if has_issues && probe.ask() == Ask::Live && self.picker.below(ISSUED_EVERY) == 0 {
                let place = self.picker.below(self.issued.len());
                probe = if self.issued.len() > 0 { Probe::of_issued(place) } else { probe };
            }
            let check = match probe.ask() {
                Ask::Granted => CheckNo::Granted,
                Ask::Forbidden => CheckNo::Forbidden,
                _ => CheckNo::Nothing,
            };
            has_checks |= check != CheckNo::Nothing;
            probes.push(probe);
            self.checks.push(check as u16);
        }
        // All places are known before the first is read: the processor fetches them beside one another, and not each
        // once the last has come. This is where a third of the generator's time went.
        self.tokens.extend(probes.iter().map(|probe| match probe.is_of_issued() {
            true => self.issued.at(probe.position()),
            false => shared.keys.at(probe.position()),
        }));
        for (token, probe) in self.tokens.iter_mut().zip(probes) {
            match probe.ask() {
                // That another token has the id of this one but for a bit is as likely as guessing one.
                Ask::Unknown => token[0] ^= 0x80,
                Ask::WrongSecret => token[31] ^= 1,
                _ => {}
            }
        }
        let connection = self.slots.connection(slot);
        let checks = has_checks.then_some(&self.checks[..]);
        peer.ask(connection, id, &Question::Validate { tokens: &self.tokens, checks })
    }

    fn ask_issue(
        &mut self,
        peer: &mut dyn Peer,
        connection: usize,
        count: usize,
        id: u64,
    ) -> anyhow::Result<()> {
        self.tokens.clear();
        if peer.takes_tokens() {
            self.tokens.resize(count, [0; 32]);
            self.random.fill_bytes(self.tokens.as_flattened_mut());
        }
        let subjects = self.shared.keys.subjects(self.picker.below(u32::MAX), count);
        peer.ask(connection, id, &Question::Issue { role: Role::Live, subjects, fresh: &self.tokens })
    }

    /// Notes as offered what was due before the end of an interval, sent or not, and was not noted before. In a closed
    /// loop that is what was sent.
    pub(crate) fn note_offered(&mut self, end: Instant) {
        let waiting = self.due.as_ref().map_or(0, |due| due.left(end, 1).map(|(_, count)| count).sum());
        // What random arrivals leave waiting is an expectation: it may turn out to have been too much.
        let offered = self.given_out + waiting;
        self.sample.counts.offered += offered.saturating_sub(self.noted);
        self.noted = self.noted.max(offered);
    }

    /// Ends the phase, now if not before, and notes what was due and never sent: it has waited until now, and waits on.
    pub(crate) fn note_unsent(&mut self) {
        self.until = self.until.min((self.clock)());
        self.note_offered(self.until);
        let Some(due) = self.due.take() else { return };
        for (at, count) in due.left(self.until, WAITING_GROUPS) {
            self.sample.counts.not_sent += count;
            self.sample.counts.no_room += if self.was_full { count } else { 0 };
            self.sample.record_waiting(Kind::Validate, self.until.saturating_duration_since(at), count);
        }
    }

    /// When the phase ends, or ended: what was due until then is counted as offered.
    pub(crate) fn ends(&self) -> Instant {
        self.until
    }

    /// Notes what was sent and will not be answered any more.
    pub(crate) fn note_unanswered(&mut self) {
        self.sample.counts.unanswered += self.slots.under_way() as u64;
    }
}

#[cfg(test)]
mod tests;
