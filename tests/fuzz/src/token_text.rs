//! The text of tokens and token ids: one canonical text for each, and every other text refused for the right reason.
//!
//! The oracle knows the format from docs/FORMATS.md only: it reads with 64-bit limbs and a checksum made bit by bit.

use arbitrary::{Arbitrary as _, Result, Unstructured};
use jeton_core::token::{TOKEN_TEXT_BYTES, Token, TokenError, TokenId};

/// Reads the bytes as text, prints the token that they are, and reads that back with one place changed.
pub fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        check_text(text);
        check_id(text);
    }
    let _ = check_printed(&mut Unstructured::new(data));
}

fn check_printed(input: &mut Unstructured<'_>) -> Result<()> {
    let bytes = <[u8; 32]>::arbitrary(input)?;
    let token = Token::from_bytes(bytes);
    assert_eq!(token.to_bytes(), bytes, "a token is its bytes");
    let text = token.to_text();
    // Digits of fixed width stand for one number each: a text that reads back is the only one of its token.
    assert_eq!(oracle(&text), Ok(bytes), "what is printed is the text of this token");
    assert!(Token::parse(&text) == Ok(token.clone()), "what is printed is read back");
    let id = token.id.to_string();
    assert_eq!(id.parse(), Ok(token.id), "an id is read back from its text");
    assert_eq!(format!("{token:?}"), format!("Token({id}, ..)"), "a token shows its id alone");

    let at = input.choose_index(TOKEN_TEXT_BYTES)?;
    let mut changed: Vec<char> = text.chars().collect();
    changed[at] = char::arbitrary(input)?;
    check_text(&changed.iter().collect::<String>());
    changed[at] = char::from(b'0' + u8::arbitrary(input)? % 75);
    check_text(&changed.iter().collect::<String>());
    Ok(())
}

fn check_text(text: &str) {
    let read = Token::parse(text);
    assert_eq!(read.as_ref().map(Token::to_bytes).map_err(|error| *error), oracle(text), "{text:?}");
    if let Ok(token) = read {
        assert_eq!(*token.to_text(), text, "only the canonical text is taken");
    }
}

fn check_id(text: &str) {
    let is_hexadecimal = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.parse::<TokenId>() {
        Ok(id) => assert_eq!(id.to_string(), text.to_ascii_lowercase(), "an id has one value"),
        Err(_) => assert!(!is_hexadecimal, "{text:?} is an id"),
    }
}

/// The token that a text stands for, by the words of docs/FORMATS.md.
fn oracle(text: &str) -> std::result::Result<[u8; 32], TokenError> {
    let digits = text.strip_prefix("jtn_").ok_or(TokenError::Prefix)?;
    if digits.len() != 49 {
        return Err(TokenError::Length);
    }
    let digits: Option<Vec<u64>> = digits.chars().map(digit).collect();
    let digits = digits.ok_or(TokenError::Alphabet)?;
    let [b0, b1, b2, b3] = number::<4>(&digits[..43]).ok_or(TokenError::Overflow)?.map(u64::to_be_bytes);
    let checksum = u32::try_from(number::<1>(&digits[43..]).ok_or(TokenError::Overflow)?[0])
        .map_err(|_| TokenError::Overflow)?;
    let mut token = [0; 32];
    token.copy_from_slice(&[b3, b2, b1, b0].concat());
    if crc32(&token) == checksum { Ok(token) } else { Err(TokenError::Checksum) }
}

fn digit(character: char) -> Option<u64> {
    Some(match character {
        '0'..='9' => character as u64 - '0' as u64,
        'A'..='Z' => character as u64 - 'A' as u64 + 10,
        'a'..='z' => character as u64 - 'a' as u64 + 36,
        _ => return None,
    })
}

/// A number in limbs of 64 bits, the lowest first; `None` if it does not fit.
fn number<const LIMBS: usize>(digits: &[u64]) -> Option<[u64; LIMBS]> {
    let mut limbs = [0_u64; LIMBS];
    for digit in digits {
        let mut carry = u128::from(*digit);
        for limb in &mut limbs {
            let sum = u128::from(*limb) * 62 + carry;
            *limb = sum as u64;
            carry = sum >> 64;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(limbs)
}

/// CRC-32 (ISO-HDLC), a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    let mut register = u32::MAX;
    for byte in bytes {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            register = register >> 1 ^ if register & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !register
}
