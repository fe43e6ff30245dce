//! A small data directory, made by the real binary: two segments of a log, an anchor, certificates beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jeton_client::{Claims, Client, Grant, IssueTokens, RevokeTarget, Token};

use super::workbench::{Failure, Question};
use crate::{Server, issue_for, name, run, work_dir};

/// Lives of the server: in the first the log goes on to its second segment, in the second it only grows.
const LIVES: usize = 2;
/// Lives after which sled has overwritten the beginning of its database: 22 to 40, as a rule. In one directory of ten it
/// has not by the end, for which pages it writes anew depends on its threads.
const OLD_LIVES: std::ops::Range<usize> = 12..64;
/// Directories that are tried: that sled spares the beginning of each of them happens once in some million times, if each is by chance.
const OLD_DIRS: usize = 6;
/// One of them in so many writes much.
const FILLED_EACH: usize = 10;
/// Groups of issues that are enough to fill a segment of 1 MiB three times over.
const GROUPS_MAX: usize = 36;
/// Issues under way at a time: large commits, so that there are not too many headers.
const PIPELINED: usize = 24;
const ATTRIBUTES: usize = 3;
const ATTRIBUTE_BYTES: usize = 1_000;

/// A data directory as it is when nothing is wrong with it.
pub struct Image {
    /// Every file below it, by its path there.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// What `jeton --json log verify` says of it.
    pub verified: String,
    /// What `jeton --json snapshot verify` says of it; empty without snapshots.
    pub snapshots_verified: String,
    /// What `jeton log show --json` says of each event, a line each.
    pub(super) shown: String,
    /// How many events it holds.
    pub events: u64,
    /// A token that is good.
    pub live: Token,
    /// One that was revoked.
    pub dead: Token,
    /// The directory itself; nothing changes it any more.
    pub dir: tempfile::TempDir,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} files, {} events)", self.files.len(), self.events)
    }
}

/// Every file below `dir`, by its path there.
pub(super) fn read_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if let (Ok(inside), Ok(bytes)) = (path.strip_prefix(dir), fs::read(&path)) {
                files.insert(inside.to_owned(), bytes);
            }
        }
    }
    files
}

/// Writes files below `dir`.
pub(super) fn write_files<'a>(dir: &Path, files: impl IntoIterator<Item = (&'a PathBuf, &'a Vec<u8>)>) {
    for (path, bytes) in files {
        let to = dir.join(path);
        fs::create_dir_all(to.parent().expect("a file lies in a folder")).expect("a folder");
        fs::write(to, bytes).expect("a file is written");
    }
}

fn large_issue(number: usize) -> IssueTokens {
    let grant: Grant = "read on journal/42".parse().expect("a grant");
    let value = |at: usize| format!("{number:08}-{at}").repeat(ATTRIBUTE_BYTES / 10);
    let attributes = (0..ATTRIBUTES).map(|at| (name(&format!("attribute-{at}")), value(at)));
    let claims = Claims::new([], [], [grant], attributes.collect()).expect("claims");
    let subjects = [number % 7, number % 11].map(|subject| name(&format!("subject-{subject}")));
    IssueTokens { claims, subjects: subjects.to_vec(), ..issue_for(&[]) }
}

/// Issues a group of tokens with large claims, and revokes one of them, which is returned.
async fn fill(client: &Client, group: usize) -> Token {
    let issues = (0..PIPELINED).map(|at| {
        let (client, number) = (client.clone(), group * PIPELINED + at);
        tokio::spawn(async move { client.issue(large_issue(number), None).await.expect("an issue") })
    });
    let mut last = None;
    for issue in issues.collect::<Vec<_>>() {
        last = issue.await.expect("no panic").tokens.pop();
    }
    let victim = last.expect("each issue has tokens");
    client.revoke(RevokeTarget::Id(victim.id)).await.expect("a revoke");
    victim
}

impl Image {
    /// Makes one.
    ///
    /// # Errors
    /// What `jeton log verify` says, if it does not accept it.
    ///
    /// # Panics
    /// If the server does not do its part.
    pub async fn make() -> Result<Self, Failure> {
        let dir = work_dir();
        let mut tokens = Vec::new();
        let mut group = 0;
        for life in 0..LIVES {
            let flags = ["--listen", "127.0.0.1:0", "--cores", "1"];
            let server = Server::start_as(dir.path(), &flags, &[("JETON_SEGMENT_MIB", "1")]);
            let client = server.admin().await;
            let is_enough = || life > 0 || segments_in(&dir.path().join("log")) > 1;
            let mut dead = fill(&client, group).await;
            while !is_enough() {
                group += 1;
                assert!(group < GROUPS_MAX, "the log does not go on to a second segment");
                dead = fill(&client, group).await;
            }
            group += 1;
            let live = client.issue(issue_for(&["the last"]), None).await.expect("an issue").tokens.remove(0);
            tokens = vec![live, dead];
            client.close().await;
            server.terminate();
        }
        let dead = tokens.pop().expect("two tokens");
        let live = tokens.pop().expect("two tokens");
        Self::of(dir, live, dead)
    }

    /// Makes one of many lives, with one segment, whose beginning sled has overwritten: it can be read with the snapshot that
    /// sled made of it, and not without.
    ///
    /// # Errors
    /// As [`Self::make`].
    ///
    /// # Panics
    /// As [`Self::make`].
    pub async fn make_old() -> Result<Self, Failure> {
        for _ in 0..OLD_DIRS {
            let dir = work_dir();
            if let Some((live, dead)) = grow_old(dir.path()).await {
                return Self::of(dir, live, dead);
            }
        }
        panic!("sled overwrites no beginning any more");
    }

    /// The image of what servers left in `dir`.
    pub(super) fn of(dir: tempfile::TempDir, live: Token, dead: Token) -> Result<Self, Failure> {
        for passing in ["server.log", "server.json"] {
            let _ = fs::remove_file(dir.path().join(passing));
        }
        let output = run(dir.path(), &Question::Log.arguments(), "");
        let verified = String::from_utf8_lossy(&output.stdout).into_owned();
        let value: serde_json::Value = serde_json::from_str(&verified).unwrap_or_default();
        let Some(events) = value["events"].as_u64().filter(|_| output.status.success()) else {
            return Err(Failure::new("the image does not verify", &output));
        };
        let output = run(dir.path(), &["log", "show", "--json", "--limit", &events.to_string()], "");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        if shown.lines().count() as u64 != events {
            return Err(Failure::new("not every event of the image is shown", &output));
        }
        let files = read_files(dir.path());
        let has_snapshots = files.keys().any(|path| Question::about(path) == Question::Snapshots);
        let snapshots = has_snapshots.then(|| run(dir.path(), &Question::Snapshots.arguments(), ""));
        if let Some(output) = snapshots.as_ref().filter(|output| !output.status.success()) {
            return Err(Failure::new("the image's snapshots do not verify", output));
        }
        let told = snapshots.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let snapshots_verified = told.unwrap_or_default();
        Ok(Self { files, verified, snapshots_verified, shown, events, live, dead, dir })
    }

    /// Keeps a copy for whoever looks into a failure; returns where.
    pub fn keep(&self) -> PathBuf {
        let kept = work_dir().keep();
        write_files(&kept, &self.files);
        kept
    }

    /// The files of the log's segments with this name, in order.
    pub(super) fn segment_files<'a>(&'a self, file: &'a str) -> impl Iterator<Item = &'a PathBuf> {
        self.files.keys().filter(move |path| is_segment(path.parent()) && path.ends_with(file))
    }

    /// The snapshots that sled made of the segments.
    pub fn sled_snapshots(&self) -> Vec<&PathBuf> {
        self.files.keys().filter(|path| is_sled_snapshot(path)).collect()
    }

    /// The folders of the segments, in order.
    pub fn segments(&self) -> Vec<PathBuf> {
        self.segment_files("db").filter_map(|path| path.parent().map(Path::to_owned)).collect()
    }
}

/// Lives of a server in `dir` until sled has overwritten the beginning of the log's segment: a token that is good then and one
/// that was revoked. `None` if it spares it.
async fn grow_old(dir: &Path) -> Option<(Token, Token)> {
    let mut tokens = None;
    for life in 0.. {
        if life >= OLD_LIVES.start && needs_its_snapshot(dir) {
            return tokens;
        }
        if life == OLD_LIVES.end {
            break;
        }
        let server = Server::start(dir);
        let client = server.admin().await;
        // Small commits, and now and then many large ones, are what makes sled write the first pages anew elsewhere.
        let mut dead =
            client.issue(issue_for(&["the first"]), None).await.expect("an issue").tokens.remove(0);
        client.revoke(RevokeTarget::Id(dead.id)).await.expect("a revoke");
        if life % FILLED_EACH == FILLED_EACH - 1 {
            dead = fill(&client, life).await;
        }
        let live = client.issue(issue_for(&["the last"]), None).await.expect("an issue").tokens.remove(0);
        tokens = Some((live, dead));
        client.close().await;
        server.terminate();
    }
    None
}

/// Whether the log in a copy of `dir` does not verify without what sled has beside its databases.
fn needs_its_snapshot(dir: &Path) -> bool {
    let copy = work_dir();
    let files = read_files(dir);
    write_files(copy.path(), files.iter().filter(|(path, _)| !is_sled_snapshot(path)));
    !run(copy.path(), &Question::Log.arguments(), "").status.success()
}

/// Whether a file is a snapshot that sled made of a segment.
pub(super) fn is_sled_snapshot(path: &Path) -> bool {
    is_segment(path.parent())
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap."))
}

fn segments_in(log: &Path) -> usize {
    let entries = fs::read_dir(log).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| is_segment(Some(&entry.path()))).count()
}

fn is_segment(dir: Option<&Path>) -> bool {
    let name = dir.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.is_some_and(|name| name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit()))
}
