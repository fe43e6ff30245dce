//! The smallest data directory with everything in it: so that each change there is can be made to it.

use std::path::Path;

use jeton::snapshots::SnapshotDir;
use jeton::{Engine, EngineConfig, SnapshotSchedule};
use jeton_core::command::{Command, RevokeTarget, Submission};
use jeton_core::numbers::ClientNo;
use jeton_core::outcome::Outcome;
use jeton_core::state::StateConfig;
use jeton_core::token::Token;
use jeton_log_store::{Options, SledStore};

use super::image::Image;
use super::workbench::Failure;
use crate::{issue_for, work_dir};

/// The log goes on in its next segment after some 20 events, as no server does before a segment has a MiB.
const SEGMENT_BYTES: u64 = 4_096;
/// Issues on each side of the snapshot.
const ISSUES: usize = 8;

impl Image {
    /// Makes one of two segments with a few events each, an anchor, and a snapshot with events behind it: some 25 KiB. It is an
    /// engine's in one life, for sled makes a file half a MiB longer whenever it opens it again; so there is no snapshot
    /// of sled's own, and there are no certificates.
    ///
    /// # Errors
    /// What `jeton log verify` or `jeton snapshot verify` says, if it does not accept it.
    ///
    /// # Panics
    /// If the engine does not do its part.
    pub fn make_small() -> Result<Self, Failure> {
        let dir = work_dir();
        let engine = open(dir.path());
        let dead = issue_some(&engine);
        run(&engine, Command::Revoke(RevokeTarget::Id(dead.id)));
        engine.take_snapshot().expect("a snapshot");
        let live = issue_some(&engine);
        engine.stop().expect("it stops in order");
        let image = Self::of(dir, live, dead)?;
        assert!(image.segments().len() == 2, "{image:?}");
        Ok(image)
    }
}

fn open(data: &Path) -> Engine {
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
    let mut log_id = [0; 16];
    log_id.copy_from_slice(&blake3::hash(data.as_os_str().as_encoded_bytes()).as_bytes()[..16]);
    let store = SledStore::open(data, options, log_id).expect("a log");
    let state = StateConfig { tokens_initial: 16, huge_pages: false, ..StateConfig::default() };
    let snapshots = Some((SnapshotDir::of(data), SnapshotSchedule::NEVER));
    let config = EngineConfig { state, snapshots, ..EngineConfig::default() };
    Engine::open(Box::new(store), config, "spiffe://test/admin").expect("an engine")
}

fn run(engine: &Engine, command: Command) -> Outcome {
    let reply = engine.call(Submission { actor: ClientNo(1), key: None, command });
    reply.expect("the queue has room").result.expect("the administrator may")
}

/// The last of them.
fn issue_some(engine: &Engine) -> Token {
    (1..ISSUES).for_each(|_| drop(issue(engine)));
    issue(engine)
}

fn issue(engine: &Engine) -> Token {
    match run(engine, Command::IssueTokens(issue_for(&["alice"]))) {
        Outcome::Issued { mut tokens, .. } => tokens.remove(0),
        other => panic!("not issued: {other:?}"),
    }
}
