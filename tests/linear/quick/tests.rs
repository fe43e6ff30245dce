//! Histories made by hand, that must be accepted or rejected, each by its rule.

use super::*;

fn issue(first: u32, invoked: Nanos, returned: Nanos) -> Operation {
    let issue = Issue {
        first,
        count: 2,
        subject: 7,
        resource: 8,
        identity: 9,
        family: None,
        uses: 0,
        ttl_s: 3_600,
        sequence: invoked,
    };
    Operation { client: 0, invoked, returned, act: Act::Issue(issue) }
}

fn with(change: impl FnOnce(&mut Issue)) -> Operation {
    let mut operation = issue(0, 10, 20);
    if let Act::Issue(issue) = &mut operation.act {
        change(issue);
    }
    operation
}

fn revoke(target: Target, invoked: Nanos, returned: Nanos) -> Operation {
    Operation { client: 1, invoked, returned, act: Act::Revoke { target, sequence: invoked } }
}

fn validate(token: u32, answer: Verdict, invoked: Nanos, returned: Nanos) -> Operation {
    asked(token, answer, 0, invoked, returned)
}

fn asked(token: u32, answer: Verdict, min_sequence: u64, invoked: Nanos, returned: Nanos) -> Operation {
    let act = Act::Validate { tokens: vec![token], verdicts: vec![answer.code()], min_sequence };
    Operation { client: 2, invoked, returned, act }
}

fn consume(answer: Verdict, at: Nanos) -> Operation {
    Operation {
        client: 3,
        invoked: at,
        returned: at + 1,
        act: Act::Consume { token: 0, verdict: answer.code(), uses_left: 0 },
    }
}

fn broken(history: &[Operation]) -> Option<&'static str> {
    let rule = check(|| history.iter().cloned()).err().map(|violation| violation.rule);
    let backwards = check(|| history.iter().rev().cloned()).err().map(|violation| violation.rule);
    assert_eq!(rule.is_some(), backwards.is_some(), "the order of the history does not matter");
    rule
}

#[test]
fn every_target_kills_what_it_names_and_nothing_else() {
    for target in
        [Target::Token(1), Target::Family(1), Target::Subject(7), Target::Identity(9), Target::Resource(8)]
    {
        let history =
            |answer, asked| [issue(0, 10, 20), revoke(target, 30, 40), validate(1, answer, asked, 60)];
        assert_eq!(broken(&history(Verdict::Valid, 41)), Some("alive after a revoke was acknowledged"));
        assert_eq!(broken(&history(Verdict::Forbidden, 41)), Some("alive after a revoke was acknowledged"));
        assert_eq!(broken(&history(Verdict::Valid, 40)), None, "asked before it was acknowledged");
        assert_eq!(broken(&history(Verdict::Revoked, 41)), None);
    }
    for target in
        [Target::Token(0), Target::Family(0), Target::Subject(1), Target::Identity(1), Target::Resource(1)]
    {
        let history = |answer| [issue(0, 10, 20), revoke(target, 30, 40), validate(1, answer, 50, 60)];
        assert_eq!(broken(&history(Verdict::Valid)), None);
        assert_eq!(
            broken(&history(Verdict::Revoked)),
            Some("denied although nobody had set out to revoke it")
        );
    }
}

#[test]
fn a_wide_revoke_covers_what_was_issued_before_it_and_perhaps_what_was_issued_beside_it() {
    let subject = Target::Subject(7);
    let history = |invoked, returned, answer| {
        [issue(0, 10, 20), revoke(subject, invoked, returned), validate(0, answer, 50, 60)]
    };
    assert_eq!(broken(&history(1, 9, Verdict::Valid)), None, "it was over before");
    assert!(broken(&history(1, 9, Verdict::Revoked)).is_some());
    assert_eq!(broken(&history(1, 15, Verdict::Valid)), None, "it was beside");
    assert_eq!(broken(&history(1, 15, Verdict::Revoked)), None);
    assert_eq!(broken(&history(15, 30, Verdict::Valid)), None);
    assert!(broken(&history(21, 30, Verdict::Valid)).is_some());
    // The second of two is the one that counts, whichever is acknowledged first.
    let both = [
        issue(0, 10, 20),
        revoke(subject, 1, 55),
        revoke(subject, 22, 30),
        validate(0, Verdict::Valid, 31, 60),
    ];
    assert!(broken(&both).is_some());
}

#[test]
fn a_revoke_without_an_answer_excuses_denials_and_forbids_nothing() {
    let history =
        |answer| [issue(0, 10, 20), revoke(Target::Token(0), 30, NEVER), validate(0, answer, 50, 60)];
    assert_eq!(broken(&history(Verdict::Valid)), None);
    assert_eq!(broken(&history(Verdict::Revoked)), None);
    // Undone by a crash, and alive again.
    let undone = [
        issue(0, 10, 20),
        revoke(Target::Token(0), 30, NEVER),
        validate(0, Verdict::Revoked, 40, 45),
        validate(0, Verdict::Valid, 50, 60),
    ];
    assert_eq!(broken(&undone), None);
    let late = [issue(0, 10, 20), validate(0, Verdict::Revoked, 40, 45), revoke(Target::Token(0), 46, 50)];
    assert!(broken(&late).is_some(), "nobody had asked for it yet");
}

#[test]
fn nothing_is_alive_before_it_was_issued_or_after_it_expired() {
    let early = [issue(0, 10, 20), validate(0, Verdict::Valid, 1, 9)];
    assert_eq!(broken(&early), Some("alive before it was issued"));
    assert_eq!(broken(&[issue(0, 10, 20), validate(0, Verdict::Unknown, 1, 15)]), None);
    let second = 1_000_000_000;
    let at = |asked, answer| [with(|issue| issue.ttl_s = 2), validate(0, answer, asked, asked + 1)];
    assert_eq!(broken(&at(5 * second, Verdict::Valid)), Some("alive after it expired"));
    assert_eq!(broken(&at(5 * second, Verdict::Expired)), None);
    assert_eq!(broken(&at(3 * second, Verdict::Valid)), None);
    assert_eq!(
        broken(&at(second / 2, Verdict::Expired)),
        Some("denied although nobody had set out to revoke it")
    );
    let renewed =
        Operation { client: 0, invoked: 30, returned: NEVER, act: Act::Renew { token: 0, verdict: 0 } };
    let [issued, valid] = at(5 * second, Verdict::Valid);
    assert_eq!(broken(&[issued, renewed, valid]), None, "it may have been renewed");
}

#[test]
fn a_use_is_granted_as_often_as_there_are_uses() {
    let issued = with(|issue| issue.uses = 2);
    let twice =
        [issued, consume(Verdict::Valid, 30), consume(Verdict::Valid, 40), consume(Verdict::Spent, 50)];
    assert_eq!(broken(&twice), None);
    let thrice: Vec<_> = twice.into_iter().chain([consume(Verdict::Valid, 60)]).collect();
    assert_eq!(broken(&thrice), Some("used more often than it has uses"));
}

#[test]
fn no_answer_rests_on_less_than_was_asked_for_or_acknowledged() {
    // The revoke has event 30, and its answer is late.
    let history = |min_sequence, answer| {
        [issue(0, 10, 20), revoke(Target::Token(0), 30, 90), asked(0, answer, min_sequence, 50, 60)]
    };
    assert_eq!(broken(&history(29, Verdict::Valid)), None);
    assert_eq!(broken(&history(30, Verdict::Valid)), Some("alive on a state that has its revoke"));
    assert_eq!(broken(&history(30, Verdict::Revoked)), None);
    let head = |published| Operation { client: 0, invoked: 95, returned: 96, act: Act::Head { published } };
    let [issued, revoked, _] = history(0, Verdict::Valid);
    assert_eq!(broken(&[issued.clone(), revoked.clone(), head(30)]), None);
    assert_eq!(broken(&[issued, revoked, head(29)]), Some("the log is shorter than what was acknowledged"));
}

#[test]
fn an_answer_about_a_token_that_was_never_given_is_an_error_of_the_recording() {
    assert!(broken(&[validate(3, Verdict::Valid, 1, 2)]).is_some());
}

#[test]
fn a_violation_shows_the_answer_and_everything_about_the_token() {
    let other = validate(1, Verdict::Valid, 21, 22);
    let history =
        [issue(0, 10, 20), revoke(Target::Subject(7), 30, 40), validate(0, Verdict::Valid, 41, 60), other];
    let violation = check(|| history.iter().cloned()).map(|_| ()).unwrap_err();
    assert_eq!((violation.token, &violation.answer), (Some(0), &history[2]));
    assert_eq!(violation.around, history[..3]);
    assert!(violation.to_string().contains("validate (min_seq 0) 0: valid"), "{violation}");
}
