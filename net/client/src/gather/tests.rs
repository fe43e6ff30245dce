//! Gathering against a server that answers by token, on virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jeton_core::numbers::{ClaimsNo, SubjectNo};
use jeton_core::verdict::Verdict;
use proptest::prelude::*;
use tokio::task::{JoinHandle, JoinSet};

use super::*;

const MS: Duration = Duration::from_millis(1);
/// How far the server has come.
const PUBLISHED: Sequence = Sequence(100);
const LIMITS: Coalesce = Coalesce {
    linger: Duration::from_millis(10),
    frame_tokens_max: 4,
    frames_in_flight_max: 2,
    gathering_max: 16,
};

/// A server whose answers take the milliseconds of `delays_ms`, in turn.
#[derive(Clone)]
struct Fake(Arc<Fixture>);

struct Fixture {
    delays_ms: Vec<u64>,
    /// Sizes of the frames that came.
    frames: Mutex<Vec<usize>>,
    /// What the next frame is told instead of answers.
    trouble: Mutex<Option<Result<Reply, Error>>>,
    turns: AtomicUsize,
    flying: AtomicUsize,
    flying_max: AtomicUsize,
}

/// What the server says of a token: nobody else's answer looks like it.
fn answer_for(token: &[u8; 32], check: &Check) -> Answer {
    let number = u32::from_le_bytes([token[0], token[1], token[2], token[3]]);
    let resource = check.access.as_ref().map_or(0, |(_, resource)| resource.len());
    Answer {
        verdict: Verdict::Valid,
        claims: ClaimsNo(number),
        subject: SubjectNo(resource as u32),
        ..Answer::default()
    }
}

impl Wire for Fake {
    async fn ask_frame(&self, frame: &Frame) -> Result<Reply, Error> {
        let fixture = &self.0;
        let at = {
            let mut frames = fixture.frames.lock().unwrap();
            frames.push(frame.tokens.len());
            frames.len() - 1
        };
        let flying = fixture.flying.fetch_add(1, Ordering::Relaxed) + 1;
        fixture.flying_max.fetch_max(flying, Ordering::Relaxed);
        tokio::time::sleep(MS * fixture.delays_ms[at % fixture.delays_ms.len()] as u32).await;
        fixture.flying.fetch_sub(1, Ordering::Relaxed);
        if let Some(trouble) = fixture.trouble.lock().unwrap().take() {
            return trouble;
        }
        if frame.min_sequence > PUBLISHED {
            return Ok(Reply::Behind(PUBLISHED));
        }
        let check = |at: usize| &frame.checks[frame.indexes.as_ref().map_or(0, |each| usize::from(each[at]))];
        let answers = frame.tokens.iter().enumerate().map(|(at, token)| answer_for(token, check(at)));
        Ok(Reply::Answers(answers.collect()))
    }

    async fn turn(&self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(MS).await;
    }
}

impl Fake {
    fn new(delays_ms: &[u64]) -> Self {
        Self(Arc::new(Fixture {
            delays_ms: delays_ms.to_vec(),
            frames: Mutex::default(),
            trouble: Mutex::default(),
            turns: AtomicUsize::new(0),
            flying: AtomicUsize::new(0),
            flying_max: AtomicUsize::new(0),
        }))
    }

    fn frames(&self) -> Vec<usize> {
        self.0.frames.lock().unwrap().clone()
    }

    fn next_says(&self, trouble: Result<Reply, Error>) {
        *self.0.trouble.lock().unwrap() = Some(trouble);
    }
}

fn token(number: u32) -> [u8; 32] {
    let mut token = [7; 32];
    token[..4].copy_from_slice(&number.to_le_bytes());
    token
}

fn question(number: u32, check: &Check, min_sequence: u64) -> Question {
    Question { token: token(number), check: check.clone(), min_sequence: Sequence(min_sequence) }
}

type Asked = JoinHandle<Result<Answer, Error>>;

/// Asks in a task of its own, after those that were asked before.
async fn ask_for(gather: &Arc<Gather>, wire: &Fake, question: Question) -> Asked {
    let receiver = gather.ask(wire, question);
    let asked = tokio::spawn(async move { receiver?.await.expect("every question is answered") });
    tokio::task::yield_now().await;
    asked
}

async fn ask(gather: &Arc<Gather>, wire: &Fake, number: u32) -> Asked {
    ask_for(gather, wire, question(number, &Check::live(), 0)).await
}

async fn assert_answered(asked: Asked, number: u32) {
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.claims, ClaimsNo(number));
}

#[tokio::test(start_paused = true)]
async fn with_nothing_under_way_a_call_goes_at_once_and_alone() {
    let (gather, wire) = (Gather::new(LIMITS), Fake::new(&[5]));
    for number in 0..3 {
        let began = Instant::now();
        let asked = ask(&gather, &wire, number).await;
        assert_answered(asked, number).await;
        assert_eq!(began.elapsed(), 5 * MS, "nothing but the round trip");
    }
    assert_eq!(wire.frames(), [1, 1, 1]);
    assert_eq!(wire.0.turns.load(Ordering::Relaxed), 0, "nothing lingered");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_before_the_answer_is_back_goes_together_once_it_is() {
    let (gather, wire) = (Gather::new(LIMITS), Fake::new(&[5]));
    let mut asked = Vec::new();
    for number in 0..4 {
        asked.push(ask(&gather, &wire, number).await);
    }
    for (number, asked) in (0..).zip(asked) {
        assert_answered(asked, number).await;
    }
    assert_eq!(wire.frames(), [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn after_the_linger_calls_wait_no_longer_for_an_answer_that_takes_its_time() {
    let (gather, wire) = (Gather::new(LIMITS), Fake::new(&[1_000]));
    let began = Instant::now();
    let mut asked = Vec::new();
    for number in 0..3 {
        asked.push(ask(&gather, &wire, number).await);
    }
    assert_answered(asked.pop().unwrap(), 2).await;
    assert!(began.elapsed() < 1_020 * MS, "both frames travelled at a time: {:?}", began.elapsed());
    assert_eq!(wire.frames(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_full_frame_does_not_linger_and_no_more_are_under_way_than_may_be() {
    let (gather, wire) = (Gather::new(LIMITS), Fake::new(&[5]));
    let mut asked = Vec::new();
    for number in 0..16 {
        asked.push(ask(&gather, &wire, number).await);
    }
    for (number, asked) in (0..).zip(asked) {
        assert_answered(asked, number).await;
    }
    assert_eq!(wire.frames(), [1, 4, 4, 4, 3]);
    assert_eq!(wire.0.flying_max.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn too_many_that_wait_are_told_busy_and_the_others_are_answered() {
    let (gather, wire) = (Gather::new(LIMITS), Fake::new(&[50]));
    let mut asked = Vec::new();
    // Two frames travel; what they took makes room.
    for number in 0..5 {
        asked.push(ask(&gather, &wire, number).await);
    }
    tokio::time::sleep(20 * MS).await;
    for number in 5..21 {
        asked.push(ask(&gather, &wire, number).await);
    }
    assert_eq!(ask(&gather, &wire, 99).await.await.unwrap(), Err(Error::Busy));
    for (number, asked) in (0..).zip(asked) {
        assert_answered(asked, number).await;
    }
    assert_answered(ask(&gather, &wire, 100).await, 100).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_is_left_out_and_takes_nobody_along() {
    let (gather, wire) = (Gather::new(LIMITS), Fake::new(&[5]));
    let mut asked = Vec::new();
    for number in 0..4 {
        asked.push(ask(&gather, &wire, number).await);
    }
    // One whose question travels, one whose question waits.
    for at in [2, 0] {
        let gone = asked.remove(at);
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    for (number, asked) in [1, 3].into_iter().zip(asked) {
        assert_answered(asked, number).await;
    }
    assert_eq!(wire.frames(), [1, 2]);
    let left = format!("{gather:?}");
    assert_eq!(left, "Gather { queued: 0, workers: 0, flying: 0, gathering: false }");
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_to_all_of_its_frame_and_to_no_other() {
    let (gather, wire) = (Gather::new(LIMITS), Fake::new(&[5]));
    let troubles = [
        Err(Error::NotAllowed),
        Ok(Reply::Answers(vec![Answer::default(); 3])),
        Ok(Reply::Behind(Sequence(7))),
    ];
    for trouble in troubles {
        let first = ask(&gather, &wire, 0).await;
        let others = [ask(&gather, &wire, 1).await, ask(&gather, &wire, 2).await];
        let expected = trouble.as_ref().err().cloned();
        wire.next_says(trouble);
        let error = first.await.unwrap().unwrap_err();
        assert!(expected.is_none_or(|expected| expected == error), "{error}");
        for (number, asked) in (1..).zip(others) {
            assert_answered(asked, number).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_an_event_that_is_there_does_not_suffer_from_who_asks_for_more() {
    let (gather, wire) = (Gather::new(LIMITS), Fake::new(&[5]));
    let first = ask(&gather, &wire, 0).await;
    let mut asked = Vec::new();
    for (number, min_sequence) in [(1, 100), (2, 101), (3, 0), (4, 900)] {
        asked.push(ask_for(&gather, &wire, question(number, &Check::live(), min_sequence)).await);
    }
    assert_answered(first, 0).await;
    for (number, asked) in (1..).zip(asked) {
        let behind = Err(Error::Behind { published: 100 });
        if number % 2 == 0 {
            assert_eq!(asked.await.unwrap(), behind);
        } else {
            assert_answered(asked, number).await;
        }
    }
    assert_eq!(wire.frames(), [1, 4, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_frame_takes_no_more_bytes_than_a_server_does_whatever_its_checks() {
    let limits = Coalesce { frame_tokens_max: 1_024, gathering_max: 1_024, ..LIMITS };
    let (gather, wire) = (Gather::new(limits), Fake::new(&[5]));
    let long = "x".repeat(jeton_core::claims::RESOURCE_BYTES_MAX);
    let first = ask(&gather, &wire, 0).await;
    let check = Check::access("read", &long).unwrap();
    let mut asked = Vec::new();
    for number in 1..=100 {
        asked.push(ask_for(&gather, &wire, question(number, &check, 0)).await);
    }
    assert_answered(first, 0).await;
    for (number, asked) in (1..).zip(asked) {
        assert_answered(asked, number).await;
    }
    assert_eq!(wire.frames(), [1, 61, 39]);
}

#[test]
fn a_frame_names_each_check_once() {
    let checks = ["a", "bb", "a", "bb", "bb", "ccc"].map(|path| Check::access("read", path).unwrap());
    let member = |check: &Check| Member { question: question(1, check, 0), answer: oneshot::channel().0 };
    let mixed = Frame::of(&checks.each_ref().map(member));
    assert_eq!(mixed.checks, [checks[0].clone(), checks[1].clone(), checks[5].clone()]);
    assert_eq!(mixed.indexes, Some(vec![0, 1, 0, 1, 1, 2]));
    let same = Frame::of(&[member(&checks[0]), member(&checks[2])]);
    assert_eq!((same.checks.len(), same.indexes), (1, None));
}

/// What one caller does: when it asks, about what, and after how long it gives up.
type Caller = (u64, usize, Option<u64>);

async fn every_caller_has_its_own_answer(limits: Coalesce, delays_ms: Vec<u64>, callers: Vec<Caller>) {
    let (gather, wire) = (Gather::new(limits.clone()), Fake::new(&delays_ms));
    let mut tasks = JoinSet::new();
    for (number, (at_ms, path, patience_ms)) in (0..).zip(callers) {
        let (gather, wire) = (Arc::clone(&gather), wire.clone());
        tasks.spawn(async move {
            tokio::time::sleep(MS * at_ms as u32).await;
            let check = Check::access("read", &"x".repeat(path)).unwrap();
            let receiver = match gather.ask(&wire, question(number, &check, 0)) {
                Ok(receiver) => receiver,
                Err(error) => return assert_eq!(error, Error::Busy),
            };
            let patience = MS * patience_ms.unwrap_or(1_000_000) as u32;
            match tokio::time::timeout(patience, receiver).await {
                Ok(answer) => assert_eq!(answer.unwrap().unwrap(), answer_for(&token(number), &check)),
                Err(_) => assert!(patience_ms.is_some(), "whoever waits is answered"),
            }
        });
    }
    tasks.join_all().await;
    tokio::time::sleep(1_000 * MS).await;
    assert!(wire.frames().iter().all(|tokens| (1..=limits.frame_tokens_max).contains(tokens)));
    assert!(wire.0.flying_max.load(Ordering::Relaxed) <= limits.frames_in_flight_max);
    let left = format!("{gather:?}");
    assert_eq!(left, "Gather { queued: 0, workers: 0, flying: 0, gathering: false }");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn answers_go_to_whom_asked_whatever_is_full_late_or_given_up(
        linger_ms in 0..20_u64,
        (frame_tokens_max, frames_in_flight_max, gathering_max) in (1..9_usize, 1..4_usize, 1..64_usize),
        delays_ms in prop::collection::vec(0..30_u64, 1..6),
        callers in prop::collection::vec((0..100_u64, 1..5_usize, prop::option::of(0..40_u64)), 1..200),
    ) {
        let linger = MS * linger_ms as u32;
        let limits = Coalesce { linger, frame_tokens_max, frames_in_flight_max, gathering_max };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(every_caller_has_its_own_answer(limits, delays_ms, callers));
    }
}
