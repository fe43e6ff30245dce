//! The real server on a disk that fails under it: writes are refused and say why, validation goes on, a restart heals.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::time::Instant;

use jeton_client::{Check, Client, Error, Rejection, RevokeTarget, Token, Verdict};
use jeton_tests::power::{Fault, shim};
use jeton_tests::{PATIENCE, Server, issue_for, run};

/// Calls that fail, once: a sync or a write of sled's file under a commit, and the sync of the anchor each second.
const FAULTS: [Failing; 6] = [
    ("fdatasync", "log/*/db", "EIO", false),
    ("fdatasync", "log/*/db", "EIO", true),
    ("write", "log/*/db", "ENOSPC", false),
    ("write", "log/*/db", "EIO", false),
    ("write", "log/anchor", "ENOSPC", false),
    ("fdatasync", "log/anchor", "EIO", false),
];

/// The call, the file, how it fails, and whether it does what it was asked to all the same.
type Failing = (&'static str, &'static str, &'static str, bool);

async fn verdict(client: &Client, token: &Token) -> Verdict {
    client.validate(token, &Check::live()).await.unwrap().verdict
}

/// Starts a server under the shim; the call fails once the file `armed` is there.
fn start(data: &Path, armed: &Path, (call, path, error, is_kept): Failing) -> Server {
    let after = armed.to_str().unwrap();
    let fault = Fault { after, call, path, number: 1, error, is_kept, is_crash: false }.to_text();
    let environment = [
        ("LD_PRELOAD", shim().to_str().unwrap()),
        ("SHIM_ROOT", data.to_str().unwrap()),
        ("SHIM_FAULT", fault.as_str()),
    ];
    Server::start_with(data, "127.0.0.1:0", &environment)
}

async fn until_writes_are_refused(client: &Client) {
    let began = Instant::now();
    loop {
        match client.issue(issue_for(&["nobody"]), None).await {
            Err(Error::Rejected(Rejection::LogFailed)) => return,
            Ok(_) | Err(Error::Indeterminate) => assert!(began.elapsed() < PATIENCE, "the log never failed"),
            Err(other) => panic!("a write is answered so: {other:?}"),
        }
    }
}

async fn fails_and_heals(fault: Failing) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().canonicalize().unwrap().join("data");
    let armed = dir.path().canonicalize().unwrap().join("armed");
    let server = start(&data, &armed, fault);
    let admin = server.admin().await;
    let mut tokens = admin.issue(issue_for(&["alice", "bob", "carol"]), None).await.unwrap().tokens;
    let (live, dead, doubtful) = (tokens.remove(0), tokens.remove(0), tokens.remove(0));
    admin.revoke(RevokeTarget::Id(dead.id)).await.unwrap();

    std::fs::write(&armed, "").unwrap();
    let under_way = admin.revoke(RevokeTarget::Id(doubtful.id)).await;
    let is_commit = fault.1 != "log/anchor" || fault.0 != "fdatasync";
    assert!(!is_commit || matches!(under_way, Err(Error::Indeterminate)), "{fault:?}: {under_way:?}");
    until_writes_are_refused(&admin).await;
    for _ in 0..3 {
        assert_eq!(verdict(&admin, &dead).await, Verdict::Revoked, "{fault:?}");
        assert_eq!(verdict(&admin, &live).await, Verdict::Valid, "{fault:?}");
        assert_eq!(verdict(&admin, &doubtful).await, Verdict::Revoked, "{fault:?}: denied early");
    }
    let reason = if fault.2 == "ENOSPC" { "No space left on device" } else { "Input/output error" };
    let log = server.log();
    assert!(log.contains(reason), "{fault:?}: {log}");
    assert!(log.contains("restart to repair"), "{fault:?}: {log}");
    let typed = run(&data, &["revoke", "--subject", "alice"], "");
    let words = String::from_utf8(typed.stderr).unwrap();
    assert!(!typed.status.success() && words.contains("log failed"), "{fault:?}: {words}");
    server.kill9();

    let server = Server::start(&data);
    let admin = server.admin().await;
    assert_eq!(verdict(&admin, &dead).await, Verdict::Revoked, "{fault:?}");
    assert_eq!(verdict(&admin, &live).await, Verdict::Valid, "{fault:?}");
    if under_way.is_ok() {
        assert_eq!(verdict(&admin, &doubtful).await, Verdict::Revoked, "{fault:?}: it was acknowledged");
    }
    admin.revoke(RevokeTarget::Id(live.id)).await.unwrap();
    assert_eq!(verdict(&admin, &live).await, Verdict::Revoked, "{fault:?}");
    server.terminate();
    let verified = run(&data, &["log", "verify"], "");
    assert!(verified.status.success(), "{fault:?}: {verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_disk_fails_refuses_writes_validates_on_says_why_and_heals_by_a_restart() {
    for fault in FAULTS {
        fails_and_heals(fault).await;
    }
}
