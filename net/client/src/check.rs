//! What is asked of a token.

use std::sync::Arc;

use jeton_core::check::Check as WireCheck;
use jeton_core::claims::{ResourceQuery, ScopesQuery};
use jeton_core::numbers::Binding;

use crate::Error;

/// What a validate asks of a token beside being live. Clones share its texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Check {
    pub(crate) access: Option<(Arc<str>, Arc<str>)>,
    pub(crate) audience: Option<Arc<str>>,
    pub(crate) scopes: Option<Arc<str>>,
    pub(crate) binding: Option<Binding>,
}

impl Check {
    /// Asks for a live token and no more.
    #[must_use]
    pub fn live() -> Self {
        Self::default()
    }

    /// Asks for a grant of `action` on `resource`.
    ///
    /// # Errors
    /// [`Error::Check`] if either is not one concrete thing.
    pub fn access(action: &str, resource: &str) -> Result<Self, Error> {
        ResourceQuery::new(action, resource)?;
        Ok(Self { access: Some((action.into(), resource.into())), ..Self::default() })
    }

    /// Names the audience that the asking service answers to.
    #[must_use]
    pub fn for_audience(self, audience: &str) -> Self {
        Self { audience: Some(audience.into()), ..self }
    }

    /// Asks for scopes, all of them: separated by single spaces, as OAuth writes them (RFC 6749, section 3.3).
    ///
    /// # Errors
    /// [`Error::Scopes`] if that is not what they are.
    pub fn with_scopes(self, scopes: &str) -> Result<Self, Error> {
        ScopesQuery::new(scopes)?;
        Ok(Self { scopes: Some(scopes.into()), ..self })
    }

    /// Presents what the holder proved to have.
    #[must_use]
    pub fn with_binding(self, binding: Binding) -> Self {
        Self { binding: Some(binding), ..self }
    }

    /// Whether the wire can carry it.
    pub(crate) fn check_bounds(&self) -> Result<(), Error> {
        let bytes = self.audience.as_ref().map_or(0, |audience| audience.len());
        let max = jeton_core::claims::NAME_BYTES_MAX;
        if bytes > max { Err(Error::Audience { bytes, max }) } else { Ok(()) }
    }

    pub(crate) fn on_wire(&self) -> WireCheck<'_> {
        let access =
            self.access.as_ref().and_then(|(action, resource)| ResourceQuery::new(action, resource).ok());
        let scopes = self.scopes.as_deref().and_then(|scopes| ScopesQuery::new(scopes).ok());
        WireCheck { access, audience: self.audience.as_deref(), scopes, binding: self.binding }
    }

    /// How many bytes it takes in a frame.
    pub(crate) fn wire_bytes(&self) -> usize {
        const TEXT: usize = 2;
        let access = self.access.as_ref();
        1 + access.map_or(0, |(action, resource)| 2 * TEXT + action.len() + resource.len())
            + self.audience.as_ref().map_or(0, |audience| TEXT + audience.len())
            + self.scopes.as_ref().map_or(0, |scopes| TEXT + scopes.len())
            + self.binding.map_or(0, |binding| binding.0.len())
    }
}
