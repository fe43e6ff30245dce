//! The validate request: many tokens, one check for all of them or one of a few for each.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 2 | number of tokens n, 1 to [`TOKENS_MAX`] |
//! | 2 | 2 | number of checks c; 0 asks only whether the tokens are live |
//! | 4 | 2 | bits: 1 each token names its check, 2 answers carry subject numbers |
//! | 6 | 2 | zeros |
//! | 8 | 8 | the event that the answers must rest on at least; 0 for any |
//! | 16 | 32 n | tokens: id 16, secret 16 |
//! | | 2 n | with bit 1: the index of each token's check |
//! | | | the checks |
//!
//! A check is a byte of bits (1 access, 2 audience, 4 binding, 8 scopes) and then, as they say, action and resource,
//! audience (each u16 length and UTF-8), 32 bytes of binding, and scopes (u16 length and words separated by single spaces).
//! Without bit 1 of the request there is at most one check.

use jeton_core::check::Check;
use jeton_core::claims::{ResourceQuery, ScopesQuery};
use jeton_core::numbers::{Binding, Sequence};

use crate::cursor::{Cursor, Put};
use crate::error::WireError;
use crate::frame::{Frame, HEADER_BYTES, OPCODE_AT, append};

/// The most tokens of one request: what fits into a frame with room for checks.
pub const TOKENS_MAX: usize = 1024;

const EACH_NAMES_ITS_CHECK: u16 = 1;
const WITH_SUBJECTS: u16 = 1 << 1;
const ACCESS: u8 = 1;
const AUDIENCE: u8 = 1 << 1;
const BINDING: u8 = 1 << 2;
const SCOPES: u8 = 1 << 3;

/// A validate, borrowed from the frame it came in.
#[derive(Clone, Copy, Debug)]
pub struct ValidateRequest<'a> {
    /// The tokens, as they are on the wire.
    pub tokens: &'a [[u8; 32]],
    /// The event that the answers must rest on at least.
    pub min_sequence: Sequence,
    /// Whether the answers carry subject numbers.
    pub with_subjects: bool,
    indexes: Option<&'a [[u8; 2]]>,
    check_count: u16,
    checks: &'a [u8],
}

/// Checks of the tokens of one request or several, one for each token.
pub type ChecksBuffer<'a> = Vec<Check<'a>>;

impl<'a> ValidateRequest<'a> {
    /// Reads the validate in a frame of that kind, without what makes other requests large to hand around.
    ///
    /// # Errors
    /// [`WireError`]; never panics, whatever the bytes.
    pub(crate) fn in_frame(frame: &Frame<'a>) -> Result<Self, WireError> {
        Self::decode(&mut Cursor::new(frame.payload)) // which leaves nothing behind
    }

    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, WireError> {
        let [n0, n1, c0, c1, b0, b1, z0, z1, min_sequence @ ..] = cursor.array::<16>()?;
        let (count, check_count) = (usize::from(u16::from_le_bytes([n0, n1])), u16::from_le_bytes([c0, c1]));
        let bits = u16::from_le_bytes([b0, b1]);
        let min_sequence = Sequence(u64::from_le_bytes(min_sequence));
        let names_checks = bits & EACH_NAMES_ITS_CHECK != 0;
        let invalid = |rule| Err(WireError::Invalid(rule));
        if !(1..=TOKENS_MAX).contains(&count) {
            return invalid("the number of tokens");
        }
        if bits & !(EACH_NAMES_ITS_CHECK | WITH_SUBJECTS) != 0 || [z0, z1] != [0; 2] {
            return invalid("unknown bits");
        }
        if !names_checks && check_count > 1 {
            return invalid("checks that no token names");
        }
        if usize::from(check_count) > count {
            return invalid("more checks than tokens");
        }
        let tokens = cursor.take(count * 32)?.as_chunks::<32>().0;
        let indexes =
            names_checks.then(|| cursor.take(count * 2)).transpose()?.map(|bytes| bytes.as_chunks::<2>().0);
        if let Some(indexes) = indexes
            && indexes.iter().any(|index| u16::from_le_bytes(*index) >= check_count)
        {
            return Err(WireError::Invalid("a token names a check that is not there"));
        }
        let checks = cursor.rest();
        let request = Self {
            tokens,
            min_sequence,
            with_subjects: bits & WITH_SUBJECTS != 0,
            indexes,
            check_count,
            checks,
        };
        request.each_check(|_| {})?;
        Ok(request)
    }

    fn each_check(&self, mut visit: impl FnMut(Check<'a>)) -> Result<(), WireError> {
        let mut cursor = Cursor::new(self.checks);
        for _ in 0..self.check_count {
            visit(decode_check(&mut cursor)?);
        }
        cursor.end()
    }

    /// The one check for all tokens; the default one if the request has none. `None` if each token names its own.
    #[must_use]
    pub fn check_for_all(&self) -> Option<Check<'a>> {
        if self.indexes.is_some() {
            return None; // without a look at a table of a thousand
        }
        let mut check = Check::default();
        self.each_check(|only| check = only).ok()?;
        Some(check)
    }

    /// Whether the tokens are only asked to be live.
    #[must_use]
    pub fn asks_for_nothing_else(&self) -> bool {
        self.check_count == 0
    }

    /// Appends the check of each token, whether or not they name their own.
    pub fn add_checks(&self, into: &mut ChecksBuffer<'a>) {
        match self.check_for_all() {
            Some(check) => into.extend(std::iter::repeat_n(check, self.tokens.len())),
            None => self.add_checks_of_each(into),
        }
    }

    /// The check of each token, for a request in which each names its own.
    pub fn checks_of_each(&self, into: &mut ChecksBuffer<'a>) {
        into.clear();
        self.add_checks_of_each(into);
    }

    fn add_checks_of_each(&self, into: &mut ChecksBuffer<'a>) {
        // The table is laid out behind what is there, and taken out once each token has a copy of its line: no other memory.
        let from = into.len();
        let _ = self.each_check(|check| into.push(check)); // it decoded when the request did
        let to = into.len();
        for index in self.indexes.unwrap_or_default() {
            into.push(into[from..to][usize::from(u16::from_le_bytes(*index))]);
        }
        into.drain(from..to);
    }
}

pub(super) fn decode_check<'a>(cursor: &mut Cursor<'a>) -> Result<Check<'a>, WireError> {
    let bits = cursor.u8()?;
    if bits & !(ACCESS | AUDIENCE | BINDING | SCOPES) != 0 {
        return Err(WireError::Invalid("unknown bits of a check"));
    }
    let access = if bits & ACCESS == 0 {
        None
    } else {
        let (action, resource) = (cursor.text()?, cursor.text()?);
        Some(ResourceQuery::new(action, resource).map_err(|_| WireError::Invalid("an action or resource"))?)
    };
    let audience = if bits & AUDIENCE == 0 { None } else { Some(cursor.text()?) };
    let binding = if bits & BINDING == 0 { None } else { Some(Binding(cursor.array()?)) };
    let scopes = if bits & SCOPES == 0 {
        None
    } else {
        Some(ScopesQuery::new(cursor.text()?).map_err(|_| WireError::Invalid("scopes"))?)
    };
    Ok(Check { access, audience, scopes, binding })
}

pub(super) fn encode_check(check: &Check<'_>, into: &mut Vec<u8>) {
    let has = |present, bit| if present { bit } else { 0 };
    into.push(
        has(check.access.is_some(), ACCESS)
            | has(check.audience.is_some(), AUDIENCE)
            | has(check.binding.is_some(), BINDING)
            | has(check.scopes.is_some(), SCOPES),
    );
    if let Some(access) = &check.access {
        into.put_text(access.action());
        into.put_text(access.resource());
    }
    if let Some(audience) = check.audience {
        into.put_text(audience);
    }
    if let Some(binding) = check.binding {
        into.extend_from_slice(&binding.0);
    }
    if let Some(scopes) = &check.scopes {
        into.put_text(scopes.as_str());
    }
}

/// Whether an encoded request is a validate that waits for no event: that is answered as soon as the server takes it.
pub fn is_prompt_validate(frame: &[u8]) -> bool {
    let min_sequence = frame.get(HEADER_BYTES + 8..HEADER_BYTES + 16);
    frame.get(OPCODE_AT) == Some(&super::VALIDATE) && min_sequence == Some(&[0; 8])
}

/// Appends a validate. `checks` is one for all tokens, or with `indexes` a table that each token names one of.
///
/// # Panics
/// If there is no token, more than [`TOKENS_MAX`], or not one index for each token.
pub fn encode_validate(
    request: u64,
    tokens: &[[u8; 32]],
    checks: &[Check<'_>],
    indexes: Option<&[u16]>,
    min_sequence: Sequence,
    with_subjects: bool,
    into: &mut Vec<u8>,
) {
    assert!((1..=TOKENS_MAX).contains(&tokens.len()), "a validate asks about 1 to {TOKENS_MAX} tokens");
    assert!(indexes.is_none_or(|indexes| indexes.len() == tokens.len()), "each token names a check");
    append(into, super::VALIDATE, request, |into| {
        let bits = if indexes.is_some() { EACH_NAMES_ITS_CHECK } else { 0 }
            | if with_subjects { WITH_SUBJECTS } else { 0 };
        for field in [tokens.len() as u16, checks.len() as u16, bits, 0] {
            into.extend_from_slice(&field.to_le_bytes());
        }
        into.extend_from_slice(&min_sequence.0.to_le_bytes());
        into.extend_from_slice(tokens.as_flattened());
        for index in indexes.unwrap_or_default() {
            into.extend_from_slice(&index.to_le_bytes());
        }
        checks.iter().for_each(|check| encode_check(check, into));
    });
}
