//! Rules about the source itself, and about what is never logged.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

use jeton_client::{Check, RevokeTarget};
use jeton_tests::{Server, issue_for};

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut dirs = ["engine", "net", "log-store", "loadgen"].map(|dir| root.join(dir)).to_vec();
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(files.len() > 50, "the sources were found");
    files
}

/// Code without comments: rules are about what is done, not about what is said.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn assert_named_only_in(word: &str, places: &[&str]) {
    for (path, text) in sources() {
        let is_allowed = places.iter().any(|place| path.starts_with(place))
            || path.components().any(|part| part.as_os_str() == "tests");
        assert!(is_allowed || !code(&text).contains(word), "{word} is named in {}", path.display());
    }
}

#[test]
fn each_dependency_that_matters_is_named_in_one_place() {
    assert_named_only_in("sled::", &["log-store/src/sled_store/segment.rs"]);
    assert_named_only_in("glommio::", &["net/src/shard.rs", "net/src/shard"]);
    assert_named_only_in("quinn_proto::", &["net/src/driver.rs", "net/src/driver"]);
    // One file for each binary: the server's wall and boot time, the generator's own processor time.
    assert_named_only_in("clock_gettime(", &["engine/src/clock.rs", "loadgen/src/measure.rs"]);
    assert_named_only_in("SystemTime", &[]);
}

#[test]
fn unsafe_code_is_in_the_files_that_are_known_for_it() {
    let places = [
        "engine/index/src/memory.rs",
        "engine/index/src/prefetch.rs",
        "net/src/socket/options.rs",
        "loadgen/src/keyspace/mapping.rs",
    ];
    for form in ["unsafe {", "unsafe fn", "unsafe impl"] {
        assert_named_only_in(form, &places);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_logged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), "127.0.0.1:0", &[("JETON_LOG", "trace")]);
    let admin = server.admin().await;
    let mut issue = issue_for(&["alice", "bob", "carol"]);
    issue.uses_max = 2;
    let limited = admin.issue(issue, None).await.unwrap().tokens;
    let mut issue = issue_for(&["alice"]);
    issue.renewable_s = 7_200;
    let renewable = admin.issue(issue, None).await.unwrap().tokens;
    for token in limited.iter().chain(&renewable) {
        admin.validate(token, &Check::live()).await.unwrap();
        admin.consume(token, &Check::live(), None).await.unwrap();
        let _ = admin.renew(token, 7_000, None).await;
        admin.inspect(token.id).await.unwrap();
        admin.revoke(RevokeTarget::Token(token.clone())).await.unwrap();
    }
    let log = server.log();
    assert!(log.len() > 1_000, "a busy run logs: {} bytes", log.len());
    for token in limited.iter().chain(&renewable) {
        let text = token.to_text();
        let hex: String = token.secret.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{:?}", token.secret.0);
        for secret in [text.as_str(), &text[4..], &hex, list.trim_matches(['[', ']'])] {
            assert!(!log.contains(secret), "a secret is in the log");
        }
    }
    for key in ["ca.key", "server/server.key", "admin/client.key"] {
        let pem = std::fs::read_to_string(dir.path().join("identities").join(key)).unwrap();
        let body = pem.lines().nth(1).unwrap();
        assert!(!log.contains(body), "{key} is in the log");
    }
}
