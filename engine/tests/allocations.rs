//! What a validate takes of the allocator: nothing, from the frame to the answers, once the session has room.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ops::Range;
use std::sync::Arc;

use jeton::{Engine, EngineConfig};
use jeton_core::check::Check;
use jeton_core::claims::{Claims, ResourceQuery};
use jeton_core::command::{Command, IssueTokens, Submission};
use jeton_core::numbers::{ClientNo, Sequence};
use jeton_core::outcome::Outcome;
use jeton_core::verdict::Verdict;
use jeton_log_store::MemoryStore;
use jeton_net::server::ReplyQueue;
use jeton_net::shard::Bell;
use jeton_wire::Session;
use jeton_wire::frame::{RESPONSE_BYTES_MAX, split};
use jeton_wire::request::{Hello, Request, encode_validate};
use jeton_wire::response::Response;

const ADMIN: &str = "test:admin";
const CLAIM_SETS: usize = 8;
const TOKENS_EACH: usize = 16;

/// Tokens of some claim sets, by turns: each may read a journal of its own.
fn issued(engine: &Engine) -> Vec<[u8; 32]> {
    let of = |number: usize| {
        let grant = format!("read on journal/{number}/**").parse().unwrap();
        let command = Command::IssueTokens(IssueTokens {
            tenant: "default".parse().unwrap(),
            subjects: vec!["alice".parse().unwrap(); TOKENS_EACH],
            claims: Claims::new([], [], [grant], Default::default()).unwrap(),
            ttl_s: 600,
            not_before_s: 0,
            renewable_s: 0,
            uses_max: 0,
            parent: None,
            binding: None,
        });
        let reply = engine.call(Submission { actor: ClientNo(1), key: None, command }).unwrap();
        let Ok(Outcome::Issued { tokens, .. }) = reply.result else { panic!("not issued") };
        tokens
    };
    let sets: Vec<_> = (0..CLAIM_SETS).map(of).collect();
    (0..TOKENS_EACH).flat_map(|at| sets.iter().map(move |set| set[at].to_bytes())).collect()
}

/// Frames as clients send them: one and many tokens, without and with a check, one for all or one for each.
fn frames(tokens: &[[u8; 32]]) -> Vec<u8> {
    let resources: Vec<String> = (0..CLAIM_SETS).map(|at| format!("journal/{at}/page/7")).collect();
    let ask = |resource| Check { access: ResourceQuery::new("read", resource).ok(), ..Check::default() };
    let checks: Vec<Check<'_>> = resources.iter().map(|resource| ask(resource)).collect();
    let each: Vec<u16> = (0..tokens.len()).map(|at| (at % CLAIM_SETS) as u16).collect();
    let mut frames = Vec::new();
    let mut number = 1;
    let mut add = |range: Range<usize>, checks: &[Check<'_>], has_each: bool| {
        let indexes = has_each.then(|| &each[range.clone()]);
        encode_validate(number, &tokens[range], checks, indexes, Sequence(0), true, &mut frames);
        number += 1;
    };
    for at in 0..8 {
        add(at..at + 1, &[], false);
        add(at..at + 1, &checks[at..=at], false);
    }
    add(0..tokens.len(), &[], false);
    add(0..tokens.len(), &checks, true); // alone
    add(8..24, &checks, true); // and with others
    add(16..32, &checks, true);
    frames
}

#[test]
fn a_validate_takes_no_memory() {
    let engine = Engine::open(Box::new(MemoryStore::new([1; 16])), EngineConfig::default(), ADMIN).unwrap();
    let frames = frames(&issued(&engine));
    let doors = engine.door_maker().make(ReplyQueue::new(Arc::new(Bell::new().unwrap())), Vec::new());
    let mut session = Session::new(ADMIN.to_owned());
    let (mut hello, mut out, mut ticket) = (Vec::new(), Vec::new(), 0);
    let version = jeton_wire::VERSION;
    Request::Hello(Hello { version_min: version, version_max: version, features: 0 }).encode(0, &mut hello);
    session.handle_data(0, &hello, 0, &doors, &mut ticket, &mut out).unwrap();
    let mut turn = |out: &mut Vec<u8>| {
        out.clear();
        session.handle_data(0, &frames, 0, &doors, &mut ticket, out).unwrap();
    };
    turn(&mut out); // which makes room
    let measured = allocation_counter::measure(|| (0..100).for_each(|_| turn(&mut out)));
    assert_eq!(measured.count_total, 0, "{} bytes", measured.bytes_total);
    let (mut rest, mut answered) = (out.as_slice(), 0);
    while let Some((frame, length)) = split(rest, RESPONSE_BYTES_MAX).unwrap() {
        let Response::Answers { answers, .. } = Response::decode(&frame).unwrap() else {
            panic!("no answers")
        };
        assert!(answers.iter().all(|answer| answer.verdict == Verdict::Valid), "frame {}", frame.request);
        answered += answers.len();
        rest = &rest[length..];
    }
    assert_eq!(answered, 16 + 2 * CLAIM_SETS * TOKENS_EACH + 32);
    drop((session, doors));
    engine.stop().unwrap();
}
