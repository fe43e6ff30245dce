//! What a client may do, tenant by tenant.

use std::fmt;
use std::str::FromStr;

use crate::numbers::{ClientNo, TenantNo};

/// A set of rights within one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

/// The names of the single rights, in the order of their bits.
const NAMES: [(&str, Rights); 6] = [
    ("issue", Rights::ISSUE),
    ("validate", Rights::VALIDATE),
    ("revoke", Rights::REVOKE),
    ("inspect", Rights::INSPECT),
    ("audit", Rights::AUDIT),
    ("admin", Rights::ADMIN),
];

impl Rights {
    /// No right at all.
    pub const NONE: Self = Self(0);
    /// Issue and renew tokens.
    pub const ISSUE: Self = Self(1);
    /// Validate and consume tokens.
    pub const VALIDATE: Self = Self(1 << 1);
    /// Revoke tokens, alone or by subject, client, family, tenant and resource.
    pub const REVOKE: Self = Self(1 << 2);
    /// Learn why a token is denied, and everything that is known of it.
    pub const INSPECT: Self = Self(1 << 3);
    /// Read the log.
    pub const AUDIT: Self = Self(1 << 4);
    /// Grant and withdraw rights, create tenants.
    pub const ADMIN: Self = Self(1 << 5);
    /// Every right there is.
    pub const ALL: Self = Self(0b11_1111);

    /// The set with these bits, or `None` if a bit has no meaning.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits & !Self::ALL.0 == 0).then_some(Self(bits))
    }

    /// The bits of this set.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether every right of `other` is in this set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rights of either set.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The rights in both sets.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// This set without the rights of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, right) in NAMES {
            if self.contains(right) {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

/// A word that names no right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no right; the rights are issue, validate, revoke, inspect, audit, admin, or all")]
pub struct UnknownRight(String);

impl FromStr for Rights {
    type Err = UnknownRight;

    /// Reads a comma-separated list such as `issue,revoke`, or `all`.
    fn from_str(text: &str) -> Result<Self, UnknownRight> {
        if text == "all" {
            return Ok(Self::ALL);
        }
        text.split(',').try_fold(Self::NONE, |rights, word| {
            let word = word.trim();
            let right =
                NAMES.iter().find(|(name, _)| *name == word).ok_or_else(|| UnknownRight(word.to_owned()))?;
            Ok(rights.with(right.1))
        })
    }
}

/// One client as the rights table knows it: its number and its rights, tenant by tenant.
///
/// A client without any right has no number worth knowing: it is [`Caller::STRANGER`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The client's number; [`ClientNo::ENGINE`] for a stranger, to whom no right is ever given.
    pub client: ClientNo,
    /// Rights that hold in every tenant.
    everywhere: Rights,
    /// Rights per tenant, sorted by tenant; few, so a binary search beats a map.
    by_tenant: Vec<(TenantNo, Rights)>,
}

impl Caller {
    /// A client that no event has given any right.
    pub const STRANGER: Self =
        Self { client: ClientNo::ENGINE, everywhere: Rights::NONE, by_tenant: Vec::new() };

    /// A client with this number and no rights yet.
    #[must_use]
    pub fn new(client: ClientNo) -> Self {
        Self { client, everywhere: Rights::NONE, by_tenant: Vec::new() }
    }

    /// The rights in `tenant` alone, without those that hold everywhere.
    #[must_use]
    pub fn granted_in(&self, tenant: TenantNo) -> Rights {
        if tenant == TenantNo::EVERY {
            return self.everywhere;
        }
        match self.by_tenant.binary_search_by_key(&tenant, |(at, _)| *at) {
            Ok(position) => self.by_tenant[position].1,
            Err(_) => Rights::NONE,
        }
    }

    /// Replaces the rights in `tenant`.
    pub fn set(&mut self, tenant: TenantNo, rights: Rights) {
        if tenant == TenantNo::EVERY {
            self.everywhere = rights;
            return;
        }
        match self.by_tenant.binary_search_by_key(&tenant, |(at, _)| *at) {
            Ok(position) if rights.is_empty() => drop(self.by_tenant.remove(position)),
            Ok(position) => self.by_tenant[position].1 = rights,
            Err(_) if rights.is_empty() => {}
            Err(position) => self.by_tenant.insert(position, (tenant, rights)),
        }
    }

    /// Whether this client holds all of `rights` in `tenant`, there or everywhere.
    #[must_use]
    pub fn may(&self, rights: Rights, tenant: TenantNo) -> bool {
        self.everywhere.contains(rights) || self.everywhere.with(self.granted_in(tenant)).contains(rights)
    }

    /// Whether this client holds all of `rights` in at least one tenant.
    #[must_use]
    pub fn may_somewhere(&self, rights: Rights) -> bool {
        self.everywhere.contains(rights)
            || self.by_tenant.iter().any(|(_, here)| self.everywhere.with(*here).contains(rights))
    }

    /// Whether this client may inspect something, and in every tenant in which it may validate.
    #[must_use]
    pub fn inspects_all_it_validates(&self) -> bool {
        if self.everywhere.contains(Rights::VALIDATE) {
            return self.everywhere.contains(Rights::INSPECT);
        }
        let here = || self.by_tenant.iter().map(|(_, here)| self.everywhere.with(*here));
        (self.everywhere.contains(Rights::INSPECT) || here().any(|rights| rights.contains(Rights::INSPECT)))
            && here().all(|rights| !rights.contains(Rights::VALIDATE) || rights.contains(Rights::INSPECT))
    }

    /// Every tenant with the rights granted in it, the tenant `*` first if it has any.
    pub fn grants(&self) -> impl Iterator<Item = (TenantNo, Rights)> + '_ {
        let everywhere = (!self.everywhere.is_empty()).then_some((TenantNo::EVERY, self.everywhere));
        everywhere.into_iter().chain(self.by_tenant.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_written_and_read_as_the_same_list() {
        for bits in 0..=Rights::ALL.bits() {
            let rights = Rights::from_bits(bits).unwrap();
            let text = rights.to_string();
            assert_eq!(text.parse::<Rights>().ok(), (bits != 0).then_some(rights), "{text}");
        }
        assert_eq!("all".parse(), Ok(Rights::ALL));
        assert!("issue,fly".parse::<Rights>().is_err());
        assert_eq!(Rights::from_bits(0b100_0000), None);
    }

    #[test]
    fn a_right_holds_in_its_tenant_only_and_one_of_the_star_tenant_everywhere() {
        let mut caller = Caller::new(ClientNo(7));
        caller.set(TenantNo(3), Rights::ISSUE);
        assert!(caller.may(Rights::ISSUE, TenantNo(3)));
        assert!(!caller.may(Rights::ISSUE, TenantNo(4)));
        assert!(!caller.may(Rights::ISSUE.with(Rights::REVOKE), TenantNo(3)));
        caller.set(TenantNo::EVERY, Rights::REVOKE);
        assert!(caller.may(Rights::ISSUE.with(Rights::REVOKE), TenantNo(3)));
        assert!(caller.may(Rights::REVOKE, TenantNo(4)));
        caller.set(TenantNo(3), Rights::NONE);
        assert!(!caller.may_somewhere(Rights::ISSUE));
    }

    #[test]
    fn a_blind_spot_is_noticed() {
        let mut caller = Caller::new(ClientNo(7));
        assert!(!caller.inspects_all_it_validates());
        caller.set(TenantNo(3), Rights::INSPECT.with(Rights::VALIDATE));
        assert!(caller.inspects_all_it_validates());
        caller.set(TenantNo(4), Rights::VALIDATE);
        assert!(!caller.inspects_all_it_validates());
        caller.set(TenantNo::EVERY, Rights::INSPECT);
        assert!(caller.inspects_all_it_validates());
    }

    #[test]
    fn a_stranger_may_nothing() {
        assert!(!Caller::STRANGER.may_somewhere(Rights::VALIDATE));
    }
}
