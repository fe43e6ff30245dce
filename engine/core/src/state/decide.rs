//! Deciding: from a command to events, or to a rejection. Nothing is changed here.

use super::fingerprint::fingerprint;
use super::{LIFETIME_S_MAX, State};
use crate::check::Check;
use crate::claims::{ResourceQuery, ScopesQuery};
use crate::command::{Command, ConsumeToken, Submission};
use crate::event::{Detached, Entry, Event, Fact, Recorded, ScopedKey};
use crate::judge::{cause_of_death, flags, is_presented, judge, told};
use crate::mutation::mutated;
use crate::numbers::{Binding, ClaimsNo, ClientNo};
use crate::outcome::{FieldName, Outcome, Rejection};
use crate::rights::Rights;
use crate::time::{Millis, Seconds};
use crate::token::Token;
use crate::verdict::{Answer, Verdict};

/// How long to wait before a key memory that is full is worth another try.
const KEYS_FULL_RETRY_MS: u32 = 1_000;

/// Fills a buffer with random bytes, from a generator fit for secrets.
pub type Entropy<'a> = dyn FnMut(&mut [u8]) + 'a;

/// What a command comes to.
#[derive(Debug)]
pub struct Decision {
    /// The events, to be applied in order; none if nothing changes.
    pub entries: Vec<Entry>,
    /// What to answer.
    pub answer: Decided,
}

/// What to answer, and when.
#[derive(Debug)]
pub enum Decided {
    /// This, once the events are durable.
    Done(Outcome),
    /// The number of tokens revoked, once a marking job (`State::mark_step`) has counted them.
    Marking,
    /// Nothing was done. Also this answer rests on what was decided before it.
    Rejected(Rejection),
}

/// A decision under construction: collects events in the name of one actor.
pub(super) struct Draft<'a> {
    pub(super) actor: ClientNo,
    pub(super) now: Millis,
    pub(super) entropy: &'a mut Entropy<'a>,
    pub(super) entries: Vec<Entry>,
}

impl Draft<'_> {
    pub(super) fn push(&mut self, fact: Fact) {
        self.entries.push(Entry { event: Event { actor: self.actor.0, fact }, detached: None });
    }

    /// Pushes an event with detached bytes; `fact` gets the commitment to them.
    pub(super) fn push_detached(&mut self, bytes: Vec<u8>, fact: impl FnOnce([u8; 32]) -> Fact) {
        let mut salt = [0; 32];
        (self.entropy)(&mut salt);
        let detached = Detached { salt, bytes };
        let event = Event { actor: self.actor.0, fact: fact(detached.commitment()) };
        self.entries.push(Entry { event, detached: Some(detached) });
    }
}

impl State {
    /// Decides on a command at `now`, which is not before [`State::last_time`]. `entropy` makes ids, secrets and salts.
    pub fn decide<'a>(&self, submission: &Submission, now: Millis, entropy: &'a mut Entropy<'a>) -> Decision {
        let actor = submission.actor;
        let mut draft = Draft { actor, now, entropy, entries: Vec::new() };
        match self.recall(submission, &mut draft) {
            Ok(None) => {}
            Ok(Some(outcome)) => return Decision { entries: Vec::new(), answer: Decided::Done(outcome) },
            Err(rejection) => return rejected(rejection),
        }
        let answer = match self.rule(&submission.command, &mut draft) {
            Ok(answer) => answer,
            Err(rejection) => return rejected(rejection),
        };
        if let Decided::Done(outcome) = &answer {
            // A consume that spent nothing may as well be decided anew: it might have to be denied by then.
            let spent_nothing = matches!(outcome, Outcome::Consumed { .. }) && draft.entries.is_empty();
            let completed = self.complete(submission, outcome, now).filter(|_| !spent_nothing);
            draft.entries.extend(completed);
        }
        Decision { entries: draft.entries, answer }
    }

    /// The event that records the outcome of a command that had a key; for one with a marking job, once that is over.
    #[must_use]
    pub fn complete(&self, submission: &Submission, outcome: &Outcome, now: Millis) -> Option<Entry> {
        if !self.keys.has_room(submission.actor, now) {
            return None; // a revoke, which does not wait for room: see `recall`
        }
        let fact = Fact::CommandCompleted {
            key: submission.key?.0,
            payload: fingerprint(&submission.command),
            outcome: recorded(outcome, now)?,
        };
        Some(Entry { event: Event { actor: submission.actor.0, fact }, detached: None })
    }

    /// What a repeated key comes to: its first outcome, or for an issue the revocation of what it issued, so that
    /// at most one live token per key exists (only digests are kept: the first secret cannot be shown again).
    fn recall(&self, submission: &Submission, draft: &mut Draft<'_>) -> Result<Option<Outcome>, Rejection> {
        let Some(key) = submission.key else { return Ok(None) };
        let now = draft.now;
        // What takes something from somebody is done in any case; without room its outcome is not remembered.
        if !self.keys.has_room(submission.actor, now) && !submission.command.takes() {
            return Err(Rejection::Busy { retry_ms: KEYS_FULL_RETRY_MS });
        }
        let Some(record) = self.keys.recall(&ScopedKey { client: submission.actor, key }, now) else {
            return Ok(None);
        };
        if record.payload != fingerprint(&submission.command) && !mutated!(KeyOfAnother) {
            return Err(Rejection::KeyReused);
        }
        match &record.outcome {
            Recorded::Issued { ids } => ids.iter().for_each(|id| draft.push(Fact::TokenRevoked { id: *id })),
            Recorded::Consumed { claims, .. } if !self.may_still_consume(submission.actor, *claims) => {
                return Ok(None); // decided anew, and denied
            }
            _ => {}
        }
        Ok(record.outcome.replayed(now))
    }

    fn may_still_consume(&self, actor: ClientNo, claims: u32) -> bool {
        let tenant = self.registry.claim_set(ClaimsNo(claims)).map(|set| set.tenant);
        tenant.is_some_and(|tenant| self.caller(actor).may(Rights::VALIDATE, tenant))
    }

    fn rule(&self, command: &Command, draft: &mut Draft<'_>) -> Result<Decided, Rejection> {
        match command {
            Command::IssueTokens(issue) => self.issue(issue, draft).map(Decided::Done),
            Command::RenewToken { token, ttl_s, binding } => {
                self.renew(token, *ttl_s, *binding, draft).map(Decided::Done)
            }
            Command::ConsumeToken(consume) => Ok(Decided::Done(self.consume(consume, draft))),
            Command::Revoke(target) => self.revoke(target, draft),
            Command::GrantRights(change) => self.grant_rights(change, draft).map(Decided::Done),
            Command::WithdrawRights(change) => self.withdraw_rights(change, draft).map(Decided::Done),
            Command::CreateTenant { name } => self.create_tenant(name, draft).map(Decided::Done),
        }
    }

    fn renew(
        &self,
        token: &Token,
        ttl_s: u32,
        binding: Option<Binding>,
        draft: &mut Draft<'_>,
    ) -> Result<Outcome, Rejection> {
        if !(1..=LIFETIME_S_MAX).contains(&ttl_s) {
            return Err(Rejection::OutOfRange(FieldName::Ttl));
        }
        let known = self
            .presented(token, draft.actor, Rights::ISSUE)
            .ok_or(Rejection::Token(self.unknown_to(draft.actor)))?;
        let facts = known.facts();
        let cause = cause_of_death(&facts, draft.now)
            .or_else(|| (!is_presented(&facts, binding)).then_some(Verdict::BindingMismatch));
        if let Some(cause) = cause {
            let may_inspect = self.caller(draft.actor).may(Rights::INSPECT, known.claims.tenant);
            return Err(Rejection::Token(if may_inspect { cause } else { cause.concealed() }));
        }
        let until = known.extra.map_or(Seconds(0), |extra| extra.renewable_until);
        if until == Seconds(0) {
            return Err(Rejection::NotRenewable);
        }
        let has = Seconds(known.entry.record.expires_s);
        let asked = draft.now.expiry_after(ttl_s).min(until);
        let expires = if mutated!(RenewalShortens) { asked } else { asked.max(has) };
        if expires != has {
            if self.room() < 1 + usize::from(known.extra.is_some()) {
                return Err(Rejection::Limit(crate::outcome::LimitName::Tokens));
            }
            draft.push(Fact::TokenRenewed {
                id: token.id.0,
                renewed_s: draft.now.floor_seconds().0,
                expires_s: expires.0,
            });
        }
        Ok(Outcome::Renewed { expires })
    }

    /// A consume is judged like a validate; only a use that passes every check is spent. A token without a limit has
    /// nothing to spend.
    fn consume(&self, consume: &ConsumeToken, draft: &mut Draft<'_>) -> Outcome {
        let answer =
            |verdict| Outcome::Consumed { answer: Answer { verdict, ..Answer::default() }, uses_left: 0 };
        let Some(known) = self.presented(&consume.token, draft.actor, Rights::VALIDATE) else {
            return answer(self.unknown_to(draft.actor));
        };
        let access = match &consume.access {
            None => None,
            Some(access) => match ResourceQuery::new(&access.action, &access.resource) {
                Ok(query) => Some(query),
                Err(_) => return answer(Verdict::Forbidden), // no grant covers what is no resource
            },
        };
        let scopes = match consume.scopes.as_deref().map(ScopesQuery::new).transpose() {
            Ok(scopes) => scopes,
            Err(_) => return answer(Verdict::Forbidden), // no token has what is no scope
        };
        let check = Check { access, audience: consume.audience.as_deref(), scopes, binding: consume.binding };
        let facts = known.facts();
        let mut uses_left = 0;
        let verdict = match judge(&facts, draft.now, &check) {
            Verdict::ConsumeRequired => match self.uses_left(&known).checked_sub(1) {
                Some(left) => {
                    uses_left = left;
                    if !mutated!(ConsumeWithoutEvent) {
                        draft.push(Fact::TokenConsumed { id: consume.token.id.0, uses_left: left });
                    }
                    Verdict::Valid
                }
                None => Verdict::Spent,
            },
            verdict => verdict,
        };
        let full = Answer {
            verdict,
            flags: flags(&facts),
            seconds_left: Seconds(known.entry.record.expires_s).left_after(draft.now),
            claims: ClaimsNo(known.entry.record.claims),
            subject: known.subject(),
        };
        let may_inspect = self.caller(draft.actor).may(Rights::INSPECT, known.claims.tenant);
        Outcome::Consumed { answer: told(full, may_inspect), uses_left }
    }

    /// What a client is told of a token that it can know nothing about.
    pub(super) fn unknown_to(&self, actor: ClientNo) -> Verdict {
        if self.caller(actor).inspects_all_it_validates() { Verdict::Unknown } else { Verdict::Denied }
    }

    pub(super) fn uses_left(&self, known: &super::Known<'_>) -> u32 {
        let extra = known.extra.unwrap_or_default();
        extra.uses_left(known.entry.state, self.index.counter(known.entry.slot))
    }
}

fn rejected(rejection: Rejection) -> Decision {
    Decision { entries: Vec::new(), answer: Decided::Rejected(rejection) }
}

/// What to remember of an outcome under an idempotency key; `None` if a repetition may as well be decided anew,
/// because nothing was done.
fn recorded(outcome: &Outcome, now: Millis) -> Option<Recorded> {
    Some(match outcome {
        Outcome::Issued { tokens, .. } => {
            Recorded::Issued { ids: tokens.iter().map(|token| token.id.0).collect() }
        }
        Outcome::Renewed { expires } => Recorded::Renewed { expires_s: expires.0 },
        Outcome::Consumed { answer, uses_left } if answer.verdict == Verdict::Valid => Recorded::Consumed {
            expires_s: now.expiry_after(answer.seconds_left).0,
            claims: answer.claims.0,
            subject: answer.subject.0,
            flags: answer.flags.0,
            uses_left: *uses_left,
        },
        Outcome::Consumed { .. } => return None,
        Outcome::Revoked(report) => Recorded::Revoked { revoked: report.revoked, broader: report.broader },
        Outcome::RightsChanged { rights } => Recorded::RightsChanged { rights: rights.bits() },
        Outcome::TenantCreated { tenant } => Recorded::TenantCreated { tenant: tenant.0 },
    })
}
