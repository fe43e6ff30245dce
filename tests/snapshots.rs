//! Snapshots of a real server on real files: what a start makes of them, whole, damaged, foreign or ahead of the log; and a start
//! without the memory that it was told to fill.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use jeton_client::{Check, Client, IdempotencyKey, RevokeTarget, Token, Verdict};
use jeton_tests::{Server, StartFailure, issue_for, name, run};

/// Tokens of every kind that a snapshot has to know.
struct Tokens {
    live: Token,
    revoked: Token,
    limited: Token,
    of_bob: Token,
    member: Token,
}

async fn one(client: &Client, change: impl FnOnce(&mut jeton_client::IssueTokens)) -> Token {
    let mut issue = issue_for(&["alice"]);
    change(&mut issue);
    client.issue(issue, None).await.unwrap().tokens.remove(0)
}

const KEY: IdempotencyKey = IdempotencyKey([4; 16]);

impl Tokens {
    async fn issue(admin: &Client) -> Self {
        let (live, revoked) = (one(admin, |_| {}).await, one(admin, |_| {}).await);
        admin.revoke(RevokeTarget::Token(revoked.clone())).await.unwrap();
        let limited = one(admin, |issue| issue.uses_max = 3).await;
        admin.consume(&limited, &Check::live(), Some(KEY)).await.unwrap();
        let of_bob = one(admin, |issue| issue.subjects = vec![name("bob")]).await;
        let member = one(admin, |issue| issue.parent = Some(live.id)).await;
        Self { live, revoked, limited, of_bob, member }
    }

    /// What a server has to say of them that has never stopped, and one that has.
    async fn check(&self, admin: &Client) {
        let verdict = async |token| admin.validate(token, &Check::live()).await.unwrap().verdict;
        assert_eq!(verdict(&self.live).await, Verdict::Valid);
        assert_eq!(verdict(&self.revoked).await, Verdict::Revoked);
        assert_eq!(verdict(&self.limited).await, Verdict::ConsumeRequired);
        assert_eq!(verdict(&self.of_bob).await, Verdict::Valid);
        assert_eq!(verdict(&self.member).await, Verdict::Valid);
        let (answer, uses_left) = admin.consume(&self.limited, &Check::live(), Some(KEY)).await.unwrap();
        assert_eq!(
            (answer.verdict, uses_left),
            (Verdict::Valid, 2),
            "the key is remembered, and the use spent"
        );
    }
}

fn digest(data: &Path) -> String {
    let replay = run(data, &["--json", "log", "replay"], "");
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    let value: serde_json::Value = serde_json::from_slice(&replay.stdout).unwrap();
    value["digest"].as_str().unwrap().to_owned()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn files(data: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(data.join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// How often servers of this directory have said so.
fn times(server: &Server, words: &str) -> usize {
    server.log().matches(words).count()
}

const LOADED: &str = "a snapshot is loaded";
const PASSED_OVER: &str = "a snapshot is passed over";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_goes_on_from_its_snapshot_and_the_events_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let tokens = Tokens::issue(&admin).await;
    let taken = admin.take_snapshot().await.unwrap();
    assert!(taken.tokens == 5 && taken.bytes_written == taken.bytes, "{taken:?}");
    let late = one(&admin, |_| {}).await;
    server.kill9();
    let server = Server::start(dir.path());
    assert_eq!(times(&server, LOADED), 1);
    let admin = server.admin().await;
    tokens.check(&admin).await;
    assert_eq!(admin.validate(&late, &Check::live()).await.unwrap().verdict, Verdict::Valid);
    let revoke = |target| async { admin.revoke(target).await.unwrap().report.revoked };
    let bob = RevokeTarget::Subject { tenant: name("default"), subject: name("bob") };
    assert_eq!(revoke(bob).await, 1, "the subject's tokens are known");
    assert_eq!(revoke(RevokeTarget::Family(tokens.member.id)).await, 2, "and the family");
    // Another one: what has not changed is not written again.
    let again = admin.take_snapshot().await.unwrap();
    assert!(again.sequence > taken.sequence && again.bytes_written < again.bytes, "{again:?}");
    server.terminate();
    let verified = run(dir.path(), &["--json", "snapshot", "verify", "--against-log"], "");
    let words = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success() && words.matches("\"ok\":true").count() == 2, "{words}");
    let server = Server::start(dir.path());
    assert_eq!(times(&server, LOADED), 2);
    let admin = server.admin().await;
    assert_eq!(admin.validate(&tokens.member, &Check::live()).await.unwrap().verdict, Verdict::Revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_changed_in_a_snapshot_a_start_serves_what_the_log_says() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    let admin = server.admin().await;
    let tokens = Tokens::issue(&admin).await;
    admin.take_snapshot().await.unwrap();
    server.terminate();
    let (digest, names) = (digest(&data), files(&data));
    // The manifest, which comes last, and some of the parts; each byte of each is the turn of a test of the format.
    for (at, file) in names.iter().rev().step_by(3).enumerate() {
        let copy = dir.path().join(format!("copy {at}"));
        copy_dir(&data, &copy);
        let file = copy.join("snapshots").join(file.file_name().unwrap());
        let mut bytes = fs::read(&file).unwrap();
        match at % 3 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes.clear(),
            _ => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
        }
        fs::write(&file, bytes).unwrap();
        let refused = run(&copy, &["snapshot", "verify"], "");
        assert_eq!(refused.status.code(), Some(2), "{} is not as it was", file.display());
        let _ = fs::remove_file(copy.join("server.log"));
        let server = Server::start(&copy);
        assert_eq!((times(&server, LOADED), times(&server, PASSED_OVER)), (0, 1), "{}", server.log());
        let admin = server.admin().await;
        tokens.check(&admin).await;
        // The next one does not rely on what is damaged.
        admin.take_snapshot().await.unwrap_or_else(|_| panic!("{}", server.log()));
        server.terminate();
        assert_eq!(self::digest(&copy), digest);
        let verified = run(&copy, &["snapshot", "verify", "--against-log"], "");
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_newest_is_damaged_or_cannot_be_read_a_start_takes_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data);
    let admin = server.admin().await;
    let tokens = Tokens::issue(&admin).await;
    let older = admin.take_snapshot().await.unwrap();
    let of_older = files(&data);
    let between = one(&admin, |_| {}).await;
    admin.revoke(RevokeTarget::Id(between.id)).await.unwrap();
    let newer = admin.take_snapshot().await.unwrap();
    let behind = one(&admin, |_| {}).await;
    server.kill9();
    let of_newer: Vec<_> = files(&data).into_iter().filter(|file| !of_older.contains(file)).collect();
    let is_manifest = |file: &&PathBuf| file.to_string_lossy().contains("snapshot-");
    let manifest = of_newer.iter().find(is_manifest).unwrap();
    let part = of_newer.iter().find(|file| !is_manifest(file)).unwrap();
    let rot = |file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file, bytes).unwrap();
    };
    // What no rights help to read: a link that leads to itself.
    let withhold = |file: &Path| {
        fs::remove_file(file).unwrap();
        std::os::unix::fs::symlink(file, file).unwrap();
    };
    for (at, file) in [manifest, part, manifest, part].into_iter().enumerate() {
        let copy = dir.path().join(format!("copy {at}"));
        copy_dir(&data, &copy);
        let file = copy.join("snapshots").join(file.file_name().unwrap());
        if at < 2 {
            rot(&file)
        } else {
            withhold(&file)
        }
        let _ = fs::remove_file(copy.join("server.log"));
        let server = Server::start(&copy);
        let log = server.log();
        assert_eq!((times(&server, LOADED), times(&server, PASSED_OVER)), (1, 1), "{log}");
        let line = |words| log.lines().find(|line| line.contains(words)).unwrap();
        assert!(line(LOADED).contains(&older.sequence.0.to_string()), "{log}");
        assert!(line(PASSED_OVER).contains(&newer.sequence.0.to_string()), "{log}");
        let admin = server.admin().await;
        tokens.check(&admin).await;
        let verdict = async |token| admin.validate(token, &Check::live()).await.unwrap().verdict;
        assert_eq!(verdict(&between).await, Verdict::Revoked, "the log has what the older one lacks");
        assert_eq!(verdict(&behind).await, Verdict::Valid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_knows_more_than_the_log_is_a_reason_not_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let (data, older) = (dir.path().join("data"), dir.path().join("older"));
    let server = Server::start(&data);
    one(&server.admin().await, |_| {}).await;
    server.terminate();
    copy_dir(&data, &older);
    let server = Server::start(&data);
    let admin = server.admin().await;
    one(&admin, |_| {}).await;
    admin.take_snapshot().await.unwrap();
    server.terminate();
    copy_dir(&data.join("snapshots"), &older.join("snapshots"));
    let Err(StartFailure::Ended { status, words }) = Server::try_start(&older, &[]) else {
        panic!("it started");
    };
    assert_eq!(status.code(), Some(2));
    assert!(
        words.contains("events that were acknowledged are gone") && words.contains("`snapshots`"),
        "{words}"
    );
    fs::remove_dir_all(older.join("snapshots")).unwrap();
    drop(Server::start(&older));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_about_in_the_folder_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    let server = Server::start(&other);
    server.admin().await.take_snapshot().await.unwrap();
    server.terminate();
    let server = Server::start(&data);
    let tokens = Tokens::issue(&server.admin().await).await;
    server.terminate();
    // A snapshot of another log, one that was cut short, and files that are nothing of ours.
    copy_dir(&other.join("snapshots"), &data.join("snapshots"));
    fs::write(data.join("snapshots/part-00.unfinished"), b"half a part").unwrap();
    fs::write(data.join("snapshots/snapshot-00000000000000000001"), b"").unwrap();
    fs::write(data.join("snapshots/README"), b"notes").unwrap();
    let listed = run(&data, &["snapshot", "list"], "");
    let words = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(words.contains("of another log") && words.contains("unusable"), "{words}");
    let server = Server::start(&data);
    assert_eq!((times(&server, LOADED), times(&server, PASSED_OVER)), (0, 2), "{}", server.log());
    let admin = server.admin().await;
    tokens.check(&admin).await;
    admin.take_snapshot().await.unwrap();
    server.terminate();
    assert!(!data.join("snapshots/part-00.unfinished").exists() && data.join("snapshots/README").exists());
    let verified = run(&data, &["snapshot", "verify", "--against-log"], "");
    assert!(verified.status.success(), "what was of no use is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_written_is_explained_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("snapshots"), b"no folder").unwrap();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let tokens = Tokens::issue(&admin).await;
    let error = admin.take_snapshot().await.unwrap_err().to_string();
    assert!(error.contains("exists") || error.contains("irectory"), "{error}");
    tokens.check(&admin).await;
    let stats: serde_json::Value = serde_json::from_str(&admin.stats().await.unwrap()).unwrap();
    assert_eq!((&stats["snapshots"], &stats["snapshots_failed"]), (&0.into(), &1.into()));
    server.terminate();
    fs::remove_file(dir.path().join("snapshots")).unwrap();
    // More is to be kept free for the log than any disk has.
    let server = Server::start_with(
        dir.path(),
        "127.0.0.1:0",
        &[("JETON_SPACE_RESERVE_MIB", "1048576"), ("JETON_SPACE_HARD_MIB", "0")],
    );
    let error = server.admin().await.take_snapshot().await.unwrap_err().to_string();
    assert!(error.contains("kept for the log"), "{error}");
    assert!(files(dir.path()).is_empty(), "nothing is left of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_written_by_themselves_and_only_administrators_order_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), "127.0.0.1:0", &[("JETON_SNAPSHOT_LOG_MIB", "1")]);
    let admin = server.admin().await;
    let subjects: Vec<String> = (0..256).map(|at| format!("somebody {at}")).collect();
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    let mut issued = 0;
    while files_or_none(dir.path()).is_none() && issued < 200 {
        admin.issue(issue_for(&subjects), None).await.unwrap();
        issued += 1;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(files_or_none(dir.path()).is_some(), "{}", server.log());
    let made = run(dir.path(), &["identity", "create", "auditor", "--rights", "audit,issue"], "");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let auditor = server.client_as("auditor").await;
    assert!(matches!(auditor.take_snapshot().await, Err(jeton_client::Error::NotAllowed)));
    let now = run(dir.path(), &["snapshot", "now"], "");
    let words = String::from_utf8_lossy(&now.stdout).into_owned();
    assert!(now.status.success() && words.starts_with("a snapshot of event "), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_restarted_often_writes_one_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let by_log = [("JETON_SNAPSHOT_LOG_MIB", "1")];
    let subjects: Vec<String> = (0..256).map(|at| format!("somebody {at}")).collect();
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    // Of 256 tokens some 40 KiB of log: no life of the server writes enough by itself.
    for life in 1..=6 {
        let server = Server::start_with(dir.path(), "127.0.0.1:0", &by_log);
        let admin = server.admin().await;
        for _ in 0..10 {
            admin.issue(issue_for(&subjects), None).await.unwrap();
        }
        assert!(life > 1 || files_or_none(dir.path()).is_none(), "one life alone writes none");
        for _ in 0..50 {
            if life > 1 && files_or_none(dir.path()).is_some() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        server.kill9();
    }
    panic!("six lives, and no snapshot");
}

/// Changes a name wherever it stands in the log's files.
fn misspell(data: &Path, name: &str) {
    let mut times = 0;
    for segment in
        fs::read_dir(data.join("log")).unwrap().filter_map(Result::ok).filter(|it| it.path().is_dir())
    {
        let file = segment.path().join("db");
        let mut bytes = fs::read(&file).unwrap();
        for at in 0..=bytes.len().saturating_sub(name.len()) {
            if bytes[at..].starts_with(name.as_bytes()) {
                bytes[at] ^= 1;
                times += 1;
            }
        }
        fs::write(&file, bytes).unwrap();
    }
    assert!(times > 0, "{name} stands in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_snapshot_hides_no_damage_behind_it_and_needs_none_of_the_log_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start_with(&data, "127.0.0.1:0", &[("JETON_SEGMENT_MIB", "1")]);
    let admin = server.admin().await;
    let tokens = Tokens::issue(&admin).await;
    let named = async |name| one(&admin, |issue| issue.subjects = vec![jeton_tests::name(name)]).await;
    let early = named("early-bird-of-the-log").await;
    // The log goes on in other segments: of one that is damaged sled gives nothing behind the damage.
    for _ in 0..60 {
        admin.issue(issue_for(&["alice"; 256]), None).await.unwrap();
    }
    admin.take_snapshot().await.unwrap();
    named("late-bird-of-the-log").await;
    server.terminate();
    let copy = |name: &str, misspelt: &str| {
        let copy = dir.path().join(name);
        copy_dir(&data, &copy);
        let _ = fs::remove_file(copy.join("server.log"));
        misspell(&copy, misspelt);
        let verified = run(&copy, &["log", "verify"], "");
        assert_eq!(verified.status.code(), Some(2), "the log is read whole there");
        copy
    };
    let refused = |data: &Path| {
        let Err(StartFailure::Ended { status, words }) = Server::try_start(data, &[]) else {
            panic!("it started");
        };
        assert!(
            status.code() == Some(2) && words.contains("the log is broken at sequence number"),
            "{words}"
        );
    };
    // Before the snapshot: nothing that is served rests on it.
    let before = copy("before", "early-bird-of-the-log");
    let server = Server::start(&before);
    assert_eq!(times(&server, LOADED), 1);
    let admin = server.admin().await;
    tokens.check(&admin).await;
    assert_eq!(admin.validate(&early, &Check::live()).await.unwrap().verdict, Verdict::Valid);
    server.terminate();
    // The same with a damaged snapshot: there is nothing whole to serve from.
    let manifest =
        files(&before).into_iter().find(|file| file.to_string_lossy().contains("snapshot-")).unwrap();
    fs::write(manifest, b"JTNS").unwrap();
    refused(&before);
    // Behind it.
    let behind = copy("behind", "late-bird-of-the-log");
    refused(&behind);
    // A repaired log is another one: the snapshot is none of its.
    let repaired = run(&behind, &["log", "repair", "--accept-loss"], "");
    assert!(repaired.status.success(), "{}", String::from_utf8_lossy(&repaired.stderr));
    let _ = fs::remove_file(behind.join("server.log"));
    let server = Server::start(&behind);
    assert_eq!((times(&server, LOADED), times(&server, PASSED_OVER)), (0, 1), "{}", server.log());
    tokens.check(&server.admin().await).await;
}

#[test]
fn a_maximum_that_memory_has_no_room_for_is_refused_with_the_arithmetic() {
    let dir = tempfile::tempdir().unwrap();
    let Err(StartFailure::Ended { status, words }) =
        Server::try_start(dir.path(), &[("JETON_TOKENS_MAX", "2147483646")])
    else {
        panic!("a machine with 350 GiB: there is no larger number to be had");
    };
    assert_eq!(status.code(), Some(2));
    assert!(words.contains("MiB (176 bytes a token") && words.contains("set tokens_max to"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tokens_than_a_server_may_hold_are_a_reason_not_to_start_and_nothing_to_repair() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    let subjects = ["alice"; 256];
    for _ in 0..40 {
        admin.issue(issue_for(&subjects), None).await.unwrap();
    }
    admin.take_snapshot().await.unwrap();
    server.kill9();
    // As many as the tests' servers make room for at first.
    let Err(StartFailure::Ended { status, words }) =
        Server::try_start(dir.path(), &[("JETON_TOKENS_MAX", "10000")])
    else {
        panic!("there is no room for 10,240 tokens in 10,000 places");
    };
    assert_eq!(status.code(), Some(2));
    assert!(words.contains("than the 10000 that this server holds (tokens_max"), "{words}");
    assert!(!words.contains("repair"), "{words}");
    let server = Server::start(dir.path());
    assert_eq!(times(&server, LOADED), 1, "it is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_huge_pages_a_start_says_so_and_everything_works() {
    let dir = tempfile::tempdir().unwrap();
    let without = [("LD_PRELOAD", jeton_tests::power::shim().to_str().unwrap()), ("SHIM_HUGE_PAGES", "none")];
    let server = Server::start_with(dir.path(), "127.0.0.1:0", &without);
    let admin = server.admin().await;
    let tokens = Tokens::issue(&admin).await;
    admin.take_snapshot().await.unwrap();
    tokens.check(&admin).await;
    assert_eq!(times(&server, "no huge pages"), 1, "{}", server.log());
    server.kill9();
    let server = Server::start_with(dir.path(), "127.0.0.1:0", &without);
    assert_eq!(times(&server, LOADED), 1);
    tokens.check(&server.admin().await).await;
}

fn files_or_none(data: &Path) -> Option<()> {
    let names = fs::read_dir(data.join("snapshots")).ok()?;
    let is_manifest = |name: &str| name.starts_with("snapshot-") && !name.ends_with("unfinished");
    names.filter_map(Result::ok).any(|entry| is_manifest(&entry.file_name().to_string_lossy())).then_some(())
}
