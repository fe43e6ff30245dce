//! Commands against their events, and answers against both.

use std::collections::BTreeSet;

use jeton_core::command::{Command, IssueTokens, RevokeTarget};
use jeton_core::event::{Entry, Fact, Recorded};
use jeton_core::numbers::Sequence;
use jeton_core::outcome::{LimitName, Outcome, Rejection, Reply};
use jeton_core::sequencer::Sequencer;
use jeton_core::token::{Token, TokenId, digest};
use jeton_core::verdict::Verdict;
use jeton_wire::doors::Ticket;

use super::super::model::Model;
use super::super::plan::{Plan, Recall, body};
use super::super::seen::outcome;
use super::Oracle;

/// How long nothing has to have happened before an event says that time has passed.
const TOLD_AFTER_MS: u64 = 60_000;

/// A command that was decided and waits for its answer.
#[derive(Debug)]
pub(in crate::sim) struct Decision {
    pub(super) plan: Plan,
    /// How many events it had.
    events: usize,
    /// Whether they were one that says that time has passed.
    tells_time: bool,
    /// The last event then: what any answer has to rest on.
    basis: Sequence,
}

impl Decision {
    /// Whether its answer waits for the tokens of a subject to be marked.
    pub(super) fn is_marking(&self) -> bool {
        is_by_subject(&self.plan) && self.events > 0
    }
}

fn is_by_subject(plan: &Plan) -> bool {
    matches!(&plan.submission.command, Command::Revoke(RevokeTarget::Subject { .. }))
}

impl Oracle {
    /// A command was decided: its events must be what was planned.
    pub(in crate::sim) fn decided_on<T>(
        &mut self,
        from: (u64, Ticket),
        plan: Plan,
        sequencer: &Sequencer<T>,
    ) -> Result<(), String> {
        let before = (self.journal.len(), self.expiry_of(&plan));
        let last_ms = self.decided.last_ms;
        let entries = self.take(sequencer);
        self.note_span(&entries);
        let tells_time = matches!(&entries[..], [entry] if entry.event.fact == Fact::TimePassed);
        if tells_time && (entries[0].event.actor != 0 || self.decided.last_ms < last_ms + TOLD_AFTER_MS) {
            return fail(
                "an event says in a client's name, or within a minute of another, that time has passed",
            );
        }
        self.check_events(&plan, if tells_time { &[] } else { &entries }, before.1)
            .map_err(|what| format!("{what}: {:?} came to {entries:?}", plan.submission))?;
        if let Some(Fact::CommandCompleted { payload, .. }) = entries.last().map(|entry| &entry.event.fact) {
            self.bodies.insert(*payload, body(&plan.submission.command));
        }
        let basis = Sequence(self.journal.len() as u64);
        if tells_time {
            self.seen.note("time told, for want of room");
        }
        self.decisions.insert(from, Decision { plan, events: entries.len(), tells_time, basis });
        Ok(())
    }

    fn expiry_of(&self, plan: &Plan) -> u32 {
        match &plan.submission.command {
            Command::RenewToken { token, .. } => {
                self.decided.tokens.get(&token.id).map_or(0, |token| token.expires_s)
            }
            _ => 0,
        }
    }

    fn check_events(&self, plan: &Plan, entries: &[Entry], had_s: u32) -> Result<(), String> {
        if entries.is_empty() {
            return Ok(());
        }
        if entries.iter().any(|entry| entry.event.actor != plan.submission.actor.0) {
            return fail("an event in another's name");
        }
        let issued_before: &[[u8; 16]] = match &plan.recall {
            Recall::Other => return fail("a key that was used for another command has events"),
            Recall::Same(Recorded::Issued { ids }) => ids,
            Recall::Same(_) => return fail("a repeated command has events"),
            Recall::Fresh | Recall::Forgotten => &[],
        };
        if !plan.is_allowed || plan.refusal.is_some() {
            return fail("a command that has to be rejected has events");
        }
        let mut facts: Vec<_> = entries.iter().map(|entry| &entry.event.fact).collect();
        let completed = matches!(facts.last(), Some(Fact::CommandCompleted { .. }));
        if completed {
            facts.pop();
        }
        let has_key = plan.submission.key.is_some();
        // What takes something is done without room for its key too, and then not remembered.
        let may_lack = !has_key || plan.submission.command.takes();
        if completed && (!has_key || is_by_subject(plan)) || !completed && !may_lack {
            return fail("the outcome of a key is recorded if there is one, and else not");
        }
        match &plan.submission.command {
            Command::IssueTokens(issue) => self.check_issue(plan, issue, &facts, issued_before),
            Command::RenewToken { token, ttl_s, .. } => {
                self.check_renewal(plan, token, *ttl_s, &facts, had_s)
            }
            Command::ConsumeToken(consume) => check_use(plan, &consume.token.id, &facts),
            Command::Revoke(_) => self.check_revoke(plan),
            Command::GrantRights(_) | Command::WithdrawRights(_) => check_rights(&self.decided, &facts),
            Command::CreateTenant { .. } => match facts[..] {
                [Fact::TenantCreated { .. }] => Ok(()),
                _ => fail("a tenant is created by one event"),
            },
        }
    }

    /// One token for each subject, on the terms that were asked for, and what the key issued before is dead.
    fn check_issue(
        &self,
        plan: &Plan,
        issue: &IssueTokens,
        facts: &[&Fact],
        issued_before: &[[u8; 16]],
    ) -> Result<(), String> {
        let still_lives =
            |id: &[u8; 16]| self.decided.tokens.get(&TokenId(*id)).is_some_and(|token| !token.revoked);
        if issued_before.iter().any(still_lives) {
            return fail("what the key issued before still lives");
        }
        let issued: Vec<_> = facts
            .iter()
            .filter_map(|fact| match fact {
                Fact::TokenIssued { id, .. } => Some(self.decided.tokens.get(&TokenId(*id))),
                _ => None,
            })
            .collect();
        if issued.len() != issue.subjects.len() {
            return fail("not one token for each subject");
        }
        let end_s = |lifetime_s: u32| (plan.now_ms + u64::from(lifetime_s) * 1_000).div_ceil(1_000) as u32;
        let begin_ms = match issue.not_before_s {
            0 => 0,
            after_s => plan.now_ms + u64::from(after_s) * 1_000,
        };
        let root = issue.parent.map(|parent| self.decided.tokens[&parent].root.unwrap_or(parent));
        if root.is_some() && self.has_too_many(root) {
            return fail("a family has more members than it may");
        }
        for (token, subject) in issued.into_iter().zip(&issue.subjects) {
            let token = token.ok_or("a token was issued and is not there")?;
            let set = &self.decided.claims[&token.claims];
            let rules = [
                (self.decided.subjects[&token.subject].1 == subject.as_str(), "subject"),
                (self.decided.tenant(issue.tenant.as_str()) == Some(set.tenant), "tenant"),
                (set.client == plan.submission.actor.0, "client"),
                (set.claims == issue.claims, "claims"),
                (token.expires_s == end_s(issue.ttl_s), "expiry"),
                (token.uses_max == issue.uses_max, "uses"),
                (token.root == root, "family"),
                (token.not_before_ms == begin_ms, "beginning"),
                (token.binding == issue.binding.map(|binding| binding.0), "binding"),
                (
                    token.renewable_until_s
                        == if issue.renewable_s > 0 { end_s(issue.renewable_s) } else { 0 },
                    "renewable lifetime",
                ),
            ];
            if let Some((_, what)) = rules.into_iter().find(|(holds, _)| !holds) {
                return Err(format!("a token was issued with another {what}"));
            }
        }
        Ok(())
    }

    /// Never to less than it had, never beyond its end.
    fn check_renewal(
        &self,
        plan: &Plan,
        token: &Token,
        ttl_s: u32,
        facts: &[&Fact],
        had_s: u32,
    ) -> Result<(), String> {
        let known = &self.decided.tokens[&token.id];
        let asked_s = (plan.now_ms + u64::from(ttl_s) * 1_000).div_ceil(1_000) as u32;
        let expected_s = asked_s.min(known.renewable_until_s).max(had_s);
        let is_right = match facts {
            [] => expected_s == had_s,
            [Fact::TokenRenewed { id, expires_s, .. }] => {
                *id == token.id.0 && *expires_s == expected_s && expected_s > had_s
            }
            _ => false,
        };
        if is_right { Ok(()) } else { Err(format!("a renewal, to {expected_s} s from {had_s} s")) }
    }

    /// Exactly what the target names is dead or, for a revoke by subject, about to be.
    fn check_revoke(&self, plan: &Plan) -> Result<(), String> {
        let doomed = self.decided.tokens.values().filter(|token| token.is_doomed()).count();
        // One that is dying may have been reached by that revoke already, and then needs no event of its own: whether
        // readers deny it is looked at when this is acknowledged.
        let is_doomed = |id: &&TokenId| self.decided.tokens[*id].is_doomed();
        if !plan.kills.iter().all(|id| is_doomed(&id) || self.decided.may_be_gone(id)) {
            return fail("a revoke leaves a token that it names");
        }
        let others = doomed - plan.kills.iter().filter(is_doomed).count();
        if others != plan.doomed - plan.kills_doomed {
            return fail("a revoke kills a token that it does not name");
        }
        Ok(())
    }

    /// An answer leaves the sequencer. Returns the tokens that its client may count dead.
    pub(in crate::sim) fn replied(
        &mut self,
        to: (u64, Ticket),
        reply: &Reply,
    ) -> Result<BTreeSet<TokenId>, String> {
        let decision = self.decisions.remove(&to).ok_or("an answer to a command that was not decided")?;
        self.note_answer(&decision, reply);
        let told = |what: String| format!("{what}: {reply:?} to {decision:?}");
        match &reply.result {
            Err(rejection) => {
                self.check_refusal(&decision.plan, *rejection).map_err(told)?;
                check_rejection(&decision, reply.sequence, *rejection).map_err(told)?;
            }
            Ok(outcome) => {
                let rests = reply.sequence >= decision.basis;
                let published = reply.sequence.0 as usize <= self.published_to;
                if !rests || !published {
                    return Err(told(
                        "an answer rests on too little, or on what is not published".to_owned(),
                    ));
                }
                self.check_outcome(&decision, outcome).map_err(told)?;
                if matches!(outcome, Outcome::Revoked(_)) && !matches!(decision.plan.recall, Recall::Same(_))
                {
                    // From here on readers have to deny them, even if a revoke by subject goes on elsewhere.
                    self.decided.settle_all_of(&decision.plan.kills);
                    return Ok(decision.plan.kills);
                }
            }
        }
        Ok(BTreeSet::new())
    }

    fn note_answer(&mut self, decision: &Decision, reply: &Reply) {
        self.seen.note(outcome(&reply.result));
        if reply.result.is_ok() && matches!(decision.plan.recall, Recall::Same(_)) {
            self.seen.note("a key repeated");
        }
        if reply.result.is_ok() && matches!(decision.plan.recall, Recall::Forgotten) {
            self.seen.note("a key used again after its time");
        }
        if decision.plan.consume.is_some_and(|(_, left)| left.is_some()) && decision.events > 0 {
            self.seen.note("a use spent");
        }
    }

    fn check_outcome(&self, decision: &Decision, outcome: &Outcome) -> Result<(), String> {
        let plan = &decision.plan;
        if !is_of_kind(&plan.submission.command, outcome) {
            return fail("an outcome of another kind of command");
        }
        if let Some(due) = plan.refusal {
            return Err(format!("it has to be refused as {due:?}"));
        }
        if !plan.is_allowed && !matches!(plan.recall, Recall::Same(_)) {
            return fail("a command that has to be rejected is carried out");
        }
        match (&plan.recall, outcome) {
            (Recall::Other, _) => fail("a key that was used for another command is taken"),
            (
                Recall::Same(Recorded::Consumed { uses_left: first, .. }),
                Outcome::Consumed { answer, uses_left },
            ) => {
                let is_same = answer.verdict == Verdict::Valid && uses_left == first;
                if is_same { Ok(()) } else { fail("a repeated consume has another outcome") }
            }
            (Recall::Same(Recorded::Revoked { revoked, broader }), Outcome::Revoked(report)) => {
                let is_same = (report.revoked, report.broader) == (*revoked, *broader);
                if is_same { Ok(()) } else { fail("a repeated revoke has another outcome") }
            }
            (Recall::Same(Recorded::Renewed { expires_s }), Outcome::Renewed { expires }) => {
                if expires.0 == *expires_s { Ok(()) } else { fail("a repeated renewal has another outcome") }
            }
            (_, Outcome::Consumed { answer, uses_left }) => {
                let (expected, left) = plan.consume.ok_or("a use was spent that nobody asked for")?;
                let is_gone = plan.may_be_gone && *answer == plan.consume_if_gone;
                if is_gone && *uses_left == 0 && decision.events == 0 {
                    return Ok(());
                }
                if *answer != expected || *uses_left != left.unwrap_or(0) {
                    return Err(format!("a consume has to come to {expected:?} with {left:?} left"));
                }
                if left.is_some() && decision.events == 0 {
                    fail("a use was spent without an event")
                } else {
                    Ok(())
                }
            }
            (_, Outcome::Revoked(_)) if decision.events == 0 && !plan.are_dead => {
                fail("revoked without an event, and not all was dead")
            }
            (_, Outcome::Issued { tokens, .. }) => {
                let is_known = |token: &Token| {
                    let known = self.published.tokens.get(&token.id);
                    known.is_some_and(|known| known.digest == digest(&token.id, &token.secret).0)
                };
                if tokens.iter().all(is_known) {
                    Ok(())
                } else {
                    fail("a token was issued that is not published")
                }
            }
            _ => Ok(()),
        }
    }
}

/// A rejection has no events, and says what had to be said; what is refused before it is decided, and for a limit, is in
/// `refusals`.
fn check_rejection(decision: &Decision, sequence: Sequence, rejection: Rejection) -> Result<(), String> {
    let plan = &decision.plan;
    match rejection {
        Rejection::Indeterminate => return Ok(()),
        // Not decided at all: rest on nothing.
        Rejection::Busy { .. }
        | Rejection::LogFailed
        | Rejection::Stopping
        | Rejection::DiskFull
        | Rejection::ClockInDoubt => {}
        Rejection::KeyReused if !matches!(plan.recall, Recall::Other) => {
            return fail("a key is said to be reused that was not");
        }
        Rejection::NotFound if plan.may_be_gone => {}
        Rejection::NotFound | Rejection::NotAllowed if !plan.kills.is_empty() => {
            return fail("what a revoke names is not revoked");
        }
        Rejection::NotAllowed | Rejection::Token(_) | Rejection::NotRenewable | Rejection::ParentNotLive
            if plan.is_allowed && !matches!(plan.submission.command, Command::Revoke(_)) =>
        {
            return fail("a command is rejected that is allowed");
        }
        _ if sequence < decision.basis => return fail("a rejection rests on too little"),
        _ => {}
    }
    let has_no_room = matches!(rejection, Rejection::Limit(LimitName::Tokens | LimitName::Family));
    match decision.events {
        0 => Ok(()),
        1 if decision.tells_time && has_no_room => Ok(()),
        _ => fail("a rejected command has events"),
    }
}

/// Whether this is what such a command comes to.
pub(in crate::sim) fn is_of_kind(command: &Command, outcome: &Outcome) -> bool {
    match (command, outcome) {
        (Command::IssueTokens(issue), Outcome::Issued { tokens, .. }) => tokens.len() == issue.subjects.len(),
        (Command::RenewToken { .. }, Outcome::Renewed { .. })
        | (Command::ConsumeToken(_), Outcome::Consumed { .. })
        | (Command::Revoke(_), Outcome::Revoked(_))
        | (Command::GrantRights(_) | Command::WithdrawRights(_), Outcome::RightsChanged { .. })
        | (Command::CreateTenant { .. }, Outcome::TenantCreated { .. }) => true,
        _ => false,
    }
}

fn check_use(plan: &Plan, id: &TokenId, facts: &[&Fact]) -> Result<(), String> {
    let (expected, left) = plan.consume.ok_or("a use was spent that nobody asked for")?;
    let is_right = match (facts, left) {
        ([Fact::TokenConsumed { id: of, uses_left }], Some(left)) => *of == id.0 && *uses_left == left,
        // A token without a limit: only the key is remembered.
        ([], None) => expected.verdict == Verdict::Valid,
        _ => false,
    };
    if is_right { Ok(()) } else { Err(format!("a use, of {left:?} left after it")) }
}

/// Somebody has to be able to give rights.
fn check_rights(decided: &Model, facts: &[&Fact]) -> Result<(), String> {
    let is_right =
        facts.iter().all(|fact| matches!(fact, Fact::RightsChanged { .. } | Fact::ClientNamed { .. }));
    let admin = jeton_core::rights::Rights::ADMIN;
    let has_admin = decided.clients.keys().any(|client| decided.granted(*client, 0).contains(admin));
    if is_right && has_admin {
        Ok(())
    } else {
        fail("rights were changed otherwise, or the last administrator is gone")
    }
}

pub(super) fn fail<T>(what: &str) -> Result<T, String> {
    Err(what.to_owned())
}
