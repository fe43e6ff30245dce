//! The rules of issuing.

use std::collections::HashMap;

use super::decide::Draft;
use super::names::ClaimsKey;
use super::{CLAIM_SETS_MAX, FAMILY_TOKENS_MAX, LIFETIME_S_MAX, SUBJECTS_MAX, State};
use crate::command::{ISSUE_TOKENS_MAX, IssueTokens};
use crate::event::{Fact, Terms};
use crate::judge::cause_of_death;
use crate::mutation::{limit, mutated};
use crate::numbers::{ClaimsNo, SubjectNo, TenantNo};
use crate::outcome::{FieldName, LimitName, Outcome, Rejection};
use crate::rights::Rights;
use crate::token::{Digest, Token, TokenId, digest};

impl State {
    /// One token for each subject, new names and claims introduced first.
    pub(super) fn issue(&self, issue: &IssueTokens, draft: &mut Draft<'_>) -> Result<Outcome, Rejection> {
        let tenant = self.tenant_of(issue.tenant.as_str()).filter(|tenant| *tenant != TenantNo::EVERY);
        let tenant = tenant.ok_or(Rejection::NotAllowed)?;
        if !self.caller(draft.actor).may(Rights::ISSUE, tenant) {
            return Err(Rejection::NotAllowed);
        }
        in_range(issue)?;
        let family =
            issue.parent.map(|parent| self.family_to_join(&parent, tenant, issue, draft)).transpose()?;
        let terms = terms(issue, family, draft);
        if issue.subjects.len() * (1 + usize::from(terms.is_some())) > self.room() {
            return Err(Rejection::Limit(LimitName::Tokens));
        }
        let claims = self.intern(tenant, issue, draft)?;
        let expires = draft.now.expiry_after(issue.ttl_s);
        let mut named = HashMap::new();
        let mut tokens = Vec::with_capacity(issue.subjects.len());
        for subject in &issue.subjects {
            let subject = self.subject_number(tenant, subject.as_str(), &mut named, draft)?;
            let (token, digest) = self.fresh_token(&tokens, draft);
            draft.push(Fact::TokenIssued {
                id: token.id.0,
                digest: digest.0,
                claims: claims.0,
                subject: subject.0,
                issued_s: draft.now.floor_seconds().0,
                expires_s: expires.0,
                terms: terms.clone(),
            });
            tokens.push(token);
        }
        Ok(Outcome::Issued { tokens, expires, claims })
    }

    /// Records there is room for.
    pub(super) fn room(&self) -> usize {
        self.tokens_max.saturating_sub(self.index.slots_used()) as usize
    }

    /// The family of a live parent in the same tenant.
    fn family_to_join(
        &self,
        parent: &TokenId,
        tenant: TenantNo,
        issue: &IssueTokens,
        draft: &Draft<'_>,
    ) -> Result<[u8; 16], Rejection> {
        let known = self.known(parent).filter(|known| known.claims.tenant == tenant);
        let known = known.ok_or(Rejection::ParentNotLive)?;
        if cause_of_death(&known.facts(), draft.now).is_some() && !mutated!(ParentNotAsked) {
            return Err(Rejection::ParentNotLive);
        }
        let root = self.family_root(parent, &known);
        // A family whose root is revoked takes no new members, even through one that joined by an older event.
        let root_revoked =
            self.known(&root).is_some_and(|root| root.entry.state.contains(jeton_index::State::REVOKED));
        if root_revoked {
            return Err(Rejection::ParentNotLive);
        }
        let members = self.family_members(&root).len() + issue.subjects.len();
        if members > limit!(family_tokens, FAMILY_TOKENS_MAX) && !mutated!(FamilyLimitNotAsked) {
            return Err(Rejection::Limit(LimitName::Family));
        }
        Ok(root.0)
    }

    /// The number of the claim set, introduced by an event if it is new or its like was revoked.
    fn intern(
        &self,
        tenant: TenantNo,
        issue: &IssueTokens,
        draft: &mut Draft<'_>,
    ) -> Result<ClaimsNo, Rejection> {
        if let Some(claims) = self.names.claim_set(&ClaimsKey(tenant, draft.actor, *issue.claims.hash())) {
            return Ok(claims);
        }
        let next = u32::try_from(self.registry.claim_sets.count()).ok().filter(|next| *next < CLAIM_SETS_MAX);
        let claims = next.ok_or(Rejection::Limit(LimitName::ClaimSets))?;
        let client = draft.actor.0;
        draft.push_detached(issue.claims.bytes().to_vec(), |content| Fact::ClaimsInterned {
            claims,
            tenant: tenant.0,
            client,
            content,
        });
        Ok(ClaimsNo(claims))
    }

    /// The number of a subject; `named` holds those that this command introduces.
    fn subject_number<'a>(
        &self,
        tenant: TenantNo,
        name: &'a str,
        named: &mut HashMap<&'a str, SubjectNo>,
        draft: &mut Draft<'_>,
    ) -> Result<SubjectNo, Rejection> {
        if let Some(subject) = self.names.subject(&self.registry, tenant, name) {
            return Ok(subject);
        }
        if let Some(subject) = named.get(name) {
            return Ok(*subject);
        }
        let next = self.registry.subjects.count() + named.len();
        let subject = u32::try_from(next).ok().filter(|next| *next < SUBJECTS_MAX);
        let subject = subject.ok_or(Rejection::Limit(LimitName::Subjects))?;
        draft.push_detached(name.as_bytes().to_vec(), |name| Fact::SubjectNamed {
            subject,
            tenant: tenant.0,
            name,
        });
        named.insert(name, SubjectNo(subject));
        Ok(SubjectNo(subject))
    }

    /// 32 random bytes whose id is not taken, nor among those drawn for the same command. With 128 random bits the first
    /// draw is always free; a generator that repeats itself must not overwrite a token all the same. With its digest.
    fn fresh_token(&self, drawn: &[Token], draft: &mut Draft<'_>) -> (Token, Digest) {
        const DRAWS_MAX: usize = 8;
        for _ in 0..DRAWS_MAX {
            let mut bytes = [0; 32];
            (draft.entropy)(&mut bytes);
            let token = Token::from_bytes(bytes);
            // The memory that its word goes to comes while it is hashed.
            self.index.prefetch(&token.id.0);
            let digest = digest(&token.id, &token.secret);
            let is_drawn = drawn.iter().any(|other| other.id == token.id);
            if !is_drawn && self.index.find(&token.id.0).is_none() {
                return (token, digest);
            }
        }
        panic!("the random generator repeats itself: no token can be issued safely");
    }
}

fn in_range(issue: &IssueTokens) -> Result<(), Rejection> {
    let rules = [
        ((1..=ISSUE_TOKENS_MAX).contains(&issue.subjects.len()), FieldName::Subjects),
        ((1..=LIFETIME_S_MAX).contains(&issue.ttl_s), FieldName::Ttl),
        (issue.not_before_s < issue.ttl_s, FieldName::NotBefore),
        (
            issue.renewable_s == 0 || (issue.ttl_s..=LIFETIME_S_MAX).contains(&issue.renewable_s),
            FieldName::Renewable,
        ),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, field)) => Err(Rejection::OutOfRange(field)),
        None => Ok(()),
    }
}

/// The terms beyond the ordinary; `None` for a token that has none.
fn terms(issue: &IssueTokens, family: Option<[u8; 16]>, draft: &Draft<'_>) -> Option<Box<Terms>> {
    let not_before_ms = match issue.not_before_s {
        0 => 0,
        delay => draft.now.0.saturating_add(u64::from(delay) * 1_000),
    };
    let renewable_until_s = match issue.renewable_s {
        0 => 0,
        lifetime => draft.now.expiry_after(lifetime).0,
    };
    let terms = Terms {
        not_before_ms,
        uses_max: issue.uses_max,
        renewable_until_s,
        family,
        binding: issue.binding.map(|binding| binding.0),
    };
    (terms != Terms::default()).then(|| Box::new(terms))
}
