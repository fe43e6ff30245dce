//! Responses: what the server sends back.

mod info;
mod outcome;

use jeton_core::inspection::{ClaimsInfo, ClientInfo, Inspection, SubjectInfo};
use jeton_core::numbers::{ClaimsNo, LogId, Partition, Sequence, SubjectNo};
use jeton_core::outcome::Reply;
use jeton_core::verdict::{Answer, AnswerFlags, Verdict};

use crate::cursor::{Cursor, Put};
use crate::doors::SnapshotTaken;
use crate::error::WireError;
use crate::frame::{Frame, append};

const HELLO_ACK: u8 = 0x81;
const ANSWERS: u8 = 0x90;
const BEHIND: u8 = 0x91;
const WRITTEN: u8 = 0xa0;
const CLAIMS: u8 = 0xb0;
const SUBJECT: u8 = 0xb1;
const INSPECTION: u8 = 0xb2;
const CLIENTS: u8 = 0xb3;
const STATS: u8 = 0xb4;
const LOG_PAGE: u8 = 0xb5;
const PONG: u8 = 0xb6;
const SNAPSHOT: u8 = 0xb7;
const BUSY: u8 = 0xf0;
const NOT_ALLOWED: u8 = 0xf1;
const FAILED: u8 = 0xf2;

/// Bytes of an answer, without and with its subject.
const ANSWER_BYTES: usize = 8;
const ANSWER_BYTES_WITH_SUBJECT: usize = 16;

/// The longest time until expiry that an answer can tell, in seconds: 194 days. It means "that or more".
pub const SECONDS_LEFT_MAX: u32 = 0x00ff_ffff;

/// The server's side of the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloAck {
    /// The version that is spoken from here on.
    pub version: u16,
    /// Features that both have.
    pub features: u64,
    /// The log that answers come from: what a client cached under another is void.
    pub log: LogId,
    /// Its partition.
    pub partition: Partition,
    /// The last event that answers rest on now.
    pub published: Sequence,
}

/// What the server can answer.
#[derive(Clone, Debug)]
pub enum Response {
    /// To a hello.
    HelloAck(HelloAck),
    /// To a validate, in the order of the tokens.
    Answers {
        /// The last event that they rest on.
        published: Sequence,
        /// The answers; the subject is 0 unless it was asked for.
        answers: Vec<Answer>,
    },
    /// To a validate whose `min_sequence` was not reached in time: no answer from older state.
    Behind {
        /// How far the server is.
        published: Sequence,
    },
    /// To a write.
    Written {
        /// The log it went to.
        log: LogId,
        /// Its partition.
        partition: Partition,
        /// What came of it.
        reply: Reply,
    },
    /// A claim set; `None` if there is none that the client may see.
    Claims(Option<ClaimsInfo>),
    /// A subject; `None` likewise.
    Subject(Option<SubjectInfo>),
    /// A token; `None` likewise.
    Inspection(Option<Inspection>),
    /// Clients and their rights.
    Clients(Vec<ClientInfo>),
    /// Counters and histograms as JSON.
    Stats(String),
    /// A stretch of the log; no batches past the head.
    LogPage {
        /// The first event still there.
        first: Sequence,
        /// The last durable event.
        head: Sequence,
        /// Sealed batches.
        batches: Vec<Vec<u8>>,
    },
    /// To a ping.
    Pong,
    /// A snapshot was written.
    Snapshot(SnapshotTaken),
    /// A queue is full; nothing was done.
    Busy {
        /// When to try again, in milliseconds.
        retry_ms: u32,
    },
    /// The client lacks the right for this request.
    NotAllowed,
    /// The server could not answer.
    Failed(String),
}

/// The 8 bytes of an answer: verdict in the low and flags in the high four bits of the first, seconds left in 24
/// bits, claim set in 32.
#[must_use]
pub fn answer_bytes(answer: &Answer) -> [u8; 8] {
    let left = answer.seconds_left.min(SECONDS_LEFT_MAX);
    let head = u32::from(answer.verdict.code() | answer.flags.0 << 4) | left << 8;
    (u64::from(head) | u64::from(answer.claims.0) << 32).to_le_bytes()
}

/// Reads the 8 bytes of an answer.
///
/// # Errors
/// [`WireError::Invalid`] for a verdict that is none.
pub fn answer_from(bytes: [u8; 8]) -> Result<Answer, WireError> {
    let [first, left @ .., c0, c1, c2, c3] = bytes;
    let verdict = Verdict::from_code(first & 0x0f).ok_or(WireError::Invalid("a verdict"))?;
    let [l0, l1, l2] = left;
    Ok(Answer {
        verdict,
        flags: AnswerFlags(first >> 4),
        seconds_left: u32::from_le_bytes([l0, l1, l2, 0]),
        claims: ClaimsNo(u32::from_le_bytes([c0, c1, c2, c3])),
        subject: SubjectNo(0),
    })
}

/// Appends answers as a frame.
pub fn encode_answers(
    request: u64,
    published: Sequence,
    answers: &[Answer],
    with_subjects: bool,
    into: &mut Vec<u8>,
) {
    append(into, ANSWERS, request, |into| {
        let mut head = [0; 16];
        head[..2].copy_from_slice(&(answers.len() as u16).to_le_bytes());
        head[2] = u8::from(with_subjects);
        head[8..].copy_from_slice(&published.0.to_le_bytes());
        into.extend_from_slice(&head);
        for answer in answers {
            into.extend_from_slice(&answer_bytes(answer));
            if with_subjects {
                into.extend_from_slice(&u64::from(answer.subject.0).to_le_bytes());
            }
        }
    });
}

/// The answers of a frame that holds some, one after another and without memory of their own; `None` for any other frame.
///
/// # Errors
/// [`WireError`], of the frame at once and of each answer when it is its turn.
pub fn answers_in<'a>(
    frame: &Frame<'a>,
) -> Result<Option<impl ExactSizeIterator<Item = Result<Answer, WireError>> + use<'a>>, WireError> {
    if frame.opcode != ANSWERS {
        return Ok(None);
    }
    let mut cursor = Cursor::new(frame.payload);
    let (count, length, _) = decode_answers_head(&mut cursor)?;
    let answers = cursor.take(count * length)?;
    cursor.end()?;
    Ok(Some(answers.chunks_exact(length).map(|bytes| {
        let mut cursor = Cursor::new(bytes);
        decode_answer(&mut cursor, bytes.len() == ANSWER_BYTES_WITH_SUBJECT)
    })))
}

/// How many answers there are, how long each is, and the event that they rest on.
fn decode_answers_head(cursor: &mut Cursor<'_>) -> Result<(usize, usize, Sequence), WireError> {
    let (count, with_subjects) = (cursor.u16()?, cursor.u16()?);
    if cursor.u32()? != 0 || with_subjects > 1 {
        return Err(WireError::Invalid("unknown bits"));
    }
    let length = if with_subjects == 1 { ANSWER_BYTES_WITH_SUBJECT } else { ANSWER_BYTES };
    Ok((usize::from(count), length, Sequence(cursor.u64()?)))
}

fn decode_answer(cursor: &mut Cursor<'_>, with_subject: bool) -> Result<Answer, WireError> {
    let mut answer = answer_from(cursor.array()?)?;
    if with_subject {
        answer.subject =
            SubjectNo(u32::try_from(cursor.u64()?).map_err(|_| WireError::Invalid("a subject"))?);
    }
    Ok(answer)
}

fn decode_answers(cursor: &mut Cursor<'_>) -> Result<Response, WireError> {
    let (count, length, published) = decode_answers_head(cursor)?;
    // Room is made for answers that are there, not for those that are said to be.
    let mut rest = Cursor::new(cursor.take(count * length)?);
    let mut answers = Vec::with_capacity(count);
    for _ in 0..count {
        answers.push(decode_answer(&mut rest, length == ANSWER_BYTES_WITH_SUBJECT)?);
    }
    Ok(Response::Answers { published, answers })
}

impl Response {
    /// Appends this response as a frame.
    pub fn encode(&self, request: u64, into: &mut Vec<u8>) {
        type Put<'a> = &'a dyn Fn(&mut Vec<u8>);
        let (opcode, put): (u8, Put<'_>) = match self {
            Self::HelloAck(ack) => (HELLO_ACK, &|into| encode_ack(ack, into)),
            Self::Answers { published, answers } => {
                let with_subjects = answers.iter().any(|answer| answer.subject != SubjectNo(0));
                return encode_answers(request, *published, answers, with_subjects, into);
            }
            Self::Behind { published } => {
                (BEHIND, &|into| into.extend_from_slice(&published.0.to_le_bytes()))
            }
            Self::Written { log, partition, reply } => (WRITTEN, &|into| {
                into.extend_from_slice(&log.0);
                into.extend_from_slice(&partition.0.to_le_bytes());
                outcome::encode(reply, into);
            }),
            Self::Claims(info) => (CLAIMS, &|into| into.put_optional(info.as_ref(), info::put_claims)),
            Self::Subject(info) => (SUBJECT, &|into| into.put_optional(info.as_ref(), info::put_subject)),
            Self::Inspection(info) => {
                (INSPECTION, &|into| into.put_optional(info.as_ref(), info::put_inspection))
            }
            Self::Clients(clients) => (CLIENTS, &|into| info::put_clients(clients, into)),
            Self::Stats(json) => (STATS, &|into| into.extend_from_slice(json.as_bytes())),
            Self::LogPage { first, head, batches } => (LOG_PAGE, &|into| {
                into.extend_from_slice(&first.0.to_le_bytes());
                into.extend_from_slice(&head.0.to_le_bytes());
                batches.iter().for_each(|batch| into.put_bytes(batch));
            }),
            Self::Pong => (PONG, &|_| {}),
            Self::Snapshot(taken) => (SNAPSHOT, &|into| encode_snapshot(taken, into)),
            Self::Busy { retry_ms } => (BUSY, &|into| into.extend_from_slice(&retry_ms.to_le_bytes())),
            Self::NotAllowed => (NOT_ALLOWED, &|_| {}),
            Self::Failed(message) => (FAILED, &|into| into.put_text(message)),
        };
        append(into, opcode, request, put);
    }

    /// Reads a response.
    ///
    /// # Errors
    /// [`WireError`]; never panics, whatever the bytes.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(frame.payload);
        let response = match frame.opcode {
            HELLO_ACK => Self::HelloAck(decode_ack(&mut cursor)?),
            ANSWERS => decode_answers(&mut cursor)?,
            BEHIND => Self::Behind { published: Sequence(cursor.u64()?) },
            WRITTEN => Self::Written {
                log: LogId(cursor.array()?),
                partition: Partition(cursor.u16()?),
                reply: outcome::decode(&mut cursor)?,
            },
            CLAIMS => Self::Claims(cursor.optional(info::claims)?),
            SUBJECT => Self::Subject(cursor.optional(info::subject)?),
            INSPECTION => Self::Inspection(cursor.optional(info::inspection)?),
            CLIENTS => Self::Clients(info::clients(&mut cursor)?),
            STATS => {
                let json = std::str::from_utf8(cursor.rest())
                    .map_err(|_| WireError::Invalid("text is not UTF-8"))?;
                Self::Stats(json.to_owned())
            }
            LOG_PAGE => decode_page(&mut cursor)?,
            PONG => Self::Pong,
            SNAPSHOT => Self::Snapshot(decode_snapshot(&mut cursor)?),
            BUSY => Self::Busy { retry_ms: cursor.u32()? },
            NOT_ALLOWED => Self::NotAllowed,
            FAILED => Self::Failed(cursor.text()?.to_owned()),
            other => return Err(WireError::UnknownOpcode(other)),
        };
        cursor.end()?;
        Ok(response)
    }
}

fn encode_ack(ack: &HelloAck, into: &mut Vec<u8>) {
    into.extend_from_slice(&ack.version.to_le_bytes());
    into.extend_from_slice(&ack.features.to_le_bytes());
    into.extend_from_slice(&ack.log.0);
    into.extend_from_slice(&ack.partition.0.to_le_bytes());
    into.extend_from_slice(&ack.published.0.to_le_bytes());
}

fn decode_ack(cursor: &mut Cursor<'_>) -> Result<HelloAck, WireError> {
    Ok(HelloAck {
        version: cursor.u16()?,
        features: cursor.u64()?,
        log: LogId(cursor.array()?),
        partition: Partition(cursor.u16()?),
        published: Sequence(cursor.u64()?),
    })
}

fn encode_snapshot(taken: &SnapshotTaken, into: &mut Vec<u8>) {
    for number in [taken.sequence.0, taken.tokens, taken.bytes, taken.bytes_written] {
        into.extend_from_slice(&number.to_le_bytes());
    }
}

fn decode_snapshot(cursor: &mut Cursor<'_>) -> Result<SnapshotTaken, WireError> {
    Ok(SnapshotTaken {
        sequence: Sequence(cursor.u64()?),
        tokens: cursor.u64()?,
        bytes: cursor.u64()?,
        bytes_written: cursor.u64()?,
    })
}

fn decode_page(cursor: &mut Cursor<'_>) -> Result<Response, WireError> {
    let (first, head) = (Sequence(cursor.u64()?), Sequence(cursor.u64()?));
    let mut batches = Vec::new();
    let mut rest = Cursor::new(cursor.rest());
    while rest.end().is_err() {
        batches.push(rest.bytes()?.to_vec());
    }
    Ok(Response::LogPage { first, head, batches })
}
