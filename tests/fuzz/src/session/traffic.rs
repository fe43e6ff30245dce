//! What clients send and doors answer, out of any bytes.

use arbitrary::{Arbitrary as _, Result, Unstructured};
use jeton_core::check::Check;
use jeton_core::claims::{Claims, Name, ScopesQuery};
use jeton_core::command::{Command, IssueTokens, RevokeTarget};
use jeton_core::numbers::{ClaimsNo, IdempotencyKey, Sequence, SubjectNo};
use jeton_core::outcome::{Outcome, Rejection, Reply, RevokeReport};
use jeton_core::token::TokenId;
use jeton_wire::doors::{DoorReply, LogPage};
use jeton_wire::request::{Hello, Request, TOKENS_MAX, encode_validate};

/// A hello as every client says it.
pub(super) fn hello(request: u64) -> Vec<u8> {
    encoded(&Request::Hello(Hello { version_min: 1, version_max: 1, features: 0 }), request)
}

fn encoded(request: &Request<'_>, id: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(id, &mut bytes);
    bytes
}

/// Bytes that need not be a frame.
pub(super) fn raw(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = input.int_in_range(0..=40_usize)?.min(input.len());
    Ok(input.bytes(length)?.to_vec())
}

/// A request of any kind.
pub(super) fn request(input: &mut Unstructured<'_>, id: u64) -> Result<Vec<u8>> {
    let request = match input.int_in_range(0..=14_u8)? {
        0..=4 => return validate(input, id),
        5 => Request::Hello(Hello {
            version_min: input.int_in_range(0..=2)?,
            version_max: input.int_in_range(0..=2)?,
            features: u64::arbitrary(input)?,
        }),
        6 => Request::ReadLog {
            from: Sequence(u64::arbitrary(input)?),
            bytes_max: *input.choose(&[0, 1, 1 << 16, 1 << 19, 1 << 22, u32::MAX])?,
        },
        7 => Request::Ping,
        8 => Request::Clients,
        9 => Request::Stats,
        10 => Request::Claims(ClaimsNo(1)),
        11 => Request::Subject(SubjectNo(1)),
        12 => Request::Write { key: None, command: issue(input)? },
        13 => Request::TakeSnapshot,
        _ => Request::Write {
            key: bool::arbitrary(input)?.then_some(IdempotencyKey([1; 16])),
            command: Command::Revoke(RevokeTarget::Id(TokenId([1; 16]))),
        },
    };
    Ok(encoded(&request, id))
}

fn name(text: &str) -> Name {
    text.parse().expect("it is a name")
}

fn issue(input: &mut Unstructured<'_>) -> Result<Command> {
    let subjects = vec![name("s"); input.int_in_range(0..=256)?];
    Ok(Command::IssueTokens(IssueTokens {
        tenant: name("t"),
        subjects,
        claims: Claims::default(),
        ttl_s: 1,
        not_before_s: 0,
        renewable_s: 0,
        uses_max: 0,
        parent: None,
        binding: None,
    }))
}

fn validate(input: &mut Unstructured<'_>, id: u64) -> Result<Vec<u8>> {
    let count = if input.ratio(1, 16)? { TOKENS_MAX } else { input.int_in_range(1..=4)? };
    let first = u8::arbitrary(input)?;
    let tokens: Vec<[u8; 32]> = (0..count).map(|at| [first.wrapping_mul(at as u8); 32]).collect();
    let min_sequence = Sequence(input.int_in_range(0..=8)?);
    let scopes = ScopesQuery::new("a b").ok();
    let checks = [Check::default(), Check { audience: Some("a"), scopes, ..Check::default() }];
    let indexes: Vec<u16> = (0..count as u16).map(|at| at % 2).collect();
    let mut bytes = Vec::new();
    let mut put = |checks: &[Check<'_>], indexes| {
        encode_validate(id, &tokens, checks, indexes, min_sequence, false, &mut bytes);
    };
    if count > 1 && input.ratio(1, 2)? {
        put(&checks, Some(&indexes))
    } else {
        put(&checks[1..], None)
    }
    Ok(bytes)
}

/// What a door answers to a read of the log or to a command.
pub(super) fn reply(input: &mut Unstructured<'_>, is_read: bool) -> Result<DoorReply> {
    let kind = input.int_in_range(0..=3_u8)?;
    Ok(if is_read && kind < 2 {
        DoorReply::Log(Err("no".to_owned()))
    } else if is_read {
        let batches = vec![vec![7; input.int_in_range(0..=50)?]; usize::from(kind)];
        DoorReply::Log(Ok(LogPage { first: Sequence(1), head: Sequence(2), batches }))
    } else {
        let result = match kind {
            0 => Err(Rejection::Busy { retry_ms: 3 }),
            1 => Err(Rejection::LogFailed),
            _ => Ok(Outcome::Revoked(RevokeReport { revoked: 1, broader: 0 })),
        };
        DoorReply::Command(Reply { sequence: Sequence(1), result })
    })
}
