//! `jeton log`: show, verify and replay. With the server running the log is streamed from it; otherwise it is read
//! from its files, under their lock, and never changed.

use std::collections::VecDeque;

use anyhow::{Context as _, anyhow};
use jeton_client::{Client, Sequence};
use jeton_core::batch::OpenBatch;
use jeton_core::event::Entry;
use jeton_core::numbers::{LogId, Partition};
use jeton_core::recovery::Replay;
use jeton_core::state::StateConfig;
use jeton_log_store::{LogStore as _, OpenError, Options, SledStore};
use serde_json::json;

use super::Ending;
use super::output::{moment_ms, print};
use super::target::Target;

/// What one request for the log brings.
const PAGE_BYTES: u32 = 256 * 1024;

/// Subcommands of `log`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum LogCommand {
    /// Print events, oldest first.
    Show {
        #[command(flatten)]
        target: Target,
        /// The event to begin with.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many events at most.
        #[arg(long, default_value_t = 1_000)]
        limit: u64,
    },
    /// Check every batch, hash and event from the first to the last.
    Verify {
        #[command(flatten)]
        target: Target,
    },
    /// Fold all events into a state and print its digest: equal logs have equal digests.
    Replay {
        #[command(flatten)]
        target: Target,
    },
}

impl LogCommand {
    pub(super) fn run(self, json: bool) -> anyhow::Result<Ending> {
        match self {
            Self::Show { target, from, limit } => show(&target, from, limit, json),
            Self::Verify { target } => {
                let (replay, _) = read_all(&target, |_| Ok(true))?;
                let end = replay.end();
                let value = json!({ "ok": true, "log": end.log.to_string(), "events": end.sequence.0, "chain": hex(&end.hash) });
                print(json, &value, || {
                    format!("ok: {} events, chain {}, log {}", end.sequence, hex(&end.hash), end.log)
                })
            }
            Self::Replay { target } => {
                let (replay, _) = read_all(&target, |_| Ok(true))?;
                let (state, end) = (replay.state(), replay.end());
                let digest = hex(&state.digest());
                let value = json!({
                    "events": end.sequence.0,
                    "tokens": state.tokens(),
                    "subjects": state.subjects(),
                    "last_time": moment_ms(state.last_time().0),
                    "digest": digest,
                });
                print(json, &value, || {
                    format!(
                        "{} events, {} tokens, {} subjects\nstate digest {digest}",
                        end.sequence,
                        state.tokens(),
                        state.subjects()
                    )
                })
            }
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn show(target: &Target, from: u64, limit: u64, json: bool) -> anyhow::Result<Ending> {
    let mut left = limit;
    let shown = read_all(target, |batch| {
        for (sequence, entry) in (batch.first.0..).zip(&batch.entries) {
            if sequence >= from && left > 0 {
                left -= 1;
                print(json, &entry_json(sequence, batch, entry), || entry_line(sequence, batch, entry))?;
            }
        }
        Ok(left > 0)
    });
    shown.map(|_| Ending::Done)
}

fn entry_json(sequence: u64, batch: &OpenBatch, entry: &Entry) -> serde_json::Value {
    json!({
        "sequence": sequence,
        "time": moment_ms(batch.time.0),
        "actor": entry.event.actor,
        "event": entry.event.fact.name(),
        "fields": format!("{:?}", Short(entry)),
        "value": detached_text(entry),
    })
}

fn entry_line(sequence: u64, batch: &OpenBatch, entry: &Entry) -> String {
    let value = detached_text(entry).map(|text| format!(" {text:?}")).unwrap_or_default();
    format!("{sequence} {} actor {} {:?}{value}", moment_ms(batch.time.0), entry.event.actor, Short(entry))
}

/// What the event introduces, as far as it is text.
fn detached_text(entry: &Entry) -> Option<String> {
    let detached = entry.detached.as_ref()?;
    match jeton_core::claims::Claims::decode(&detached.bytes) {
        Ok(claims) => Some(claims.grants().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        Err(_) => String::from_utf8(detached.bytes.clone()).ok(),
    }
}

/// An event with its byte strings in hexadecimal.
struct Short<'a>(&'a Entry);

impl std::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Debug prints byte arrays as lists of numbers; people look for ids.
        let debug = format!("{:?}", self.0.event.fact);
        let mut rest = debug.as_str();
        while let Some(start) = rest.find('[') {
            let (before, list) = rest.split_at(start);
            let Some(end) = list.find(']') else { break };
            let numbers: Option<Vec<u8>> =
                list[1..end].split(", ").map(|number| number.parse().ok()).collect();
            match numbers.filter(|numbers| numbers.len() >= 16) {
                Some(bytes) => write!(f, "{before}{}", hex(&bytes))?,
                None => write!(f, "{before}{}", &list[..=end])?,
            }
            rest = &list[end + 1..];
        }
        f.write_str(rest)
    }
}

/// Where batches come from.
enum Source<'a> {
    Files(Box<SledStore>),
    Server(&'a Client),
}

/// Reads the whole log of a data directory that no server has open.
pub(super) fn read_all_offline(target: &Target) -> anyhow::Result<(Replay, u64)> {
    let store = SledStore::open_read_only(&target.data(), Options::default())?;
    let log = LogId(store.log_id());
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(replay(log, Source::Files(Box::new(store)), |_| Ok(true)))
}

/// Reads the whole log through a replay, from the files or from the server that has them open. `visit` says whether
/// to go on.
fn read_all(
    target: &Target,
    visit: impl FnMut(&OpenBatch) -> anyhow::Result<bool>,
) -> anyhow::Result<(Replay, u64)> {
    match SledStore::open_read_only(&target.data(), Options::default()) {
        Ok(store) => {
            let log = LogId(store.log_id());
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            runtime.block_on(replay(log, Source::Files(Box::new(store)), visit))
        }
        // A server has it open: it tells.
        Err(OpenError::Locked { .. }) | Err(OpenError::Missing { .. }) => target.with(async |client| {
            let log = client.server_info().await?.log;
            replay(log, Source::Server(client), visit).await
        }),
        Err(error) => Err(error.into()),
    }
}

async fn replay(
    log: LogId,
    mut source: Source<'_>,
    mut visit: impl FnMut(&OpenBatch) -> anyhow::Result<bool>,
) -> anyhow::Result<(Replay, u64)> {
    let anchor = match &source {
        Source::Files(store) => store.anchor().map(|anchor| crate::engine::anchor_of(&anchor)),
        Source::Server(_) => None,
    };
    let config = StateConfig { huge_pages: false, ..StateConfig::default() };
    let mut replay = Replay::new(log, Partition(0), config, anchor)?;
    let mut pages: VecDeque<Vec<u8>> = VecDeque::new();
    loop {
        if pages.is_empty() {
            pages = next_page(&mut source, replay.end().sequence.next()).await?;
        }
        let events = replay.end().sequence.0;
        let Some(bytes) = pages.pop_front() else {
            return Ok((replay, events));
        };
        let batch = replay.apply(&bytes)?;
        if !visit(&batch)? {
            let events = replay.end().sequence.0;
            return Ok((replay, events));
        }
    }
}

async fn next_page(source: &mut Source<'_>, from: Sequence) -> anyhow::Result<VecDeque<Vec<u8>>> {
    Ok(match source {
        Source::Files(store) => {
            let batches = store.read_from(from.0, PAGE_BYTES as usize).map_err(|error| anyhow!(error))?;
            batches.into_iter().map(|batch| batch.bytes).collect()
        }
        Source::Server(client) => {
            client.log_page(from, PAGE_BYTES).await.context("reading the log")?.batches.into()
        }
    })
}
