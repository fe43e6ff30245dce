//! The compiled form of a claim set: what every validate asks, without allocating or parsing.

use super::{Claims, Grant, ResourceQuery, ScopesQuery};
use crate::mutation::mutated;

/// Claims ready to be asked.
#[derive(Clone, Debug)]
pub struct CompiledClaims {
    audience: Box<[Box<str>]>,
    scopes: Box<[Box<str>]>,
    grants: Box<[Grant]>,
}

impl CompiledClaims {
    pub(super) fn new(claims: &Claims) -> Self {
        Self {
            audience: claims.audience().iter().map(|name| name.as_str().into()).collect(),
            scopes: claims.scopes().iter().map(|scope| scope.as_str().into()).collect(),
            grants: claims.grants().into(),
        }
    }

    /// The grants.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Whether some grant covers the query. No grant, no access.
    #[must_use]
    pub fn allows(&self, query: &ResourceQuery<'_>) -> bool {
        self.grants.iter().any(|grant| grant.covers(query))
    }

    /// Whether the token has every scope that is asked for.
    #[must_use]
    pub fn has_scopes(&self, query: &ScopesQuery<'_>) -> bool {
        let has = |asked: &str| self.scopes.iter().any(|scope| **scope == *asked);
        if mutated!(OneScopeIsEnough) { query.iter().any(has) } else { query.iter().all(has) }
    }

    /// Whether a service that answers to `audience` may accept the token: if the token names audiences, the service
    /// must be one of them (RFC 7519, section 4.1.3); a token that names none is for any service.
    #[must_use]
    pub fn audience_ok(&self, audience: Option<&str>) -> bool {
        self.audience.is_empty()
            || audience.is_some_and(|asked| self.audience.iter().any(|named| **named == *asked))
    }
}
