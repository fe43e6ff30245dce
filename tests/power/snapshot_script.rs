//! What a process does with the snapshots of an engine, phase by phase. Its log lies elsewhere, where nothing fails.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jeton::snapshots::SnapshotDir;
use jeton::{Engine, EngineConfig, SnapshotSchedule};
use jeton_core::command::{Command, ConsumeToken, IssueTokens, RevokeTarget, Submission};
use jeton_core::numbers::{ClientNo, IdempotencyKey, LogId, Partition, Sequence};
use jeton_core::outcome::Outcome;
use jeton_core::snapshot::{PartStore as _, SNAPSHOTS_KEPT, manifest_name, part_name};
use jeton_log_store::{LogStore, SledStore};

use super::script::{ASIDE, LOG_ID, options};
use super::snapshots::SMALL;
use crate::issue_for;

/// The log of every script.
pub(super) const LOG: (LogId, Partition) = (LogId(LOG_ID), Partition(0));
/// Snapshots that may fail before a script is given up.
const FAILURES_MAX: u32 = 6;
const SUBJECTS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
const SEGMENT_BYTES: u64 = 256 << 20;

/// Opens an engine over a log, with snapshots below `data`.
///
/// # Errors
/// The engine's.
pub(super) fn open_engine(store: Box<dyn LogStore>, data: &Path) -> Result<Engine, String> {
    let snapshots = Some((SnapshotDir::of(data), SnapshotSchedule::NEVER));
    let config = EngineConfig { state: SMALL, snapshots, ..EngineConfig::default() };
    Engine::open(store, config, "spiffe://test/admin").map_err(|error| error.to_string())
}

struct Driver<'r> {
    root: &'r Path,
    data: PathBuf,
    log: &'r Path,
    engine: Option<Engine>,
    changes: u8,
    failures: u32,
}

/// Takes snapshots below `<root>/data` of an engine whose log is below `log`. Says what failed, and what was left lying about.
///
/// # Errors
/// What cannot be gone on from: snapshots that fail again and again, or what is not needed and stays.
pub fn drive_snapshots(root: &Path, log: &Path) -> Result<(), String> {
    let data = root.join("data");
    // A store has made it durable before there is an engine.
    let made = fs::create_dir(&data).and_then(|()| fs::File::open(root)?.sync_all());
    made.map_err(|error| error.to_string())?;
    let mut driver = Driver { root, data, log, engine: None, changes: 0, failures: 0 };
    driver.open()?;
    for phase in ["first snapshot", "second snapshot", "third snapshot"] {
        driver.mark(phase);
        driver.change()?;
        driver.order()?;
    }
    driver.mark("nothing new");
    driver.order()?;
    driver.mark(ASIDE);
    driver.die_in_a_snapshot().map_err(|error| error.to_string())?;
    driver.open()?;
    driver.mark("behind a crash");
    driver.change()?;
    driver.order()?;
    driver.mark(ASIDE);
    driver.change()?;
    driver.order()?;
    if driver.is_anything_left_over() { Err("what is not needed stays".to_owned()) } else { Ok(()) }
}

impl Driver<'_> {
    fn mark(&self, mark: &str) {
        // The shim takes it as a mark and makes nothing; without it there is nobody to be told.
        let _ = fs::create_dir(self.root.join("mark").join(mark));
    }

    fn say(&self, words: &str) {
        let _ = writeln!(io::stdout(), "{words}");
    }

    fn open(&mut self) -> Result<(), String> {
        let store = SledStore::open(self.log, options(SEGMENT_BYTES), LOG_ID);
        let store = store.map_err(|error| error.to_string())?;
        self.engine = Some(open_engine(Box::new(store), &self.data)?);
        Ok(())
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it was opened")
    }

    fn run(&self, command: Command, key: Option<IdempotencyKey>) -> Result<Outcome, String> {
        let reply = self.engine().call(Submission { actor: ClientNo(1), key, command });
        let reply = reply.map_err(|_| "the engine is gone".to_owned())?;
        reply.result.map_err(|rejection| format!("{rejection:?}"))
    }

    /// Something of every kind that a snapshot holds.
    fn change(&mut self) -> Result<(), String> {
        self.changes += 1;
        let issue = IssueTokens { uses_max: 3, ..issue_for(&SUBJECTS) };
        let Outcome::Issued { tokens, .. } = self.run(Command::IssueTokens(issue), None)? else {
            return Err("not issued".to_owned());
        };
        self.run(Command::Revoke(RevokeTarget::Id(tokens[0].id)), None)?;
        let token = tokens[1].clone();
        let consume = Command::ConsumeToken(ConsumeToken {
            token,
            access: None,
            audience: None,
            scopes: None,
            binding: None,
        });
        self.run(consume, Some(IdempotencyKey([self.changes; 16]))).map(drop)
    }

    /// Orders a snapshot; after one that failed something more happens, and the next one is ordered.
    fn order(&mut self) -> Result<(), String> {
        loop {
            let sequence = self.engine().published();
            self.mark(&format!("try-{sequence}"));
            match self.engine().take_snapshot() {
                Ok(taken) if taken.sequence != sequence => return Err("it is of another event".to_owned()),
                Ok(_) => break self.mark(&format!("ack-{sequence}")),
                Err(words) if words.is_empty() => return Err("a failure without a word".to_owned()),
                Err(words) => {
                    self.say(&format!("failed: {words}"));
                    self.failures += 1;
                    self.mark(&format!("told-{}", self.failures));
                }
            }
            if self.failures > FAILURES_MAX {
                return Err("it does not come back".to_owned());
            }
            self.change()?;
        }
        if self.is_anything_left_over() {
            self.say("left over");
        }
        Ok(())
    }

    /// Whether there is something that no snapshot to be kept needs.
    fn is_anything_left_over(&self) -> bool {
        let dir = SnapshotDir::of(&self.data);
        let found = dir.manifests(LOG).unwrap_or_default();
        let manifests = found.into_iter().take(SNAPSHOTS_KEPT).filter_map(|(_, manifest)| manifest.ok());
        let needed: HashSet<String> = manifests
            .flat_map(|manifest| {
                let own = manifest_name(Sequence(manifest.sequence));
                manifest.parts().map(part_name).chain([own]).collect::<Vec<_>>()
            })
            .collect();
        dir.names().unwrap_or_default().iter().any(|name| !needed.contains(name))
    }

    /// Ends, and leaves what a crash in the middle of a snapshot leaves.
    fn die_in_a_snapshot(&mut self) -> io::Result<()> {
        let stopped = self.engine.take().map_or(Ok(()), Engine::stop);
        stopped.map_err(io::Error::other)?;
        let dir = self.data.join("snapshots");
        let names = [format!("part-{}", "0".repeat(64)), format!("part-{}.unfinished", "1".repeat(64))];
        names.iter().try_for_each(|name| fs::write(dir.join(name), [7; 5_000]))
    }
}
