//! What a command has to come to, worked out on the model before the sequencer decides it.

use std::collections::BTreeSet;

use jeton_core::command::{Command, ConsumeToken, IssueTokens, RevokeTarget, Submission};
use jeton_core::event::Recorded;
use jeton_core::numbers::Binding;
use jeton_core::outcome::Rejection;
use jeton_core::rights::Rights;
use jeton_core::token::{Token, TokenId, digest};
use jeton_core::verdict::{Answer, Verdict};
use jeton_wire::request::Request;

use super::model::{Model, ModelToken, Question, answer, concealed};
use super::workload::Asking;

/// How long a key is remembered, by the documentation.
const KEY_MEMORY_MS: u64 = 600_000;

/// What is known of the command's idempotency key.
#[derive(Clone, Debug)]
pub(super) enum Recall {
    /// There is none, or it is new.
    Fresh,
    /// It was used too long ago to be remembered.
    Forgotten,
    /// It came with this command before, and this came of it.
    Same(Recorded),
    /// It came with another command.
    Other,
}

/// A command with what it has to come to.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) submission: Submission,
    pub(super) now_ms: u64,
    /// What it has to be refused with, before anything is decided.
    pub(super) refusal: Option<Rejection>,
    /// Its key may be that of a revoke that is still being carried out.
    pub(super) may_be_busy: bool,
    pub(super) recall: Recall,
    /// Whether the actor may do that, and the token concerned (if one is) is good for it.
    pub(super) is_allowed: bool,
    /// What a consume answers, and the uses left if one is spent.
    pub(super) consume: Option<(Answer, Option<u32>)>,
    /// What a revoke names.
    pub(super) kills: BTreeSet<TokenId>,
    /// The token that the command is about may have been reclaimed: then it is as if there had never been one.
    pub(super) may_be_gone: bool,
    /// What a consume answers if it was.
    pub(super) consume_if_gone: Answer,
    /// Whether all of that is revoked already, or about to be.
    pub(super) are_dead: bool,
    /// Tokens that are revoked or about to be: all, and those that a revoke names.
    pub(super) doomed: usize,
    pub(super) kills_doomed: usize,
}

/// The bytes that stand for a command, without its key.
pub(super) fn body(command: &Command) -> Vec<u8> {
    let mut bytes = Vec::new();
    Request::Write { key: None, command: command.clone() }.encode(0, &mut bytes);
    bytes
}

impl Plan {
    /// `body_of` finds the bytes of a command by the fingerprint that its key was recorded with.
    pub(super) fn new<'m>(
        submission: Submission,
        now_ms: u64,
        decided: &Model,
        published: &Model,
        body_of: impl Fn(&[u8; 16]) -> Option<&'m Vec<u8>>,
    ) -> Self {
        let mut plan = Self {
            refusal: None,
            may_be_busy: false,
            recall: Recall::Fresh,
            is_allowed: true,
            consume: None,
            kills: BTreeSet::new(),
            may_be_gone: false,
            consume_if_gone: Answer::default(),
            are_dead: true,
            doomed: decided.tokens.values().filter(|token| token.is_doomed()).count(),
            kills_doomed: 0,
            submission,
            now_ms,
        };
        plan.recall = plan.recalled(decided, body_of);
        plan.work_out(decided, published);
        plan
    }

    fn recalled<'m>(&self, decided: &Model, body_of: impl Fn(&[u8; 16]) -> Option<&'m Vec<u8>>) -> Recall {
        let actor = self.submission.actor.0;
        let row = self.submission.key.and_then(|key| decided.keys.get(&(actor, key.0)));
        let Some(row) = row else { return Recall::Fresh };
        if self.now_ms - row.at_ms >= KEY_MEMORY_MS {
            return Recall::Forgotten;
        }
        if body_of(&row.payload) != Some(&body(&self.submission.command)) {
            return Recall::Other;
        }
        match &row.outcome {
            // Who may not validate there any more is told nothing of what was.
            Recorded::Consumed { claims, .. }
                if !decided.may(actor, Rights::VALIDATE, decided.claims[claims].tenant) =>
            {
                Recall::Fresh
            }
            outcome => Recall::Same(outcome.clone()),
        }
    }

    fn work_out(&mut self, decided: &Model, published: &Model) {
        let actor = self.submission.actor.0;
        match self.submission.command.clone() {
            Command::IssueTokens(issue) => self.is_allowed = self.may_issue(&issue, decided, published),
            Command::RenewToken { token, binding, .. } => {
                self.is_allowed = self.may_renew(&token, binding, decided, published);
            }
            Command::ConsumeToken(consume) => {
                self.consume = Some(self.consumed(&consume, decided, published));
                self.may_be_gone = decided.may_be_gone(&consume.token.id);
                self.consume_if_gone = unknown_to(actor, decided);
            }
            Command::Revoke(target) => {
                self.may_be_gone = match &target {
                    RevokeTarget::Token(token) => decided.may_be_gone(&token.id),
                    RevokeTarget::Id(id) | RevokeTarget::Family(id) => decided.may_be_gone(id),
                    _ => false,
                };
                self.kills = named_by(&target, actor, decided);
                let is_dead = |id: &TokenId| decided.tokens[id].is_doomed() || decided.may_be_gone(id);
                self.are_dead = self.kills.iter().all(is_dead);
                self.kills_doomed = self.kills.iter().filter(|id| decided.tokens[id].is_doomed()).count();
            }
            Command::GrantRights(change) | Command::WithdrawRights(change) => {
                let tenant = tenant(decided, change.tenant.as_str());
                self.is_allowed = tenant.is_some_and(|tenant| decided.may(actor, Rights::ADMIN, tenant));
            }
            Command::CreateTenant { .. } => self.is_allowed = decided.may(actor, Rights::ADMIN, 0),
        }
    }

    fn question<'a>(&self, id: &'a TokenId, digest: &'a [u8; 32], asking: &'a Asking) -> Question<'a> {
        let check = asking.check();
        Question { id, digest, check, now_ms: self.now_ms, is_decision: true, doomed_is_dead: true }
    }

    fn consumed(&self, consume: &ConsumeToken, decided: &Model, published: &Model) -> (Answer, Option<u32>) {
        let actor = self.submission.actor.0;
        let id = consume.token.id;
        let tenant = decided.tokens.get(&id).map(|token| decided.claims[&token.claims].tenant);
        let digest = digest(&id, &consume.token.secret).0;
        let asking = Asking::of_consume(consume);
        let mut full = answer(published, decided, &self.question(&id, &digest, &asking));
        let is_known = tenant.is_some_and(|tenant| decided.may(actor, Rights::VALIDATE, tenant))
            && full.verdict != Verdict::WrongSecret;
        if !is_known {
            return (unknown_to(actor, decided), None);
        }
        let token = &decided.tokens[&id];
        if full.verdict == Verdict::Unknown {
            // Decided and not durable: told with everything else that is known of it.
            full = undurable(token, self.now_ms);
        }
        let mut spent = None;
        if full.verdict == Verdict::ConsumeRequired {
            full.verdict = Verdict::Valid;
            spent = Some(token.uses_left - 1);
        }
        let may_inspect = tenant.is_some_and(|tenant| decided.may(actor, Rights::INSPECT, tenant));
        (if may_inspect { full } else { concealed(full) }, spent)
    }

    /// Whether the token lives, as far as a decision is concerned.
    fn lives(&self, id: &TokenId, decided: &Model, published: &Model) -> bool {
        decided.tokens.get(id).is_some_and(|token| {
            !token.is_doomed()
                && (token.uses_max == 0 || token.uses_left > 0)
                && published.tokens.contains_key(id)
                && self.now_ms >= token.not_before_ms
                && self.now_ms < u64::from(token.expires_s) * 1_000
        })
    }

    fn may_issue(&self, issue: &IssueTokens, decided: &Model, published: &Model) -> bool {
        let Some(tenant) = decided.tenant(issue.tenant.as_str()) else { return false };
        let in_range = issue.not_before_s < issue.ttl_s;
        let parent_ok = issue.parent.is_none_or(|parent| {
            self.lives(&parent, decided, published) && {
                let token = &decided.tokens[&parent];
                let root = token.root.and_then(|root| decided.tokens.get(&root));
                decided.claims[&token.claims].tenant == tenant
                    && root.is_none_or(|root| !root.marked && !root.dying)
            }
        });
        in_range && parent_ok && decided.may(self.submission.actor.0, Rights::ISSUE, tenant)
    }

    fn may_renew(&self, token: &Token, binding: Option<Binding>, decided: &Model, published: &Model) -> bool {
        let Some(known) = decided.tokens.get(&token.id) else { return false };
        let tenant = decided.claims[&known.claims].tenant;
        known.digest == digest(&token.id, &token.secret).0
            && decided.may(self.submission.actor.0, Rights::ISSUE, tenant)
            && self.lives(&token.id, decided, published)
            && known.binding.is_none_or(|bound| binding.is_some_and(|shown| shown.0 == bound))
            && known.renewable_until_s > 0
    }
}

/// What somebody is told of a token that it can know nothing about.
fn unknown_to(actor: u32, decided: &Model) -> Answer {
    let unknown = Answer { verdict: Verdict::Unknown, ..Answer::default() };
    let sees_all = decided.sees_all(|right, tenant| decided.may(actor, right, tenant));
    if sees_all { unknown } else { concealed(unknown) }
}

fn undurable(token: &ModelToken, now_ms: u64) -> Answer {
    let left_ms = (u64::from(token.expires_s) * 1_000).saturating_sub(now_ms);
    Answer {
        verdict: Verdict::Unknown,
        flags: token.flags(),
        seconds_left: u32::try_from(left_ms / 1_000).unwrap_or(u32::MAX),
        claims: jeton_core::numbers::ClaimsNo(token.claims),
        subject: jeton_core::numbers::SubjectNo(token.subject),
    }
}

/// A tenant by name, the tenant `*` too.
pub(super) fn tenant(decided: &Model, name: &str) -> Option<u32> {
    if name == "*" { Some(0) } else { decided.tenant(name) }
}

/// The tokens that a revoke names and its actor may revoke.
fn named_by(target: &RevokeTarget, actor: u32, decided: &Model) -> BTreeSet<TokenId> {
    let may = |tenant: u32| decided.may(actor, Rights::REVOKE, tenant);
    let in_tenant = |name: &str| decided.tenant(name).filter(|tenant| may(*tenant));
    let named = match target {
        RevokeTarget::Token(token) => {
            let right = digest(&token.id, &token.secret).0;
            decided.matching(|id, known, set| *id == token.id && known.digest == right && may(set.tenant))
        }
        RevokeTarget::Id(only) => decided.matching(|id, _, set| id == only && may(set.tenant)),
        RevokeTarget::Subject { tenant, subject } => {
            let tenant = in_tenant(tenant.as_str());
            decided.matching(|_, token, set| {
                Some(set.tenant) == tenant && decided.subjects[&token.subject].1 == subject.as_str()
            })
        }
        RevokeTarget::Client { tenant, client } => {
            let (tenant, client) = (in_tenant(tenant.as_str()), decided.client(client.as_str()));
            decided.matching(|_, _, set| Some(set.tenant) == tenant && Some(set.client) == client)
        }
        RevokeTarget::Family(member) => {
            let root = decided.tokens.get(member).map(|token| token.root.unwrap_or(*member));
            decided.matching(|id, token, set| {
                (Some(*id) == root || (token.root.is_some() && token.root == root)) && may(set.tenant)
            })
        }
        RevokeTarget::Tenant { tenant } => {
            let tenant = in_tenant(tenant.as_str());
            decided.matching(|_, _, set| Some(set.tenant) == tenant)
        }
        RevokeTarget::Resource { tenant, pattern } => {
            let tenant = in_tenant(tenant.as_str());
            decided.matching(|_, _, set| {
                Some(set.tenant) == tenant
                    && set.claims.grants().iter().any(|grant| pattern.contains(grant.resource()))
            })
        }
    };
    named.into_iter().collect()
}
