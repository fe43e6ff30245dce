//! kill -9 under load, again and again: what was acknowledged is there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jeton_client::{Check, Client, Consistency, RevokeTarget, Token, Verdict};
use jeton_tests::{Server, issue_for, run};

const ROUNDS: u64 = 20;
const WRITERS: usize = 4;
/// Tokens of one issue: enough to fill a segment every few rounds.
const TOKENS: usize = 64;

/// What one writer was told before its server died.
#[derive(Default)]
struct Told {
    issued: Vec<Token>,
    /// Acknowledged as revoked.
    revoked: Vec<Token>,
    /// Asked to be revoked, no answer: dead or alive.
    unknown: Vec<Token>,
}

/// Issues and revokes until the server is gone.
async fn write(client: Client, writer: usize, is_over: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let subject = format!("writer-{writer}");
    while !is_over.load(Ordering::Relaxed) {
        let answer = tokio::time::timeout(
            Duration::from_secs(2),
            client.issue(issue_for(&[subject.as_str(); TOKENS]), None),
        )
        .await;
        let Ok(Ok(issued)) = answer else { break };
        let mut tokens = issued.tokens.into_iter();
        let victim = tokens.next().expect("as many tokens as subjects");
        told.issued.extend(tokens);
        let revoke = client.revoke(RevokeTarget::Id(victim.id));
        match tokio::time::timeout(Duration::from_secs(2), revoke).await {
            Ok(Ok(_)) => told.revoked.push(victim),
            _ => {
                told.unknown.push(victim);
                break;
            }
        }
    }
    told
}

async fn check(client: &Client, told: &Told) {
    for (tokens, expected) in [(&told.issued, Verdict::Valid), (&told.revoked, Verdict::Revoked)] {
        let answers = client.validate_batch(tokens, &Check::live(), Consistency::Latest).await.unwrap();
        let wrong = answers.iter().filter(|answer| answer.verdict != expected).count();
        assert_eq!(wrong, 0, "of {} acknowledged tokens, {wrong} are not {}", tokens.len(), expected.word());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_under_load_lose_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Told::default();
    for round in 0..ROUNDS {
        // The smallest segments there are, so that some are killed while the log goes on to the next.
        let flags = ["--listen", "127.0.0.1:0", "--cores", "1"];
        let server = Server::start_as(dir.path(), &flags, &[("JETON_SEGMENT_MIB", "1")]);
        check(&server.admin().await, &all).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(server.admin().await, writer, Arc::clone(&is_over)));
        }
        tokio::time::sleep(Duration::from_millis(20 + round * 53 % 280)).await;
        server.kill9();
        is_over.store(true, Ordering::Relaxed);
        for told in writers.join_all().await {
            all.issued.extend(told.issued);
            all.revoked.extend(told.revoked);
            all.unknown.extend(told.unknown);
        }
    }
    let server = Server::start(dir.path());
    check(&server.admin().await, &all).await;
    server.terminate();
    assert!(
        all.issued.len() > 100 && all.revoked.len() > 10,
        "{} and {}",
        all.issued.len(),
        all.revoked.len()
    );
    let segments = std::fs::read_dir(dir.path().join("log")).unwrap();
    let segments = segments.filter(|entry| entry.as_ref().unwrap().file_name().len() == 20).count();
    assert!(segments > 3, "{segments} segments");
    let verified = run(dir.path(), &["log", "verify"], "");
    assert!(verified.status.success(), "{verified:?}");
}
