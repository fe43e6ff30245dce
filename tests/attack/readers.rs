//! Clients that ask much and take little of the answers, or nothing.

use std::time::Duration;

use jeton_core::numbers::Sequence;
use jeton_wire::request::encode_validate;
use quinn::{Connection, TransportConfig, VarInt};

use super::rig::{Papers, Target, hello};

/// Tokens in each of its questions: answers of 8 KiB.
const TOKENS: usize = 1_000;
/// What it lets the server send before it has read.
const WINDOW_BYTES: u32 = 4_096;

/// A client that asks without end and takes `bytes` of the answers every `pause`, until the server closes; how many
/// bytes it took.
///
/// # Errors
/// If the server does not let it in.
pub async fn ask_and_take(
    target: &Target,
    papers: &Papers,
    bytes: usize,
    pause: Duration,
) -> anyhow::Result<(Connection, u64)> {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .keep_alive_interval(Some(Duration::from_secs(3)));
    let connection = target.connect_with(papers, transport).await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let asking = async {
        let mut frames = hello();
        let mut id = 1;
        while send.write_all(&frames).await.is_ok() {
            frames.clear();
            encode_validate(id, &[[7; 32]; TOKENS], &[], None, Sequence(0), false, &mut frames);
            id += 1;
        }
        connection.closed().await;
    };
    let mut taken = 0;
    let taking = async {
        if bytes == 0 {
            std::future::pending::<()>().await;
        }
        let mut buffer = vec![0; bytes];
        while receive.read_exact(&mut buffer).await.is_ok() {
            taken += bytes as u64;
            tokio::time::sleep(pause).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = asking => {}
        () = taking => {}
    }
    Ok((connection.clone(), taken))
}
