//! The compiled form of a claim set: what every validate asks, without allocating or parsing.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::{Claims, Grant, ResourceQuery, ScopesQuery};
use crate::mutation::mutated;

/// So few grants are asked one by one sooner than found.
const ONE_BY_ONE_MAX: usize = 2;

/// Claims ready to be asked.
#[derive(Clone, Debug)]
pub struct CompiledClaims {
    audience: Box<[Box<str>]>,
    /// In order.
    scopes: Box<[Box<str>]>,
    grants: Grants,
}

impl CompiledClaims {
    pub(super) fn new(claims: &Claims) -> Self {
        Self {
            audience: claims.audience().iter().map(|name| name.as_str().into()).collect(),
            scopes: claims.scopes().iter().map(|scope| scope.as_str().into()).collect(),
            grants: Grants::new(claims.grants()),
        }
    }

    /// The grants.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants.all
    }

    /// Whether some grant covers the query. No grant, no access.
    #[must_use]
    pub fn allows(&self, query: &ResourceQuery<'_>) -> bool {
        self.grants.cover(query)
    }

    /// Whether the token has every scope that is asked for.
    #[must_use]
    pub fn has_scopes(&self, query: &ScopesQuery<'_>) -> bool {
        let has = |asked: &str| self.scopes.binary_search_by(|scope| (**scope).cmp(asked)).is_ok();
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

/// Grants by how their resources begin: with segments that are no wildcards. A path can only be matched by a pattern that begins
/// as it does, so of many grants a query asks those alone.
#[derive(Clone, Debug)]
struct Grants {
    /// Those that begin alike beside one another.
    all: Box<[Grant]>,
    /// Where in `all` those are that begin so, the slashes between segments included. Empty for a few grants.
    by_beginning: FxHashMap<Box<str>, Range<u8>>,
    /// A bit for each number of segments that some beginning has.
    lengths: u64,
}

const _: () = assert!(super::GRANTS_MAX <= u8::MAX as usize, "a place among the grants is a u8");
const _: () = assert!(super::SEGMENTS_MAX < u64::BITS as usize, "each number of segments has a bit");

impl Grants {
    fn new(grants: &[Grant]) -> Self {
        let mut grants: Vec<_> = grants.iter().map(|grant| (grant.resource().beginning(), grant)).collect();
        let (mut by_beginning, mut lengths) = (FxHashMap::<Box<str>, Range<u8>>::default(), 0);
        if grants.len() > ONE_BY_ONE_MAX {
            grants.sort_by(|(one, _), (other, _)| one.cmp(other));
            for (at, ((segments, beginning), _)) in grants.iter().enumerate() {
                let place = at as u8;
                by_beginning.entry(beginning.as_str().into()).or_insert(place..place).end = place + 1;
                lengths |= 1 << segments;
            }
        }
        Self { all: grants.into_iter().map(|(_, grant)| grant.clone()).collect(), by_beginning, lengths }
    }

    fn cover(&self, query: &ResourceQuery<'_>) -> bool {
        if self.by_beginning.is_empty() {
            return self.all.iter().any(|grant| grant.covers(query));
        }
        let mut lengths = self.lengths;
        while lengths != 0 {
            let Some(beginning) = query.beginning(lengths.trailing_zeros() as usize) else { return false };
            if let Some(places) = self.by_beginning.get(beginning) {
                let alike = &self.all[usize::from(places.start)..usize::from(places.end)];
                if alike.iter().any(|grant| grant.covers(query)) {
                    return true;
                }
            }
            lengths &= lengths - 1;
        }
        false
    }
}
