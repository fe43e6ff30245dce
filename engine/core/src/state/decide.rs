//! Deciding: from a command to events, or to a rejection. Nothing is changed here.

use super::fingerprint::fingerprint;
use super::{LIFETIME_S_MAX, State};
use crate::check::Check;
use crate::claims::ResourceQuery;
use crate::command::{Command, ConsumeToken, Submission};
use crate::event::{Detached, Entry, Event, Fact, Recorded, ScopedKey};
use crate::judge::{flags, judge, told};
use crate::numbers::{ClaimsNo, ClientNo};
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
    pub fn decide<'a>(
        &mut self,
        submission: &Submission,
        now: Millis,
        entropy: &'a mut Entropy<'a>,
    ) -> Decision {
        let actor = submission.actor;
        let mut draft = Draft { actor, now, entropy, entries: Vec::new() };
        let payload =
            submission.key.map(|key| (ScopedKey { client: actor, key }, fingerprint(&submission.command)));
        if let Some((key, payload)) = &payload {
            match self.recall(key, payload, now, &mut draft) {
                Ok(None) => {}
                Ok(Some(outcome)) => return Decision { entries: Vec::new(), answer: Decided::Done(outcome) },
                Err(rejection) => return rejected(rejection),
            }
        }
        let answer = match self.rule(&submission.command, &mut draft) {
            Ok(answer) => answer,
            Err(rejection) => return rejected(rejection),
        };
        if let (Some((key, payload)), Decided::Done(outcome)) = (payload, &answer)
            && let Some(outcome) = recorded(outcome)
        {
            draft.push(Fact::CommandCompleted { key: key.key.0, payload, outcome });
        }
        Decision { entries: draft.entries, answer }
    }

    /// The event that records a command whose outcome was only known after a marking job.
    #[must_use]
    pub fn complete(&self, submission: &Submission, outcome: &Outcome) -> Option<Entry> {
        let fact = Fact::CommandCompleted {
            key: submission.key?.0,
            payload: fingerprint(&submission.command),
            outcome: recorded(outcome)?,
        };
        Some(Entry { event: Event { actor: submission.actor.0, fact }, detached: None })
    }

    /// What a repeated key comes to: its first outcome, or for an issue the revocation of what it issued, so that
    /// at most one live token per key exists (only digests are kept: the first secret cannot be shown again).
    fn recall(
        &mut self,
        key: &ScopedKey,
        payload: &[u8; 16],
        now: Millis,
        draft: &mut Draft<'_>,
    ) -> Result<Option<Outcome>, Rejection> {
        let has_room = self.keys.has_room(now);
        let Some(record) = self.keys.recall(key, now) else {
            return if has_room { Ok(None) } else { Err(Rejection::Busy { retry_ms: KEYS_FULL_RETRY_MS }) };
        };
        if record.payload != *payload {
            return Err(Rejection::KeyReused);
        }
        if let Recorded::Issued { ids } = &record.outcome {
            for id in ids {
                draft.push(Fact::TokenRevoked { id: *id });
            }
        }
        Ok(record.outcome.replayed())
    }

    fn rule(&self, command: &Command, draft: &mut Draft<'_>) -> Result<Decided, Rejection> {
        match command {
            Command::IssueTokens(issue) => self.issue(issue, draft).map(Decided::Done),
            Command::RenewToken { token, ttl_s } => self.renew(token, *ttl_s, draft).map(Decided::Done),
            Command::ConsumeToken(consume) => Ok(Decided::Done(self.consume(consume, draft))),
            Command::Revoke(target) => self.revoke(target, draft),
            Command::GrantRights(change) => self.grant_rights(change, draft).map(Decided::Done),
            Command::WithdrawRights(change) => self.withdraw_rights(change, draft).map(Decided::Done),
            Command::CreateTenant { name } => self.create_tenant(name, draft).map(Decided::Done),
        }
    }

    fn renew(&self, token: &Token, ttl_s: u32, draft: &mut Draft<'_>) -> Result<Outcome, Rejection> {
        if !(1..=LIFETIME_S_MAX).contains(&ttl_s) {
            return Err(Rejection::OutOfRange(FieldName::Ttl));
        }
        let known = self
            .presented(token, draft.actor, Rights::ISSUE)
            .ok_or(Rejection::Token(self.unknown_to(draft.actor)))?;
        if let Some(cause) = crate::judge::cause_of_death(&known.facts(), draft.now) {
            let may_inspect = self.caller(draft.actor).may(Rights::INSPECT, known.claims.tenant);
            return Err(Rejection::Token(if may_inspect { cause } else { cause.concealed() }));
        }
        let until = known.extra.map_or(Seconds(0), |extra| extra.renewable_until);
        if until == Seconds(0) {
            return Err(Rejection::NotRenewable);
        }
        let has = Seconds(known.entry.record.expires_s);
        let expires = draft.now.expiry_after(ttl_s).min(until).max(has);
        if expires > has {
            if self.index.slots_used() >= self.tokens_max {
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
        let check = Check { access, audience: consume.audience.as_deref(), binding: consume.binding };
        let facts = known.facts();
        let mut uses_left = 0;
        let verdict = match judge(&facts, draft.now, &check) {
            Verdict::ConsumeRequired => match self.uses_left(&known).checked_sub(1) {
                Some(left) => {
                    uses_left = left;
                    draft.push(Fact::TokenConsumed { id: consume.token.id.0, uses_left: left });
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
        if self.caller(actor).may_somewhere(Rights::INSPECT) { Verdict::Unknown } else { Verdict::Denied }
    }

    pub(super) fn uses_left(&self, known: &super::Known<'_>) -> u32 {
        match crate::extra::Link::from_bits(known.entry.record.link) {
            crate::extra::Link::Subject(_) => 0,
            crate::extra::Link::Extra(number) => self
                .registry
                .uses_left
                .get(number as usize)
                .map_or(0, |left| left.load(std::sync::atomic::Ordering::Relaxed)),
        }
    }
}

fn rejected(rejection: Rejection) -> Decision {
    Decision { entries: Vec::new(), answer: Decided::Rejected(rejection) }
}

/// What to remember of an outcome under an idempotency key; `None` if a repetition may as well be decided anew,
/// because nothing was done.
fn recorded(outcome: &Outcome) -> Option<Recorded> {
    Some(match outcome {
        Outcome::Issued { tokens, .. } => {
            Recorded::Issued { ids: tokens.iter().map(|token| token.id.0).collect() }
        }
        Outcome::Renewed { expires } => Recorded::Renewed { expires_s: expires.0 },
        Outcome::Consumed { answer, uses_left } if answer.verdict == Verdict::Valid => Recorded::Consumed {
            seconds_left: answer.seconds_left,
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
