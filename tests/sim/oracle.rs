//! The oracle: folds every event into the models as it is decided and as it becomes durable, and compares what the
//! server says and does with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jeton_core::batch::{OpenBatch, fitting};
use jeton_core::command::Submission;
use jeton_core::event::{Entry, Fact};
use jeton_core::inspection::{ClientInfo, Inspection};
use jeton_core::numbers::{Sequence, TenantNo};
use jeton_core::rights::{Caller, Rights};
use jeton_core::sequencer::Sequencer;
use jeton_core::token::{Token, TokenId, digest};
use jeton_core::verdict::{Answer, Verdict};
use jeton_wire::doors::Ticket;

use super::model::{Model, Question, answer, concealed};
use super::node::Asked;
use super::plan::{Plan, body};
use super::seen::Seen;
use super::workload::Asking;

mod decisions;
mod refusals;

use decisions::Decision;
pub(super) use decisions::is_of_kind;
pub(super) use refusals::{Bounds, Standing};

/// The events of one command.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u64,
    last: u64,
    /// Whether they fit into one batch: then no crash may part them.
    fits: bool,
}

/// Both models, and what they are made from.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// Up to the last event decided.
    pub(super) decided: Model,
    /// Up to the last event published.
    pub(super) published: Model,
    /// Every event decided, with its time.
    journal: Vec<(u64, Entry)>,
    published_to: usize,
    spans: Vec<Span>,
    /// Bytes of commands by the fingerprint that their key was recorded with.
    bodies: BTreeMap<[u8; 16], Vec<u8>>,
    /// Commands decided and not answered.
    decisions: BTreeMap<(u64, Ticket), Decision>,
    bounds: Bounds,
    /// The log of this incarnation of the server has failed.
    has_failed: bool,
    pub(super) verdicts: u64,
    pub(super) seen: Seen,
}

impl Oracle {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Works out what a command has to come to.
    pub(super) fn plan(&self, submission: Submission, now_ms: u64, standing: Standing) -> Plan {
        let refusal = self.refusal(&submission, standing);
        let may_be_busy = self.may_be_marked(&submission);
        let body_of = |payload: &[u8; 16]| self.bodies.get(payload);
        let plan = Plan::new(submission, now_ms, &self.decided, &self.published, body_of);
        Plan { refusal, may_be_busy, ..plan }
    }

    /// The log has failed: what waits for it is not known to be done.
    pub(super) fn failed(&mut self) {
        self.has_failed = true;
    }

    /// Takes the events that the sequencer has assigned since the last time, into the model of what is decided.
    pub(super) fn take<T>(&mut self, sequencer: &Sequencer<T>) -> Vec<Entry> {
        let fresh = (sequencer.watermarks().assigned.0 - self.journal.len() as u64) as usize;
        let unsealed = sequencer.unsealed().count(); // of what was assigned last nothing is sealed
        let entries: Vec<_> = sequencer.unsealed().skip(unsealed - fresh).cloned().collect();
        let time_ms = sequencer.state().last_time().0;
        for entry in &entries {
            self.decided.fold(time_ms, entry);
            self.journal.push((time_ms, entry.clone()));
        }
        entries
    }

    /// Notes where a command begins and ends.
    fn note_span(&mut self, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        let last = self.journal.len() as u64;
        let first = last + 1 - entries.len() as u64;
        self.spans.push(Span { first, last, fits: fitting(entries.iter()) == entries.len() });
    }

    /// A new log has begun.
    pub(super) fn created<T>(&mut self, sequencer: &Sequencer<T>) {
        let entries = self.take(sequencer);
        self.note_span(&entries);
    }

    /// Revokes by subject were carried on.
    pub(super) fn worked<T>(&mut self, sequencer: &Sequencer<T>) -> Result<(), String> {
        let entries = self.take(sequencer);
        for (at, entry) in entries.iter().enumerate() {
            if !matches!(entry.event.fact, Fact::CommandCompleted { .. }) {
                return Err("carrying revokes on made another event than a completion".to_owned());
            }
            let last = (self.journal.len() - entries.len() + at + 1) as u64;
            self.spans.push(Span { first: last, last, fits: true });
            self.note_body(entry);
        }
        if !sequencer.state().is_marking() {
            self.decided.settle();
        }
        Ok(())
    }

    /// Events up to here are durable and published.
    pub(super) fn publish(&mut self, to: Sequence) {
        for (time_ms, entry) in &self.journal[self.published_to..to.0 as usize] {
            self.published.fold(*time_ms, entry);
        }
        self.published_to = to.0 as usize;
    }

    /// Compares what a replay read with what was decided, and begins anew from there.
    pub(super) fn recovered(&mut self, batches: &[OpenBatch]) -> Result<(), String> {
        let mut head = 0;
        for batch in batches {
            for entry in &batch.entries {
                if self.journal.get(head) != Some(&(batch.time.0, entry.clone())) {
                    return Err(format!("event {} of the log is not the one that was decided", head + 1));
                }
                head += 1;
            }
        }
        let at = head as u64;
        if let Some(cut) = self.spans.iter().find(|span| span.fits && span.first <= at && at < span.last) {
            return Err(format!("a crash parted the events {} to {} of a command", cut.first, cut.last));
        }
        if self.journal[head..].iter().any(|(_, entry)| entry.event.fact.denies()) {
            self.seen.note("a denial undone by a crash");
        }
        self.spans.retain(|span| span.last <= at);
        self.journal.truncate(head);
        self.decisions.clear();
        self.has_failed = false;
        (self.decided, self.published, self.published_to) = (Model::default(), Model::default(), 0);
        self.publish(Sequence(at));
        self.published.settle();
        self.decided = self.published.clone();
        Ok(())
    }

    // ---- what readers were told ----

    /// Compares what sessions were told with the models.
    pub(super) fn check_asked(&mut self, asked: &[Asked], now_ms: u64, failed: bool) -> Result<(), String> {
        for asked in asked {
            match asked {
                Asked::Caller(identity, caller) => self.check_caller(identity, caller)?,
                Asked::Tokens { caller, tokens, answers } => {
                    for ((token, asking), told) in tokens.iter().zip(answers) {
                        self.check_answer(caller, token, asking, told, now_ms, failed)?;
                    }
                }
                Asked::Claims(caller, number, is_there) => {
                    let set = self.published.claims.get(&number.0);
                    let expected = set.is_some_and(|set| may_read(caller, set.tenant));
                    if *is_there != expected {
                        return Err(format!("claim set {number}: {is_there}, not {expected}"));
                    }
                }
                Asked::Subject(caller, number, name) => {
                    let known = self.published.subjects.get(&number.0);
                    let expected =
                        known.filter(|(tenant, _)| may_read(caller, *tenant)).map(|(_, name)| name);
                    if name.as_ref() != expected {
                        return Err(format!("subject {number} is {name:?}, not {expected:?}"));
                    }
                }
                Asked::Clients(caller, listed) => self.check_clients(caller, listed.as_deref())?,
                Asked::Token(caller, id, seen) => self.check_inspection(caller, id, seen.as_ref(), now_ms)?,
            }
        }
        Ok(())
    }

    /// Readers see a right once it is durable, and only as long as no later decision takes it.
    fn check_caller(&self, identity: &str, caller: &Arc<Caller>) -> Result<(), String> {
        let number = self.decided.client(identity);
        for tenant in std::iter::once(0).chain(self.decided.tenants.keys().copied()) {
            let visible = number.map_or(Rights::NONE, |number| self.visible(number, tenant));
            let told = caller.granted_in(TenantNo(tenant));
            if told != visible {
                return Err(format!("{identity} has {told} in tenant {tenant} for readers, not {visible}"));
            }
        }
        Ok(())
    }

    fn check_clients(&self, caller: &Caller, listed: Option<&[ClientInfo]>) -> Result<(), String> {
        if listed.is_some() != caller.may_somewhere(Rights::ADMIN) {
            return Err("clients are listed to who may not see them, or not to who may".to_owned());
        }
        let Some(listed) = listed else { return Ok(()) };
        for (number, name) in &self.decided.clients {
            let tenants = std::iter::once((0, "*".to_owned())).chain(self.decided.tenants.clone());
            let administered = tenants.filter(|(tenant, _)| caller.may(Rights::ADMIN, TenantNo(*tenant)));
            let rights = administered.map(|(tenant, name)| (name, self.visible(*number, tenant)));
            let expected: Vec<_> = rights.filter(|(_, rights)| !rights.is_empty()).collect();
            let client = listed.iter().find(|client| client.client.0 == *number && client.name == *name);
            if client.map_or(&[][..], |client| &client.rights) != expected {
                return Err(format!("client {number} is listed as {client:?}, not with {expected:?}"));
            }
        }
        Ok(())
    }

    fn visible(&self, client: u32, tenant: u32) -> Rights {
        let published = self.published.granted(client, tenant);
        self.journal[self.published_to..].iter().fold(published, |visible, (_, entry)| {
            match &entry.event.fact {
                Fact::RightsChanged { client: of, tenant: at, rights } if (*of, *at) == (client, tenant) => {
                    visible.common(Rights::from_bits(*rights).unwrap_or_default())
                }
                _ => visible,
            }
        })
    }

    /// Compares one answer with what the models say.
    pub(super) fn check_answer(
        &mut self,
        caller: &Caller,
        bytes: &[u8; 32],
        asking: &Asking,
        told: &Answer,
        now_ms: u64,
        failed: bool,
    ) -> Result<(), String> {
        self.verdicts += 1;
        let token = Token::from_bytes(*bytes);
        let digest = digest(&token.id, &token.secret).0;
        let expected = |doomed_is_dead| {
            let check = asking.check();
            let question = Question {
                id: &token.id,
                digest: &digest,
                check,
                now_ms,
                is_decision: false,
                doomed_is_dead,
            };
            let mut full = answer(&self.published, &self.decided, &question);
            if failed && full.verdict == Verdict::ConsumeRequired {
                full.verdict = Verdict::Unavailable;
            }
            self.told(caller, &token.id, full)
        };
        let gone = Answer { verdict: Verdict::Unknown, ..Answer::default() };
        if self.decided.may_be_gone(&token.id) && *told == self.told(caller, &token.id, gone) {
            self.seen.note("a dead token told as unknown, or denied");
            return Ok(());
        }
        // While a revoke by subject goes on, its tokens may be as they were or dead already.
        let (dead, as_it_was) = (expected(true), expected(false));
        if *told == dead || *told == as_it_was {
            self.seen.note(told.verdict.word());
            if dead != as_it_was && *told == as_it_was {
                self.seen.note("read under a revoke by subject");
            }
            return Ok(());
        }
        Err(format!("token {} at {now_ms}: {told:?}, not {dead:?} ({asking:?})", token.id))
    }

    fn told(&self, caller: &Caller, id: &TokenId, full: Answer) -> Answer {
        let tenant = self.decided.tokens.get(id).map(|token| self.decided.claims[&token.claims].tenant);
        let may = |right| tenant.is_some_and(|tenant| caller.may(right, TenantNo(tenant)));
        if full.verdict == Verdict::Unknown || !may(Rights::VALIDATE) {
            let unknown = Answer { verdict: Verdict::Unknown, ..Answer::default() };
            let sees_all = self.decided.sees_all(|right, tenant| caller.may(right, TenantNo(tenant)));
            return if sees_all { unknown } else { concealed(unknown) };
        }
        if may(Rights::INSPECT) { full } else { concealed(full) }
    }

    /// Compares an inspection with the models.
    pub(super) fn check_inspection(
        &self,
        caller: &Caller,
        id: &TokenId,
        seen: Option<&Inspection>,
        now_ms: u64,
    ) -> Result<(), String> {
        let known = self.decided.tokens.get(id).filter(|token| {
            let tenant = self.decided.claims[&token.claims].tenant;
            caller.may(Rights::INSPECT, TenantNo(tenant))
        });
        let (Some(known), Some(seen)) = (known, seen) else {
            return match (known, seen) {
                (None, None) => Ok(()),
                (Some(_), None) if self.decided.may_be_gone(id) => Ok(()),
                _ => Err(format!("token {id} is {seen:?} to an inspection, and {known:?}")),
            };
        };
        let check = jeton_core::check::Check {
            binding: known.binding.map(jeton_core::numbers::Binding),
            ..Default::default()
        };
        let verdict = |doomed_is_dead| {
            let digest = &known.digest;
            let question = Question { id, digest, check, now_ms, is_decision: false, doomed_is_dead };
            match answer(&self.published, &self.decided, &question).verdict {
                // An inspection asks for no access, no audience and no scopes.
                Verdict::Forbidden if known.uses_max > 0 => Verdict::ConsumeRequired,
                Verdict::Forbidden => Verdict::Valid,
                verdict => verdict,
            }
        };
        let uses = (known.uses_max > 0).then_some((known.uses_max, known.uses_left));
        let expires_s = self.published.tokens.get(id).unwrap_or(known).expires_s;
        let is_right = (seen.verdict == verdict(true) || seen.verdict == verdict(false))
            && seen.uses == uses
            && seen.expires.0 == expires_s
            && seen.family == known.root
            && seen.bound == known.binding.is_some();
        if is_right {
            return Ok(());
        }
        Err(format!(
            "token {id} at {now_ms}: an inspection says {seen:?}, not {} {known:?}",
            verdict(true).word()
        ))
    }

    /// The tokens of the last events: what matters most is what has just changed.
    pub(super) fn latest_tokens(&self, events: usize) -> BTreeSet<TokenId> {
        let latest = self.journal.iter().rev().take(events);
        let ids = latest.filter_map(|(_, entry)| match &entry.event.fact {
            Fact::TokenIssued { id, .. }
            | Fact::TokenRenewed { id, .. }
            | Fact::TokenConsumed { id, .. }
            | Fact::TokenRevoked { id } => Some(TokenId(*id)),
            _ => None,
        });
        ids.collect()
    }

    fn note_body(&mut self, completed: &Entry) {
        let Fact::CommandCompleted { key, payload, .. } = &completed.event.fact else { return };
        let by_this = |decision: &&Decision| {
            let submission = &decision.plan.submission;
            submission.key.is_some_and(|used| used.0 == *key) && submission.actor.0 == completed.event.actor
        };
        // A key that is used for another command meanwhile is refused, so there is one that was carried out.
        let mut bodies = self.decisions.values().filter(by_this).filter(|decision| decision.is_marking());
        if let Some(decision) = bodies.next_back() {
            self.bodies.insert(*payload, body(&decision.plan.submission.command));
        }
    }
}

fn may_read(caller: &Caller, tenant: u32) -> bool {
    let tenant = TenantNo(tenant);
    caller.may(Rights::VALIDATE, tenant) || caller.may(Rights::INSPECT, tenant)
}
