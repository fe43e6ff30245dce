//! Histories made by hand, that must be accepted or rejected; and the search against trying every order.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::super::history::{Issue, NEVER, Target};
use super::super::quick;
use super::*;
use crate::sim::rng::Rng;

const LIVE: Token = Token::Live { limit: 0, left: 0 };

#[test]
fn a_revoke_is_final_once_it_was_acknowledged_and_open_until_then() {
    let issue = (0, 1, Step::Issue { uses: 0 });
    for (is_right, steps) in [
        (true, vec![issue, (2, 3, Step::Alive), (4, 5, Step::Revoke)]),
        (false, vec![issue, (2, 3, Step::Revoke), (4, 5, Step::Alive)]),
        // Asked before the acknowledgement: either answer.
        (true, vec![issue, (2, 5, Step::Revoke), (4, 7, Step::Alive)]),
        // Two readers at the same time must not disagree on which was first.
        (false, vec![issue, (2, 9, Step::Revoke), (3, 4, Step::DeniedBySequencer), (5, 6, Step::Alive)]),
        // A reader's denial says nothing: a crash may have taken back what it rested on.
        (
            true,
            vec![
                issue,
                (2, NEVER, Step::Revoke),
                (3, 4, Step::DeniedByReader { is_excused: true }),
                (5, 6, Step::Alive),
            ],
        ),
        (true, vec![issue, (2, NEVER, Step::Revoke), (5, 6, Step::Alive), (7, 8, Step::DeniedBySequencer)]),
        (
            false,
            vec![issue, (2, NEVER, Step::Revoke), (3, 4, Step::DeniedBySequencer), (5, 6, Step::Renewed)],
        ),
        // Nobody had set out to revoke it.
        (false, vec![issue, (2, 3, Step::DeniedByReader { is_excused: false })]),
        (true, vec![(0, 3, Step::Issue { uses: 0 }), (1, 2, Step::DeniedByReader { is_excused: false })]),
        // Not alive before it was issued, nor before the issue was asked for.
        (false, vec![(5, 6, Step::Issue { uses: 0 }), (1, 2, Step::Alive)]),
        // A revoke by subject before the issue does nothing to it; one beside it may.
        (true, vec![(0, 1, Step::Revoke), (2, 3, Step::Issue { uses: 0 }), (4, 5, Step::Alive)]),
        (true, vec![(0, 4, Step::Revoke), (2, 3, Step::Issue { uses: 0 }), (5, 6, Step::DeniedBySequencer)]),
        (false, vec![(0, 1, Step::Revoke), (2, 3, Step::Issue { uses: 0 }), (5, 6, Step::DeniedBySequencer)]),
    ] {
        assert_eq!(is_linearizable(&steps), is_right, "{steps:?}");
    }
}

#[test]
fn uses_are_counted_in_some_order() {
    let issue = (0, 1, Step::Issue { uses: 2 });
    let used = |from, to, left| (from, to, Step::Used { left });
    for (is_right, steps) in [
        (true, vec![issue, used(2, 5, 0), used(3, 6, 1), (7, 8, Step::Spent)]),
        (false, vec![issue, used(2, 3, 0), used(4, 5, 1)]),
        (false, vec![issue, used(2, 3, 1), used(4, 5, 0), used(6, 7, 0)]),
        (false, vec![issue, used(2, 3, 1), (4, 5, Step::Spent)]),
        // One without an answer may have been carried out late.
        (true, vec![issue, (2, NEVER, Step::MayUse), used(4, 5, 1), (6, 7, Step::Spent)]),
        (true, vec![issue, (2, NEVER, Step::MayUse), used(4, 5, 1), used(6, 7, 0)]),
        (false, vec![issue, used(2, 3, 1), used(4, 5, 0), (6, 7, Step::ConsumeRequired)]),
        (true, vec![issue, used(2, 3, 1), (4, 5, Step::ConsumeRequired)]),
        (false, vec![issue, (2, 3, Step::Alive)]),
    ] {
        assert_eq!(is_linearizable(&steps), is_right, "{steps:?}");
    }
}

/// Every order that time allows, one after the other.
fn by_trying(steps: &[(u64, u64, Step)], done: u32, token: Token) -> bool {
    if done.count_ones() as usize == steps.len() {
        return true;
    }
    let left = || (0..steps.len()).filter(|at| done & (1 << at) == 0);
    let first_return = left().map(|at| steps[at].1).min().unwrap();
    left().any(|at| {
        let after = steps[at].2.from(token).filter(|_| steps[at].0 <= first_return);
        after.is_some_and(|after| by_trying(steps, done | (1 << at), after))
    })
}

#[test]
fn the_search_finds_what_trying_every_order_finds() {
    let mut rng = Rng::new(5);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let uses = rng.below(3) as u32;
        let mut steps = vec![(rng.below(4), 4 + rng.below(8), Step::Issue { uses })];
        for _ in 0..rng.within(1..7) {
            let step = *rng.pick(&[
                Step::Alive,
                Step::ConsumeRequired,
                Step::DeniedByReader { is_excused: true },
                Step::DeniedByReader { is_excused: false },
                Step::Used { left: 0 },
                Step::Used { left: 1 },
                Step::Spent,
                Step::DeniedBySequencer,
                Step::Renewed,
                Step::Revoke,
            ]);
            let invoked = rng.below(20);
            let is_open = rng.one_in(5) && matches!(step, Step::Revoke | Step::Used { .. });
            steps.push(match (is_open, step) {
                (true, Step::Used { .. }) => (invoked, NEVER, Step::MayUse),
                (true, step) => (invoked, NEVER, step),
                (false, step) => (invoked, invoked + rng.below(10), step),
            });
        }
        let expected = by_trying(&steps, 0, Token::Absent);
        assert_eq!(is_linearizable(&steps), expected, "{steps:?}");
        accepted += u32::from(expected);
    }
    assert!((500..19_500).contains(&accepted), "both kinds came up: {accepted} were linearizable");
    assert_eq!(Step::Alive.from(LIVE), Some(LIVE));
}

#[test]
fn what_the_quick_check_rejects_the_full_one_rejects_too() {
    let mut rng = Rng::new(11);
    let (mut both, mut full_alone, mut neither) = (0, 0, 0);
    for _ in 0..20_000 {
        let history = made_up(&mut rng);
        let quick = quick::check(|| history.iter().cloned()).is_ok();
        let full = check(&history).is_ok();
        assert!(quick || !full, "the quick check is wrong: {history:#?}");
        match (quick, full) {
            (false, _) => both += 1,
            (true, false) => full_alone += 1,
            (true, true) => neither += 1,
        }
    }
    assert!(both > 500 && neither > 500, "{both} {full_alone} {neither}");
}

/// A history of one token, its answers by chance.
fn made_up(rng: &mut Rng) -> Vec<Operation> {
    let uses = *rng.pick(&[0, 0, 2]);
    let issue = Issue {
        first: 0,
        count: 1,
        subject: 0,
        resource: 0,
        identity: 0,
        family: None,
        uses,
        ttl_s: 3_600,
        sequence: 1,
    };
    let mut history = vec![Operation { client: 0, invoked: 5, returned: 9, act: Act::Issue(issue) }];
    for _ in 0..rng.within(1..6) {
        let denial = *rng.pick(&[Verdict::Revoked, Verdict::Unknown]);
        let alive = if uses > 0 { Verdict::ConsumeRequired } else { Verdict::Valid };
        let code = (*rng.pick(&[alive, alive, denial])).code();
        let act = match rng.below(4) {
            0 => Act::Revoke { target: *rng.pick(&[Target::Token(0), Target::Subject(0)]), sequence: 1_000 },
            1 if uses > 0 => {
                let (verdict, uses_left) =
                    *rng.pick(&[(Verdict::Valid, 1), (Verdict::Valid, 0), (Verdict::Spent, 0), (denial, 0)]);
                Act::Consume { token: 0, verdict: verdict.code(), uses_left }
            }
            1 => Act::Renew { token: 0, verdict: code },
            _ => Act::Validate { tokens: vec![0], verdicts: vec![code], min_sequence: 0 },
        };
        let invoked = rng.below(30);
        let returned = if rng.one_in(6) { NEVER } else { invoked + 1 + rng.below(8) };
        history.push(Operation { client: 1, invoked, returned, act });
    }
    history
}
