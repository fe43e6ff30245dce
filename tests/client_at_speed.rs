//! One client that hundreds of tasks share, over real QUIC: its validates share frames, and nobody notices but by speed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jeton_client::{
    Binding, Check, Client, Coalesce, Config, Consistency, Error, Identity, RevokeTarget, Sequence,
    SubjectNo, Token, Verdict,
};
use jeton_tests::{PATIENCE, Server, issue_for, name};
use tokio::task::JoinSet;

const TASKS: usize = 300;
const BINDING: Binding = Binding([3; 32]);

fn config(server: &Server) -> Config {
    let identity = Identity::from_dir(server.data.join("identities/admin")).unwrap();
    Config { deadline: PATIENCE, ..Config::new(server.address, identity) }
}

/// A token of its own for each task, and its subject's number.
async fn tokens(client: &Client, change: impl Fn(&mut jeton_client::IssueTokens)) -> Vec<(Token, SubjectNo)> {
    let mut all = Vec::new();
    for first in (0..TASKS).step_by(100) {
        let subjects: Vec<String> = (first..first + 100).map(|number| format!("user-{number}")).collect();
        let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
        let mut issue = issue_for(&subjects);
        change(&mut issue);
        let tokens = client.issue(issue, None).await.unwrap().tokens;
        let answers = client.validate_batch(&tokens, &Check::live(), Consistency::Latest).await.unwrap();
        all.extend(tokens.into_iter().zip(answers.iter().map(|answer| answer.subject)));
    }
    all
}

async fn join(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_task_has_its_own_answers_whatever_the_others_ask_at_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = Client::connect(config(&server)).await.unwrap();
    let bound = tokens(&client, |issue| issue.binding = Some(BINDING)).await;
    let before = client.validate_counts();
    let mut tasks = JoinSet::new();
    for (number, (token, subject)) in bound.into_iter().enumerate() {
        let client = client.clone();
        tasks.spawn(async move {
            let live = Check::live().with_binding(BINDING);
            let access = |path| Check::access("read", path).unwrap().with_binding(BINDING);
            let asked = [
                (live.clone(), Verdict::Valid),
                (Check::live(), Verdict::BindingMismatch),
                (access("journal/42"), Verdict::Valid),
                (access(&format!("journal/{number}/0")), Verdict::Forbidden),
                (live.for_audience("elsewhere"), Verdict::Valid),
            ];
            for round in 0..20 {
                let (check, expected) = &asked[(number + round) % asked.len()];
                let consistency =
                    [Consistency::Latest, Consistency::ReadYourWrites, Consistency::AtLeast(Sequence(1))];
                let answer = client.validate_at(&token, check, consistency[round % 3]).await.unwrap();
                assert_eq!((answer.verdict, answer.subject), (*expected, subject), "{check:?}");
                let forged = Token::from_bytes([number as u8; 32]);
                assert_eq!(client.validate(&forged, check).await.unwrap().verdict, Verdict::Unknown);
            }
        });
    }
    let (unknown, far) = (Token::from_bytes([1; 32]), Consistency::AtLeast(Sequence(1_000_000)));
    let ahead = client.validate_at(&unknown, &Check::live(), far).await;
    assert!(matches!(ahead, Err(Error::Behind { .. })), "{ahead:?}");
    join(tasks).await;
    let after = client.validate_counts();
    let (asked, frames) = (after.tokens - before.tokens, after.frames - before.frames);
    assert_eq!(asked, TASKS as u64 * 40 + 1);
    assert!(frames * 2 < asked, "{frames} frames for {asked} tokens");
    server.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_that_begins_after_an_acknowledged_revoke_is_told_valid() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = Client::connect(config(&server)).await.unwrap();
    let tokens: Vec<_> = tokens(&client, |_| {}).await.into_iter().map(|(token, _)| token).collect();
    let tokens: Arc<[Token]> = tokens.into();
    let revoked: Arc<[AtomicBool]> = tokens.iter().map(|_| AtomicBool::new(false)).collect();
    let (done, denied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let (client, tokens, revoked) = (client.clone(), Arc::clone(&tokens), Arc::clone(&revoked));
        let (done, denied) = (Arc::clone(&done), Arc::clone(&denied));
        tasks.spawn(async move {
            let mut at = number;
            while !done.load(Ordering::Acquire) {
                at = (at + 7) % tokens.len();
                let was_revoked = revoked[at].load(Ordering::Acquire);
                let verdict = client.validate(&tokens[at], &Check::live()).await.unwrap().verdict;
                assert!(!was_revoked || verdict == Verdict::Revoked, "{verdict:?} after the revoke");
                denied.fetch_add(u64::from(was_revoked), Ordering::Relaxed);
            }
        });
    }
    let revoker = server.admin().await;
    for (token, revoked) in tokens.iter().zip(revoked.iter()) {
        revoker.revoke(RevokeTarget::Id(token.id)).await.unwrap();
        revoked.store(true, Ordering::Release);
    }
    while denied.load(Ordering::Relaxed) < 10 * TASKS as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    done.store(true, Ordering::Release);
    join(tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_that_give_up_at_any_moment_cost_the_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = Client::connect(config(&server)).await.unwrap();
    let mut tasks = JoinSet::new();
    let given_up = Arc::new(AtomicU64::new(0));
    for (number, (token, subject)) in tokens(&client, |_| {}).await.into_iter().enumerate() {
        let (client, given_up) = (client.clone(), Arc::clone(&given_up));
        tasks.spawn(async move {
            for round in 0..40 {
                let check = Check::live();
                let asking = client.validate(&token, &check);
                if number % 3 != 0 {
                    assert_eq!(asking.await.unwrap().subject, subject);
                    continue;
                }
                // Polled a few times and dropped: before it is sent, on its way, or just answered.
                tokio::select! {
                    biased;
                    () = async { for _ in 0..=round { tokio::task::yield_now().await } } => {
                        given_up.fetch_add(1, Ordering::Relaxed);
                    }
                    answer = asking => assert_eq!(answer.unwrap().subject, subject),
                }
            }
        });
    }
    join(tasks).await;
    assert!(given_up.load(Ordering::Relaxed) > 100, "many gave up");
    client.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_killed_and_started_again_costs_time_and_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let listen = server.address.to_string();
    let client = Client::connect(config(&server)).await.unwrap();
    let tokens = tokens(&client, |_| {}).await;
    let target = RevokeTarget::Subject { tenant: name("default"), subject: name("user-0") };
    client.revoke(target).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for (number, (token, subject)) in tokens.into_iter().enumerate() {
        let (client, done, answers) = (client.clone(), Arc::clone(&done), Arc::clone(&answers));
        tasks.spawn(async move {
            let expected = if number == 0 { Verdict::Revoked } else { Verdict::Valid };
            while !done.load(Ordering::Acquire) {
                let answer = client.validate(&token, &Check::live()).await.unwrap();
                assert_eq!((answer.verdict, answer.subject), (expected, subject));
                answers.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let reach = async |count: u64| {
        let goal = answers.load(Ordering::Relaxed) + count;
        while answers.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    reach(5_000).await;
    server.kill9();
    let server = tokio::task::spawn_blocking(move || Server::start_with(dir.path(), &listen, &[]));
    let server = server.await.unwrap();
    reach(5_000).await;
    done.store(true, Ordering::Release);
    join(tasks).await;
    server.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_by_itself_has_a_frame_by_itself_and_many_need_more_than_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = Client::connect(config(&server)).await.unwrap();
    let issued = client.issue(issue_for(&["alice"]), None).await.unwrap().tokens.remove(0);
    let connections = async || {
        let stats: serde_json::Value = serde_json::from_str(&client.stats().await.unwrap()).unwrap();
        stats["shards"][0]["connections"].as_u64().unwrap()
    };
    for asked in 1..=20 {
        assert_eq!(client.validate(&issued, &Check::live()).await.unwrap().verdict, Verdict::Valid);
        let counts = client.validate_counts();
        assert_eq!((counts.tokens, counts.frames), (asked, asked));
    }
    assert_eq!(connections().await, 1);
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (client, issued) = (client.clone(), issued.clone());
        tasks.spawn(async move {
            for _ in 0..20 {
                client.validate(&issued, &Check::live()).await.unwrap();
            }
        });
    }
    join(tasks).await;
    while connections().await < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_put_together_each_call_has_its_frame_and_too_many_are_told_busy_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let alone = Client::connect(Config { coalesce: None, ..config(&server) }).await.unwrap();
    let token = Token::from_bytes([9; 32]);
    let ask = |client: &Client| {
        let (client, token) = (client.clone(), token.clone());
        async move { client.validate(&token, &Check::live()).await.map(|answer| answer.verdict) }
    };
    let asked: JoinSet<_> = (0..TASKS).map(|_| ask(&alone)).collect();
    assert!(asked.join_all().await.iter().all(|verdict| *verdict == Ok(Verdict::Unknown)));
    let counts = alone.validate_counts();
    assert_eq!((counts.tokens, counts.frames), (TASKS as u64, TASKS as u64));
    // A server that is gone without a word: what cannot wait is told so, and not when its time is over.
    let few = Coalesce { gathering_max: 8, frames_in_flight_max: 1, ..Coalesce::DEFAULT };
    let deadline = Duration::from_millis(500);
    let few = Client::connect(Config { coalesce: Some(few), deadline, ..config(&server) }).await.unwrap();
    server.kill9();
    let asked: JoinSet<_> = (0..TASKS).map(|_| ask(&few)).collect();
    let told = asked.join_all().await;
    let busy = told.iter().filter(|told| **told == Err(Error::Busy)).count();
    let lost = |error: &Error| matches!(error, Error::Closed(_) | Error::Connect { .. } | Error::Deadline);
    assert!(told.iter().all(|told| told.as_ref().is_err_and(|error| *error == Error::Busy || lost(error))));
    assert!((1..TASKS).contains(&busy), "{busy} were told busy");
}
