//! Frames pinned to the byte, valid and invalid, and every kind of frame there and back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use jeton_core::check::Check;
use jeton_core::claims::{Claims, ResourceQuery, ScopesQuery};
use jeton_core::command::{Access, ChangeRights, Command, ConsumeToken, IssueTokens, RevokeTarget};
use jeton_core::inspection::{ClaimsInfo, ClientInfo, Inspection, SubjectInfo};
use jeton_core::numbers::*;
use jeton_core::outcome::{FieldName, LimitName, Outcome, Rejection, Reply, RevokeReport};
use jeton_core::rights::Rights;
use jeton_core::time::{Millis, Seconds};
use jeton_core::token::{Token, TokenId};
use jeton_core::verdict::{Answer, AnswerFlags, Verdict};
use jeton_wire::doors::SnapshotTaken;
use jeton_wire::frame::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, split};
use jeton_wire::request::{Hello, Request, encode_validate};
use jeton_wire::response::{HelloAck, Response};
use proptest::prelude::*;

const VECTORS: &str = include_str!("vectors/frames.txt");

fn commands() -> Vec<Command> {
    let token = || Token::from_bytes(std::array::from_fn(|at| at as u8));
    let claims = Claims::new(
        ["api".parse().unwrap()],
        ["openid".to_owned()],
        ["read on a/*".parse().unwrap()],
        BTreeMap::new(),
    );
    let issue = IssueTokens {
        tenant: "default".parse().unwrap(),
        subjects: vec!["alice".parse().unwrap(), "bob".parse().unwrap()],
        claims: claims.unwrap(),
        ttl_s: 3_600,
        not_before_s: 1,
        renewable_s: 7_200,
        uses_max: 2,
        parent: Some(TokenId([7; 16])),
        binding: Some(Binding([8; 32])),
    };
    let access = Some(Access { action: "read".to_owned(), resource: "a/b".to_owned() });
    let audience = Some("api".to_owned());
    let consume = ConsumeToken { token: token(), access, audience, scopes: None, binding: None };
    let scopes = Some("mail openid".to_owned());
    let consume_with_scopes =
        ConsumeToken { token: token(), access: None, audience: None, scopes, binding: None };
    let name = |text: &str| text.parse::<jeton_core::claims::Name>().unwrap();
    let change = || ChangeRights { client: name("x:y"), tenant: name("*"), rights: Rights::ISSUE };
    let targets = [
        RevokeTarget::Token(token()),
        RevokeTarget::Id(TokenId([1; 16])),
        RevokeTarget::Subject { tenant: name("t"), subject: name("s") },
        RevokeTarget::Client { tenant: name("t"), client: name("c") },
        RevokeTarget::Family(TokenId([2; 16])),
        RevokeTarget::Tenant { tenant: name("t") },
        RevokeTarget::Resource { tenant: name("t"), pattern: "a/**".parse().unwrap() },
    ];
    let mut commands = vec![
        Command::IssueTokens(issue),
        Command::RenewToken { token: token(), ttl_s: 5, binding: None },
        Command::RenewToken { token: token(), ttl_s: 5, binding: Some(Binding([0x0b; 32])) },
        Command::ConsumeToken(consume),
        Command::GrantRights(change()),
        Command::WithdrawRights(change()),
        Command::CreateTenant { name: name("acme") },
    ];
    commands.extend(targets.map(Command::Revoke));
    commands.push(Command::ConsumeToken(consume_with_scopes));
    commands
}

fn requests() -> Vec<Vec<u8>> {
    let mut all = vec![
        Request::Hello(Hello { version_min: 1, version_max: 1, features: 0 }),
        Request::Claims(ClaimsNo(5)),
        Request::Subject(SubjectNo(6)),
        Request::Inspect(TokenId([3; 16])),
        Request::Clients,
        Request::Stats,
        Request::ReadLog { from: Sequence(9), bytes_max: 1_000 },
        Request::Ping,
        Request::TakeSnapshot,
    ];
    for (at, command) in commands().into_iter().enumerate() {
        let key = (at % 2 == 0).then_some(IdempotencyKey([at as u8; 16]));
        all.push(Request::Write { key, command });
    }
    let mut frames: Vec<Vec<u8>> =
        all.iter().map(|request| encoded(|into| request.encode(0x1122, into))).collect();
    let access = Some(ResourceQuery::new("read", "a/b").unwrap());
    let (audience, binding) = (Some("api"), Some(Binding([9; 32])));
    let checks = [Check::default(), Check { access, audience, scopes: None, binding }];
    let scopes = ScopesQuery::new("mail openid").ok();
    let tokens = [[1; 32], [2; 32], [3; 32]];
    frames.push(encoded(|into| encode_validate(1, &tokens, &[], None, Sequence(0), false, into)));
    frames.push(encoded(|into| encode_validate(2, &tokens, &checks[1..], None, Sequence(5), true, into)));
    frames.push(encoded(|into| {
        encode_validate(3, &tokens, &checks, Some(&[0, 1, 1]), Sequence(0), false, into)
    }));
    let check = [Check { scopes, ..checks[1] }];
    frames.push(encoded(|into| encode_validate(4, &tokens, &check, None, Sequence(0), false, into)));
    frames
}

fn rejections() -> Vec<Rejection> {
    let mut all = vec![
        Rejection::NotAllowed,
        Rejection::Token(Verdict::Expired),
        Rejection::NotRenewable,
        Rejection::ParentNotLive,
        Rejection::NotFound,
        Rejection::TenantExists,
        Rejection::LastAdmin,
        Rejection::KeyReused,
        Rejection::Busy { retry_ms: 7 },
        Rejection::ClockInDoubt,
        Rejection::DiskFull,
        Rejection::LogFailed,
        Rejection::Indeterminate,
        Rejection::Stopping,
    ];
    all.extend((0..6).filter_map(LimitName::from_code).map(Rejection::Limit));
    all.extend((0..5).filter_map(FieldName::from_code).map(Rejection::OutOfRange));
    all
}

#[expect(clippy::too_many_lines, reason = "a list with one of each kind")]
fn responses() -> Vec<Vec<u8>> {
    let answer = Answer {
        verdict: Verdict::Valid,
        flags: AnswerFlags::LIMITED.with(AnswerFlags::BOUND),
        seconds_left: 3_600,
        claims: ClaimsNo(9),
        subject: SubjectNo(0),
    };
    let outcomes = [
        Outcome::Issued {
            tokens: vec![Token::from_bytes([1; 32])],
            expires: Seconds(9),
            claims: ClaimsNo(4),
        },
        Outcome::Renewed { expires: Seconds(77) },
        Outcome::Consumed { answer: Answer { subject: SubjectNo(3), ..answer }, uses_left: 2 },
        Outcome::Revoked(RevokeReport { revoked: 5, broader: 6 }),
        Outcome::RightsChanged { rights: Rights::ALL },
        Outcome::TenantCreated { tenant: TenantNo(8) },
    ];
    let results = outcomes.into_iter().map(Ok).chain(rejections().into_iter().map(Err));
    let inspection = Inspection {
        id: TokenId([1; 16]),
        verdict: Verdict::Spent,
        tenant: "t".to_owned(),
        subject: Some("s".to_owned()),
        subject_no: SubjectNo(1),
        client: "c".to_owned(),
        claims: ClaimsNo(2),
        issued: Seconds(3),
        not_before: Millis(4),
        expires: Seconds(5),
        renewable_until: Some(Seconds(6)),
        uses: Some((7, 8)),
        family: Some(TokenId([9; 16])),
        bound: true,
    };
    let bare = Inspection {
        subject: None,
        renewable_until: None,
        uses: None,
        family: None,
        bound: false,
        ..inspection.clone()
    };
    let claims = ClaimsInfo {
        claims: ClaimsNo(1),
        tenant: "t".to_owned(),
        client: "c".to_owned(),
        revoked: true,
        bytes: vec![1, 2],
    };
    let rights = vec![("*".to_owned(), Rights::ALL), ("t".to_owned(), Rights::ISSUE)];
    let ack = HelloAck {
        version: 1,
        features: 2,
        log: LogId([3; 16]),
        partition: Partition(4),
        published: Sequence(5),
    };
    let mut all = vec![
        Response::HelloAck(ack),
        Response::Answers { published: Sequence(8), answers: vec![answer, Answer::default()] },
        Response::Answers {
            published: Sequence(8),
            answers: vec![Answer { subject: SubjectNo(5), ..answer }],
        },
        Response::Behind { published: Sequence(3) },
        Response::Claims(Some(claims)),
        Response::Claims(None),
        Response::Subject(Some(SubjectInfo { subject: SubjectNo(1), tenant: "t".to_owned(), name: None })),
        Response::Inspection(Some(inspection)),
        Response::Inspection(Some(bare)),
        Response::Clients(vec![ClientInfo { client: ClientNo(1), name: "c".to_owned(), rights }]),
        Response::Stats("{}".to_owned()),
        Response::LogPage { first: Sequence(1), head: Sequence(9), batches: vec![vec![], vec![1, 2, 3]] },
        Response::Pong,
        Response::Snapshot(SnapshotTaken {
            sequence: Sequence(9),
            tokens: 8,
            bytes: 7_000,
            bytes_written: 600,
        }),
        Response::Busy { retry_ms: 5 },
        Response::NotAllowed,
        Response::Failed("why".to_owned()),
    ];
    all.extend(results.map(|result| Response::Written {
        log: LogId([1; 16]),
        partition: Partition(2),
        reply: Reply { sequence: Sequence(3), result },
    }));
    all.iter().map(|response| encoded(|into| response.encode(0x3344, into))).collect()
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

/// What a frame decodes to, or why it does not.
fn read(bytes: &[u8], is_response: bool) -> Result<String, String> {
    let max = if is_response { RESPONSE_BYTES_MAX } else { REQUEST_BYTES_MAX };
    let (frame, _) = split(bytes, max).map_err(|error| error.to_string())?.ok_or("it is not all there")?;
    if is_response {
        Response::decode(&frame).map(|response| format!("{response:?}")).map_err(|error| error.to_string())
    } else {
        let request = Request::decode(&frame).map_err(|error| error.to_string())?;
        if let Request::Validate(validate) = &request {
            let mut each = Vec::new();
            validate.checks_of_each(&mut each);
            return Ok(format!("{:?} {:?} {each:?}", validate.tokens, validate.check_for_all()));
        }
        Ok(format!("{request:?}"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn every_frame_is_written_as_it_always_was() {
    let requests = requests().into_iter().map(|frame| format!("request {}\n", hex(&frame)));
    let written: String =
        requests.chain(responses().iter().map(|frame| format!("response {}\n", hex(frame)))).collect();
    if std::env::var_os("JETON_WRITE_VECTORS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/frames.txt");
        let invalid: String = VECTORS
            .lines()
            .filter(|line| line.starts_with("invalid"))
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(path, format!("# One frame of every kind, in hexadecimal.\n{written}# Requests that are none, and why.\n{invalid}")).unwrap();
    }
    let pinned: String = VECTORS
        .lines()
        .filter(|line| line.starts_with("request") || line.starts_with("response"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(written, pinned, "jeton/1 does not change");
}

#[test]
fn every_frame_is_read_back_and_written_the_same() {
    for frame in requests() {
        let (split_off, length) = split(&frame, REQUEST_BYTES_MAX).unwrap().unwrap();
        assert_eq!(length, frame.len());
        let request = Request::decode(&split_off).unwrap();
        if !matches!(request, Request::Validate(_)) {
            assert_eq!(encoded(|into| request.encode(split_off.request, into)), frame);
        }
    }
    for frame in responses() {
        let (split_off, _) = split(&frame, RESPONSE_BYTES_MAX).unwrap().unwrap();
        let response = Response::decode(&split_off).unwrap();
        assert_eq!(encoded(|into| response.encode(split_off.request, into)), frame);
    }
}

#[test]
fn the_invalid_vectors_are_refused_for_their_reason() {
    let mut seen = 0;
    for line in VECTORS.lines().filter(|line| line.starts_with("invalid")) {
        let mut parts = line.splitn(3, ' ').skip(1);
        let (frame, reason) = (parts.next().unwrap(), parts.next().unwrap());
        assert_eq!(read(&bytes(frame), false), Err(reason.to_owned()), "{frame}");
        seen += 1;
    }
    assert!(seen >= 10, "the file was read");
}

#[test]
fn every_cut_and_every_addition_is_refused() {
    for (frames, is_response) in [(requests(), false), (responses(), true)] {
        for frame in frames {
            let payload = frame.len() - 16;
            // Texts to the end of a frame may be of any length.
            let is_open_ended = is_response && matches!(frame[4], 0xb4 | 0xb5);
            for cut in 0..payload {
                let mut shorter = frame[..16 + cut].to_vec();
                shorter[..4].copy_from_slice(&(cut as u32).to_le_bytes());
                assert!(
                    is_open_ended || read(&shorter, is_response).is_err(),
                    "{} cut to {cut}",
                    hex(&frame)
                );
            }
            let mut longer = [&frame[..], &[0]].concat();
            longer[..4].copy_from_slice(&(payload as u32 + 1).to_le_bytes());
            assert!(is_open_ended || read(&longer, is_response).is_err(), "{} and a byte", hex(&frame));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(mut payload in prop::collection::vec(any::<u8>(), 0..300), opcode: u8) {
        let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
        frame.extend([opcode, 0, 0, 0]);
        frame.extend([0; 8]);
        frame.append(&mut payload);
        let _ = read(&frame, false);
        let _ = read(&frame, true);
        let _ = split(&frame[..frame.len().min(15)], 64 * 1024);
    }

    #[test]
    fn no_changed_frame_makes_a_decoder_panic(which: prop::sample::Index, at: prop::sample::Index, to: u8) {
        let (requests, responses) = (requests(), responses());
        for (frames, is_response) in [(&requests, false), (&responses, true)] {
            let mut frame = frames[which.index(frames.len())].clone();
            let position = at.index(frame.len());
            frame[position] = to;
            let _ = read(&frame, is_response);
        }
    }
}
