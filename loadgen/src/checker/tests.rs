//! Lies are noticed, truths are not taken for lies, also while they change.

use super::*;
use crate::workload::{Asks, Mix, Workload};

fn truth() -> Truth {
    let mix =
        Mix { validate: 60.0, revoke: 10.0, revoke_subject: 10.0, consume: 10.0, renew: 10.0, issue: 0.0 };
    let validate = Asks { live: 90.0, expired: 10.0, ..Asks::none() };
    let mut workload = Workload { mix, validate, ..Workload::default() };
    workload.keys.tokens = 10_000;
    Truth::new(Layout::new(&workload))
}

fn first(truth: &Truth, role: Role) -> u32 {
    truth.layout.region(role).start
}

#[test]
fn what_nobody_touches_has_one_answer() {
    let truth = truth();
    let table = [
        (Role::Live, Ask::Live, vec![Verdict::Valid]),
        (Role::Live, Ask::Granted, vec![Verdict::Valid]),
        (Role::Live, Ask::Forbidden, vec![Verdict::Forbidden]),
        (Role::Live, Ask::Unknown, vec![Verdict::Unknown, Verdict::Denied]),
        (Role::Live, Ask::WrongSecret, vec![Verdict::WrongSecret, Verdict::Denied]),
        (Role::Victim, Ask::Revoked, vec![Verdict::Valid]),
        (Role::Member, Ask::Revoked, vec![Verdict::Valid]),
        (Role::Limited, Ask::Live, vec![Verdict::ConsumeRequired]),
        (Role::Renewable, Ask::Live, vec![Verdict::Valid]),
        (Role::Expired, Ask::Expired, vec![Verdict::Expired, Verdict::Unknown, Verdict::Denied]),
    ];
    for (role, ask, right) in table {
        let probe = truth.probe(first(&truth, role), ask);
        for verdict in (0..12).filter_map(Verdict::from_code) {
            assert_eq!(
                truth.is_right(probe, verdict),
                right.contains(&verdict),
                "{role:?} {ask:?} {verdict:?}"
            );
        }
    }
}

#[test]
fn around_a_revoke_both_answers_are_right_and_after_it_one() {
    let truth = truth();
    let position = first(&truth, Role::Victim);
    let before = truth.probe(position, Ask::Revoked);
    assert!(!truth.is_right(before, Verdict::Revoked), "nobody has asked for it yet");
    let number = truth.next_victim().unwrap();
    let during = truth.probe(position, Ask::Revoked);
    for probe in [before, during] {
        assert!(truth.is_right(probe, Verdict::Valid) && truth.is_right(probe, Verdict::Revoked));
    }
    truth.victim_is_dead(number);
    assert!(truth.is_right(during, Verdict::Valid), "acknowledged while the request was under way");
    let after = truth.probe(position, Ask::Revoked);
    assert!(!truth.is_right(after, Verdict::Valid), "acknowledged as revoked, still valid");
    assert!(truth.is_right(after, Verdict::Denied) && truth.is_right(after, Verdict::Unknown));
    let another = truth.probe(position + 1, Ask::Revoked);
    assert!(!truth.is_right(another, Verdict::Revoked));
}

#[test]
fn a_group_dies_together() {
    let truth = truth();
    let position = first(&truth, Role::Member);
    let number = truth.next_group().unwrap();
    truth.group_is_dead(number);
    for at in 0..GROUP_TOKENS {
        assert!(!truth.is_right(truth.probe(position + at, Ask::Revoked), Verdict::Valid));
    }
    assert!(truth.is_right(truth.probe(position + GROUP_TOKENS, Ask::Revoked), Verdict::Valid));
}

#[test]
fn uses_are_counted_and_end() {
    let truth = truth();
    let before = truth.consume(0);
    assert!(truth.consumed(0, before, Verdict::Valid, USES - 1));
    let before = truth.consume(0);
    assert!(!truth.consumed(0, before, Verdict::Valid, USES - 1), "the same use twice");
    assert!(!truth.consumed(0, 0, Verdict::Valid, USES), "a use that spends nothing");
    assert!(!truth.consumed(0, 0, Verdict::Spent, 0), "there are uses left");
    for _ in 0..USES {
        truth.consume(1);
    }
    let before = truth.consume(1);
    assert!(truth.consumed(1, before, Verdict::Spent, 0));
    assert!(!truth.consumed(1, before, Verdict::Valid, u32::MAX), "one use more than there were");
}

#[test]
fn a_renewal_never_shortens_a_life() {
    let truth = truth();
    let before = truth.expires_at(0);
    assert!(truth.renewed(0, before, 100));
    let before = truth.expires_at(0);
    assert!(truth.renewed(0, before, 100) && !truth.renewed(0, before, 99));
}

#[test]
fn a_later_run_goes_on_where_the_first_one_ended() {
    let first_run = truth();
    for _ in 0..3 {
        first_run.next_victim();
    }
    first_run.victim_is_dead(0);
    first_run.victim_is_dead(2);
    let text = serde_json::to_string(&first_run.progress()).unwrap();
    let later = truth();
    later.restore(Some(&serde_json::from_str(&text).unwrap()));
    let victims = first(&later, Role::Victim);
    let is_right =
        |truth: &Truth, at, verdict| truth.is_right(truth.probe(victims + at, Ask::Revoked), verdict);
    assert!(!is_right(&later, 0, Verdict::Valid) && !is_right(&later, 2, Verdict::Valid));
    assert!(is_right(&later, 1, Verdict::Valid) && is_right(&later, 1, Verdict::Revoked), "nobody knows");
    assert_eq!(later.next_victim(), Some(3));
    let lost = truth();
    lost.restore(None);
    assert!(is_right(&lost, 9, Verdict::Valid) && is_right(&lost, 9, Verdict::Revoked));
    assert_eq!(lost.next_victim(), None);
}
