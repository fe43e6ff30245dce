//! The token: a public id and a secret, 32 random bytes in all, and its text form.
//!
//! Nothing here is stored: the log and the index hold the id and a digest ([`digest`]). A secret has no `Debug`, is
//! wiped when dropped, and leaves this module only as a token's own bytes.

use std::fmt;
use std::str::FromStr;

use zeroize::{Zeroize, Zeroizing};

mod digest;
mod text;

pub use digest::{DIGEST_BATCH, Digest, Digester, digest, digest_batch, digests_equal, has_digest_words};
pub use text::{TOKEN_TEXT_BYTES, TokenError};

/// The public half of a token: it names the token, to administrators and in the log, and opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 16]);

/// The secret half of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

/// A whole token. `Debug` shows the id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The public half.
    pub id: TokenId,
    /// The secret half.
    pub secret: Secret,
}

/// Text that is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token id has 32 hexadecimal digits")]
pub struct TokenIdError;

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(text: &str) -> Result<Self, TokenIdError> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(TokenIdError);
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.as_chunks::<2>().0) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            let value = high.zip(low).map(|(high, low)| high * 16 + low).ok_or(TokenIdError)?;
            *byte = u8::try_from(value).map_err(|_| TokenIdError)?;
        }
        Ok(Self(id))
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, ..)", self.id)
    }
}

impl Token {
    /// The token that these bytes are: 16 of id, 16 of secret. Any 32 bytes are one.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let (mut id, mut secret) = ([0; 16], [0; 16]);
        id.copy_from_slice(&bytes[..16]);
        secret.copy_from_slice(&bytes[16..]);
        Self { id: TokenId(id), secret: Secret(secret) }
    }

    /// Id and secret, as on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.id.0);
        bytes[16..].copy_from_slice(&self.secret.0);
        bytes
    }

    /// The text form, wiped when dropped: `jtn_` and 49 base62 digits.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        text::encode(&self.to_bytes())
    }

    /// Reads the text form. Only the one canonical text of a token is taken.
    ///
    /// # Errors
    /// [`TokenError`], by the first rule that is broken: prefix, length, alphabet, overflow, checksum.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        text::decode(text.as_bytes()).map(Self::from_bytes)
    }
}

#[cfg(test)]
mod tests;
