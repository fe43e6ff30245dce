//! Clients that waste streams: as many as they may have, all the time, and most of them reset in the middle.

use std::time::Duration;

use jeton_core::command::{Command, RevokeTarget};
use jeton_core::numbers::Sequence;
use jeton_core::token::TokenId;
use jeton_wire::request::{Request, encode_validate};
use quinn::Connection;

use crate::sim::rng::Rng;

/// How a stream is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// A request, its answer, an end: as it should be.
    Proper,
    /// A request, then a reset: the answer is still owed.
    ResetAfterRequest,
    /// Half a request, then a reset.
    ResetHalfWay,
    /// A request, and no wish to hear the answer.
    StopAnswer,
    /// A write, and both ends thrown away before its answer can have come.
    AbandonWrite,
}

/// All of them.
pub const TREATMENTS: [Treatment; 5] = [
    Treatment::Proper,
    Treatment::ResetAfterRequest,
    Treatment::ResetHalfWay,
    Treatment::StopAnswer,
    Treatment::AbandonWrite,
];

/// Uses one stream so; returns whether an answer came.
///
/// # Errors
/// If the connection is gone.
pub async fn waste(connection: &Connection, id: u64, treatment: Treatment) -> anyhow::Result<bool> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let mut frame = Vec::new();
    if treatment == Treatment::AbandonWrite {
        let command =
            Command::Revoke(RevokeTarget::Id(TokenId(Rng::new(id).bytes(16).try_into().expect("16"))));
        Request::Write { key: None, command }.encode(id, &mut frame);
    } else {
        encode_validate(id, &[[7; 32]; 16], &[], None, Sequence(0), false, &mut frame);
    }
    match treatment {
        Treatment::Proper => {
            send.write_all(&frame).await?;
            send.finish()?;
            return Ok(!receive.read_to_end(1 << 16).await?.is_empty());
        }
        Treatment::ResetAfterRequest => {
            send.write_all(&frame).await?;
            tokio::task::yield_now().await;
            send.reset(1_u32.into())?;
        }
        Treatment::ResetHalfWay => {
            send.write_all(&frame[..frame.len() / 2]).await?;
            tokio::time::sleep(Duration::from_millis(1)).await; // long enough for the half to be sent
            send.reset(2_u32.into())?;
        }
        Treatment::StopAnswer => {
            send.write_all(&frame).await?;
            receive.stop(3_u32.into())?;
            send.finish()?;
        }
        Treatment::AbandonWrite => {
            send.write_all(&frame).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
            receive.stop(4_u32.into())?;
            send.reset(4_u32.into())?;
        }
    }
    Ok(false)
}
