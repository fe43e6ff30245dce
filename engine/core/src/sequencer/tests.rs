use super::*;
use crate::command::{IssueTokens, RevokeTarget};
use crate::testing::{Engine, issue_command};
use crate::verdict::Verdict;

fn replies(engine: &mut Engine) -> Vec<(u32, Result<Outcome, Rejection>)> {
    std::iter::from_fn(|| engine.sequencer.poll_reply())
        .map(|(ticket, reply)| (ticket, reply.result))
        .collect()
}

fn assert_in_order(marks: &Watermarks) {
    let order = [marks.replied, marks.published, marks.durable, marks.appended, marks.assigned];
    assert!(order.is_sorted(), "{marks:?}");
}

#[test]
fn an_issue_is_answered_and_valid_only_once_durable() {
    let mut engine = Engine::new();
    engine.submit_as(1, None, issue_command(|_| {}));
    assert!(replies(&mut engine).is_empty());
    let commit = engine.sequencer.poll_commit().unwrap();
    assert!(replies(&mut engine).is_empty(), "appended is not durable");
    assert_in_order(&engine.sequencer.watermarks());
    engine.sequencer.handle_durable(commit.last());
    let answered = replies(&mut engine);
    let Ok(Outcome::Issued { tokens, .. }) = &answered[0].1 else { panic!("not issued") };
    assert_eq!(engine.verdict(&tokens[0]), Verdict::Valid);
    assert_in_order(&engine.sequencer.watermarks());
}

#[test]
fn a_revoke_denies_at_once_and_is_answered_once_durable() {
    let mut engine = Engine::new();
    let token = engine.issue(|_| {});
    engine.submit_as(1, None, Command::Revoke(RevokeTarget::Id(token.id)));
    assert_eq!(engine.verdict(&token), Verdict::Revoked);
    assert!(replies(&mut engine).is_empty());
    assert_eq!(engine.settle().len(), 1);
}

#[test]
fn a_no_op_and_a_rejection_wait_for_what_they_rest_on() {
    let mut engine = Engine::new();
    let token = engine.issue(|_| {});
    engine.submit_as(1, None, Command::Revoke(RevokeTarget::Id(token.id)));
    let no_op = engine.submit_as(1, None, Command::Revoke(RevokeTarget::Id(token.id)));
    let rejected = engine.submit_as(1, None, Command::RenewToken { token, ttl_s: 5, binding: None });
    assert!(replies(&mut engine).is_empty(), "they rest on a revoke that a crash could take back");
    let answered: Vec<_> = engine.settle().into_iter().map(|(ticket, _)| ticket).collect();
    assert_eq!(answered[1..], [no_op, rejected]);
}

#[test]
fn who_issues_as_much_as_he_may_keeps_nobody_from_revoking() {
    let is_busy = |engine: &mut Engine| {
        replies(engine).iter().any(|(_, result)| matches!(result, Err(Rejection::Busy { .. })))
    };
    let mut engine = Engine::new();
    let token = engine.issue(|_| {});
    // Nothing is durable from here on: the answer to everything that is decided is held.
    engine.submit_as(1, None, issue_command(|_| {}));
    let renewal = || Command::RenewToken { token: token.clone(), ttl_s: 5, binding: None };
    let renewals = (0..ANSWERS_HELD_MAX).take_while(|_| {
        engine.submit_as(1, None, renewal());
        !is_busy(&mut engine)
    });
    assert_eq!(renewals.count(), ANSWERS_HELD_MAX - ANSWERS_HELD_MAX / TAKING_SHARE - 1);
    engine.submit_as(1, None, Command::Revoke(RevokeTarget::Id(token.id)));
    assert!(!is_busy(&mut engine), "a revoke has room of its own");
    assert_eq!(engine.verdict(&token), Verdict::Revoked);
}

#[test]
fn a_token_revoked_before_its_issue_is_durable_never_becomes_valid() {
    let mut engine = Engine::new();
    engine.submit_as(1, None, issue_command(|_| {}));
    let subject = crate::testing::name("alice");
    let tenant = crate::testing::name(FIRST_TENANT);
    engine.submit_as(1, None, Command::Revoke(RevokeTarget::Subject { tenant, subject }));
    let answered = engine.settle();
    let Ok(Outcome::Issued { tokens, .. }) = &answered[0].1 else { panic!("not issued") };
    assert_eq!(engine.verdict(&tokens[0]), Verdict::Revoked);
    engine.assert_replays();
}

#[test]
fn rights_are_granted_late_and_withdrawn_early() {
    let mut engine = Engine::new();
    let client = || crate::testing::name("spiffe://test/service");
    let change =
        |rights| crate::command::ChangeRights { client: client(), tenant: crate::testing::name("*"), rights };
    let seen =
        |engine: &Engine| engine.view.registry().caller("spiffe://test/service").granted_in(TenantNo::EVERY);
    let both = Rights::ISSUE.with(Rights::REVOKE);
    engine.submit_as(1, None, Command::GrantRights(change(both)));
    assert_eq!(seen(&engine), Rights::NONE);
    let granted = engine.sequencer.poll_commit().unwrap().last();
    engine.submit_as(1, None, Command::WithdrawRights(change(Rights::ISSUE)));
    engine.submit_as(1, None, Command::GrantRights(change(Rights::AUDIT)));
    engine.sequencer.handle_durable(granted);
    assert_eq!(seen(&engine), Rights::REVOKE, "neither what was withdrawn since nor what is not yet durable");
    engine.settle();
    assert_eq!(seen(&engine), Rights::REVOKE.with(Rights::AUDIT));
}

#[test]
fn a_failed_log_leaves_answers_indeterminate_keeps_denying_and_takes_nothing_new() {
    let mut engine = Engine::new();
    let (token, other) = (engine.issue(|_| {}), engine.issue(|_| {}));
    let limited = engine.issue(|issue| issue.uses_max = 1);
    engine.submit_as(1, None, Command::Revoke(RevokeTarget::Id(token.id)));
    engine.sequencer.poll_commit().unwrap();
    engine.sequencer.handle_failure();
    assert_eq!(replies(&mut engine)[0].1.as_ref().unwrap_err(), &Rejection::Indeterminate);
    assert_eq!(engine.verdict(&token), Verdict::Revoked);
    assert_eq!(engine.verdict(&other), Verdict::Valid);
    assert_eq!(engine.verdict(&limited), Verdict::Unavailable);
    engine.submit_as(1, None, issue_command(|_| {}));
    assert_eq!(replies(&mut engine)[0].1.as_ref().unwrap_err(), &Rejection::LogFailed);
    assert!(engine.sequencer.poll_commit().is_none());
}

#[test]
fn restrictions_refuse_what_they_name_and_never_a_revoke_for_want_of_disk() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.renewable_s = 7_000);
    let revoke = || Command::Revoke(RevokeTarget::Id(token.id));
    let renew = || Command::RenewToken { token: token.clone(), ttl_s: 5_000, binding: None };
    let mut answer = |restrictions, command| {
        engine.sequencer.set_restrictions(restrictions);
        engine.run(command).map(drop)
    };
    let clock = Restrictions { clock_in_doubt: true, ..Restrictions::default() };
    assert_eq!(answer(clock, issue_command(|_| {})), Err(Rejection::ClockInDoubt));
    assert_eq!(answer(clock, renew()), Err(Rejection::ClockInDoubt));
    let disk = Restrictions { disk_low: true, ..Restrictions::default() };
    assert_eq!(answer(disk, issue_command(|_| {})), Err(Rejection::DiskFull));
    assert_eq!(answer(disk, revoke()), Ok(()));
    let stopping = Restrictions { stopping: true, ..Restrictions::default() };
    assert_eq!(answer(stopping, revoke()), Err(Rejection::Stopping));
}

#[test]
fn more_than_fits_in_flight_is_answered_busy_and_nothing_is_lost() {
    let mut engine = Engine::new();
    let mut busy = 0;
    // No token room is used up: subjects are revoked over and over.
    let token = engine.issue(|_| {});
    for _ in 0..ANSWERS_HELD_MAX + 10 {
        engine.submit_as(1, None, Command::Revoke(RevokeTarget::Id(token.id)));
    }
    while let Some((_, reply)) = engine.sequencer.poll_reply() {
        busy += usize::from(matches!(reply.result, Err(Rejection::Busy { .. })));
    }
    assert_eq!(busy, 10);
    assert_eq!(engine.settle().len(), ANSWERS_HELD_MAX);
}

#[test]
fn a_clock_that_steps_back_does_not_take_the_log_with_it() {
    let mut engine = Engine::new();
    engine.issue(|_| {});
    engine.now = Millis(engine.now.0 - 500_000);
    engine.issue(|_| {});
    let times: Vec<_> =
        engine.log.iter().map(|batch| crate::batch::open(&batch.bytes).unwrap().time).collect();
    assert!(times.is_sorted());
    engine.assert_replays();
}

#[test]
fn a_log_with_a_batch_changed_left_out_or_doubled_does_not_replay() {
    let mut engine = Engine::new();
    for _ in 0..3 {
        engine.issue(|_| {});
    }
    let replay = |batches: &[SealedBatch]| {
        let mut replay = crate::recovery::Replay::new(
            crate::testing::LOG,
            crate::numbers::Partition(0),
            crate::testing::SMALL,
            None,
        )
        .unwrap();
        batches
            .iter()
            .try_for_each(|batch| replay.apply(&batch.bytes).map(drop))
            .map_err(|error| error.to_string())
    };
    assert_eq!(replay(&engine.log), Ok(()));
    let mut without = engine.log.clone();
    let first = without.remove(1).first;
    assert!(
        replay(&without).unwrap_err().starts_with(&format!("the log is broken at sequence number {first}"))
    );
    let mut doubled = engine.log.clone();
    doubled.insert(1, doubled[1].clone());
    assert!(replay(&doubled).is_err());
    let mut changed = engine.log.clone();
    changed[2].bytes[200] ^= 1;
    let at = changed[2].first;
    assert!(replay(&changed).unwrap_err().starts_with(&format!("the log is broken at sequence number {at}")));
}

#[test]
fn a_revoke_repeated_while_it_goes_on_is_busy_and_then_has_the_first_outcome() {
    let mut engine = Engine::new();
    engine.issue(|_| {});
    let revoke = || {
        let tenant = crate::testing::name(FIRST_TENANT);
        Command::Revoke(RevokeTarget::Subject { tenant, subject: crate::testing::name("alice") })
    };
    let first = engine.submit_as(1, Some(4), revoke());
    let repeated = engine.submit_as(1, Some(4), revoke());
    let answered = replies(&mut engine);
    assert!(matches!(answered[..], [(ticket, Err(Rejection::Busy { .. }))] if ticket == repeated));
    assert_eq!(engine.settle()[0].0, first);
    let Ok(Outcome::Revoked(report)) = engine.run_as(1, Some(4), revoke()) else { panic!("not revoked") };
    assert_eq!(report.revoked, 1);
}

fn subject_revoke() -> Command {
    let tenant = crate::testing::name(FIRST_TENANT);
    Command::Revoke(RevokeTarget::Subject { tenant, subject: crate::testing::name("alice") })
}

/// Makes everything decided so far durable, without carrying on with revokes under way.
fn make_durable(engine: &mut Engine) -> Vec<(u32, Result<Outcome, Rejection>)> {
    while let Some(commit) = engine.sequencer.poll_commit() {
        engine.log.extend(commit.batches.iter().cloned());
        engine.sequencer.handle_durable(commit.last());
    }
    replies(engine)
}

#[test]
fn a_revoke_behind_one_of_its_subject_is_not_answered_before_readers_deny() {
    let mut engine = Engine::new();
    let token = engine.issue(|_| {});
    let parent = engine.issue(|_| {});
    let child = engine.issue(|issue| issue.parent = Some(parent.id));
    engine.submit_as(1, None, subject_revoke());
    let one = engine.submit_as(1, None, Command::Revoke(RevokeTarget::Id(token.id)));
    let family = engine.submit_as(1, None, Command::Revoke(RevokeTarget::Family(child.id)));
    let answered: Vec<_> = make_durable(&mut engine).into_iter().map(|(ticket, _)| ticket).collect();
    assert_eq!(answered, [one, family], "the subject's tokens are not marked yet");
    for token in [&token, &parent, &child] {
        assert_eq!(engine.verdict(token), Verdict::Revoked);
    }
    engine.settle();
    engine.assert_replays();
}

#[test]
fn a_renewal_is_seen_only_once_durable_and_counted_on_before() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.renewable_s = 100_000);
    let renew = |ttl_s| Command::RenewToken { token: token.clone(), ttl_s, binding: None };
    engine.submit_as(1, None, renew(90_000));
    engine.submit_as(1, None, renew(80_000));
    engine.pass_s(3_600);
    assert_eq!(engine.verdict(&token), Verdict::Expired, "the renewal is not durable");
    let answers = make_durable(&mut engine);
    let expiries: Vec<_> = answers
        .iter()
        .map(|(_, result)| match result {
            Ok(Outcome::Renewed { expires }) => expires.0,
            other => panic!("not renewed: {other:?}"),
        })
        .collect();
    assert_eq!(expiries[0], expiries[1], "the second does not take back what the first gave");
    assert_eq!(engine.verdict(&token), Verdict::Valid);
    engine.assert_replays();
}

#[test]
fn a_renewal_whose_log_failed_gives_nothing() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.renewable_s = 100_000);
    engine.submit_as(1, None, Command::RenewToken { token: token.clone(), ttl_s: 90_000, binding: None });
    engine.sequencer.handle_failure();
    engine.pass_s(3_600);
    assert_eq!(engine.verdict(&token), Verdict::Expired);
}

#[test]
fn a_renewal_under_way_does_not_hide_its_token_from_a_revoke_of_the_subject() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.renewable_s = 100_000);
    engine.submit_as(1, None, Command::RenewToken { token: token.clone(), ttl_s: 90_000, binding: None });
    engine.submit_as(1, None, subject_revoke());
    make_durable(&mut engine);
    engine.settle();
    assert_eq!(engine.verdict(&token), Verdict::Revoked);
    engine.assert_replays();
}

#[test]
fn a_right_withdrawn_is_not_given_back_by_a_later_grant_that_is_not_durable() {
    let mut engine = Engine::new();
    let change = |rights| crate::command::ChangeRights {
        client: crate::testing::name("spiffe://test/service"),
        tenant: crate::testing::name("*"),
        rights,
    };
    let seen =
        |engine: &Engine| engine.view.registry().caller("spiffe://test/service").granted_in(TenantNo::EVERY);
    engine.submit_as(1, None, Command::GrantRights(change(Rights::ISSUE)));
    engine.submit_as(1, None, Command::WithdrawRights(change(Rights::ISSUE)));
    let withdrawn = engine.sequencer.poll_commit().unwrap().last();
    engine.submit_as(1, None, Command::GrantRights(change(Rights::ISSUE)));
    engine.sequencer.handle_durable(withdrawn);
    assert_eq!(replies(&mut engine).len(), 2, "the withdrawal is acknowledged");
    assert_eq!(seen(&engine), Rights::NONE);
    engine.settle();
    assert_eq!(seen(&engine), Rights::ISSUE);
}

#[test]
fn after_a_failure_nothing_is_left_to_wait_for_and_revokes_under_way_are_carried_out() {
    let mut engine = Engine::new();
    let token = engine.issue(|_| {});
    engine.submit_as(1, None, issue_command(|_| {}));
    engine.sequencer.poll_commit().unwrap();
    engine.submit_as(1, None, issue_command(|_| {})); // decided while the commit is on its way
    engine.submit_as(1, None, subject_revoke());
    engine.sequencer.handle_failure();
    let answered = replies(&mut engine);
    assert!(answered.iter().all(|(_, result)| *result.as_ref().unwrap_err() == Rejection::Indeterminate));
    assert_eq!(answered.len(), 3);
    while engine.sequencer.has_work() {
        engine.sequencer.handle_work(engine.now);
    }
    assert!(engine.sequencer.is_idle());
    assert_eq!(engine.verdict(&token), Verdict::Revoked);
}

#[test]
fn no_command_is_cut_in_two_by_the_end_of_a_commit() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.uses_max = 10_000);
    let consume = || {
        let token = token.clone();
        Command::ConsumeToken(crate::command::ConsumeToken {
            token,
            access: None,
            audience: None,
            scopes: None,
            binding: None,
        })
    };
    for round in 0..(COMMIT_BATCHES_MAX + 40) as u64 {
        // Every one at a time of its own, and now and then a command that takes several batches.
        engine.now = Millis(engine.now.0 + 1);
        engine.submit_as(1, Some(round as u16), consume());
        if round % 100 == 0 {
            let subjects = (0..256).map(|at| crate::testing::name(&format!("s{round}-{at}"))).collect();
            engine.submit_as(1, None, issue_command(|issue| issue.subjects = subjects));
        }
    }
    let mut commits = 0;
    while let Some(commit) = engine.sequencer.poll_commit() {
        commits += 1;
        for batch in &commit.batches {
            let entries = crate::batch::open(&batch.bytes).unwrap().entries;
            let last = &entries.last().unwrap().event.fact;
            assert!(!matches!(last, Fact::TokenConsumed { .. }), "a use and its key are in one batch");
        }
        let last = crate::batch::open(&commit.batches.last().unwrap().bytes).unwrap();
        let last = &last.entries.last().unwrap().event.fact;
        assert!(
            !matches!(last, Fact::SubjectNamed { .. }),
            "the tokens of these subjects are in another commit"
        );
        assert!(commit.batches.len() <= COMMIT_BATCHES_MAX + 40);
        engine.sequencer.handle_durable(commit.last());
    }
    assert!(commits > 1);
}

#[test]
fn a_claim_set_that_is_not_durable_is_not_shown() {
    let mut engine = Engine::new();
    engine.submit_as(1, None, issue_command(|_| {}));
    let caller = engine.view.registry().caller(crate::testing::ADMIN);
    let (claims, subject) = (crate::numbers::ClaimsNo(1), crate::numbers::SubjectNo(1));
    assert!(engine.view.registry().claims(&caller, claims).is_none());
    assert!(engine.view.registry().subject(&caller, subject).is_none());
    engine.settle();
    assert!(engine.view.registry().claims(&caller, claims).is_some());
    assert!(engine.view.registry().subject(&caller, subject).is_some());
}

#[test]
fn it_is_ahead_once_enough_was_decided_for_the_next_commit_and_no_longer_once_that_has_left() {
    let mut engine = Engine::new();
    let subjects = |count| (0..count).map(|_| crate::testing::name("alice")).collect::<Vec<_>>();
    for tokens in [1, 16, 256] {
        let mut commands = 0;
        while !engine.sequencer.is_ahead() {
            engine.submit_as(1, None, issue_command(|issue| issue.subjects = subjects(tokens)));
            commands += 1;
        }
        let marks = engine.sequencer.watermarks();
        let unsealed = (marks.assigned.0 - marks.appended.0) as usize;
        assert!(unsealed >= EVENTS_AHEAD_MAX || commands == COMMANDS_AHEAD_MAX, "{unsealed}, {commands}");
        assert!(unsealed < EVENTS_AHEAD_MAX + 2 * tokens + 2, "one command too many at most");
        engine.sequencer.poll_commit().unwrap();
        assert!(!engine.sequencer.is_ahead(), "what was handed out is not ahead any more");
        engine.settle();
    }
}

#[test]
fn answers_that_rest_on_a_commit_under_way_put_it_ahead_too_until_that_is_durable() {
    let mut engine = Engine::new();
    let token = engine.issue(|_| {});
    engine.submit_as(1, None, Command::Revoke(RevokeTarget::Id(token.id)));
    let commit = engine.sequencer.poll_commit().unwrap();
    for _ in 1..ANSWERS_AHEAD_MAX {
        assert!(!engine.sequencer.is_ahead());
        engine.submit_as(1, None, Command::Revoke(RevokeTarget::Id(token.id)));
    }
    assert!(engine.sequencer.is_ahead());
    engine.sequencer.handle_durable(commit.last());
    assert!(!engine.sequencer.is_ahead());
}

#[test]
fn what_is_sealed_ahead_is_what_would_be_sealed_with_the_commit() {
    // Commands of many sizes, some with keys, in steps of a millisecond at times; a commit now and then. `None` never seals ahead.
    let run = |every: Option<usize>| {
        let mut engine = Engine::new();
        let (mut ahead, mut commits) = (0, Vec::new());
        for number in 0..120_usize {
            let tokens = [1, 3, 17, 70, 256][number % 5];
            let change =
                |issue: &mut IssueTokens| issue.subjects = vec![crate::testing::name("alice"); tokens];
            engine.submit_as(1, (number % 3 == 0).then_some(number as u16), issue_command(change));
            engine.now = Millis(engine.now.0 + (number % 7 == 0) as u64);
            let waiting = engine.sequencer.unsealed().count();
            if every.is_some_and(|every| number % every == 0) {
                engine.sequencer.seal_ahead();
                assert_in_order(&engine.sequencer.watermarks());
                assert!(engine.sequencer.has_unsealed());
            }
            ahead += waiting - engine.sequencer.unsealed().count();
            if number % 11 == 10 {
                let commit = engine.sequencer.poll_commit().unwrap();
                assert!(!engine.sequencer.has_unsealed(), "all of it");
                engine.sequencer.handle_durable(commit.last());
                commits.push((commit.behind, commit.denies, commit.batches));
            }
        }
        (ahead, commits)
    };
    let (none, expected) = run(None);
    assert_eq!(none, 0);
    for every in [1, 2, 5] {
        let (ahead, commits) = run(Some(every));
        assert!(ahead > 1_000, "{ahead} events sealed ahead");
        assert!(commits == expected, "sealing ahead every {every} commands made other commits");
    }
}

#[test]
fn what_was_sealed_ahead_is_never_handed_out_once_the_log_has_failed() {
    let mut engine = Engine::new();
    let subjects = vec![crate::testing::name("alice"); 256];
    engine.submit_as(1, None, issue_command(|issue| issue.subjects = subjects));
    engine.sequencer.seal_ahead();
    engine.sequencer.handle_failure();
    assert!(engine.sequencer.poll_commit().is_none());
    assert!(matches!(replies(&mut engine)[..], [(_, Err(Rejection::Indeterminate))]));
    assert!(engine.sequencer.is_idle());
}
