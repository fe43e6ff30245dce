use super::{EPOCH_MS, Haste};
use crate::command::{Command, ConsumeToken, RevokeTarget};
use crate::outcome::{LimitName, Outcome, Rejection};
use crate::sequencer::FIRST_TENANT;
use crate::state::State;
use crate::testing::{Engine, issue_command, name};
use crate::token::Token;
use crate::verdict::Verdict;

const HOUR_S: u64 = 3_600;

/// An engine with `count` tokens of a subject each, that live for an hour.
fn with_tokens(count: usize) -> (Engine, Vec<Token>) {
    let mut engine = Engine::new();
    let issue = |at| engine.issue(|issue| issue.subjects = vec![name(&format!("subject-{at}"))]);
    let tokens = (0..count).map(issue).collect();
    (engine, tokens)
}

/// Time passes, and something happens that lets the state notice; then rounds until none is due.
fn pass(engine: &mut Engine, seconds: u64) -> Token {
    engine.pass_s(seconds);
    engine.issue(|issue| issue.subjects = vec![name("passing")])
}

fn by_id(token: &Token) -> RevokeTarget {
    RevokeTarget::Id(token.id)
}

#[test]
fn expired_tokens_go_and_their_memory_with_them() {
    let (mut engine, tokens) = with_tokens(500);
    let before = engine.sequencer.state().memory();
    pass(&mut engine, HOUR_S + 1);
    assert_eq!(engine.verdict(&tokens[0]), Verdict::Expired, "told by its name for a minute");
    pass(&mut engine, 61);
    assert_eq!(engine.verdict(&tokens[0]), Verdict::Unknown);
    assert_eq!(engine.sequencer.state().tokens(), 2);
    let after = engine.sequencer.state().memory();
    assert!(after.slab_bytes * 20 < before.slab_bytes, "{before:?}, then {after:?}");
    assert!(matches!(engine.run(Command::Revoke(by_id(&tokens[0]))), Err(Rejection::NotFound)));
    engine.assert_replays();
}

#[test]
fn a_revoked_token_is_told_so_for_ten_minutes_and_then_goes() {
    let (mut engine, tokens) = with_tokens(3);
    engine.revoke(by_id(&tokens[1]));
    pass(&mut engine, 1);
    for _ in 0..10 {
        pass(&mut engine, EPOCH_MS / 10_000);
        assert_eq!(engine.verdict(&tokens[1]), Verdict::Revoked);
    }
    pass(&mut engine, EPOCH_MS / 1_000 + 61);
    assert_eq!(engine.verdict(&tokens[1]), Verdict::Unknown);
    assert_eq!(engine.verdict(&tokens[0]), Verdict::Valid);
    engine.assert_replays();
}

#[test]
fn tokens_of_claims_that_were_killed_go_although_no_segment_says_that_they_died() {
    let (mut engine, tokens) = with_tokens(20);
    pass(&mut engine, 61); // a round, so that every segment was looked at
    let wide = RevokeTarget::Tenant { tenant: name(FIRST_TENANT) };
    engine.revoke(wide);
    for _ in 0..4 {
        assert_eq!(engine.verdict(&tokens[0]), Verdict::Revoked, "told by its name for ten minutes");
        pass(&mut engine, 61);
    }
    pass(&mut engine, 2 * EPOCH_MS / 1_000 + 61);
    pass(&mut engine, 61);
    assert_eq!(engine.verdict(&tokens[0]), Verdict::Unknown);
    assert!(engine.sequencer.state().tokens() < 10);
    engine.assert_replays();
}

#[test]
fn a_token_of_killed_claims_that_is_moved_before_it_goes_is_not_forgotten() {
    let mut engine = Engine::new();
    let of_killed = |engine: &mut Engine| {
        engine.issue(|issue| {
            let grants = ["read on ledger/7".parse().unwrap()];
            issue.claims = crate::claims::Claims::new([], [], grants, Default::default()).unwrap();
            issue.ttl_s = 100_000;
        })
    };
    let long = |engine: &mut Engine| drop(engine.issue(|issue| issue.ttl_s = 100_000));
    // A segment of eight: most of it expires early, and what is left of it is moved behind others that live for long.
    let killed = [of_killed(&mut engine), of_killed(&mut engine)];
    (0..5).for_each(|_| drop(engine.issue(|issue| issue.ttl_s = 120)));
    (0..20).for_each(|_| long(&mut engine));
    let pattern = "ledger/**".parse().unwrap();
    engine.revoke(RevokeTarget::Resource { tenant: name(FIRST_TENANT), pattern });
    for seconds in [61, 200, 61, 61] {
        engine.pass_s(seconds);
        long(&mut engine);
    }
    assert_eq!(engine.verdict(&killed[0]), Verdict::Revoked, "told by its name for ten minutes");
    assert_eq!(engine.sequencer.state().tokens(), 26, "those that expired are gone");
    for seconds in [2 * EPOCH_MS / 1_000 + 61, 61, 61] {
        engine.pass_s(seconds);
        long(&mut engine);
    }
    assert_eq!(killed.each_ref().map(|token| engine.verdict(token)), [Verdict::Unknown; 2]);
    engine.assert_replays();
}

#[test]
fn tokens_that_were_moved_can_be_renewed_used_and_revoked_as_before() {
    let (mut engine, _) = with_tokens(40);
    // One in eight outlives the others: their segments become sparse.
    let mut keep = Vec::new();
    for at in 0..80_u32 {
        let token = engine.issue(|issue| {
            issue.subjects = vec![name("keeper")];
            if at.is_multiple_of(8) {
                (issue.ttl_s, issue.uses_max, issue.renewable_s) = (20_000, 3, 20_000);
            }
        });
        if at.is_multiple_of(8) {
            assert_eq!(uses_left_after(&mut engine, &token), 2);
            keep.push(token);
        }
    }
    let before = engine.sequencer.state().memory().slab_bytes;
    pass(&mut engine, HOUR_S + 1);
    pass(&mut engine, 61);
    assert!(engine.sequencer.state().memory().slab_bytes * 3 < before);
    assert_eq!(uses_left_after(&mut engine, &keep[0]), 1, "uses spent before the move still count");
    engine.assert_replays();
    let target = RevokeTarget::Subject { tenant: name(FIRST_TENANT), subject: name("keeper") };
    assert_eq!(engine.revoke(target).revoked, keep.len() as u64);
    assert!(keep.iter().all(|token| engine.verdict(token) == Verdict::Revoked));
    engine.assert_replays();
}

#[test]
fn a_family_is_found_by_a_member_that_was_replaced_until_that_has_expired() {
    let mut engine = Engine::new();
    let root = engine.issue(|issue| issue.ttl_s = 10_000);
    let child = engine.issue(|issue| (issue.parent, issue.ttl_s) = (Some(root.id), 20_000));
    let grandchild = engine.issue(|issue| (issue.parent, issue.ttl_s) = (Some(child.id), 30_000));
    engine.revoke(by_id(&root));
    engine.revoke(by_id(&child));
    pass(&mut engine, 3 * EPOCH_MS / 1_000);
    pass(&mut engine, 61);
    assert_eq!(engine.verdict(&child), Verdict::Revoked, "whoever shows this one has stolen it");
    pass(&mut engine, 10_000);
    assert_eq!(engine.verdict(&root), Verdict::Revoked, "the root stays as long as it has members");
    assert_eq!(engine.revoke(RevokeTarget::Family(child.id)).revoked, 1);
    assert_eq!(engine.verdict(&grandchild), Verdict::Revoked);
    pass(&mut engine, 30_000);
    pass(&mut engine, 61);
    assert_eq!(engine.verdict(&root), Verdict::Unknown);
    assert_eq!(engine.sequencer.state().tokens(), 2, "all of the family is gone");
    engine.assert_replays();
}

#[test]
fn a_replay_needs_no_more_room_than_what_it_repeats() {
    let mut engine = Engine::new();
    let most = crate::testing::SMALL.tokens_max as usize;
    for _ in 0..8 {
        let subjects: Vec<_> = (0..200).map(|at| name(&format!("subject-{at}"))).collect();
        for _ in 0..most / 2 / 200 {
            let command = issue_command(|issue| issue.subjects.clone_from(&subjects));
            engine.run(command).unwrap();
        }
        pass(&mut engine, HOUR_S + 62);
    }
    assert!(engine.sequencer.state().tokens() < most);
    engine.assert_replays();
}

/// Uses left after one more.
fn uses_left_after(engine: &mut Engine, token: &Token) -> u32 {
    let consume =
        ConsumeToken { token: token.clone(), access: None, audience: None, scopes: None, binding: None };
    match engine.run(Command::ConsumeToken(consume)) {
        Ok(Outcome::Consumed { uses_left, .. }) => uses_left,
        other => panic!("not consumed: {other:?}"),
    }
}

#[test]
fn a_renewal_of_what_is_dead_gives_nothing_reclaimed_or_not() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.renewable_s = 7_200);
    engine.revoke(RevokeTarget::Id(token.id));
    let after = |reclaims: bool| {
        let (mut state, _reader) =
            State::new(crate::testing::LOG, crate::numbers::Partition(0), crate::testing::SMALL).unwrap();
        for batch in &engine.log {
            let batch = crate::batch::open(&batch.bytes).unwrap();
            for (at, entry) in (batch.first.0..).zip(&batch.entries) {
                if let Some(publication) =
                    state.apply(crate::numbers::Sequence(at), batch.time, entry).unwrap()
                {
                    state.publish(&publication);
                }
            }
        }
        if reclaims {
            while state.reclaim_walks(usize::MAX, Haste::Every) {}
            assert_eq!(state.tokens(), 0);
        }
        // No engine writes such an event, but a log can hold one.
        let expires_s = engine.now.floor_seconds().0 + 7_000;
        let fact = crate::event::Fact::TokenRenewed { id: token.id.0, renewed_s: 0, expires_s };
        let entry = crate::event::Entry { event: crate::event::Event { actor: 1, fact }, detached: None };
        let given = state.apply(state.sequence().next(), engine.now, &entry).unwrap();
        (given, state.digest())
    };
    assert_eq!(after(false).0, None);
    assert_eq!(after(false), after(true));
}

/// Fills all room there is with tokens that live for a minute.
fn full() -> Engine {
    let mut engine = Engine::new();
    let many = || issue_command(|issue| (issue.subjects, issue.ttl_s) = (vec![name("many"); 250], 60));
    while engine.run(many()).is_ok() {}
    engine
}

#[test]
fn a_server_that_was_full_issues_again_once_its_tokens_have_died_although_nothing_else_is_written() {
    let mut engine = full();
    let last = engine.log.len();
    let one = |issue: &mut crate::command::IssueTokens| issue.subjects = vec![name("late"); 250];
    assert!(engine.run(issue_command(one)).is_err() && engine.log.len() == last, "nothing is written for it");
    for (seconds, batches) in [(59, 0), (1, 1), (59, 1)] {
        engine.pass_s(seconds);
        assert!(
            matches!(engine.run(issue_command(one)), Err(Rejection::Limit(LimitName::Tokens))),
            "they are still told by name"
        );
        assert_eq!(engine.log.len(), last + batches, "one event a minute says that time has passed");
    }
    engine.pass_s(62);
    assert!(
        matches!(engine.run(issue_command(one)), Err(Rejection::Limit(LimitName::Tokens))),
        "the round begins by it"
    );
    engine.issue(one);
    assert_eq!(engine.sequencer.state().tokens(), 250);
    engine.assert_replays();
}

#[test]
fn a_family_that_was_full_takes_members_again_once_they_have_died() {
    let mut engine = Engine::new();
    let root = engine.issue(|issue| issue.ttl_s = 100_000);
    let child = |engine: &mut Engine| {
        engine.run(issue_command(|issue| {
            (issue.parent, issue.ttl_s, issue.subjects) = (Some(root.id), 30, vec![name("child"); 250])
        }))
    };
    while child(&mut engine).is_ok() {}
    engine.pass_s(200);
    assert!(matches!(child(&mut engine), Err(Rejection::Limit(LimitName::Family))));
    assert!(child(&mut engine).is_ok());
    engine.assert_replays();
}

#[test]
fn a_replay_has_room_for_whatever_the_server_had_room_for_families_too() {
    let mut engine = Engine::new();
    let most = crate::testing::SMALL.tokens_max as usize;
    let root = engine.issue(|issue| issue.ttl_s = 10);
    engine.issue(|issue| (issue.parent, issue.ttl_s) = (Some(root.id), 10));
    let mut left = most - 3 - 3;
    while left > 0 {
        let count = left.min(250);
        engine.issue(|issue| (issue.subjects, issue.ttl_s) = (vec![name("many"); count], 100_000));
        left -= count;
    }
    // The first round takes the member, the second the root; a replay makes none until the last issue needs the room.
    let change = |client: &str| crate::command::ChangeRights {
        client: name(client),
        tenant: name(FIRST_TENANT),
        rights: crate::rights::Rights::ISSUE,
    };
    for (seconds, client) in [(100, "one"), (161, "another")] {
        engine.pass_s(seconds);
        engine.run(Command::GrantRights(change(client))).unwrap();
    }
    engine.issue(|issue| (issue.subjects, issue.uses_max) = (vec![name("alice"); 3], 3));
    engine.assert_replays();
}

#[test]
fn what_was_revoked_goes_although_writes_come_a_multiple_of_four_epochs_apart() {
    let mut engine = Engine::new();
    let token = engine.issue(|issue| issue.ttl_s = 300_000_000);
    engine.issue(|issue| issue.ttl_s = 300_000_000);
    engine.revoke(by_id(&token));
    pass(&mut engine, 61);
    assert_eq!(engine.verdict(&token), Verdict::Revoked);
    pass(&mut engine, 4 * EPOCH_MS / 1_000);
    pass(&mut engine, 4 * EPOCH_MS / 1_000);
    assert_eq!(engine.verdict(&token), Verdict::Unknown);
    engine.assert_replays();
}
