//! What was decided in somebody's favour and is not durable yet: readers do not see it, the next decision counts on it.

use std::collections::{HashMap, VecDeque};

use crate::mutation::mutated;
use crate::numbers::{ClientNo, TenantNo};
use crate::rights::Rights;
use crate::time::Seconds;
use crate::token::TokenId;

/// Renewals and changes of rights between their decision and their publication.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// How many renewals of the token are under way, and the expiry that the last of them gives.
    renewals: HashMap<TokenId, (usize, Seconds)>,
    /// Every change of a client's rights in a tenant that is under way, in order.
    rights: HashMap<(ClientNo, TenantNo), VecDeque<Rights>>,
}

impl Pending {
    /// The expiry that the renewals under way will give the token.
    pub(super) fn renewed_until(&self, id: &TokenId) -> Option<Seconds> {
        self.renewals.get(id).map(|(_, expires)| *expires)
    }

    pub(super) fn begin_renewal(&mut self, id: TokenId, expires: Seconds) {
        let (count, last) = self.renewals.entry(id).or_default();
        (*count, *last) = (*count + 1, expires);
    }

    pub(super) fn end_renewal(&mut self, id: &TokenId) {
        let Some((count, _)) = self.renewals.get_mut(id) else { return };
        *count -= 1;
        if *count == 0 {
            self.renewals.remove(id);
        }
    }

    pub(super) fn begin_rights(&mut self, client: ClientNo, tenant: TenantNo, rights: Rights) {
        self.rights.entry((client, tenant)).or_default().push_back(rights);
    }

    /// Ends the oldest change under way and returns what readers may see of `granted`: a right that a later change takes
    /// is not given in between, whatever comes after that.
    pub(super) fn end_rights(&mut self, client: ClientNo, tenant: TenantNo, granted: Rights) -> Rights {
        let Some(changes) = self.rights.get_mut(&(client, tenant)) else { return granted };
        changes.pop_front();
        let visible = changes.iter().fold(granted, |visible, later| visible.common(*later));
        if changes.is_empty() {
            self.rights.remove(&(client, tenant));
        }
        if mutated!(RightGivenBack) {
            return granted;
        }
        visible
    }
}
