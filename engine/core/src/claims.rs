//! Claims: what a token allows, beyond being live.
//!
//! A claim set is an audience, scopes, resource grants and free attributes. It is parsed and canonicalised once, at
//! the edge; its canonical bytes ([`Claims::bytes`]) are what is interned, logged and sent; its compiled form
//! ([`CompiledClaims`]) is what every validate asks, without allocating. docs/GRANTS.md is the grammar for people.

mod codec;
mod compiled;
mod grant;
mod name;
mod resource;
mod scopes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use codec::ClaimsError;
pub use compiled::CompiledClaims;
pub use grant::{ACTION_BYTES_MAX, ACTIONS_MAX, Grant, GrantError};
pub use name::{NAME_BYTES_MAX, Name, NameError};
pub use resource::{RESOURCE_BYTES_MAX, ResourceError, ResourcePattern, ResourceQuery, SEGMENTS_MAX};
pub use scopes::{ScopesError, ScopesQuery};

/// The largest claim set in canonical bytes.
pub const CLAIMS_BYTES_MAX: usize = 4096;
/// How many audiences a claim set names at most.
pub const AUDIENCES_MAX: usize = 32;
/// How many scopes a claim set holds at most.
pub const SCOPES_MAX: usize = 64;
/// How many grants a claim set holds at most.
pub const GRANTS_MAX: usize = 64;
/// How many attributes a claim set holds at most.
pub const ATTRIBUTES_MAX: usize = 64;
/// The longest value of an attribute.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;

/// What a token allows. Canonical: audience, scopes and grants are sorted and without repetition. Cloning it copies nothing.
#[derive(Clone, Debug)]
pub struct Claims(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    /// The parts, encoded once, and the blake3 hash of that.
    bytes: Box<[u8]>,
    hash: [u8; 32],
}

#[derive(Debug, Default)]
struct Parts {
    audience: Vec<Name>,
    scopes: Vec<String>,
    grants: Vec<Grant>,
    attributes: BTreeMap<Name, String>,
}

/// Canonical: equal claims have equal bytes.
impl PartialEq for Claims {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Claims {}

impl Default for Claims {
    fn default() -> Self {
        Self::of(Parts::default()).expect("nothing is within every bound")
    }
}

impl Claims {
    /// A claim set of these parts, in any order.
    ///
    /// # Errors
    /// [`ClaimsError`] if a part breaks its bound, or all of them together [`CLAIMS_BYTES_MAX`].
    pub fn new(
        audience: impl IntoIterator<Item = Name>,
        scopes: impl IntoIterator<Item = String>,
        grants: impl IntoIterator<Item = Grant>,
        attributes: BTreeMap<Name, String>,
    ) -> Result<Self, ClaimsError> {
        Self::of(Parts {
            audience: sorted(audience),
            scopes: sorted(scopes),
            grants: sorted(grants),
            attributes,
        })
    }

    fn of(parts: Parts) -> Result<Self, ClaimsError> {
        let counts = [
            ("audiences", parts.audience.len(), AUDIENCES_MAX),
            ("scopes", parts.scopes.len(), SCOPES_MAX),
            ("grants", parts.grants.len(), GRANTS_MAX),
            ("attributes", parts.attributes.len(), ATTRIBUTES_MAX),
        ];
        if let Some((what, _, max)) = counts.into_iter().find(|(_, count, max)| count > max) {
            return Err(ClaimsError::TooMany { what, max });
        }
        if let Some(scope) = parts.scopes.iter().find(|scope| !is_scope(scope)) {
            return Err(ClaimsError::Scope(scope.clone()));
        }
        if parts.attributes.values().any(|value| value.len() > ATTRIBUTE_BYTES_MAX) {
            return Err(ClaimsError::AttributeTooLong);
        }
        let bytes = parts.encode();
        if bytes.len() > CLAIMS_BYTES_MAX {
            return Err(ClaimsError::TooLarge { bytes: bytes.len() });
        }
        let hash = *blake3::hash(&bytes).as_bytes();
        Ok(Self(Arc::new(Inner { parts, bytes: bytes.into(), hash })))
    }

    /// The canonical bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Their blake3 hash.
    pub(crate) fn hash(&self) -> &[u8; 32] {
        &self.0.hash
    }

    /// The services that the token is meant for; empty for any.
    #[must_use]
    pub fn audience(&self) -> &[Name] {
        &self.0.parts.audience
    }

    /// OAuth scopes (RFC 6749, section 3.3): words that a check may ask for, whose meaning is the service's own.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.0.parts.scopes
    }

    /// What may be done to which resources. Nothing else may.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.0.parts.grants
    }

    /// Free attributes; carried, not interpreted.
    #[must_use]
    pub fn attributes(&self) -> &BTreeMap<Name, String> {
        &self.0.parts.attributes
    }

    /// The form that checks are asked of.
    #[must_use]
    pub fn compile(&self) -> CompiledClaims {
        CompiledClaims::new(self)
    }
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    items.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// A scope-token of RFC 6749, section 3.3, of at most [`NAME_BYTES_MAX`] bytes.
fn is_scope(scope: &str) -> bool {
    let is_allowed =
        |byte: u8| byte == 0x21 || (0x23..=0x5b).contains(&byte) || (0x5d..=0x7e).contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&scope.len()) && scope.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests;
