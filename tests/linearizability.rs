//! What real clients were told by a real server that was killed under them, checked as histories; and that both checks find
//! what they are for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::time::Duration;

use jeton_client::Verdict;
use jeton_tests::linear::full;
use jeton_tests::linear::history::{Act, NEVER, Operation, is_alive, read, verdict};
use jeton_tests::linear::quick::{self, Tally, Violation};
use jeton_tests::linear::record::{Lie, Plan, long, rounds};
use jeton_tests::sim::rng::Rng;

/// Answers about tokens in the long history, and the kills within.
const ANSWERS: u64 = 3_000_000;
const KILLS: u32 = 10;
/// Short histories.
const ROUNDS: u32 = 100;
/// Far beyond what it takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

fn plan(dir: &Path, seed: u64, lie: Option<Lie>) -> Plan {
    Plan { dir: dir.to_owned(), clients: 8, seed, lie, batch: 256, bad_network: false }
}

/// The verdict of the quick check; a history that breaks a rule is kept.
fn checked(dir: tempfile::TempDir, path: &Path) -> Tally {
    quick::check(|| read(path)).unwrap_or_else(|violation| {
        let kept = path.to_owned();
        let _ = dir.keep();
        panic!("{violation}\nthe history is in {}", kept.display())
    })
}

#[test]
fn millions_of_answers_across_kills_keep_every_rule() {
    let dir = tempfile::tempdir().unwrap();
    let recorded = long(&plan(dir.path(), 1, None), ANSWERS, KILLS, LIMIT);
    assert_eq!(recorded.surprises, Vec::<String>::new());
    let tally = checked(dir, &recorded.path);
    println!("{} kills, {:.1} s: {tally:?}", recorded.kills, recorded.took.as_secs_f64());
    assert_eq!(recorded.kills, KILLS);
    // A workload that changes must not stop testing something.
    for (count, least) in [
        (tally.verdicts, ANSWERS),
        (tally.alive, ANSWERS / 20),
        (tally.after_revoke, ANSWERS / 20),
        (tally.after_sequence, ANSWERS / 100),
        (tally.revokes, 200),
        (tally.uses, 100),
        (tally.open, 20),
    ] {
        assert!(count >= least, "{count} of {least}: {tally:?}");
    }
}

#[test]
fn answers_over_a_network_that_loses_repeats_and_exchanges_datagrams_keep_every_rule() {
    const ANSWERS: u64 = 300_000;
    const KILLS: u32 = 3;
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan { bad_network: true, ..plan(dir.path(), 5, None) };
    let recorded = long(&plan, ANSWERS, KILLS, LIMIT);
    assert_eq!(recorded.surprises, Vec::<String>::new());
    let (tally, network) = (checked(dir, &recorded.path), recorded.network.unwrap());
    println!("{} kills, {:.1} s: {tally:?}, {network:?}", recorded.kills, recorded.took.as_secs_f64());
    assert!(tally.verdicts >= ANSWERS && tally.after_revoke > 0 && tally.revokes > 20, "{tally:?}");
    assert!([network.lost, network.repeated, network.late].iter().all(|count| *count >= 50), "{network:?}");
}

#[test]
fn an_order_explains_every_answer_of_short_histories_across_kills() {
    let dir = tempfile::tempdir().unwrap();
    let (mut total, mut open) = (full::Checked::default(), 0);
    let mut broken: Option<Box<Violation>> = None;
    let recorded = rounds(&plan(dir.path(), 2, None), ROUNDS, |_, _, history| {
        open += history.iter().filter(|operation| !operation.is_answered()).count();
        let quick = quick::check(|| history.iter().cloned()).map(drop);
        broken = quick.err().or_else(|| match full::check(history) {
            Ok(checked) => {
                total.tokens += checked.tokens;
                total.steps += checked.steps;
                total.longest = total.longest.max(checked.longest);
                None
            }
            Err(violation) => Some(violation),
        });
        broken.is_none()
    });
    if let Some(violation) = broken {
        let kept = dir.keep();
        panic!("{violation}\nthe history is in {}", kept.display());
    }
    println!("{} kills, {:.1} s, {open} open: {total:?}", recorded.kills, recorded.took.as_secs_f64());
    assert_eq!(recorded.surprises, Vec::<String>::new());
    let enough = [
        total.tokens > u64::from(ROUNDS) * 5,
        total.steps > total.tokens * 3,
        total.longest > 10,
        recorded.kills > ROUNDS / 10,
        open > 0, // of some twenty kills: a quick server leaves little open
    ];
    assert_eq!(enough, [true; 5], "{total:?}, {} kills, {open} open", recorded.kills);
}

/// Records short histories with a lie until both checks have found it.
fn is_found_by_both(lie: Lie, seed: u64) {
    const ROUNDS_MAX: u32 = 120;
    let dir = tempfile::tempdir().unwrap();
    let (mut by_quick, mut by_full) = (None, None);
    let mut count = 0; // some ten, as a rule
    rounds(&plan(dir.path(), seed, Some(lie)), ROUNDS_MAX, |_, _, history| {
        count += 1;
        by_quick = by_quick.take().or(quick::check(|| history.iter().cloned()).err());
        by_full = by_full.take().or(full::check(history).err());
        by_quick.is_none() || by_full.is_none()
    });
    let (quick, full) = (by_quick.expect("the quick check finds it"), by_full.expect("the search finds it"));
    println!("{lie:?} after {count} rounds: {quick}\n{full}");
    // The end of a log is no token's, and has nothing around it.
    let is_shown = |violation: &Violation| {
        let is_it = |operation: &Operation| operation.invoked == violation.answer.invoked;
        violation.token.is_none() || violation.around.iter().any(is_it)
    };
    assert!(full.token.is_some() && is_shown(&full) && is_shown(&quick), "each is shown among what it is of");
}

#[test]
fn clients_that_answer_from_memory_are_found() {
    is_found_by_both(Lie::ClientCache, 3);
}

#[test]
fn a_server_that_was_set_back_to_an_older_copy_is_found() {
    is_found_by_both(Lie::OldCopy, 4);
}

/// Ways to change a history that was kept into one that no server may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// A denial after an acknowledged revoke becomes alive.
    AliveAfterRevoke,
    /// The revokes that a denial rests on were never asked for.
    RevokeForgotten,
    /// A use is granted twice.
    UsedTwice,
    /// A good answer came before the token was issued.
    BeforeIssue,
    /// A good answer that came before a revoke was asked for later.
    AskedLater,
}

const CHANGES: [Change; 5] = [
    Change::AliveAfterRevoke,
    Change::RevokeForgotten,
    Change::UsedTwice,
    Change::BeforeIssue,
    Change::AskedLater,
];

/// One token with everything that names it.
struct OfOne {
    token: u32,
    history: Vec<Operation>,
    limit: u32,
    issued: (u64, u64),
}

fn of_each(history: &[Operation]) -> Vec<OfOne> {
    let issues = history.iter().filter_map(|operation| match operation.act {
        Act::Issue(issue) => Some((issue, operation)),
        _ => None,
    });
    let of = |token: u32, issue: &jeton_tests::linear::history::Issue, issued: &Operation| {
        let targets = issue.targets(token);
        let is_about = |operation: &&Operation| match &operation.act {
            Act::Issue(other) => other.first == issue.first,
            Act::Validate { tokens, .. } => tokens.contains(&token),
            Act::Consume { token: of, .. } | Act::Renew { token: of, .. } => *of == token,
            Act::Revoke { target, .. } => targets.contains(target),
            Act::Head { .. } => false,
        };
        let mut history: Vec<Operation> = history.iter().filter(is_about).cloned().collect();
        for operation in &mut history {
            if let Act::Validate { tokens, verdicts, .. } = &mut operation.act {
                let at = tokens.iter().position(|of| *of == token).unwrap();
                (*tokens, *verdicts) = (vec![token], vec![verdicts[at]]);
            }
            // One token, so that what is changed is about this one alone.
            if let Act::Issue(issue) = &mut operation.act {
                (issue.first, issue.count) = (token, 1);
            }
        }
        OfOne { token, history, limit: issue.uses, issued: (issued.invoked, issued.returned) }
    };
    issues
        .flat_map(|(issue, issued)| issue.tokens().map(move |token| (token, issue, issued)))
        .map(|(token, issue, issued)| of(token, &issue, issued))
        .collect()
}

/// The answer of a reader, if it is one.
fn read_as(operation: &Operation) -> Option<Verdict> {
    match &operation.act {
        Act::Validate { verdicts, .. } if operation.is_answered() => {
            verdicts.first().map(|code| verdict(*code))
        }
        _ => None,
    }
}

/// Acknowledged revokes that were invoked after the issue had returned.
fn certain_revokes(of: &OfOne) -> impl Iterator<Item = &Operation> {
    let is_certain = |operation: &&Operation| {
        matches!(operation.act, Act::Revoke { .. })
            && operation.is_answered()
            && operation.invoked > of.issued.1
    };
    of.history.iter().filter(is_certain)
}

/// The changed history, if there is something to change.
fn changed(of: &OfOne, change: Change, rng: &mut Rng) -> Option<Vec<Operation>> {
    let mut history = of.history.clone();
    let dead_at = certain_revokes(of).map(|revoke| revoke.returned).min().unwrap_or(NEVER);
    let pick = |rng: &mut Rng, fits: &dyn Fn(&Operation) -> bool| {
        let fitting: Vec<usize> = (0..of.history.len()).filter(|at| fits(&of.history[*at])).collect();
        (!fitting.is_empty()).then(|| *rng.pick(&fitting))
    };
    let alive = if of.limit > 0 { Verdict::ConsumeRequired } else { Verdict::Valid };
    match change {
        Change::AliveAfterRevoke => {
            let at = pick(rng, &|operation| read_as(operation).is_some() && operation.invoked > dead_at)?;
            let Act::Validate { verdicts, .. } = &mut history[at].act else { return None };
            *verdicts = vec![alive.code()];
        }
        Change::RevokeForgotten => {
            let is_late = |operation: &Operation| operation.invoked > of.issued.1;
            pick(rng, &|operation| read_as(operation) == Some(Verdict::Revoked) && is_late(operation))?;
            history.retain(|operation| !matches!(operation.act, Act::Revoke { .. }));
        }
        Change::UsedTwice => {
            let uses = |operation: &Operation| matches!(operation.act, Act::Consume { verdict: code, .. } if verdict(code) == Verdict::Valid);
            let at = pick(rng, &|operation| uses(operation) && operation.is_answered())?;
            let again = history[at].clone();
            (0..=of.limit).for_each(|_| history.push(again.clone()));
        }
        Change::BeforeIssue => {
            let at = pick(rng, &|operation| read_as(operation).is_some_and(is_alive))?;
            let before = of.issued.0.checked_sub(2)?;
            (history[at].invoked, history[at].returned) = (before.saturating_sub(1_000), before);
        }
        Change::AskedLater => {
            let at = pick(rng, &|operation| read_as(operation).is_some_and(is_alive) && dead_at != NEVER)?;
            (history[at].invoked, history[at].returned) = (dead_at + 1, dead_at + 1_000);
        }
    }
    Some(history)
}

#[test]
fn real_histories_that_were_changed_are_rejected_by_both_checks() {
    let dir = tempfile::tempdir().unwrap();
    let mut histories = Vec::new();
    rounds(&plan(dir.path(), 5, None), 20, |_, _, history| {
        histories.push(history.to_vec());
        true
    });
    let mut rng = Rng::new(6);
    let mut made = [0; CHANGES.len()];
    for of in histories.iter().flat_map(|history| of_each(history)) {
        assert!(full::check(&of.history).is_ok(), "token {} as it was", of.token);
        for change in CHANGES {
            let Some(history) = changed(&of, change, &mut rng) else { continue };
            made[change as usize] += 1;
            let quick = quick::check(|| history.iter().cloned());
            assert!(quick.is_err(), "{change:?} of token {}: {history:#?}", of.token);
            assert!(full::check(&history).is_err(), "{change:?} of token {}: {history:#?}", of.token);
        }
    }
    println!("{made:?}");
    assert!(made.iter().all(|count| *count >= 5), "each change was made: {made:?}");
}
