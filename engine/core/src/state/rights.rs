//! The rules of rights and tenants.

use super::State;
use super::decide::Draft;
use crate::claims::Name;
use crate::command::ChangeRights;
use crate::event::Fact;
use crate::numbers::{ClientNo, TenantNo};
use crate::outcome::{FieldName, LimitName, Outcome, Rejection};
use crate::rights::Rights;

/// How many tenants a log holds.
pub(super) const TENANTS_MAX: usize = 1 << 20;
/// How many clients a log names.
pub(super) const CLIENTS_MAX: usize = 1 << 20;

impl State {
    /// Who administers a tenant, or every tenant, may give rights there.
    pub(super) fn grant_rights(
        &self,
        change: &ChangeRights,
        draft: &mut Draft<'_>,
    ) -> Result<Outcome, Rejection> {
        let tenant = self.administered(change, draft.actor)?;
        let client = match self.names.client(change.client.as_str()) {
            Some(client) => client,
            None => self.name_client(&change.client, draft)?,
        };
        let has = self.caller(client).granted_in(tenant);
        Ok(change_to(client, tenant, has, has.with(change.rights), draft))
    }

    pub(super) fn withdraw_rights(
        &self,
        change: &ChangeRights,
        draft: &mut Draft<'_>,
    ) -> Result<Outcome, Rejection> {
        let tenant = self.administered(change, draft.actor)?;
        let client = self.names.client(change.client.as_str()).ok_or(Rejection::NotFound)?;
        let has = self.caller(client).granted_in(tenant);
        let keeps = has.without(change.rights);
        let loses_admin = has.contains(Rights::ADMIN) && !keeps.contains(Rights::ADMIN);
        if tenant == TenantNo::EVERY && loses_admin && !self.another_admin(client) {
            return Err(Rejection::LastAdmin);
        }
        Ok(change_to(client, tenant, has, keeps, draft))
    }

    pub(super) fn create_tenant(&self, name: &Name, draft: &mut Draft<'_>) -> Result<Outcome, Rejection> {
        if !self.caller(draft.actor).may(Rights::ADMIN, TenantNo::EVERY) {
            return Err(Rejection::NotAllowed);
        }
        if self.tenant_of(name.as_str()).is_some() {
            return Err(Rejection::TenantExists);
        }
        let tenant = number_below(self.registry.tenants.count(), TENANTS_MAX, LimitName::Tenants)?;
        draft.push(Fact::TenantCreated { tenant, name: name.as_str().to_owned() });
        Ok(Outcome::TenantCreated { tenant: TenantNo(tenant) })
    }

    fn administered(&self, change: &ChangeRights, actor: ClientNo) -> Result<TenantNo, Rejection> {
        if change.rights.is_empty() {
            return Err(Rejection::OutOfRange(FieldName::Rights));
        }
        self.tenant_of(change.tenant.as_str())
            .filter(|tenant| self.caller(actor).may(Rights::ADMIN, *tenant))
            .ok_or(Rejection::NotAllowed)
    }

    fn name_client(&self, name: &Name, draft: &mut Draft<'_>) -> Result<ClientNo, Rejection> {
        let client = number_below(self.registry.clients.count(), CLIENTS_MAX, LimitName::Clients)?;
        draft.push(Fact::ClientNamed { client, name: name.as_str().to_owned() });
        Ok(ClientNo(client))
    }

    fn another_admin(&self, than: ClientNo) -> bool {
        self.callers.iter().any(|(client, caller)| {
            *client != than && caller.granted_in(TenantNo::EVERY).contains(Rights::ADMIN)
        })
    }
}

fn change_to(client: ClientNo, tenant: TenantNo, from: Rights, to: Rights, draft: &mut Draft<'_>) -> Outcome {
    if from != to {
        draft.push(Fact::RightsChanged { client: client.0, tenant: tenant.0, rights: to.bits() });
    }
    Outcome::RightsChanged { rights: to }
}

fn number_below(next: usize, max: usize, limit: LimitName) -> Result<u32, Rejection> {
    u32::try_from(next).ok().filter(|_| next < max).ok_or(Rejection::Limit(limit))
}
