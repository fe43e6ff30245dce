//! The canonical bytes of a claim set.
//!
//! Little-endian: version u8 = 1; then four lists, each a u16 count and its items: audiences, scopes (each a string),
//! grants (actions as a list of strings, then the resource pattern), attributes (key, value). A string is a u16
//! length and UTF-8. Lists are sorted and without repetition; bytes that are not exactly what [`Parts::encode`]
//! would write are refused, so equal claims have equal bytes.

use std::collections::BTreeMap;

use super::{CLAIMS_BYTES_MAX, Claims, Grant, GrantError, Name, NameError, Parts};

const VERSION: u8 = 1;

/// Why parts or bytes are no claim set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// One of the lists is too long.
    #[error("claims hold at most {max} {what}")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// How many it may hold.
        max: usize,
    },
    /// Not a scope-token.
    #[error("'{0}' is no scope: printable ASCII without space, quote and backslash")]
    Scope(String),
    /// The value of an attribute is too long.
    #[error("the value of an attribute has at most 1024 bytes")]
    AttributeTooLong,
    /// All of it together is too large.
    #[error("claims take at most {CLAIMS_BYTES_MAX} bytes, these {bytes}")]
    TooLarge {
        /// What they would take.
        bytes: usize,
    },
    /// A name in it.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A grant in it.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The bytes end early, go on, have another version or are not UTF-8.
    #[error("these bytes are no claims")]
    Malformed,
    /// They decode, but claims would have been written otherwise.
    #[error("these claims are not in canonical form")]
    NotCanonical,
}

fn put_count(into: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("lists and strings of claims are bounded far below 65,536");
    into.extend_from_slice(&count.to_le_bytes());
}

fn put_text(into: &mut Vec<u8>, text: &str) {
    put_count(into, text.len());
    into.extend_from_slice(text.as_bytes());
}

/// The bytes not read yet.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ClaimsError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ClaimsError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn count(&mut self) -> Result<usize, ClaimsError> {
        let bytes = self.take(2)?.try_into().map_err(|_| ClaimsError::Malformed)?;
        Ok(usize::from(u16::from_le_bytes(bytes)))
    }

    fn text(&mut self) -> Result<&'a str, ClaimsError> {
        let length = self.count()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| ClaimsError::Malformed)
    }

    /// A list; its items are read one by one, so a count beyond the bytes that are there costs nothing.
    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, ClaimsError>) -> Result<Vec<T>, ClaimsError> {
        let count = self.count()?;
        (0..count).map(|_| item(self)).collect()
    }
}

impl Parts {
    /// The canonical bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put_count(&mut bytes, self.audience.len());
        self.audience.iter().for_each(|name| put_text(&mut bytes, name.as_str()));
        put_count(&mut bytes, self.scopes.len());
        self.scopes.iter().for_each(|scope| put_text(&mut bytes, scope));
        put_count(&mut bytes, self.grants.len());
        for grant in &self.grants {
            put_count(&mut bytes, grant.actions().len());
            grant.actions().for_each(|action| put_text(&mut bytes, action));
            put_text(&mut bytes, &grant.resource().to_string());
        }
        put_count(&mut bytes, self.attributes.len());
        for (key, value) in &self.attributes {
            put_text(&mut bytes, key.as_str());
            put_text(&mut bytes, value);
        }
        bytes
    }
}

impl Claims {
    /// The claims that these canonical bytes are.
    ///
    /// # Errors
    /// [`ClaimsError`]; never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ClaimsError> {
        if bytes.len() > CLAIMS_BYTES_MAX {
            return Err(ClaimsError::TooLarge { bytes: bytes.len() });
        }
        let mut input = Input(bytes);
        if input.take(1)? != [VERSION] {
            return Err(ClaimsError::Malformed);
        }
        let audience = input.list(|input| Ok(Name::new(input.text()?)?))?;
        let scopes = input.list(|input| Ok(input.text()?.to_owned()))?;
        let grants = input.list(|input| {
            let actions = input.list(Input::text)?;
            let resource = input.text()?.parse().map_err(GrantError::from)?;
            Ok(Grant::new(actions, resource)?)
        })?;
        let attributes = input.list(|input| Ok((Name::new(input.text()?)?, input.text()?.to_owned())))?;
        let claims = Self::new(audience, scopes, grants, BTreeMap::from_iter(attributes))?;
        if claims.bytes() == bytes { Ok(claims) } else { Err(ClaimsError::NotCanonical) }
    }
}
