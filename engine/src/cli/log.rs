//! `jeton log`: show, verify, replay and repair. With the server running the log is streamed from it; otherwise it is read
//! from its files, under their lock; only a repair that was accepted changes anything.

mod events;
mod repair;

use std::collections::VecDeque;

use anyhow::{Context as _, anyhow};
use jeton_client::{Client, Sequence};
use jeton_core::batch::OpenBatch;
use jeton_core::numbers::{LogId, Partition};
use jeton_core::recovery::Replay;
use jeton_core::state::StateConfig;
use jeton_log_store::{LogStore as _, OpenError, Options, SledStore};
use serde_json::json;

use self::events::Names;
use self::repair::Repair;
use super::Ending;
use super::output::{moment_ms, print};
use super::target::{Target, running_address};

/// What one request for the log brings.
const PAGE_BYTES: u32 = 256 * 1024;

/// Subcommands of `log`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum LogCommand {
    /// Print events, oldest first.
    Show {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        range: Range,
    },
    /// Check every batch, hash and event from the first to the last.
    Verify {
        #[command(flatten)]
        target: Target,
    },
    /// Make a log that is refused one that is served again, from all that can be verified; nothing is thrown away.
    Repair(Repair),
    /// Fold all events into a state and print its digest: equal logs have equal digests.
    Replay {
        #[command(flatten)]
        target: Target,
    },
}

/// Which events to show.
#[derive(Debug, clap::Args)]
pub(super) struct Range {
    /// The event to begin with.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many events at most.
    #[arg(long, default_value_t = 1_000)]
    limit: u64,
    /// The last events instead, so many.
    #[arg(long, value_name = "N", conflicts_with = "limit")]
    tail: Option<usize>,
}

impl LogCommand {
    pub(super) fn run(self, json: bool) -> anyhow::Result<Ending> {
        // What was put right in passing is said.
        super::serve::start_logging(false, "warn")?;
        match self {
            Self::Show { target, range } => show(&target, &range, json),
            Self::Repair(repair) => repair.run(json),
            Self::Verify { target } => {
                let (replay, _) = read_all(&target, |_| Ok(true))?;
                let end = replay.end();
                if !target.is_remote() {
                    SledStore::check_name(&target.data(), end.log.0)?; // a start would refuse it
                }
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

fn show(target: &Target, range: &Range, json: bool) -> anyhow::Result<Ending> {
    let mut names = Names::default();
    let mut left = range.limit;
    let mut next = None;
    let mut last: VecDeque<(serde_json::Value, String)> = VecDeque::new();
    let shown = read_all(target, |batch| {
        for (sequence, entry) in (batch.first.0..).zip(&batch.entries) {
            names.learn(entry);
            if sequence < range.from {
                continue;
            }
            if range.tail.is_none() && left == 0 {
                next = Some(sequence);
                return Ok(false);
            }
            let shown = (names.json(sequence, batch.time, entry), names.line(sequence, batch.time, entry));
            match range.tail {
                None => {
                    left -= 1;
                    print(json, &shown.0, || shown.1)?;
                }
                Some(tail) => {
                    last.push_back(shown);
                    if last.len() > tail {
                        last.pop_front();
                    }
                }
            }
        }
        Ok(true)
    });
    for (value, line) in last {
        print(json, &value, || line)?;
    }
    if let Some(next) = next {
        eprintln!("jeton: there is more: go on with --from {next}");
    }
    shown.map(|_| Ending::Done)
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
pub(super) fn read_all(
    target: &Target,
    visit: impl FnMut(&OpenBatch) -> anyhow::Result<bool>,
) -> anyhow::Result<(Replay, u64)> {
    if target.is_remote() {
        return read_all_online(target, visit); // never a log of this machine in place of the one that was named
    }
    match SledStore::open_read_only(&target.data(), Options::default()) {
        Ok(store) => {
            let log = LogId(store.log_id());
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            runtime.block_on(replay(log, Source::Files(Box::new(store)), visit))
        }
        // A server has it open: it tells.
        Err(OpenError::Locked { .. }) if running_address(&target.data()).is_some() => {
            read_all_online(target, visit)
        }
        Err(error) => Err(error.into()),
    }
}

fn read_all_online(
    target: &Target,
    visit: impl FnMut(&OpenBatch) -> anyhow::Result<bool>,
) -> anyhow::Result<(Replay, u64)> {
    target.with(async |client| {
        let log = client.server_info().await?.log;
        replay(log, Source::Server(client), visit).await
    })
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
    let config = StateConfig { huge_pages: false, tokens_max: i32::MAX as u32 - 1, ..StateConfig::default() };
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
