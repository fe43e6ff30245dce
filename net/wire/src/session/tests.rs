use std::cell::{Cell, RefCell};
use std::sync::Arc;

use jeton_core::check::{Check, Checks};
use jeton_core::claims::ResourceQuery;
use jeton_core::command::{Command, RevokeTarget, Submission};
use jeton_core::inspection::{ClaimsInfo, ClientInfo, Inspection, SubjectInfo};
use jeton_core::numbers::{ClaimsNo, ClientNo, LogId, Partition, SubjectNo, TenantNo};
use jeton_core::outcome::{Outcome, Reply, RevokeReport};
use jeton_core::rights::{Caller, Rights};
use jeton_core::time::Millis;
use jeton_core::token::TokenId;
use jeton_core::verdict::Verdict;

use super::*;
use crate::CloseCode;
use crate::doors::{LogPage, QueueFull, SnapshotTaken};
use crate::frame::{RESPONSE_BYTES_MAX, append};
use crate::request::{Hello, encode_validate};

/// Doors that say `valid` to tokens whose first byte is even.
struct Doors {
    rights: Rights,
    published: Cell<u64>,
    is_full: Cell<bool>,
    submitted: RefCell<Vec<(Ticket, Submission)>>,
    reads: RefCell<Vec<(Ticket, Sequence)>>,
    snapshots: RefCell<Vec<Ticket>>,
}

impl Default for Doors {
    fn default() -> Self {
        Self {
            rights: Rights::ALL,
            published: Cell::new(10),
            is_full: Cell::new(false),
            submitted: RefCell::default(),
            reads: RefCell::default(),
            snapshots: RefCell::default(),
        }
    }
}

impl Validate for Doors {
    fn log(&self) -> (LogId, Partition) {
        (LogId([4; 16]), Partition(1))
    }

    fn now(&self) -> Millis {
        Millis(0)
    }

    fn published(&self) -> Sequence {
        Sequence(self.published.get())
    }

    fn caller(&self, identity: &str) -> Arc<Caller> {
        assert_eq!(identity, "test:client");
        let mut caller = Caller::new(ClientNo(3));
        caller.set(TenantNo::EVERY, self.rights);
        Arc::new(caller)
    }

    fn validate(&self, _: &Caller, tokens: &[[u8; 32]], checks: Checks<'_>, answers: &mut Vec<Answer>) {
        for (at, token) in tokens.iter().enumerate() {
            let is_good =
                token[0] % 2 == 0 && checks.at(at).is_some_and(|check| check.audience != Some("nobody"));
            let verdict = if is_good { Verdict::Valid } else { Verdict::Denied };
            answers.push(Answer { verdict, subject: SubjectNo(7), ..Answer::default() });
        }
    }

    fn claims(&self, _: &Caller, _: ClaimsNo) -> Option<ClaimsInfo> {
        None
    }

    fn subject(&self, _: &Caller, _: SubjectNo) -> Option<SubjectInfo> {
        None
    }

    fn inspect(&self, _: &Caller, _: &TokenId) -> Option<Inspection> {
        None
    }

    fn clients(&self, caller: &Caller) -> Option<Vec<ClientInfo>> {
        caller.may_somewhere(Rights::ADMIN).then(Vec::new)
    }

    fn stats(&self, _: &Caller) -> Option<String> {
        Some("{}".to_owned())
    }
}

impl Submit for Doors {
    fn submit(&self, ticket: Ticket, submission: Submission) -> Result<(), QueueFull> {
        if self.is_full.get() {
            return Err(QueueFull);
        }
        self.submitted.borrow_mut().push((ticket, submission));
        Ok(())
    }

    fn ring(&self) {}

    fn read_log(&self, ticket: Ticket, from: Sequence, _: u32) -> Result<(), QueueFull> {
        self.reads.borrow_mut().push((ticket, from));
        Ok(())
    }

    fn take_snapshot(&self, ticket: Ticket) -> Result<(), QueueFull> {
        self.snapshots.borrow_mut().push(ticket);
        Ok(())
    }
}

struct Bench {
    session: Session,
    doors: Doors,
    next_ticket: Ticket,
    now_ms: u64,
}

impl Bench {
    fn new(doors: Doors) -> Self {
        Self { session: Session::new("test:client".to_owned()), doors, next_ticket: 100, now_ms: 1_000 }
    }

    fn greeted(doors: Doors) -> Self {
        let mut bench = Self::new(doors);
        bench.give(&hello(1, 1)).unwrap();
        bench
    }

    fn give(&mut self, data: &[u8]) -> Result<Vec<(u64, Response)>, WireError> {
        let mut out = Vec::new();
        self.session.handle_data(0, data, self.now_ms, &self.doors, &mut self.next_ticket, &mut out)?;
        Ok(responses(&out))
    }

    fn ask(&mut self, request: &Request<'_>, id: u64) -> Response {
        let mut frame = Vec::new();
        request.encode(id, &mut frame);
        let mut answers = self.give(&frame).unwrap();
        assert_eq!((answers.len(), answers[0].0), (1, id));
        answers.remove(0).1
    }
}

fn responses(mut bytes: &[u8]) -> Vec<(u64, Response)> {
    let mut all = Vec::new();
    while let Some((frame, length)) = split(bytes, RESPONSE_BYTES_MAX).unwrap() {
        all.push((frame.request, Response::decode(&frame).unwrap()));
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty());
    all
}

fn hello(version_min: u16, version_max: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    Request::Hello(Hello { version_min, version_max, features: 0 }).encode(1, &mut frame);
    frame
}

fn validate(id: u64, tokens: &[[u8; 32]], min_sequence: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_validate(id, tokens, &[], None, Sequence(min_sequence), false, &mut frame);
    frame
}

fn revoke() -> Request<'static> {
    Request::Write { key: None, command: Command::Revoke(RevokeTarget::Id(TokenId([1; 16]))) }
}

fn verdicts(response: &Response) -> Vec<Verdict> {
    let Response::Answers { answers, .. } = response else { panic!("{response:?}") };
    answers.iter().map(|answer| answer.verdict).collect()
}

#[test]
fn a_conversation_begins_with_a_hello_of_a_known_version() {
    let mut bench = Bench::new(Doors::default());
    let answers = bench.give(&hello(1, 9)).unwrap();
    let Response::HelloAck(ack) = &answers[0].1 else { panic!("{answers:?}") };
    assert_eq!((ack.version, ack.log, ack.published), (1, LogId([4; 16]), Sequence(10)));

    let mut first = Vec::new();
    Request::Ping.encode(5, &mut first);
    assert_eq!(Bench::new(Doors::default()).give(&first).unwrap_err(), WireError::NotJeton);
    assert_eq!(Bench::new(Doors::default()).give(&hello(2, 3)).unwrap_err(), WireError::Version(3));
    let mut magic = hello(1, 1);
    magic[16] ^= 1;
    assert_eq!(Bench::new(Doors::default()).give(&magic).unwrap_err(), WireError::NotJeton);
}

#[test]
fn frames_cut_anywhere_are_answered_like_whole_ones() {
    let tokens = [[2; 32], [3; 32], [4; 32]];
    let mut data = hello(1, 1);
    for id in 2..5 {
        data.extend(validate(id, &tokens, 0));
    }
    let whole = Bench::new(Doors::default()).give(&data).unwrap();
    assert_eq!(whole.len(), 4);
    for cut in 0..data.len() {
        let mut bench = Bench::new(Doors::default());
        let mut answers = bench.give(&data[..cut]).unwrap();
        answers.extend(bench.give(&data[cut..]).unwrap());
        assert_eq!(format!("{answers:?}"), format!("{whole:?}"), "cut at {cut}");
        assert_eq!(bench.session.next_timeout_ms(), None, "nothing is left over");
    }
    let mut bench = Bench::new(Doors::default());
    let bytewise: Vec<_> = data.chunks(1).flat_map(|byte| bench.give(byte).unwrap()).collect();
    assert_eq!(format!("{bytewise:?}"), format!("{whole:?}"));
}

#[test]
fn each_token_is_checked_by_the_check_it_names() {
    let mut bench = Bench::greeted(Doors::default());
    let nobody = jeton_core::check::Check { audience: Some("nobody"), ..Default::default() };
    let mut frame = Vec::new();
    let checks = [Default::default(), nobody];
    encode_validate(2, &[[2; 32]; 3], &checks, Some(&[0, 1, 0]), Sequence(0), true, &mut frame);
    let answers = bench.give(&frame).unwrap();
    assert_eq!(verdicts(&answers[0].1), [Verdict::Valid, Verdict::Denied, Verdict::Valid]);
    let Response::Answers { answers, .. } = &answers[0].1 else { unreachable!() };
    assert_eq!(answers[0].subject, SubjectNo(7));
}

#[test]
fn what_is_no_request_ends_the_conversation_with_its_own_code() {
    let cases: [(Vec<u8>, WireError, CloseCode); 5] = [
        (u32::MAX.to_le_bytes().repeat(4), WireError::TooLarge(u32::MAX), CloseCode::TooLarge),
        (framed(0x77, &[]), WireError::UnknownOpcode(0x77), CloseCode::UnknownOpcode),
        (framed(0x36, &[1]), WireError::Trailing, CloseCode::Malformed),
        (framed(0x30, &[1]), WireError::Truncated, CloseCode::Malformed),
        (framed(0x10, &[0; 16]), WireError::Invalid("the number of tokens"), CloseCode::Malformed),
    ];
    for (bytes, error, code) in cases {
        let refused = Bench::greeted(Doors::default()).give(&bytes).unwrap_err();
        assert_eq!((refused, refused.close_code()), (error, code));
    }
}

fn framed(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    append(&mut frame, opcode, 9, |into| into.extend_from_slice(payload));
    frame
}

#[test]
fn writes_are_answered_by_ticket_in_whatever_order() {
    let mut bench = Bench::greeted(Doors::default());
    for id in [20, 21] {
        let mut frame = Vec::new();
        revoke().encode(id, &mut frame);
        assert!(bench.give(&frame).unwrap().is_empty(), "an answer waits for the sequencer");
    }
    let tickets: Vec<_> = bench.doors.submitted.borrow().iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(bench.doors.submitted.borrow()[0].1.actor, ClientNo(3));
    assert!(bench.session.tickets().count() > 0);
    for (ticket, id) in [(tickets[1], 21), (tickets[0], 20)] {
        let report = RevokeReport { revoked: id, broader: 0 };
        let reply =
            DoorReply::Command(Reply { sequence: Sequence(id), result: Ok(Outcome::Revoked(report)) });
        let mut out = Vec::new();
        assert_eq!(bench.session.handle_reply(ticket, reply, &bench.doors, &mut out), Some(0));
        let answers = responses(&out);
        assert_eq!(answers[0].0, id);
        let Response::Written { reply, .. } = &answers[0].1 else { panic!("{answers:?}") };
        assert_eq!(reply.sequence, Sequence(id));
    }
    assert!(bench.session.is_settled(0));
    let stray = DoorReply::Log(Err(String::new()));
    assert_eq!(bench.session.handle_reply(tickets[0], stray, &bench.doors, &mut Vec::new()), None);
}

#[test]
fn who_has_as_much_under_way_as_he_may_can_still_revoke() {
    let mut bench = Bench::greeted(Doors::default());
    let read = Request::ReadLog { from: Sequence(1), bytes_max: 100 };
    let mut taken = |refusing| {
        bench.session.set_refusing(refusing);
        let mut frames = Vec::new();
        revoke().encode(3, &mut frames);
        read.encode(4, &mut frames);
        bench.give(&frames).unwrap();
        (bench.doors.submitted.take().len(), bench.doors.reads.take().len())
    };
    assert_eq!(taken(Refusing::Nothing), (1, 1));
    assert_eq!(taken(Refusing::AllButTaking), (1, 0));
    assert_eq!(taken(Refusing::All), (0, 0));
}

#[test]
fn a_full_door_is_busy_and_nothing_is_taken() {
    let mut bench = Bench::greeted(Doors::default());
    bench.doors.is_full.set(true);
    assert!(matches!(bench.ask(&revoke(), 3), Response::Busy { .. }));
    assert!(bench.session.is_settled(0));
    assert_eq!(bench.session.take_tally().busy, 1);
}

#[test]
fn a_client_without_rights_is_refused_and_reads_of_the_log_need_the_audit_right() {
    let mut stranger = Bench::greeted(Doors { rights: Rights::NONE, ..Doors::default() });
    assert!(matches!(stranger.ask(&revoke(), 3), Response::NotAllowed));
    assert!(matches!(stranger.ask(&Request::Clients, 4), Response::NotAllowed));
    let read = Request::ReadLog { from: Sequence(1), bytes_max: 100 };
    let mut issuer = Bench::greeted(Doors { rights: Rights::ISSUE, ..Doors::default() });
    assert!(matches!(issuer.ask(&read, 5), Response::NotAllowed));
    let mut auditor = Bench::greeted(Doors { rights: Rights::AUDIT, ..Doors::default() });
    let mut frame = Vec::new();
    read.encode(6, &mut frame);
    assert!(auditor.give(&frame).unwrap().is_empty());
    let ticket = auditor.doors.reads.borrow()[0].0;
    let page = LogPage { first: Sequence(1), head: Sequence(2), batches: vec![vec![1, 2], vec![3]] };
    let mut out = Vec::new();
    auditor.session.handle_reply(ticket, DoorReply::Log(Ok(page)), &auditor.doors, &mut out);
    let Response::LogPage { batches, .. } = &responses(&out)[0].1 else { panic!("no page") };
    assert_eq!(*batches, [vec![1, 2], vec![3]]);
}

#[test]
fn a_snapshot_is_for_those_to_order_who_administer_everything() {
    let mut auditor = Bench::greeted(Doors { rights: Rights::AUDIT, ..Doors::default() });
    assert!(matches!(auditor.ask(&Request::TakeSnapshot, 5), Response::NotAllowed));
    let mut admin = Bench::greeted(Doors { rights: Rights::ADMIN, ..Doors::default() });
    let mut frame = Vec::new();
    Request::TakeSnapshot.encode(6, &mut frame);
    assert!(admin.give(&frame).unwrap().is_empty(), "it is answered once it is there");
    let ticket = admin.doors.snapshots.borrow()[0];
    let taken = SnapshotTaken { sequence: Sequence(4), tokens: 3, bytes: 200, bytes_written: 100 };
    let mut out = Vec::new();
    admin.session.handle_reply(ticket, DoorReply::Snapshot(Ok(taken)), &admin.doors, &mut out);
    assert!(matches!(responses(&out)[0], (6, Response::Snapshot(told)) if told == taken));
}

#[test]
fn a_validate_waits_for_its_event_and_is_told_when_it_does_not_come() {
    let mut bench = Bench::greeted(Doors::default());
    assert!(bench.give(&validate(7, &[[2; 32]], 11)).unwrap().is_empty());
    assert!(bench.give(&validate(8, &[[2; 32]], 12)).unwrap().is_empty());
    let mut sent = Vec::new();
    bench.doors.published.set(11);
    bench.session.handle_published(&bench.doors, |_, bytes| sent.extend(responses(bytes)));
    assert_eq!((sent.len(), sent[0].0), (1, 7));
    assert_eq!(verdicts(&sent[0].1), [Verdict::Valid]);
    let until = bench.session.next_timeout_ms().unwrap();
    let mut told = Vec::new();
    let mut at = |now, told: &mut Vec<_>| {
        bench.session.handle_timeout(now, Sequence(11), |_, bytes| told.extend(responses(bytes))).unwrap();
    };
    at(until - 1, &mut told);
    assert!(told.is_empty());
    at(until, &mut told);
    assert!(matches!(told[..], [(8, Response::Behind { published: Sequence(11) })]));
}

#[test]
fn a_request_that_takes_too_long_to_arrive_ends_the_conversation() {
    let mut bench = Bench::greeted(Doors::default());
    bench.give(&validate(7, &[[2; 32]], 0)[..30]).unwrap();
    let slow = |bench: &mut Bench, now| bench.session.handle_timeout(now, Sequence(0), |_, _| {});
    assert_eq!(slow(&mut bench, 1_000 + REQUEST_MS - 1), Ok(()));
    assert_eq!(slow(&mut bench, 1_000 + REQUEST_MS), Err(CloseCode::TooSlow));
    assert_eq!(bench.session.handle_end(0), Err(WireError::Truncated));
    bench.session.forget_stream(0);
    assert_eq!(slow(&mut bench, 1_000 + REQUEST_MS), Ok(()));
    assert_eq!(bench.session.handle_end(0), Ok(()));
}

#[test]
fn a_stream_that_nobody_reads_is_not_slow_and_its_clock_starts_anew() {
    let mut bench = Bench::greeted(Doors::default());
    bench.give(&validate(7, &[[2; 32]], 0)[..30]).unwrap();
    bench.session.stop_clock(0);
    assert_eq!(bench.session.next_timeout_ms(), None);
    bench.session.start_clock(0, 9_000);
    assert_eq!(bench.session.next_timeout_ms(), Some(9_000 + REQUEST_MS));
}

#[test]
fn no_more_answers_are_owed_than_a_client_can_be_trusted_to_read() {
    let mut bench = Bench::greeted(Doors::default());
    let read = Request::ReadLog { from: Sequence(1), bytes_max: u32::MAX };
    let mut frame = Vec::new();
    read.encode(6, &mut frame);
    let mut busy = 0;
    for _ in 0..20 {
        busy += bench.give(&frame).unwrap().len();
    }
    assert_eq!(bench.doors.reads.borrow().len() + busy, 20);
    assert!(busy > 10, "pages of half a megabyte each");
    let ticket = bench.doors.reads.borrow()[0].0;
    let page = DoorReply::Log(Err("gone".to_owned()));
    bench.session.handle_reply(ticket, page, &bench.doors, &mut Vec::new());
    assert!(bench.give(&frame).unwrap().is_empty(), "there is room for another one");
}

#[test]
fn a_sequencer_that_is_busy_is_told_like_a_queue_that_is_full() {
    let mut bench = Bench::greeted(Doors::default());
    let mut frame = Vec::new();
    revoke().encode(20, &mut frame);
    bench.give(&frame).unwrap();
    let ticket = bench.doors.submitted.borrow()[0].0;
    let busy = Reply { sequence: Sequence(0), result: Err(Rejection::Busy { retry_ms: 7 }) };
    let mut out = Vec::new();
    bench.session.handle_reply(ticket, DoorReply::Command(busy), &bench.doors, &mut out);
    assert!(matches!(responses(&out)[0].1, Response::Busy { retry_ms: 7 }));
}

#[test]
fn an_answer_to_a_stream_that_was_given_up_is_for_nobody_even_if_it_is_sent_on() {
    let mut bench = Bench::greeted(Doors::default());
    let mut frame = Vec::new();
    revoke().encode(20, &mut frame);
    bench.give(&frame).unwrap();
    bench.session.forget_stream(0);
    bench.give(&frame).unwrap();
    let tickets: Vec<_> = bench.doors.submitted.borrow().iter().map(|(ticket, _)| *ticket).collect();
    let reply = || DoorReply::Command(Reply { sequence: Sequence(1), result: Err(Rejection::NotFound) });
    let mut out = Vec::new();
    assert_eq!(bench.session.handle_reply(tickets[0], reply(), &bench.doors, &mut out), None);
    assert!(out.is_empty() && !bench.session.is_settled(0), "what was sent on is still owed its answer");
    assert_eq!(bench.session.handle_reply(tickets[1], reply(), &bench.doors, &mut out), Some(0));
    assert!(bench.session.is_settled(0));
}

#[test]
fn a_validate_of_a_stream_that_was_given_up_waits_for_nothing() {
    let mut bench = Bench::greeted(Doors::default());
    bench.give(&validate(2, &[[2; 32]], 99)).unwrap();
    assert!(bench.session.waits_for_event());
    bench.session.forget_stream(0);
    assert!(!bench.session.waits_for_event());
    bench.doors.published.set(99);
    bench.session.handle_published(&bench.doors, |_, _| panic!("nobody hears it"));
}

#[test]
fn validates_that_wait_for_an_event_are_bounded_in_bytes() {
    let mut bench = Bench::greeted(Doors::default());
    let frame = validate(2, &[[2; 32]; 1024], 99);
    let waiting = (0..100).take_while(|_| bench.give(&frame).unwrap().is_empty()).count();
    assert_eq!(waiting, DELAYED_BYTES_MAX / frame.len());
    bench.session.handle_timeout(bench.now_ms + WAIT_MS, Sequence(0), |_, _| {}).unwrap();
    assert!(bench.give(&frame).unwrap().is_empty(), "there is room again");
}

#[test]
fn validates_that_come_together_are_asked_together_and_answered_each() {
    let mut bench = Bench::greeted(Doors::default());
    let (live, access) = (Check::default(), ResourceQuery::new("read", "a/b").ok());
    let granted = Check { access, ..Check::default() };
    let tokens: Vec<[u8; 32]> = (0..100).map(|at| [at; 32]).collect();
    let mut frames = Vec::new();
    let mut expected = Vec::new();
    let mut add = |frames: &mut Vec<u8>, id: u64, range: std::ops::Range<usize>, checks: &[Check<'_>]| {
        encode_validate(id, &tokens[range.clone()], checks, None, Sequence(0), id.is_multiple_of(2), frames);
        expected.push((id, range.len()));
    };
    add(&mut frames, 1, 0..1, &[live]);
    add(&mut frames, 2, 1..4, &[granted]);
    add(&mut frames, 3, 4..5, &[]);
    Request::Ping.encode(4, &mut frames);
    add(&mut frames, 5, 5..45, &[]);
    add(&mut frames, 6, 45..95, &[]); // no room beside the one before
    add(&mut frames, 7, 95..96, &[]);
    add(&mut frames, 8, 0..100, &[]); // more than are gathered at all
    add(&mut frames, 9, 96..97, &[]);
    let answered = bench.give(&frames).unwrap();
    let ids: Vec<u64> = answered.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8, 9], "in order");
    for (id, count) in expected {
        let Some((_, Response::Answers { answers, .. })) = answered.iter().find(|(of, _)| *of == id) else {
            panic!("{id} has no answers");
        };
        assert_eq!(answers.len(), count, "frame {id}");
    }
    let tally = bench.session.take_tally();
    assert_eq!((tally.requests, tally.tokens), (10, 197));
}

#[test]
fn what_was_asked_before_a_frame_that_is_none_is_answered() {
    let mut bench = Bench::greeted(Doors::default());
    let mut frames = Vec::new();
    encode_validate(1, &[[1; 32]], &[], None, Sequence(0), false, &mut frames);
    encode_validate(2, &[[2; 32]], &[], None, Sequence(0), false, &mut frames);
    frames.extend_from_slice(&[0, 0, 0, 0, 0x77, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    let mut out = Vec::new();
    let result = bench.session.handle_data(0, &frames, 1_000, &bench.doors, &mut bench.next_ticket, &mut out);
    assert!(result.is_err());
    assert_eq!(responses(&out).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2]);
}
