//! A disk that fills up, and one that becomes read-only, under the real server: on a tmpfs of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use jeton_client::{
    Check, Client, Config, Consistency, Error, Identity, Rejection, RevokeTarget, Token, Verdict,
};
use jeton_tests::{PATIENCE, Server, StartFailure, issue_for, jeton, name, run};

/// Set in the process that has mounts of its own.
const INSIDE: &str = "JETON_TESTS_OWN_MOUNTS";
const MIB: u64 = 1 << 20;
/// How long to wait before looking again.
const LOOK: Duration = Duration::from_millis(50);
/// The writer looks at the disk once a second.
const NOTICED: Duration = Duration::from_secs(20);

/// Runs the test called `test` again in a process with mounts of its own, where `body` is run on a fresh tmpfs of `mib`
/// MiB. All of it is gone with the process, however it ends.
fn on_a_small_disk(test: &str, mib: u64, body: impl AsyncFnOnce(&Path)) {
    if std::env::var_os(INSIDE).is_some() {
        let dir = tempfile::tempdir().unwrap();
        sh("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", &dir.path().to_string_lossy()]);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(body(dir.path()));
        sh("umount", &["-l", &dir.path().to_string_lossy()]);
        return;
    }
    let _ = jeton(); // built before anything is unusual
    let is_permitted = |flags: &str| {
        let status = Command::new("unshare").args([flags, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
        status.is_ok_and(|output| output.status.success())
    };
    let flags = ["-m", "-rm"].into_iter().find(|flags| is_permitted(flags));
    let flags = flags.expect(
        "a file system of a few MiB has to be mounted: neither `unshare -m` (root) nor `unshare -rm` (user namespaces) \
         may do that here; run the tests as root, or allow user namespaces \
         (sysctl kernel.apparmor_restrict_unprivileged_userns=0)",
    );
    let again = Command::new("unshare")
        .arg(flags)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(again.status.success(), "{}\n{}", text(&again.stdout), text(&again.stderr));
    assert!(text(&again.stdout).contains("1 passed"), "{}", text(&again.stdout));
}

fn sh(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

fn free(dir: &Path) -> u64 {
    let stat = rustix::fs::statvfs(dir).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// A file that takes all but `leave` bytes of the disk.
fn ballast(dir: &Path, leave: u64) -> PathBuf {
    let path = dir.join("ballast");
    let mut file = fs::File::create(&path).unwrap();
    let block = vec![0xaa; 4096];
    while free(dir) > leave {
        if file.write_all(&block).is_err() {
            break; // full to the last byte
        }
    }
    path
}

/// A client that waits as long as it takes.
async fn patient(server: &Server) -> Client {
    let identity = Identity::from_dir(server.data.join("identities/admin")).unwrap();
    Client::connect(Config { deadline: PATIENCE, ..Config::new(server.address, identity) }).await.unwrap()
}

async fn verdicts(client: &Client, tokens: &[Token]) -> Vec<Verdict> {
    let answers = client.validate_batch(tokens, &Check::live(), Consistency::Latest).await.unwrap();
    answers.into_iter().map(|answer| answer.verdict).collect()
}

async fn issue(client: &Client, count: usize) -> Result<Vec<Token>, Error> {
    client.issue(issue_for(&vec!["alice"; count]), None).await.map(|issued| issued.tokens)
}

/// Issues until that is refused, or no longer; returns the refusal, or what was issued last.
async fn until(client: &Client, is_refused: bool) -> (Vec<Token>, Option<Error>) {
    let began = Instant::now();
    let mut issued = Vec::new();
    while began.elapsed() < NOTICED {
        match issue(client, 1).await {
            Ok(tokens) => {
                issued.extend(tokens);
                if !is_refused {
                    return (issued, None);
                }
            }
            Err(error) if is_refused => return (issued, Some(error)),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("issues are still {}", if is_refused { "taken" } else { "refused" });
}

const WATERMARKS: [(&str, &str); 3] =
    [("JETON_SPACE_RESERVE_MIB", "16"), ("JETON_SPACE_HARD_MIB", "4"), ("JETON_SEGMENT_MIB", "1")];

#[test]
fn a_disk_that_fills_up_takes_revokes_and_recovers_without_a_restart() {
    on_a_small_disk("a_disk_that_fills_up_takes_revokes_and_recovers_without_a_restart", 48, async |disk| {
        let data = disk.join("data");
        let server = Server::start_with(&data, "127.0.0.1:0", &WATERMARKS);
        let client = patient(&server).await;
        let tokens = issue(&client, 64).await.unwrap();
        let mut limited = issue_for(&["alice"]);
        limited.uses_max = 2;
        let limited = client.issue(limited, None).await.unwrap().tokens;
        let of_carol = client.issue(issue_for(&["carol"]), None).await.unwrap().tokens;

        // Below the reserve: revokes are taken, everything else is refused by name, validation goes on.
        let file = ballast(disk, 10 * MIB);
        let (more, refusal) = until(&client, true).await;
        assert_eq!(refusal, Some(Error::Rejected(Rejection::DiskFull)));
        assert_eq!(
            client.consume(&limited[0], &Check::live(), None).await.unwrap_err(),
            Error::Rejected(Rejection::DiskFull)
        );
        let tenant = name("default");
        let carol = RevokeTarget::Subject { tenant: tenant.clone(), subject: name("carol") };
        for target in [
            carol,
            RevokeTarget::Id(tokens[0].id),
            RevokeTarget::Token(tokens[1].clone()),
            RevokeTarget::Family(tokens[2].id),
        ] {
            assert_eq!(client.revoke(target).await.unwrap().report.revoked, 1);
        }
        assert_eq!(
            verdicts(&client, &tokens[..4]).await,
            [Verdict::Revoked, Verdict::Revoked, Verdict::Revoked, Verdict::Valid]
        );
        assert_eq!(verdicts(&client, &limited).await, [Verdict::ConsumeRequired]);
        assert_eq!(verdicts(&client, &of_carol).await, [Verdict::Revoked]);

        // Below the hard watermark: a revoke waits, denied already; it is acknowledged once there is space.
        fs::remove_file(&file).unwrap();
        let file = ballast(disk, 2 * MIB);
        let (waiting, victim) = (client.clone(), tokens[3].id);
        let revoke = tokio::spawn(async move { waiting.revoke(RevokeTarget::Id(victim)).await });
        let began = Instant::now();
        while verdicts(&client, &tokens[3..4]).await != [Verdict::Revoked] {
            assert!(began.elapsed() < NOTICED, "a revoke that waits is not denied");
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await; // more than a commit takes
        assert!(!revoke.is_finished(), "it was acknowledged without being on the disk");
        assert_eq!(verdicts(&client, &tokens[4..]).await, vec![Verdict::Valid; 60]);

        fs::remove_file(&file).unwrap();
        assert_eq!(revoke.await.unwrap().unwrap().report.revoked, 1);
        let (fresh, _) = until(&client, false).await;
        client.consume(&limited[0], &Check::live(), None).await.unwrap();
        let log = server.log();
        assert!(log.contains("free space on the log's disk crossed its watermark"), "{log}");
        assert!(log.contains("a commit waits for space"), "{log}");

        // And all of it was durable.
        server.kill9();
        let server = Server::start_with(&data, "127.0.0.1:0", &WATERMARKS);
        let client = patient(&server).await;
        assert_eq!(verdicts(&client, &tokens[..4]).await, vec![Verdict::Revoked; 4]);
        assert_eq!(verdicts(&client, &of_carol).await, [Verdict::Revoked]);
        for living in [&tokens[4..], &more, &fresh] {
            assert_eq!(verdicts(&client, living).await, vec![Verdict::Valid; living.len()]);
        }
        let revoked = client.revoke(RevokeTarget::Subject { tenant, subject: name("alice") }).await.unwrap();
        assert_eq!(revoked.report.revoked, 60 + 1 + (more.len() + fresh.len()) as u64);
        server.terminate();
    });
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_fails_the_log_and_a_restart_heals_it() {
    on_a_small_disk(
        "a_disk_that_is_full_to_the_last_byte_fails_the_log_and_a_restart_heals_it",
        32,
        async |disk| {
            // Without watermarks nothing keeps sled from meeting the end of the disk.
            let none =
                [("JETON_SPACE_RESERVE_MIB", "0"), ("JETON_SPACE_HARD_MIB", "0"), ("JETON_SEGMENT_MIB", "1")];
            let data = disk.join("data");
            let server = Server::start_with(&data, "127.0.0.1:0", &none);
            let client = patient(&server).await;
            let tokens = issue(&client, 64).await.unwrap();
            client.revoke(RevokeTarget::Id(tokens[0].id)).await.unwrap();
            let mut limited = issue_for(&["bob"]);
            limited.uses_max = 2;
            let limited = client.issue(limited, None).await.unwrap().tokens;

            let file = ballast(disk, 0);
            let mut acknowledged = Vec::new();
            let mut refusal = None;
            for _ in 0..1_000 {
                match issue(&client, 64).await {
                    Ok(issued) => acknowledged.extend(issued),
                    Err(error) => {
                        refusal = Some(error);
                        break;
                    }
                }
            }
            assert_eq!(refusal, Some(Error::Indeterminate), "{}", server.log());
            assert_eq!(issue(&client, 1).await.unwrap_err(), Error::Rejected(Rejection::LogFailed));
            let revoke = client.revoke(RevokeTarget::Id(tokens[1].id)).await;
            assert_eq!(revoke.unwrap_err(), Error::Rejected(Rejection::LogFailed));
            assert_eq!(verdicts(&client, &tokens[..2]).await, [Verdict::Revoked, Verdict::Valid]);
            assert_eq!(verdicts(&client, &limited).await, [Verdict::Unavailable]);
            let stats: serde_json::Value = serde_json::from_str(&client.stats().await.unwrap()).unwrap();
            assert_eq!(stats["log_failed"], true);
            let log = server.log();
            assert!(
                log.contains("the log failed: validation goes on, writes are refused; restart to repair")
            );
            assert!(log.contains("No space left on device"), "it says why: {log}");
            assert!(!log.contains("panicked"), "{log}");
            server.kill9();

            // A start on the full disk is refused by name, or serves; with space it heals.
            match Server::try_start(&data, &none) {
                Ok(server) => server.kill9(),
                Err(StartFailure::Ended { status, words }) => {
                    let last = words.lines().last().unwrap_or_default();
                    assert_eq!(status.code(), Some(2), "{words}");
                    assert!(last.contains("No space left on device") && last.contains("make room"), "{last}");
                }
                Err(StartFailure::Silent) => panic!("a start on a full disk hangs"),
            }
            fs::remove_file(&file).unwrap();
            let server = Server::start_with(&data, "127.0.0.1:0", &none);
            let client = patient(&server).await;
            assert_eq!(verdicts(&client, &tokens[..2]).await, [Verdict::Revoked, Verdict::Valid]);
            assert_eq!(verdicts(&client, &acknowledged).await, vec![Verdict::Valid; acknowledged.len()]);
            assert_eq!(verdicts(&client, &limited).await, [Verdict::ConsumeRequired]);
            issue(&client, 1).await.unwrap();
            server.terminate();
            let verified = run(&data, &["log", "verify"], "");
            assert!(verified.status.success(), "{verified:?}");
        },
    );
}

#[test]
fn a_disk_that_becomes_read_only_fails_the_log_and_is_read_all_the_same() {
    on_a_small_disk(
        "a_disk_that_becomes_read_only_fails_the_log_and_is_read_all_the_same",
        64,
        async |disk| {
            let small =
                [("JETON_SPACE_RESERVE_MIB", "0"), ("JETON_SPACE_HARD_MIB", "0"), ("JETON_SEGMENT_MIB", "1")];
            let data = disk.join("data");
            let server = Server::start_with(&data, "127.0.0.1:0", &small);
            let client = patient(&server).await;
            let tokens = issue(&client, 4).await.unwrap();

            // What is open stays writable under a running server, as it does if an administrator mounts over it; the next
            // segment cannot be made.
            let log_dir = data.join("log").to_string_lossy().into_owned();
            sh("mount", &["--bind", &log_dir, &log_dir]);
            sh("mount", &["-o", "remount,bind,ro", &log_dir]);
            let mut acknowledged = Vec::new();
            let mut refusal = None;
            for _ in 0..2_000 {
                match issue(&client, 256).await {
                    Ok(issued) => acknowledged.extend(issued),
                    Err(error) => {
                        refusal = Some(error);
                        break;
                    }
                }
            }
            assert_eq!(refusal, Some(Error::Indeterminate), "{}", server.log());
            assert_eq!(issue(&client, 1).await.unwrap_err(), Error::Rejected(Rejection::LogFailed));
            assert_eq!(verdicts(&client, &tokens).await, vec![Verdict::Valid; 4]);
            assert!(server.log().contains("Read-only file system"), "{}", server.log());
            server.kill9();
            sh("umount", &[&log_dir]);

            // A file system that is read-only as a whole: no start, and the offline commands read it.
            sh("mount", &["-o", "remount,ro", &disk.to_string_lossy()]);
            let refused = run(&data, &["serve", "--listen", "127.0.0.1:0"], "");
            let words = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(2), "{words}");
            assert!(words.contains("Read-only file system") && words.contains("cannot be used"), "{words}");
            for command in [["log", "verify"], ["log", "repair"]] {
                let read = run(&data, &command, "");
                assert!(read.status.success(), "{command:?}: {read:?}");
            }
            sh("mount", &["-o", "remount,rw", &disk.to_string_lossy()]);
            let server = Server::start_with(&data, "127.0.0.1:0", &small);
            let client = patient(&server).await;
            assert_eq!(verdicts(&client, &acknowledged).await, vec![Verdict::Valid; acknowledged.len()]);
            issue(&client, 1).await.unwrap();
            server.terminate();
        },
    );
}
