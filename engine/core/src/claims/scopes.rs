//! Scopes that are asked of a token.

use super::{SCOPES_MAX, is_scope};

/// Scopes that a token must all have, as OAuth writes them: separated by single spaces (RFC 6749, section 3.3). The order does
/// not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopesQuery<'a>(&'a str);

/// No list of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "scopes are 1 to {SCOPES_MAX} words of printable ASCII without quote and backslash, separated by single spaces"
)]
pub struct ScopesError;

impl<'a> ScopesQuery<'a> {
    /// The query for these scopes. Allocates nothing.
    ///
    /// # Errors
    /// [`ScopesError`]: none, more than [`SCOPES_MAX`], or something that is no scope-token.
    pub fn new(scopes: &'a str) -> Result<Self, ScopesError> {
        let mut count = 0;
        let are_scopes = scopes.split(' ').all(|scope| {
            count += 1;
            count <= SCOPES_MAX && is_scope(scope)
        });
        if are_scopes { Ok(Self(scopes)) } else { Err(ScopesError) }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.split(' ')
    }
}
