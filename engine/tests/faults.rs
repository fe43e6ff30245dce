//! The engine, embedded, over stores that fail: what it answers, what it still does, and what a restart finds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use jeton::{Engine, EngineConfig};
use jeton_core::check::{Check, Checks};
use jeton_core::claims::Claims;
use jeton_core::command::{Command, IssueTokens, RevokeTarget, Submission};
use jeton_core::numbers::ClientNo;
use jeton_core::outcome::{Outcome, Rejection};
use jeton_core::state::StateConfig;
use jeton_core::token::Token;
use jeton_core::verdict::Verdict;
use jeton_log_store::{Fault, FaultScript, FaultStore, MemoryStore, Options, SledStore};

const ADMIN: &str = "test:admin";

fn config() -> EngineConfig {
    let state =
        StateConfig { tokens_initial: 100, tokens_max: 100_000, huge_pages: false, ..StateConfig::default() };
    EngineConfig { state, ..EngineConfig::default() }
}

fn open(log: &MemoryStore, script: &FaultScript) -> Engine {
    Engine::open(Box::new(FaultStore::new(log.clone(), script.clone())), config(), ADMIN).unwrap()
}

fn run(engine: &Engine, command: Command) -> Result<Outcome, Rejection> {
    engine.call(Submission { actor: ClientNo(1), key: None, command }).unwrap().result
}

fn issue(uses_max: u32) -> Command {
    Command::IssueTokens(IssueTokens {
        tenant: "default".parse().unwrap(),
        subjects: vec!["alice".parse().unwrap()],
        claims: Claims::default(),
        ttl_s: 600,
        not_before_s: 0,
        renewable_s: 0,
        uses_max,
        parent: None,
        binding: None,
    })
}

fn issued(engine: &Engine, uses_max: u32) -> Token {
    match run(engine, issue(uses_max)) {
        Ok(Outcome::Issued { mut tokens, .. }) => tokens.remove(0),
        other => panic!("not issued: {other:?}"),
    }
}

fn revoke(token: &Token) -> Command {
    Command::Revoke(RevokeTarget::Id(token.id))
}

fn verdict(engine: &Engine, token: &Token) -> Verdict {
    let caller = engine.view().registry().caller(ADMIN);
    let mut answers = Vec::new();
    let check = Check::default();
    engine.view().validate(
        &caller,
        engine.clock().now(),
        &[token.to_bytes()],
        Checks::Same(&check),
        &mut answers,
    );
    answers[0].verdict
}

#[test]
fn a_failed_append_is_indeterminate_and_validation_goes_on() {
    for (fault, is_kept) in [(Fault::LostIndeterminate, false), (Fault::KeptIndeterminate, true)] {
        let (log, script) = (MemoryStore::new([1; 16]), FaultScript::default());
        let engine = open(&log, &script);
        let (token, other, limited) = (issued(&engine, 0), issued(&engine, 0), issued(&engine, 1));
        script.push(fault);
        assert_eq!(run(&engine, revoke(&token)).unwrap_err(), Rejection::Indeterminate);
        assert_eq!(verdict(&engine, &token), Verdict::Revoked, "what was denied stays denied");
        assert_eq!(verdict(&engine, &other), Verdict::Valid);
        assert_eq!(verdict(&engine, &limited), Verdict::Unavailable);
        assert_eq!(run(&engine, issue(0)).unwrap_err(), Rejection::LogFailed);
        assert!(engine.stop().is_err(), "a failed log does not close as if nothing had been");
        // A restart knows what became of it.
        let engine = open(&log, &script);
        assert_eq!(verdict(&engine, &token), if is_kept { Verdict::Revoked } else { Verdict::Valid });
        assert_eq!(verdict(&engine, &limited), Verdict::ConsumeRequired);
        run(&engine, revoke(&token)).unwrap();
        assert_eq!(verdict(&engine, &token), Verdict::Revoked);
        engine.stop().unwrap();
    }
}

#[test]
fn an_issue_whose_append_failed_is_never_valid() {
    let (log, script) = (MemoryStore::new([1; 16]), FaultScript::default());
    let engine = open(&log, &script);
    script.push(Fault::LostIndeterminate);
    assert_eq!(run(&engine, issue(0)).unwrap_err(), Rejection::Indeterminate);
    assert_eq!(engine.view().registry().published().0, 3, "only the log's first events are published");
}

#[test]
fn an_engine_whose_log_fails_under_many_callers_answers_all_of_them_and_stops() {
    let (log, script) = (MemoryStore::new([1; 16]), FaultScript::default());
    let engine = open(&log, &script);
    script.push(Fault::Slow(Duration::from_millis(100)));
    script.push(Fault::LostIndeterminate);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| [run(&engine, issue(0)), run(&engine, issue(0))])).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    let is_expected = |answer: &Result<Outcome, Rejection>| {
        matches!(answer, Ok(_) | Err(Rejection::Indeterminate | Rejection::LogFailed))
    };
    assert!(answers.iter().all(is_expected), "{answers:?}");
    assert!(answers.iter().any(|answer| matches!(answer, Err(Rejection::Indeterminate))));
    let began = std::time::Instant::now();
    assert!(engine.stop().is_err());
    assert!(began.elapsed() < Duration::from_secs(5), "nothing is left to wait for");
}

#[test]
fn a_commit_without_space_waits_and_is_answered_when_there_is_some() {
    let (log, script) = (MemoryStore::new([1; 16]), FaultScript::default());
    let engine = open(&log, &script);
    let token = issued(&engine, 0);
    script.push(Fault::Full);
    script.push(Fault::Full);
    run(&engine, revoke(&token)).unwrap();
    assert_eq!(verdict(&engine, &token), Verdict::Revoked);
    engine.stop().unwrap();
}

fn open_on_disk(dir: &std::path::Path, space_reserve: u64, space_hard: u64) -> Engine {
    let options = Options { space_reserve, space_hard, ..Options::default() };
    Engine::open(Box::new(SledStore::open(dir, options, [1; 16]).unwrap()), config(), ADMIN).unwrap()
}

#[test]
fn on_a_nearly_full_disk_revokes_are_still_taken_and_issues_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_on_disk(dir.path(), 0, 0);
    let token = issued(&engine, 0);
    engine.stop().unwrap();
    let engine = open_on_disk(dir.path(), u64::MAX, 0);
    // Whether the disk was known to be low when it was decided or not: it never holds up what comes behind.
    let first = run(&engine, issue(0));
    assert!(matches!(first, Ok(_) | Err(Rejection::DiskFull)), "{first:?}");
    let began = std::time::Instant::now();
    while !matches!(run(&engine, issue(0)), Err(Rejection::DiskFull)) {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "issues are refused once the disk is known to be low"
        );
    }
    run(&engine, revoke(&token)).unwrap();
    assert_eq!(verdict(&engine, &token), Verdict::Revoked);
    engine.stop().unwrap();
}

#[test]
fn an_engine_on_a_full_disk_denies_and_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_on_disk(dir.path(), 0, 0);
    let token = issued(&engine, 0);
    engine.stop().unwrap();
    let engine = open_on_disk(dir.path(), u64::MAX, u64::MAX);
    let answer = std::thread::scope(|scope| {
        let revoking = scope.spawn(|| run(&engine, revoke(&token)));
        let began = std::time::Instant::now();
        while verdict(&engine, &token) == Verdict::Valid {
            assert!(began.elapsed() < Duration::from_secs(5), "a revoke is decided at once");
        }
        engine.begin_stop();
        revoking.join().unwrap()
    });
    assert_eq!(answer.unwrap_err(), Rejection::Indeterminate);
    assert!(engine.stop().is_err());
}

#[test]
fn a_slow_log_holds_up_answers_and_never_a_denial() {
    let (log, script) = (MemoryStore::new([1; 16]), FaultScript::default());
    let engine = open(&log, &script);
    let token = issued(&engine, 0);
    script.push(Fault::Slow(Duration::from_millis(300)));
    std::thread::scope(|scope| {
        let revoking = scope.spawn(|| run(&engine, revoke(&token)));
        let began = std::time::Instant::now();
        while verdict(&engine, &token) == Verdict::Valid {
            assert!(began.elapsed() < Duration::from_secs(5), "a revoke is decided at once");
        }
        assert!(!revoking.is_finished(), "denied before it was acknowledged");
        revoking.join().unwrap().unwrap();
    });
    engine.stop().unwrap();
}

#[test]
fn what_was_taken_on_is_answered_before_an_engine_stops() {
    let (log, script) = (MemoryStore::new([1; 16]), FaultScript::default());
    let engine = open(&log, &script);
    let tokens: Vec<_> = (0..50).map(|_| issued(&engine, 0)).collect();
    script.push(Fault::Slow(Duration::from_millis(200)));
    std::thread::scope(|scope| {
        let revoking = scope.spawn(|| run(&engine, revoke(&tokens[7])));
        let began = std::time::Instant::now();
        while verdict(&engine, &tokens[7]) == Verdict::Valid {
            assert!(began.elapsed() < Duration::from_secs(5), "a revoke is decided at once");
        }
        engine.begin_stop();
        revoking.join().unwrap().unwrap();
        assert_eq!(run(&engine, issue(0)).unwrap_err(), Rejection::Stopping);
    });
    engine.stop().unwrap();
    let engine = open(&log, &script);
    for (at, token) in tokens.iter().enumerate() {
        assert_eq!(verdict(&engine, token), if at == 7 { Verdict::Revoked } else { Verdict::Valid });
    }
    engine.stop().unwrap();
}

#[test]
fn a_log_that_is_damaged_is_not_served() {
    use jeton_log_store::LogStore as _;
    let (log, script) = (MemoryStore::new([1; 16]), FaultScript::default());
    let engine = open(&log, &script);
    issued(&engine, 0);
    engine.stop().unwrap();
    let mut damaged = MemoryStore::new([1; 16]);
    for mut batch in log.clone().read_from(1, 1 << 20).unwrap() {
        if batch.first > 3 {
            batch.bytes[150] ^= 1;
        }
        let head = damaged.head();
        damaged.append(head, &[batch], jeton_log_store::AppendKind::Ordinary).unwrap();
    }
    let refused = Engine::open(Box::new(damaged), config(), ADMIN).unwrap_err().to_string();
    assert!(refused.starts_with("the log is broken at sequence number 4: "), "{refused}");
}
