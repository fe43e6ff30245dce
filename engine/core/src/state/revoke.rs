//! The rules of revoking: what each target means in events.

use super::decide::{Decided, Draft};
use super::{Known, State};
use crate::claims::{Name, ResourcePattern};
use crate::command::RevokeTarget;
use crate::event::{Fact, REVOKED_CLAIM_SETS_MAX};
use crate::mutation::mutated;
use crate::numbers::{ClientNo, TenantNo};
use crate::outcome::{Outcome, Rejection, RevokeReport};
use crate::registry::ClaimSet;
use crate::rights::Rights;
use crate::token::TokenId;

impl State {
    pub(super) fn revoke(&self, target: &RevokeTarget, draft: &mut Draft<'_>) -> Result<Decided, Rejection> {
        let report = match target {
            RevokeTarget::Token(token) => {
                let known = self.presented(token, draft.actor, Rights::REVOKE).ok_or(Rejection::NotFound)?;
                revoke_one(&token.id, &known, draft)
            }
            RevokeTarget::Id(id) => revoke_one(id, &self.revocable(id, draft.actor)?, draft),
            RevokeTarget::Subject { tenant, subject } => return self.revoke_subject(tenant, subject, draft),
            RevokeTarget::Family(id) => self.revoke_family(id, draft)?,
            RevokeTarget::Client { tenant, client } => {
                let tenant = self.revocable_tenant(tenant, draft.actor)?;
                let client = self.names.client(client.as_str()).ok_or(Rejection::NotFound)?;
                self.revoke_client(tenant, client, draft)
            }
            RevokeTarget::Tenant { tenant } => {
                let tenant = self.revocable_tenant(tenant, draft.actor)?;
                self.revoke_tenant(tenant, draft)
            }
            RevokeTarget::Resource { tenant, pattern } => {
                let tenant = self.revocable_tenant(tenant, draft.actor)?;
                self.revoke_resource(tenant, pattern, draft)
            }
        };
        Ok(Decided::Done(Outcome::Revoked(report)))
    }

    /// The token with this id, if the actor may revoke in its tenant.
    fn revocable(&self, id: &TokenId, actor: ClientNo) -> Result<Known<'_>, Rejection> {
        self.known(id)
            .filter(|known| self.caller(actor).may(Rights::REVOKE, known.claims.tenant))
            .ok_or(Rejection::NotFound)
    }

    fn revocable_tenant(&self, name: &Name, actor: ClientNo) -> Result<TenantNo, Rejection> {
        self.tenant_of(name.as_str())
            .filter(|tenant| *tenant != TenantNo::EVERY && self.caller(actor).may(Rights::REVOKE, *tenant))
            .ok_or(Rejection::NotAllowed)
    }

    /// One event for all the subject has; marking its tokens and counting them goes on in steps.
    fn revoke_subject(
        &self,
        tenant: &Name,
        subject: &Name,
        draft: &mut Draft<'_>,
    ) -> Result<Decided, Rejection> {
        let tenant = self.revocable_tenant(tenant, draft.actor)?;
        let subject =
            self.names.subject(&self.registry, tenant, subject.as_str()).ok_or(Rejection::NotFound)?;
        draft.push(Fact::SubjectRevoked { subject: subject.0 });
        Ok(Decided::Marking)
    }

    fn revoke_family(&self, id: &TokenId, draft: &mut Draft<'_>) -> Result<RevokeReport, Rejection> {
        let known = self.revocable(id, draft.actor)?;
        let root = self.family_root(id, &known);
        let members = self.family_members(&root).iter().chain(std::iter::once(&root));
        let revoked =
            members.filter(|member| self.known(member).is_some_and(|known| !is_revoked(&known))).count();
        if revoked > 0 {
            draft.push(Fact::FamilyRevoked { root: root.0 });
        }
        Ok(RevokeReport { revoked: revoked as u64, broader: 0 })
    }

    fn revoke_client(&self, tenant: TenantNo, client: ClientNo, draft: &mut Draft<'_>) -> RevokeReport {
        let revoked = self.live_claim_sets(tenant).filter(|(_, set)| set.client == client).count();
        if revoked > 0 {
            draft.push(Fact::ClientRevoked { tenant: tenant.0, client: client.0 });
        }
        RevokeReport { revoked: revoked as u64, broader: 0 }
    }

    fn revoke_tenant(&self, tenant: TenantNo, draft: &mut Draft<'_>) -> RevokeReport {
        let revoked = self.live_claim_sets(tenant).count();
        if revoked > 0 {
            draft.push(Fact::TenantRevoked { tenant: tenant.0 });
        }
        RevokeReport { revoked: revoked as u64, broader: 0 }
    }

    /// Kills the claim sets holding a grant within the pattern, and counts those left that reach into it.
    fn revoke_resource(
        &self,
        tenant: TenantNo,
        pattern: &ResourcePattern,
        draft: &mut Draft<'_>,
    ) -> RevokeReport {
        let mut revoked = Vec::new();
        let mut broader = 0;
        for (number, set) in self.live_claim_sets(tenant) {
            let Some(compiled) = &set.compiled else { continue };
            let mut patterns = compiled.grants().iter().map(crate::claims::Grant::resource);
            if patterns.clone().any(|held| pattern.contains(held)) {
                revoked.push(number);
            } else if patterns.any(|held| pattern.overlaps(held)) {
                broader += 1;
            }
        }
        for claims in revoked.chunks(REVOKED_CLAIM_SETS_MAX) {
            let claims = claims.to_vec();
            draft.push_detached(pattern.to_string().into_bytes(), |pattern| Fact::ResourceRevoked {
                tenant: tenant.0,
                pattern,
                claims,
            });
        }
        RevokeReport { revoked: revoked.len() as u64, broader }
    }

    /// Live claim sets of a tenant with their numbers.
    fn live_claim_sets(&self, tenant: TenantNo) -> impl Iterator<Item = (u32, &ClaimSet)> {
        self.registry
            .claim_sets
            .iter()
            .filter(move |(_, set)| set.tenant == tenant && !set.is_dead())
            .map(|(at, set)| (u32::try_from(at).expect("claim sets are numbered in 32 bits"), set))
    }

    /// How many different subjects have been named; for figures.
    #[must_use]
    pub fn subjects(&self) -> usize {
        self.registry.subjects.count() - 1
    }
}

fn revoke_one(id: &TokenId, known: &Known<'_>, draft: &mut Draft<'_>) -> RevokeReport {
    if is_revoked(known) {
        return RevokeReport::default();
    }
    draft.push(Fact::TokenRevoked { id: id.0 });
    RevokeReport { revoked: 1, broader: 0 }
}

/// Whether readers deny it already. A revoke by subject that is still under way does not count: it is not answered
/// before it is through, and a revoke that came behind it must not be answered earlier either.
fn is_revoked(known: &Known<'_>) -> bool {
    let pending_counts =
        mutated!(PendingRevokeCounts) && known.entry.state.contains(jeton_index::State::REVOKED);
    known.is_marked_revoked || pending_counts || known.claims.is_dead()
}
