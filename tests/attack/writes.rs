//! Clients that write as fast as they can, to fill what all clients share: the sequencer's queue, and the memory of
//! idempotency keys.

use anyhow::{Context as _, bail};
use jeton_client::{Client, Config, Identity, IssueTokens, Rights};
use jeton_core::command::{Command, RevokeTarget};
use jeton_core::numbers::{IdempotencyKey, Sequence};
use jeton_core::outcome::{Rejection, Reply};
use jeton_core::token::TokenId;
use jeton_wire::frame::{RESPONSE_BYTES_MAX, split};
use jeton_wire::request::Request;
use jeton_wire::response::Response;
use quinn::{Connection, RecvStream, SendStream};

use super::rig::{Count, Papers, Stop, Target, Wish};
use crate::sim::rng::Rng;
use crate::{issue_for, name};

/// Commands in one write to the stream.
const BURST: u64 = 64;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Issues of one token.
    Issue,
    /// Issues of one token, each with a key of its own.
    KeyedIssue,
    /// Revokes of tokens that nobody issued.
    Revoke,
}

/// A client of its own that may issue and revoke.
///
/// # Errors
/// If the administrator is not there to say so.
pub async fn writer(target: &Target) -> anyhow::Result<Papers> {
    const WRITER: &str = "jeton:client:writer";
    let identity = Identity::from_dir(target.data.join("identities/admin"))?;
    let admin = Client::connect(Config::new(target.address, identity)).await?;
    let rights = Rights::ISSUE.with(Rights::REVOKE);
    admin.grant_rights(name(WRITER), name("default"), rights).await?;
    admin.close().await;
    target.sign(&Wish::good(WRITER))
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Answers {
    /// Commands sent.
    pub asked: Count,
    /// Carried out.
    pub done: Count,
    /// Answered busy.
    pub busy: Count,
    /// Refused for another reason.
    pub refused: Count,
}

fn command(write: Write, template: &IssueTokens, random: &mut Rng) -> Request<'static> {
    let sixteen = |random: &mut Rng| random.bytes(16).try_into().expect("16 bytes are 16 bytes");
    match write {
        Write::Issue => Request::Write { key: None, command: Command::IssueTokens(template.clone()) },
        Write::KeyedIssue => Request::Write {
            key: Some(IdempotencyKey(sixteen(random))),
            command: Command::IssueTokens(template.clone()),
        },
        Write::Revoke => {
            Request::Write { key: None, command: Command::Revoke(RevokeTarget::Id(TokenId(sixteen(random)))) }
        }
    }
}

/// Writes on one connection, as much as the server takes, until told to stop; the answers are read and counted.
///
/// # Errors
/// If the server does not let it in.
pub async fn flood(
    target: &Target,
    papers: &Papers,
    write: Write,
    seed: u64,
    answers: &Answers,
    stop: &Stop,
) -> anyhow::Result<()> {
    let (connection, mut send, receive) = target.greeted(papers).await?;
    let mut random = Rng::new(seed);
    let template = issue_for(&["flood"]);
    let mut id = 1;
    let writing = async {
        while !stop.is_over() {
            let mut frames = Vec::new();
            for _ in 0..BURST {
                command(write, &template, &mut random).encode(id, &mut frames);
                id += 1;
            }
            answers.asked.add(BURST);
            if send.write_all(&frames).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = count(receive, answers) => {}
    }
    connection.close(0_u32.into(), b"enough");
    Ok(())
}

/// Asks for so many issues of so many tokens, one after the other without waiting for anything; returns the connection and
/// where the answers come.
///
/// # Errors
/// If the server does not let it in, or stops reading.
pub async fn pour(
    target: &Target,
    papers: &Papers,
    issues: u64,
    tokens: usize,
) -> anyhow::Result<(Connection, SendStream, RecvStream)> {
    let (connection, mut send, receive) = target.greeted(papers).await?;
    let template = issue_for(&vec!["flood"; tokens]);
    for id in 1..=issues {
        let mut frame = Vec::new();
        Request::Write { key: None, command: Command::IssueTokens(template.clone()) }.encode(id, &mut frame);
        send.write_all(&frame).await?;
    }
    Ok((connection, send, receive))
}

/// Takes so many answers to writes that were carried out; the event that each rests on.
///
/// # Errors
/// If the connection ends before, or a write was refused.
pub async fn sequences(mut receive: RecvStream, writes: u64) -> anyhow::Result<Vec<Sequence>> {
    let (mut buffer, mut sequences) = (Vec::new(), Vec::new());
    while (sequences.len() as u64) < writes {
        let chunk = receive.read_chunk(1 << 16, true).await?.context("the stream ended")?;
        buffer.extend_from_slice(&chunk.bytes);
        let mut consumed = 0;
        while let Some((frame, length)) = split(&buffer[consumed..], RESPONSE_BYTES_MAX)? {
            match Response::decode(&frame)? {
                Response::HelloAck(_) => {}
                Response::Written { reply: Reply { result: Ok(_), sequence }, .. } => {
                    sequences.push(sequence)
                }
                other => bail!("a write was not carried out: {other:?}"),
            }
            consumed += length;
        }
        buffer.drain(..consumed);
    }
    Ok(sequences)
}

/// Counts answers until the stream ends.
pub async fn count(mut receive: RecvStream, answers: &Answers) {
    let mut buffer = Vec::new();
    while let Ok(Some(chunk)) = receive.read_chunk(1 << 16, true).await {
        buffer.extend_from_slice(&chunk.bytes);
        let mut consumed = 0;
        while let Ok(Some((frame, length))) = split(&buffer[consumed..], RESPONSE_BYTES_MAX) {
            match Response::decode(&frame) {
                Ok(Response::HelloAck(_)) => {}
                Ok(Response::Busy { .. }) => answers.busy.add(1),
                Ok(Response::Written { reply: Reply { result: Ok(_), .. }, .. }) => answers.done.add(1),
                // A revoke of what does not exist was carried out, as far as the sequencer's work goes.
                Ok(Response::Written { reply: Reply { result: Err(Rejection::NotFound), .. }, .. }) => {
                    answers.done.add(1);
                }
                _ => answers.refused.add(1),
            }
            consumed += length;
        }
        buffer.drain(..consumed);
    }
}
