//! What came of a write: outcome or rejection.

use jeton_core::numbers::{ClaimsNo, Sequence, SubjectNo, TenantNo};
use jeton_core::outcome::{FieldName, LimitName, Outcome, Rejection, Reply, RevokeReport};
use jeton_core::rights::Rights;
use jeton_core::time::Seconds;
use jeton_core::token::Token;
use jeton_core::verdict::Verdict;

use super::{answer_bytes, answer_from};
use crate::cursor::Cursor;
use crate::error::WireError;

const REJECTED: u8 = 0;
const ISSUED: u8 = 1;
const RENEWED: u8 = 2;
const CONSUMED: u8 = 3;
const REVOKED: u8 = 4;
const RIGHTS_CHANGED: u8 = 5;
const TENANT_CREATED: u8 = 6;

pub(super) fn encode(reply: &Reply, into: &mut Vec<u8>) {
    into.extend_from_slice(&reply.sequence.0.to_le_bytes());
    match &reply.result {
        Err(rejection) => {
            let (code, detail) = rejection_code(*rejection);
            into.extend_from_slice(&[REJECTED, code]);
            into.extend_from_slice(&detail.to_le_bytes());
        }
        Ok(outcome) => encode_outcome(outcome, into),
    }
}

fn encode_outcome(outcome: &Outcome, into: &mut Vec<u8>) {
    match outcome {
        Outcome::Issued { tokens, expires, claims } => {
            into.push(ISSUED);
            into.extend_from_slice(&expires.0.to_le_bytes());
            into.extend_from_slice(&claims.0.to_le_bytes());
            into.extend_from_slice(&(tokens.len() as u16).to_le_bytes());
            tokens.iter().for_each(|token| into.extend_from_slice(&token.to_bytes()));
        }
        Outcome::Renewed { expires } => {
            into.push(RENEWED);
            into.extend_from_slice(&expires.0.to_le_bytes());
        }
        Outcome::Consumed { answer, uses_left } => {
            into.push(CONSUMED);
            into.extend_from_slice(&answer_bytes(answer));
            into.extend_from_slice(&answer.subject.0.to_le_bytes());
            into.extend_from_slice(&uses_left.to_le_bytes());
        }
        Outcome::Revoked(report) => {
            into.push(REVOKED);
            into.extend_from_slice(&report.revoked.to_le_bytes());
            into.extend_from_slice(&report.broader.to_le_bytes());
        }
        Outcome::RightsChanged { rights } => into.extend_from_slice(&[RIGHTS_CHANGED, rights.bits()]),
        Outcome::TenantCreated { tenant } => {
            into.push(TENANT_CREATED);
            into.extend_from_slice(&tenant.0.to_le_bytes());
        }
    }
}

pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Reply, WireError> {
    let sequence = Sequence(cursor.u64()?);
    let result = match cursor.u8()? {
        REJECTED => Err(rejection_from(cursor.u8()?, cursor.u32()?)?),
        ISSUED => Ok(decode_issued(cursor)?),
        RENEWED => Ok(Outcome::Renewed { expires: Seconds(cursor.u32()?) }),
        CONSUMED => {
            let mut answer = answer_from(cursor.array()?)?;
            answer.subject = SubjectNo(cursor.u32()?);
            Ok(Outcome::Consumed { answer, uses_left: cursor.u32()? })
        }
        REVOKED => Ok(Outcome::Revoked(RevokeReport { revoked: cursor.u64()?, broader: cursor.u64()? })),
        RIGHTS_CHANGED => {
            let rights = Rights::from_bits(cursor.u8()?).ok_or(WireError::Invalid("rights"))?;
            Ok(Outcome::RightsChanged { rights })
        }
        TENANT_CREATED => Ok(Outcome::TenantCreated { tenant: TenantNo(cursor.u32()?) }),
        _ => return Err(WireError::Invalid("an outcome")),
    };
    Ok(Reply { sequence, result })
}

fn decode_issued(cursor: &mut Cursor<'_>) -> Result<Outcome, WireError> {
    let (expires, claims) = (Seconds(cursor.u32()?), ClaimsNo(cursor.u32()?));
    let count = cursor.u16()?;
    let tokens = (0..count).map(|_| cursor.array().map(Token::from_bytes)).collect::<Result<_, _>>()?;
    Ok(Outcome::Issued { tokens, expires, claims })
}

/// The code of a rejection and the number that goes with it.
fn rejection_code(rejection: Rejection) -> (u8, u32) {
    match rejection {
        Rejection::NotAllowed => (1, 0),
        Rejection::Token(verdict) => (2, u32::from(verdict.code())),
        Rejection::NotRenewable => (3, 0),
        Rejection::ParentNotLive => (4, 0),
        Rejection::NotFound => (5, 0),
        Rejection::TenantExists => (6, 0),
        Rejection::LastAdmin => (7, 0),
        Rejection::KeyReused => (8, 0),
        Rejection::Busy { retry_ms } => (9, retry_ms),
        Rejection::Limit(limit) => (10, limit as u32),
        Rejection::OutOfRange(field) => (11, field as u32),
        Rejection::ClockInDoubt => (12, 0),
        Rejection::DiskFull => (13, 0),
        Rejection::LogFailed => (14, 0),
        Rejection::Indeterminate => (15, 0),
        Rejection::Stopping => (16, 0),
    }
}

fn rejection_from(code: u8, detail: u32) -> Result<Rejection, WireError> {
    let small = u8::try_from(detail);
    let named = || small.map_err(|_| WireError::Invalid("the detail of a rejection"));
    let unknown = WireError::Invalid("a rejection");
    Ok(match code {
        1 => Rejection::NotAllowed,
        2 => Rejection::Token(Verdict::from_code(named()?).ok_or(unknown)?),
        3 => Rejection::NotRenewable,
        4 => Rejection::ParentNotLive,
        5 => Rejection::NotFound,
        6 => Rejection::TenantExists,
        7 => Rejection::LastAdmin,
        8 => Rejection::KeyReused,
        9 => Rejection::Busy { retry_ms: detail },
        10 => Rejection::Limit(LimitName::from_code(named()?).ok_or(unknown)?),
        11 => Rejection::OutOfRange(FieldName::from_code(named()?).ok_or(unknown)?),
        12 => Rejection::ClockInDoubt,
        13 => Rejection::DiskFull,
        14 => Rejection::LogFailed,
        15 => Rejection::Indeterminate,
        16 => Rejection::Stopping,
        _ => return Err(unknown),
    })
}
