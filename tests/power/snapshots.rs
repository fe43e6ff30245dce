//! Power cuts under the real snapshots' files: a process writes one after the other, and every image of every sync must
//! hold the last one that was acknowledged, or a younger one, and nothing that looks like a snapshot and is none.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command as Process;

use jeton::snapshots::SnapshotDir;
use jeton_core::batch::ChainEnd;
use jeton_core::command::{Command, ConsumeToken, IssueTokens, RevokeTarget, Submission};
use jeton_core::numbers::{ClientNo, IdempotencyKey, LogId, Partition, Sequence};
use jeton_core::outcome::Outcome;
use jeton_core::sequencer::Sequencer;
use jeton_core::snapshot::{Manifest, SnapshotWriter, prune};
use jeton_core::state::{State, StateConfig};
use jeton_core::time::Millis;
use jeton_core::token::Token;

use super::disk::Disk;
use super::image::{Image, Variant};
use super::shim::{place, record};
use super::trace::{Event, Trace};
use crate::sim::rng::Rng;
use crate::{issue_for, name};

const LOG: (LogId, Partition) = (LogId([5; 16]), Partition(0));
const START_MS: u64 = 1_700_000_000_000;
pub(super) const SMALL: StateConfig =
    StateConfig { tokens_initial: 16, tokens_max: 10_000, segment_records: 16, huge_pages: false };
/// Broken promises that are told of.
const TOLD_MAX: usize = 20;

/// What a folder of snapshots is taken to leave out: a test of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotLie {
    /// Files are never synced.
    NoDataSync,
    /// The folder is never synced.
    NoDirectorySync,
    /// The folder is synced behind a manifest only, not before it.
    PartsNotNamedFirst,
}

/// What the power cuts came to.
#[derive(Debug, Default)]
pub struct SnapshotReport {
    /// Sync points.
    pub points: usize,
    /// Images built.
    pub images: usize,
    /// Images that hold a snapshot that was not acknowledged.
    pub kept_unacknowledged: usize,
    /// Images without a snapshot, before one was acknowledged.
    pub without: usize,
    /// Broken promises: where, and which.
    pub broken: Vec<String>,
    /// How many there were.
    pub broken_count: usize,
}

/// A process that writes snapshots of an engine which goes on between them.
struct Writer<'r> {
    root: &'r Path,
    dir: SnapshotDir,
    rng: Rng,
    sequencer: Sequencer<u32>,
    last: Option<Manifest>,
    tokens: Vec<Token>,
}

/// Writes so many snapshots below `<root>/data`, prunes after each, and starts anew from the last now and then.
///
/// # Errors
/// As the system says: nothing fails in it.
pub fn write_snapshots(seed: u64, snapshots: usize, root: &Path) -> io::Result<()> {
    let data = root.join("data");
    fs::create_dir(&data)?;
    fs::File::open(root)?.sync_all()?;
    let dir = SnapshotDir::of(&data);
    dir.prepare()?;
    let (state, _) = State::new(LOG.0, LOG.1, SMALL).map_err(io::Error::other)?;
    let mut sequencer = Sequencer::new(state, ChainEnd::genesis(LOG.0, LOG.1));
    sequencer.handle_creation("spiffe://test/admin", Millis(START_MS));
    let (rng, tokens) = (Rng::new(seed ^ 0x5a9), Vec::new());
    let mut writer = Writer { root, dir, rng, sequencer, last: None, tokens };
    for number in 0..snapshots {
        for _ in 0..writer.rng.within(1..30) {
            writer.change();
        }
        if writer.rng.one_in(3) {
            writer.write(true)?;
        }
        writer.write(false)?;
        prune(&mut writer.dir, LOG)?;
        if number % 2 == 1 {
            writer.start_anew()?;
        }
    }
    Ok(())
}

impl Writer<'_> {
    fn mark(&self, mark: &str) {
        // The shim takes it as a mark and makes nothing.
        let _ = fs::create_dir(self.root.join("mark").join(mark));
    }

    /// Something happens, and is durable.
    fn change(&mut self) {
        let Self { rng, sequencer, tokens, .. } = self;
        let any = (!tokens.is_empty()).then(|| rng.pick(tokens).clone());
        let subjects = ["alice", "bob", "carol", "dan"];
        let subject = *rng.pick(&subjects);
        let command = match (rng.within(0..8), any) {
            (0, Some(token)) => Command::Revoke(RevokeTarget::Id(token.id)),
            (1, Some(_)) => {
                Command::Revoke(RevokeTarget::Subject { tenant: name("default"), subject: name(subject) })
            }
            (2, Some(token)) => Command::ConsumeToken(ConsumeToken {
                token,
                access: None,
                audience: None,
                scopes: None,
                binding: None,
            }),
            (3, Some(token)) => Command::RenewToken { token, ttl_s: 7_000, binding: None },
            (kind, _) => Command::IssueTokens(IssueTokens {
                uses_max: if kind == 4 { 9 } else { 0 },
                renewable_s: if kind == 5 { 9_000 } else { 0 },
                ..issue_for(&[subject, subject])
            }),
        };
        let key = rng.one_in(3).then(|| IdempotencyKey([rng.within(0..9) as u8; 16]));
        let mut entropy = |bytes: &mut [u8]| rng.fill(bytes);
        let submission = Submission { actor: ClientNo(1), key, command };
        sequencer.handle_submission(0, submission, Millis(START_MS), &mut entropy);
        loop {
            while sequencer.has_work() {
                sequencer.handle_work(Millis(START_MS));
            }
            let Some(commit) = sequencer.poll_commit() else { break };
            sequencer.handle_durable(commit.last());
        }
        while let Some((_, reply)) = sequencer.poll_reply() {
            if let Ok(Outcome::Issued { tokens: issued, .. }) = reply.result {
                tokens.extend(issued);
            }
        }
    }

    /// Writes a snapshot, or gives one up before it exists.
    fn write(&mut self, is_given_up: bool) -> io::Result<()> {
        let cut =
            self.sequencer.begin_snapshot().ok_or_else(|| io::Error::other("something is in the way"))?;
        let digest = blake3::Hash::from_bytes(self.sequencer.state().digest()).to_hex();
        let mut writer = SnapshotWriter::new(cut, self.last.clone());
        let sequence = writer.sequence();
        while let Some(piece) = self.sequencer.poll_snapshot() {
            writer.take(piece, &mut self.dir)?;
        }
        while writer.write_next(&mut self.dir)? {
            if is_given_up && self.rng.one_in(4) {
                return Ok(());
            }
        }
        if is_given_up {
            return Ok(());
        }
        self.mark(&format!("try-{sequence}-{digest}"));
        let (manifest, _) = writer.commit(self.sequencer.watermarks().durable, &mut self.dir)?;
        self.mark(&format!("ack-{sequence}"));
        self.last = Some(manifest);
        Ok(())
    }

    /// Dies while it writes a file, and goes on from the last snapshot.
    fn start_anew(&mut self) -> io::Result<()> {
        fs::write(self.dir.path().join("part-00.unfinished"), [7; 5_000])?;
        self.dir.prepare()?;
        let manifest = self.last.take().ok_or_else(|| io::Error::other("nothing was written"))?;
        let (restored, manifest) = self.dir.load(manifest, SMALL).map_err(io::Error::other)?;
        self.sequencer = Sequencer::new(restored.state, restored.end);
        self.last = Some(manifest);
        Ok(())
    }
}

/// Snapshots that were tried, with their digests, and the last that was acknowledged.
#[derive(Debug, Default)]
struct Promises {
    tried: BTreeMap<Sequence, String>,
    acknowledged: Option<Sequence>,
}

impl Promises {
    fn note(&mut self, event: &Event<'_>) {
        let Event::Mark(mark) = event else { return };
        let number = |text: &str| Sequence(text.parse().expect("a number"));
        if let Some((sequence, digest)) = mark.strip_prefix("try-").and_then(|mark| mark.split_once('-')) {
            self.tried.insert(number(sequence), digest.to_owned());
        } else if let Some(sequence) = mark.strip_prefix("ack-") {
            self.acknowledged = Some(number(sequence));
        }
    }

    /// Opens what a power cut left. Returns the newest snapshot there.
    fn check(&self, root: &Path) -> Result<Option<Sequence>, String> {
        let mut dir = SnapshotDir::of(&root.join("data"));
        let newest = self.check_all(&dir)?;
        if newest < self.acknowledged {
            return Err(format!("{:?} was acknowledged, and {newest:?} is the newest", self.acknowledged));
        }
        // A start goes on from here: what it tidies up and removes takes nothing away.
        dir.prepare().and_then(|()| prune(&mut dir, LOG)).map_err(|error| format!("no start: {error}"))?;
        if self.check_all(&dir)? == newest {
            Ok(newest)
        } else {
            Err("a start removes the newest".to_owned())
        }
    }

    /// Each manifest names a whole snapshot.
    fn check_all(&self, dir: &SnapshotDir) -> Result<Option<Sequence>, String> {
        let all = dir.manifests(LOG).map_err(|error| error.to_string())?;
        let newest = all.first().map(|(sequence, _)| *sequence);
        for (sequence, manifest) in all {
            let loaded = manifest.and_then(|manifest| dir.load(manifest, SMALL));
            let (restored, _) = loaded.map_err(|error| format!("snapshot {sequence}: {error}"))?;
            let digest = blake3::Hash::from_bytes(restored.state.digest()).to_hex().to_string();
            if self.tried.get(&sequence) != Some(&digest) {
                return Err(format!("snapshot {sequence} is not what was written"));
            }
        }
        Ok(newest)
    }
}

/// Cuts the power at every sync of a process that writes so many snapshots. `driver` is the `power` binary.
///
/// # Panics
/// If the process itself goes wrong.
#[must_use]
pub fn cut_snapshots(driver: &Path, seed: u64, snapshots: usize, lie: Option<SnapshotLie>) -> SnapshotReport {
    let mut command = Process::new(driver);
    command.args(["write-snapshots", "--seed", &seed.to_string(), "--snapshots", &snapshots.to_string()]);
    let recorded = record(command, None);
    assert!(recorded.status.success(), "the snapshots of seed {seed}: {}", recorded.words);
    cut_all(&recorded.trace, seed, lie)
}

fn cut_all(trace: &Trace, seed: u64, lie: Option<SnapshotLie>) -> SnapshotReport {
    let (mut disk, mut promises, mut report) =
        (Disk::default(), Promises::default(), SnapshotReport::default());
    let (mut paths, mut named) = (BTreeMap::new(), "");
    for event in &trace.events() {
        if let Event::Open { handle, path, .. } = event {
            paths.insert(*handle, *path);
        }
        if let Event::Rename(_, to) = event {
            named = to;
        }
        if let Event::Sync { handle, .. } = event {
            cut_here(&disk, &promises, seed, &mut report);
            let is_left_out = match lie {
                None => false,
                Some(SnapshotLie::NoDataSync) => paths[handle].ends_with(".unfinished"),
                Some(SnapshotLie::NoDirectorySync) => paths[handle].ends_with("snapshots"),
                Some(SnapshotLie::PartsNotNamedFirst) => {
                    paths[handle].ends_with("snapshots") && named.contains("/part-")
                }
            };
            if is_left_out {
                continue;
            }
        }
        disk.apply(event);
        promises.note(event);
    }
    cut_here(&disk, &promises, seed, &mut report);
    report
}

fn cut_here(disk: &Disk<'_>, promises: &Promises, seed: u64, report: &mut SnapshotReport) {
    for (number, variant) in Variant::ALL.into_iter().enumerate() {
        let mut rng = Rng::new(seed ^ ((report.points * Variant::ALL.len() + number) as u64) << 20);
        let root = place();
        Image::of(disk, variant, &mut rng).write(root.path()).expect("a place for an image");
        report.images += 1;
        match promises.check(root.path()) {
            Ok(newest) => {
                report.without += usize::from(newest.is_none());
                report.kept_unacknowledged += usize::from(newest > promises.acknowledged);
            }
            Err(words) => {
                report.broken_count += 1;
                if report.broken.len() < TOLD_MAX {
                    report.broken.push(format!("seed {seed}, sync {}, {variant:?}: {words}", report.points));
                }
            }
        }
    }
    report.points += 1;
}
