//! What a validate asks of a token beside being live.

use crate::claims::{ResourceQuery, ScopesQuery};
use crate::numbers::Binding;

/// The conditions of one check. The default asks for nothing but a live token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Check<'a> {
    /// The action and resource that a grant must cover.
    pub access: Option<ResourceQuery<'a>>,
    /// The audience the asking service answers to.
    pub audience: Option<&'a str>,
    /// Scopes that the token must all have.
    pub scopes: Option<ScopesQuery<'a>>,
    /// What the holder proved to have; a bound token is denied without it.
    pub binding: Option<Binding>,
}

/// The conditions for a frame of tokens.
#[derive(Clone, Copy, Debug)]
pub enum Checks<'a> {
    /// One for all.
    Same(&'a Check<'a>),
    /// One for each token, in order; a token without a check is denied.
    Each(&'a [Check<'a>]),
}

impl<'a> Checks<'a> {
    /// The check of the token at `position`.
    #[must_use]
    pub fn at(&self, position: usize) -> Option<&'a Check<'a>> {
        match self {
            Self::Same(check) => Some(check),
            Self::Each(checks) => checks.get(position),
        }
    }
}
