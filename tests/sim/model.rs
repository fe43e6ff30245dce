//! The oracle: what the events so far mean, in plain maps, by code that shares nothing with the state machine but the
//! grammar of grants.

use std::collections::BTreeMap;

use jeton_core::check::Check;
use jeton_core::claims::Claims;
use jeton_core::event::{Entry, Fact, Recorded};
use jeton_core::numbers::{ClaimsNo, SubjectNo};
use jeton_core::rights::Rights;
use jeton_core::token::TokenId;
use jeton_core::verdict::{Answer, AnswerFlags, Verdict};

/// A token as the events have it.
#[derive(Clone, Debug)]
pub(super) struct ModelToken {
    pub(super) digest: [u8; 32],
    pub(super) subject: u32,
    pub(super) claims: u32,
    pub(super) root: Option<TokenId>,
    pub(super) uses_max: u32,
    pub(super) uses_left: u32,
    pub(super) expires_s: u32,
    pub(super) not_before_ms: u64,
    pub(super) renewable_until_s: u32,
    pub(super) binding: Option<[u8; 32]>,
    pub(super) revoked: bool,
    /// It was revoked itself, not only its claim set: then its family takes no more members.
    pub(super) marked: bool,
    /// A revoke by subject covers it and is still being carried out: readers may see it as it was.
    pub(super) dying: bool,
}

impl ModelToken {
    /// Whether a decision has to take it for revoked.
    pub(super) fn is_doomed(&self) -> bool {
        self.revoked || self.dying
    }

    fn mark(&mut self) {
        (self.revoked, self.marked, self.dying) = (true, true, false);
    }

    pub(super) fn flags(&self) -> AnswerFlags {
        let bit = |holds: bool, flag: AnswerFlags| if holds { flag.0 } else { 0 };
        AnswerFlags(
            bit(self.uses_max > 0, AnswerFlags::LIMITED)
                | bit(self.renewable_until_s > 0, AnswerFlags::RENEWABLE)
                | bit(self.binding.is_some(), AnswerFlags::BOUND),
        )
    }
}

/// A claim set: whose, and what it allows.
#[derive(Clone, Debug)]
pub(super) struct ModelClaims {
    pub(super) tenant: u32,
    pub(super) client: u32,
    pub(super) claims: Claims,
}

/// A key that was used.
#[derive(Clone, Debug)]
pub(super) struct ModelKey {
    pub(super) at_ms: u64,
    pub(super) payload: [u8; 16],
    pub(super) outcome: Recorded,
}

/// Everything that events up to one of them mean.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) tenants: BTreeMap<u32, String>,
    pub(super) tokens: BTreeMap<TokenId, ModelToken>,
    pub(super) claims: BTreeMap<u32, ModelClaims>,
    pub(super) subjects: BTreeMap<u32, (u32, String)>,
    pub(super) clients: BTreeMap<u32, String>,
    pub(super) keys: BTreeMap<(u32, [u8; 16]), ModelKey>,
    pub(super) rights: BTreeMap<(u32, u32), u8>,
    /// The time of the last event.
    pub(super) last_ms: u64,
}

impl Model {
    /// Takes one more event into account.
    pub(super) fn fold(&mut self, time_ms: u64, entry: &Entry) {
        let detached = entry.detached.as_ref().map(|detached| detached.bytes.clone()).unwrap_or_default();
        self.last_ms = self.last_ms.max(time_ms);
        match &entry.event.fact {
            Fact::TenantCreated { tenant, name } => drop(self.tenants.insert(*tenant, name.clone())),
            Fact::ClientNamed { client, name } => drop(self.clients.insert(*client, name.clone())),
            Fact::SubjectNamed { subject, tenant, .. } => {
                let name = String::from_utf8(detached).expect("a subject is UTF-8");
                self.subjects.insert(*subject, (*tenant, name));
            }
            Fact::ClaimsInterned { claims, tenant, client, .. } => {
                let parsed = Claims::decode(&detached).expect("claims decode");
                let set = ModelClaims { tenant: *tenant, client: *client, claims: parsed };
                self.claims.insert(*claims, set);
            }
            Fact::TokenIssued { .. } => self.fold_issued(&entry.event.fact),
            Fact::TokenRenewed { id, expires_s, .. } => self.token(id).expires_s = *expires_s,
            Fact::TokenConsumed { id, uses_left } => self.token(id).uses_left = *uses_left,
            Fact::TokenRevoked { id } => self.token(id).mark(),
            Fact::SubjectRevoked { subject } => {
                for token in self.tokens.values_mut().filter(|token| token.subject == *subject) {
                    token.dying = !token.marked;
                }
            }
            Fact::FamilyRevoked { root } => {
                let root = TokenId(*root);
                for id in self.matching(|id, token, _| *id == root || token.root == Some(root)) {
                    self.token(&id.0).mark();
                }
            }
            Fact::ClientRevoked { tenant, client } => {
                self.revoke(|_, _, set| set.tenant == *tenant && set.client == *client);
            }
            Fact::TenantRevoked { tenant } => self.revoke(|_, _, set| set.tenant == *tenant),
            Fact::ResourceRevoked { claims, .. } => {
                self.revoke(|_, token, _| claims.contains(&token.claims));
            }
            Fact::RightsChanged { client, tenant, rights } => {
                self.rights.insert((*client, *tenant), *rights);
            }
            Fact::CommandCompleted { key, payload, outcome } => {
                let row = ModelKey { at_ms: time_ms, payload: *payload, outcome: outcome.clone() };
                self.keys.insert((entry.event.actor, *key), row);
            }
            Fact::TimePassed => {}
        }
    }

    fn fold_issued(&mut self, fact: &Fact) {
        let Fact::TokenIssued { id, digest, claims, subject, expires_s, terms, .. } = fact else { return };
        let terms = terms.as_deref().cloned().unwrap_or_default();
        let token = ModelToken {
            digest: *digest,
            subject: *subject,
            claims: *claims,
            root: terms.family.map(TokenId),
            uses_max: terms.uses_max,
            uses_left: terms.uses_max,
            expires_s: *expires_s,
            not_before_ms: terms.not_before_ms,
            renewable_until_s: terms.renewable_until_s,
            binding: terms.binding,
            revoked: false,
            marked: false,
            dying: false,
        };
        let before = self.tokens.insert(TokenId(*id), token);
        assert!(before.is_none(), "no id is issued twice");
    }

    fn token(&mut self, id: &[u8; 16]) -> &mut ModelToken {
        self.tokens.get_mut(&TokenId(*id)).expect("an event about a token comes after its issue")
    }

    fn revoke(&mut self, which: impl Fn(&TokenId, &ModelToken, &ModelClaims) -> bool) {
        for (id, token) in &mut self.tokens {
            if which(id, token, &self.claims[&token.claims]) {
                token.revoked = true;
            }
        }
    }

    /// A revoke of these tokens has been acknowledged.
    pub(super) fn settle_all_of<'a>(&mut self, tokens: impl IntoIterator<Item = &'a TokenId>) {
        for id in tokens {
            let token = self.token(&id.0);
            if token.dying {
                token.mark();
            }
        }
    }

    /// Whether the token is dead for good by the last event, so that it may have been reclaimed: then it is answered like
    /// one that never was. Of a family only what has expired is, or the rest could not be found by it.
    pub(super) fn may_be_gone(&self, id: &TokenId) -> bool {
        let Some(token) = self.tokens.get(id) else { return true };
        let is_over = |token: &ModelToken| u64::from(token.expires_s) * 1_000 <= self.last_ms;
        let is_member = |other: &ModelToken| other.root == Some(*id) && !is_over(other);
        let has_members = || self.tokens.values().any(is_member);
        let is_spent = token.uses_max > 0 && token.uses_left == 0;
        is_over(token) || ((token.revoked || is_spent) && token.root.is_none() && !has_members())
    }

    /// Every revoke by subject has been carried out.
    pub(super) fn settle(&mut self) {
        self.tokens.values_mut().filter(|token| token.dying).for_each(ModelToken::mark);
    }

    /// Whether a client holds `right` in a tenant, there or everywhere.
    pub(super) fn may(&self, client: u32, right: Rights, tenant: u32) -> bool {
        self.granted(client, 0).with(self.granted(client, tenant)).contains(right)
    }

    /// Whether somebody with these rights inspects something, and everything it validates: only then is it told an unknown
    /// token from a denied one.
    pub(super) fn sees_all(&self, may: impl Fn(Rights, u32) -> bool) -> bool {
        let everywhere = || self.tenants.keys().copied().chain([0]);
        everywhere().any(|tenant| may(Rights::INSPECT, tenant))
            && everywhere().all(|tenant| !may(Rights::VALIDATE, tenant) || may(Rights::INSPECT, tenant))
    }

    /// The rights of a client in one tenant alone.
    pub(super) fn granted(&self, client: u32, tenant: u32) -> Rights {
        let bits = self.rights.get(&(client, tenant)).copied().unwrap_or(0);
        Rights::from_bits(bits).expect("an event gives rights that exist")
    }

    pub(super) fn tenant(&self, name: &str) -> Option<u32> {
        self.tenants.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
    }

    pub(super) fn client(&self, name: &str) -> Option<u32> {
        self.clients.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
    }

    /// The tokens for which `which` holds.
    pub(super) fn matching(
        &self,
        which: impl Fn(&TokenId, &ModelToken, &ModelClaims) -> bool,
    ) -> Vec<TokenId> {
        let matching = self.tokens.iter().filter(|(id, token)| which(id, token, &self.claims[&token.claims]));
        matching.map(|(id, _)| *id).collect()
    }
}

/// Who asks what of a token, and when.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) id: &'a TokenId,
    pub(super) digest: &'a [u8; 32],
    pub(super) check: Check<'a>,
    pub(super) now_ms: u64,
    /// Whether a renewal counts before it is durable: for decisions it does, for readers it does not.
    pub(super) is_decision: bool,
    /// Whether a token under a revoke by subject counts as dead already.
    pub(super) doomed_is_dead: bool,
}

/// What the answer must be for somebody who may know everything: what a token has been given counts once it is durable
/// (`published`), what it has been taken as soon as it is decided (`decided`).
pub(super) fn answer(published: &Model, decided: &Model, question: &Question<'_>) -> Answer {
    let nothing = |verdict| Answer { verdict, ..Answer::default() };
    let Some(known) = decided.tokens.get(question.id) else { return nothing(Verdict::Unknown) };
    if known.digest != *question.digest {
        return nothing(Verdict::WrongSecret);
    }
    let seen = published.tokens.get(question.id);
    let verdict = verdict(known, seen, &decided.claims[&known.claims].claims, question);
    if verdict == Verdict::Unknown {
        return nothing(verdict);
    }
    let expires_s = if question.is_decision { known } else { seen.unwrap_or(known) }.expires_s;
    Answer {
        verdict,
        flags: known.flags(),
        seconds_left: left(expires_s, question.now_ms),
        claims: ClaimsNo(known.claims),
        subject: SubjectNo(known.subject),
    }
}

fn left(expires_s: u32, now_ms: u64) -> u32 {
    let left_ms = (u64::from(expires_s) * 1_000).saturating_sub(now_ms);
    u32::try_from(left_ms / 1_000).unwrap_or(u32::MAX)
}

fn verdict(
    known: &ModelToken,
    seen: Option<&ModelToken>,
    claims: &Claims,
    question: &Question<'_>,
) -> Verdict {
    let (check, now_ms) = (&question.check, question.now_ms);
    if known.revoked || (known.dying && question.doomed_is_dead) {
        return Verdict::Revoked;
    }
    if known.uses_max > 0 && known.uses_left == 0 {
        return Verdict::Spent;
    }
    let Some(seen) = seen else { return Verdict::Unknown };
    if now_ms < known.not_before_ms {
        return Verdict::NotYetValid;
    }
    let expires_s = if question.is_decision { known.expires_s } else { seen.expires_s };
    if now_ms >= u64::from(expires_s) * 1_000 {
        return Verdict::Expired;
    }
    if known.binding.is_some_and(|bound| check.binding.is_none_or(|shown| shown.0 != bound)) {
        return Verdict::BindingMismatch;
    }
    let audience_ok = claims.audience().is_empty()
        || check.audience.is_some_and(|asked| claims.audience().iter().any(|named| named.as_str() == asked));
    let access_ok =
        check.access.as_ref().is_none_or(|access| claims.grants().iter().any(|grant| grant.covers(access)));
    let has = |asked: &str| claims.scopes().iter().any(|scope| scope == asked);
    let scopes_ok = check.scopes.as_ref().is_none_or(|scopes| scopes.as_str().split(' ').all(has));
    match (audience_ok && access_ok && scopes_ok, known.uses_max > 0) {
        (false, _) => Verdict::Forbidden,
        (true, true) => Verdict::ConsumeRequired,
        (true, false) => Verdict::Valid,
    }
}

/// What a caller who may not inspect is told of it.
pub(super) fn concealed(answer: Answer) -> Answer {
    match answer.verdict {
        Verdict::Valid | Verdict::Forbidden | Verdict::ConsumeRequired | Verdict::Unavailable => answer,
        _ => Answer::default(),
    }
}
