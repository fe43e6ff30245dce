//! A real snapshot with something of everything in it.

use std::collections::BTreeMap;
use std::io;
use std::sync::LazyLock;

use jeton_core::batch::ChainEnd;
use jeton_core::claims::{Claims, Name};
use jeton_core::command::{Command, ConsumeToken, IssueTokens, RevokeTarget, Submission};
use jeton_core::numbers::{ClientNo, IdempotencyKey, Partition};
use jeton_core::outcome::Outcome;
use jeton_core::sequencer::Sequencer;
use jeton_core::snapshot::{Manifest, PartStore, SnapshotWriter};
use jeton_core::state::State;
use jeton_core::token::Token;

use super::{LOG, SMALL, START, settle};

/// Files in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(pub(super) BTreeMap<String, Vec<u8>>);

impl PartStore for Files {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        self.0.get(name).map(|bytes| bytes.len() as u64).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, name: &str, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.get(name).and_then(|bytes| bytes.get(..into.len()));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A snapshot, and the tokens in it.
pub(super) struct Sample {
    pub(super) manifest: Manifest,
    pub(super) files: Files,
    pub(super) tokens: Vec<Token>,
}

/// The snapshot: always the same.
pub(super) fn sample() -> &'static Sample {
    static SAMPLE: LazyLock<Sample> = LazyLock::new(make);
    &SAMPLE
}

/// Bytes that look random.
pub(super) fn fill(drawn: &mut u64, bytes: &mut [u8]) {
    *drawn += 1;
    let hash = blake3::hash(&drawn.to_le_bytes());
    bytes.iter_mut().zip(hash.as_bytes().iter().cycle()).for_each(|(to, from)| *to = *from);
}

/// An issue of ordinary tokens, an hour long.
pub(super) fn issue(tenant: Name, subjects: Vec<Name>, claims: Claims) -> IssueTokens {
    IssueTokens {
        tenant,
        subjects,
        claims,
        ttl_s: 3_600,
        not_before_s: 0,
        renewable_s: 0,
        uses_max: 0,
        parent: None,
        binding: None,
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("it is a name")
}

struct Maker {
    sequencer: Sequencer<u32>,
    drawn: u64,
    tokens: Vec<Token>,
}

impl Maker {
    fn submit(&mut self, key: Option<u8>, command: Command) {
        let key = key.map(|key| IdempotencyKey([key; 16]));
        let Self { sequencer, drawn, .. } = self;
        let mut entropy = |bytes: &mut [u8]| fill(drawn, bytes);
        sequencer.handle_submission(0, Submission { actor: ClientNo(1), key, command }, START, &mut entropy);
    }

    fn run(&mut self, key: Option<u8>, command: Command) -> Option<Token> {
        self.submit(key, command);
        let mut last = None;
        for reply in settle(&mut self.sequencer, START) {
            if let Outcome::Issued { tokens, .. } = reply.result.expect("nothing is rejected") {
                last = tokens.last().cloned();
                self.tokens.extend(tokens.iter().cloned());
            }
        }
        last
    }

    fn issue(&mut self, subjects: &[&str], change: impl FnOnce(&mut IssueTokens)) -> Token {
        let subjects = subjects.iter().map(|subject| name(subject)).collect();
        let mut command = issue(name("default"), subjects, Claims::default());
        change(&mut command);
        self.run(None, Command::IssueTokens(command)).expect("it was issued")
    }
}

fn make() -> Sample {
    let (state, _) = State::new(LOG, Partition(0), SMALL).expect("there is memory");
    let sequencer = Sequencer::new(state, ChainEnd::genesis(LOG, Partition(0)));
    let mut maker = Maker { sequencer, drawn: 0, tokens: Vec::new() };
    maker.sequencer.handle_creation("spiffe://test/admin", START);
    settle(&mut maker.sequencer, START);
    maker.issue(&["alice", "bob", "alice", "somebody 1", "bob", "alice"], |_| {});
    maker.issue(&["carol"], |_| {});
    let limited = maker.issue(&["alice"], |issue| issue.uses_max = 3);
    let consume = ConsumeToken { token: limited, access: None, audience: None, scopes: None, binding: None };
    maker.run(Some(1), Command::ConsumeToken(consume));
    let revoked = maker.issue(&["bob"], |_| {});
    maker.run(None, Command::Revoke(RevokeTarget::Id(revoked.id)));
    let root = maker.issue(&["alice"], |_| {});
    maker.issue(&["bob"], |issue| issue.parent = Some(root.id));
    let renewable = maker.issue(&["alice"], |issue| issue.renewable_s = 7_200);
    maker.run(None, Command::CreateTenant { name: name("press") });
    maker.issue(&["somebody 1"], |issue| issue.tenant = name("press"));
    maker.run(Some(2), Command::Revoke(RevokeTarget::Tenant { tenant: name("press") }));
    // Decided, and not durable when the snapshot is cut.
    maker.submit(None, Command::RenewToken { token: renewable, ttl_s: 7_000, binding: None });
    let commit = maker.sequencer.poll_commit().expect("a renewal");
    let cut = maker.sequencer.begin_snapshot().expect("nothing is in the way");
    let (mut writer, mut files) = (SnapshotWriter::new(cut, None), Files::default());
    while let Some(piece) = maker.sequencer.poll_snapshot() {
        writer.take(piece, &mut files).expect("files in memory");
    }
    while writer.write_next(&mut files).expect("files in memory") {}
    maker.sequencer.handle_durable(commit.last());
    let (manifest, _) = writer.commit(commit.last(), &mut files).expect("files in memory");
    Sample { manifest, files, tokens: maker.tokens }
}
