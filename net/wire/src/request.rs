//! Requests: what clients send.

mod command;
mod validate;

use jeton_core::command::Command;
use jeton_core::numbers::{ClaimsNo, IdempotencyKey, Sequence, SubjectNo};
use jeton_core::token::TokenId;

pub(crate) use command::KnownClaims;
pub use validate::{ChecksBuffer, TOKENS_MAX, ValidateRequest, encode_validate, is_prompt_validate};

use crate::cursor::{Cursor, Put};
use crate::error::WireError;
use crate::frame::{Frame, append};

const MAGIC: [u8; 4] = *b"JTNW";

pub(crate) const HELLO: u8 = 0x01;
pub(crate) const VALIDATE: u8 = 0x10;
const CONSUME: u8 = 0x11;
const ISSUE: u8 = 0x20;
const RENEW: u8 = 0x21;
const REVOKE: u8 = 0x22;
const GRANT_RIGHTS: u8 = 0x23;
const WITHDRAW_RIGHTS: u8 = 0x24;
const CREATE_TENANT: u8 = 0x25;
const CLAIMS: u8 = 0x30;
const SUBJECT: u8 = 0x31;
const INSPECT: u8 = 0x32;
const CLIENTS: u8 = 0x33;
const STATS: u8 = 0x34;
const READ_LOG: u8 = 0x35;
const PING: u8 = 0x36;
const TAKE_SNAPSHOT: u8 = 0x37;

/// The first frame on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest version the client speaks.
    pub version_min: u16,
    /// The highest.
    pub version_max: u16,
    /// Optional features; none is defined yet.
    pub features: u64,
}

/// What a client can ask.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    /// Opens the conversation.
    Hello(Hello),
    /// Are these tokens good?
    Validate(ValidateRequest<'a>),
    /// A command for the sequencer.
    Write {
        /// Makes a repetition harmless.
        key: Option<IdempotencyKey>,
        /// What to do.
        command: Command,
    },
    /// What is in a claim set?
    Claims(ClaimsNo),
    /// Who is a subject?
    Subject(SubjectNo),
    /// What is known of a token?
    Inspect(TokenId),
    /// Who has which rights?
    Clients,
    /// Counters and histograms as JSON.
    Stats,
    /// Sealed batches of the log.
    ReadLog {
        /// From the batch that holds this event.
        from: Sequence,
        /// About so many bytes, at least one batch.
        bytes_max: u32,
    },
    /// Are you there?
    Ping,
    /// Write a snapshot now.
    TakeSnapshot,
}

impl<'a> Request<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// [`WireError`]; never panics, whatever the bytes.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, WireError> {
        Self::decode_knowing(frame, &mut KnownClaims::default())
    }

    /// As [`Self::decode`], of a connection of which some claims are known.
    pub(crate) fn decode_knowing(frame: &Frame<'a>, known: &mut KnownClaims) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(frame.payload);
        let request = match frame.opcode {
            HELLO => Self::Hello(decode_hello(&mut cursor)?),
            VALIDATE => Self::Validate(ValidateRequest::decode(&mut cursor)?),
            CONSUME | ISSUE | RENEW | REVOKE | GRANT_RIGHTS | WITHDRAW_RIGHTS | CREATE_TENANT => {
                let key = cursor.optional(Cursor::array)?.map(IdempotencyKey);
                let command = match frame.opcode {
                    CONSUME => command::consume(&mut cursor)?,
                    ISSUE => command::issue(&mut cursor, known)?,
                    RENEW => command::renew(&mut cursor)?,
                    REVOKE => command::revoke(&mut cursor)?,
                    GRANT_RIGHTS => Command::GrantRights(command::change_rights(&mut cursor)?),
                    WITHDRAW_RIGHTS => Command::WithdrawRights(command::change_rights(&mut cursor)?),
                    _ => Command::CreateTenant { name: command::name(&mut cursor)? },
                };
                Self::Write { key, command }
            }
            CLAIMS => Self::Claims(ClaimsNo(cursor.u32()?)),
            SUBJECT => Self::Subject(SubjectNo(cursor.u32()?)),
            INSPECT => Self::Inspect(TokenId(cursor.array()?)),
            CLIENTS => Self::Clients,
            STATS => Self::Stats,
            READ_LOG => Self::ReadLog { from: Sequence(cursor.u64()?), bytes_max: cursor.u32()? },
            PING => Self::Ping,
            TAKE_SNAPSHOT => Self::TakeSnapshot,
            other => return Err(WireError::UnknownOpcode(other)),
        };
        cursor.end()?;
        Ok(request)
    }

    /// Appends this request as a frame; [`encode_validate`] is the way for a validate.
    ///
    /// # Panics
    /// For a validate.
    pub fn encode(&self, request: u64, into: &mut Vec<u8>) {
        let no_payload = |into: &mut Vec<u8>, opcode| append(into, opcode, request, |_| {});
        match self {
            Self::Hello(hello) => append(into, HELLO, request, |into| encode_hello(hello, into)),
            Self::Validate(_) => panic!("a validate is encoded by encode_validate"),
            Self::Write { key, command } => append(into, opcode_of(command), request, |into| {
                into.put_optional(*key, |into, key| into.extend_from_slice(&key.0));
                command::encode(command, into);
            }),
            Self::Claims(number) => {
                append(into, CLAIMS, request, |into| into.extend_from_slice(&number.0.to_le_bytes()))
            }
            Self::Subject(number) => {
                append(into, SUBJECT, request, |into| into.extend_from_slice(&number.0.to_le_bytes()));
            }
            Self::Inspect(id) => append(into, INSPECT, request, |into| into.extend_from_slice(&id.0)),
            Self::Clients => no_payload(into, CLIENTS),
            Self::Stats => no_payload(into, STATS),
            Self::ReadLog { from, bytes_max } => append(into, READ_LOG, request, |into| {
                into.extend_from_slice(&from.0.to_le_bytes());
                into.extend_from_slice(&bytes_max.to_le_bytes());
            }),
            Self::Ping => no_payload(into, PING),
            Self::TakeSnapshot => no_payload(into, TAKE_SNAPSHOT),
        }
    }
}

fn opcode_of(command: &Command) -> u8 {
    match command {
        Command::ConsumeToken(_) => CONSUME,
        Command::IssueTokens(_) => ISSUE,
        Command::RenewToken { .. } => RENEW,
        Command::Revoke(_) => REVOKE,
        Command::GrantRights(_) => GRANT_RIGHTS,
        Command::WithdrawRights(_) => WITHDRAW_RIGHTS,
        Command::CreateTenant { .. } => CREATE_TENANT,
    }
}

fn decode_hello(cursor: &mut Cursor<'_>) -> Result<Hello, WireError> {
    if cursor.array() != Ok(MAGIC) {
        return Err(WireError::NotJeton);
    }
    Ok(Hello { version_min: cursor.u16()?, version_max: cursor.u16()?, features: cursor.u64()? })
}

fn encode_hello(hello: &Hello, into: &mut Vec<u8>) {
    into.extend_from_slice(&MAGIC);
    into.extend_from_slice(&hello.version_min.to_le_bytes());
    into.extend_from_slice(&hello.version_max.to_le_bytes());
    into.extend_from_slice(&hello.features.to_le_bytes());
}
