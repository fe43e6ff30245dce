use super::*;
use crate::command::RevokeTarget;
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
    let rejected = engine.submit_as(1, None, Command::RenewToken { token, ttl_s: 5 });
    assert!(replies(&mut engine).is_empty(), "they rest on a revoke that a crash could take back");
    let answered: Vec<_> = engine.settle().into_iter().map(|(ticket, _)| ticket).collect();
    assert_eq!(answered[1..], [no_op, rejected]);
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
    let renew = || Command::RenewToken { token: token.clone(), ttl_s: 5_000 };
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
