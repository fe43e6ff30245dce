//! Clients that have got in and break the protocol: slow, oversized and garbage frames; and floods of tokens that nobody
//! issued, which break nothing.

use std::time::Duration;

use jeton_wire::request::{Request, encode_validate};
use quinn::{Connection, SendStream};

use jeton_core::numbers::Sequence;

use super::rig::{Papers, Stop, Target, closed};
use crate::sim::rng::Rng;

/// How a client breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// A frame of which the rest never comes.
    Unfinished,
    /// A length beyond what a request may have.
    Oversized,
    /// Bytes that are no frame.
    Garbage,
    /// A request before the hello.
    NoHello,
    /// The stream ends within a frame.
    CutShort,
}

/// All of them.
pub const OFFENCES: [Offence; 5] =
    [Offence::Unfinished, Offence::Oversized, Offence::Garbage, Offence::NoHello, Offence::CutShort];

/// Commits one offence on a new connection; the code that the server closed with.
///
/// # Errors
/// If the server does not let it in first, or does not close.
pub async fn commit(target: &Target, papers: &Papers, offence: Offence) -> anyhow::Result<Option<u64>> {
    if offence == Offence::NoHello {
        let connection = target.connect(papers).await?;
        let (mut send, _receive) = connection.open_bi().await?;
        send.write_all(&ping()).await?;
        return closed(&connection).await;
    }
    let (connection, mut send, _receive) = target.greeted(papers).await?;
    match offence {
        Offence::Unfinished => return trickle(&connection, &mut send).await,
        Offence::Oversized => {
            let mut header = ping();
            header[..4].copy_from_slice(&65_536_u32.to_le_bytes());
            send.write_all(&header).await?;
        }
        Offence::Garbage => {
            let mut bytes = Rng::new(7).bytes(4_096);
            bytes[..4].copy_from_slice(&100_u32.to_le_bytes()); // or the length alone would end it
            let _ = send.write_all(&bytes).await;
        }
        Offence::NoHello | Offence::CutShort => {
            send.write_all(&ping()[..7]).await?;
            send.finish()?;
        }
    }
    closed(&connection).await
}

/// A byte a second of one frame, until the server has had enough.
async fn trickle(connection: &Connection, send: &mut SendStream) -> anyhow::Result<Option<u64>> {
    let mut frame = Vec::new();
    encode_validate(1, &[[7; 32]; 4], &[], None, Sequence(0), false, &mut frame);
    let slowly = async {
        for byte in frame {
            if send.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        code = closed(connection) => code,
        () = slowly => unreachable!("it waits for the server to close"),
    }
}

fn ping() -> Vec<u8> {
    let mut frame = Vec::new();
    Request::Ping.encode(1, &mut frame);
    frame
}

/// A validate of tokens that nobody issued.
#[must_use]
pub fn unknown_tokens(id: u64, count: usize, random: &mut Rng) -> Vec<u8> {
    let tokens: Vec<[u8; 32]> =
        (0..count).map(|_| random.bytes(32).try_into().expect("32 bytes are 32 bytes")).collect();
    let mut frame = Vec::new();
    encode_validate(id, &tokens, &[], None, Sequence(0), false, &mut frame);
    frame
}

/// Tokens of each question of [`ask_about_unknown`].
pub const UNKNOWN_TOKENS: u64 = 64;

/// Asks about tokens that nobody issued, with a pause behind each question, until told to stop; returns the number of questions and
/// of the bytes that were answered.
///
/// # Errors
/// If the server does not let it in, or closes the connection.
pub async fn ask_about_unknown(
    target: &Target,
    papers: &Papers,
    seed: u64,
    pause: Duration,
    stop: &Stop,
) -> anyhow::Result<(u64, u64)> {
    let mut random = Rng::new(seed);
    let (_connection, mut send, mut receive) = target.greeted(papers).await?;
    let reading = tokio::spawn(async move {
        let mut bytes = 0_u64;
        while let Ok(Some(chunk)) = receive.read_chunk(1 << 16, true).await {
            bytes += chunk.bytes.len() as u64;
        }
        bytes
    });
    let mut asked = 0_u64;
    while !stop.is_over() {
        send.write_all(&unknown_tokens(asked, UNKNOWN_TOKENS as usize, &mut random)).await?;
        asked += 1;
        tokio::time::sleep(pause).await;
    }
    send.finish()?;
    Ok((asked, reading.await?))
}
