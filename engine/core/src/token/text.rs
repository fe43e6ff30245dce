//! The text form of a token: `jtn_`, 43 base62 digits of the 32 bytes, 6 base62 digits of their CRC-32.
//!
//! The shape is that of GitHub's tokens: one word for a double click, and a prefix and checksum for secret scanners.
//! The checksum finds typing errors before any lookup; it is no protection. docs/FORMATS.md has the vectors.

use zeroize::Zeroizing;

const PREFIX: &[u8] = b"jtn_";
const BODY_DIGITS: usize = 43;
const CHECKSUM_DIGITS: usize = 6;
/// Length of a token's text.
pub const TOKEN_TEXT_BYTES: usize = PREFIX.len() + BODY_DIGITS + CHECKSUM_DIGITS;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The value of each byte as a digit; 255 for what is no digit.
const VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// Why text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin with `jtn_`.
    #[error("a token begins with jtn_")]
    Prefix,
    /// It is too short or too long.
    #[error("a token has 53 characters")]
    Length,
    /// A character is no base62 digit.
    #[error("a token has only digits and letters after jtn_")]
    Alphabet,
    /// The digits stand for a number that no token has.
    #[error("the digits of this token are out of range")]
    Overflow,
    /// The last six digits do not fit the others.
    #[error("the checksum of this token is wrong: it was cut, changed or mistyped")]
    Checksum,
}

pub(super) fn encode(token: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(TOKEN_TEXT_BYTES));
    text.push_str("jtn_");
    push_digits::<BODY_DIGITS>(&mut text, token);
    push_digits::<CHECKSUM_DIGITS>(&mut text, &crc32fast::hash(token).to_be_bytes());
    text
}

/// Appends a big-endian number in exactly `DIGITS` base62 digits.
fn push_digits<const DIGITS: usize>(text: &mut String, number: &[u8]) {
    let mut rest = Zeroizing::new([0_u8; 32]);
    let rest = &mut rest[..number.len()];
    rest.copy_from_slice(number);
    let mut digits = Zeroizing::new([0_u8; DIGITS]);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in rest.iter_mut() {
            let dividend = remainder << 8 | u32::from(*byte);
            *byte = (dividend / 62) as u8; // below 256, because the remainder is below 62
            remainder = dividend % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    text.extend(digits.iter().map(|digit| char::from(*digit)));
}

pub(super) fn decode(text: &[u8]) -> Result<[u8; 32], TokenError> {
    let digits = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
    if digits.len() != BODY_DIGITS + CHECKSUM_DIGITS {
        return Err(TokenError::Length);
    }
    if digits.iter().any(|digit| VALUES[usize::from(*digit)] == u8::MAX) {
        return Err(TokenError::Alphabet);
    }
    let (body, checksum) = digits.split_at(BODY_DIGITS);
    let token = number::<32>(body).ok_or(TokenError::Overflow)?;
    let checksum = number::<4>(checksum).ok_or(TokenError::Overflow)?;
    if crc32fast::hash(&token).to_be_bytes() == checksum { Ok(token) } else { Err(TokenError::Checksum) }
}

/// The big-endian number of these digits; `None` if it takes more than `BYTES` bytes.
fn number<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let mut number = [0_u8; BYTES];
    for digit in digits {
        let mut carry = u32::from(VALUES[usize::from(*digit)]);
        for byte in number.iter_mut().rev() {
            let sum = u32::from(*byte) * 62 + carry;
            *byte = (sum & 0xff) as u8;
            carry = sum >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}
