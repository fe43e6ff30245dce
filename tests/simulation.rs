//! The simulator's seeds: that none breaks a promise, that each is always the same, and that mistakes are found.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jeton_tests::sim::{MISTAKES, Report, Seen, run};

/// The seeds of the gate; more of them in the simulator's long mode.
const SEEDS: u64 = 2_000;
/// Within so many seeds each deliberate mistake has to be found.
const SEEDS_TO_FIND_A_MISTAKE: u64 = 300;

/// What the seeds of the gate have to come through, each several times.
const SITUATIONS: [&str; 63] = [
    "valid",
    "forbidden",
    "consume_required",
    "unavailable",
    "unknown",
    "wrong_secret",
    "not_yet_valid",
    "expired",
    "revoked",
    "spent",
    "binding_mismatch",
    "denied",
    "a dead token told as unknown, or denied",
    "read under a revoke by subject",
    "a use spent",
    "a key repeated",
    "a key used again after its time",
    "a denial undone by a crash",
    "a digest compared",
    "a commit waited for space",
    "the log failed",
    "a lie of the disk, noticed",
    "a rotten bit",
    "a torn write",
    "a write that was there before an earlier one",
    "a torn file of snapshots",
    "a datagram lost",
    "a datagram that came twice",
    "a datagram that overtook another",
    "lost with its connection",
    "a snapshot written",
    "a snapshot amid a renewal",
    "a table on its way to the next",
    "time told, for want of room",
    "a start from a snapshot",
    "a start from a snapshot and events behind it",
    "a file of snapshots that rots",
    "a damaged snapshot passed over",
    "a gap",
    "a lost tail",
    "another tail",
    "behind",
    "busy",
    "three clients waited for their turns",
    "decided ahead of a full commit",
    "sealed ahead of a commit",
    "too slow",
    "renewed",
    "rights changed",
    "clients listed",
    "claims shown",
    "rejected: busy",
    "rejected: clock in doubt",
    "rejected: disk full",
    "rejected: indeterminate",
    "rejected: key reused",
    "rejected: last admin",
    "rejected: limit",
    "rejected: log failed",
    "rejected: not renewable",
    "rejected: out of range",
    "rejected: parent not live",
    "rejected: tenant exists",
];

/// Seeds that once broke a promise, each with what it was about.
const PINNED: [(u64, &str); 3] = [
    (
        1_001_126,
        "nineteen revokes by subject in a queue, carried out a token at a time, all have to be answered",
    ),
    (
        304,
        "a key used again while a snapshot is written, by an event that a crash then loses, is in the snapshot",
    ),
    (5_585, "the same in the same millisecond: a snapshot has what had come of the key at its event"),
];

/// What each deliberate mistake is found by: a promise, not a panic or a number that ran over. Of an answer it is what was told.
const FOUND_BY: [(&str, &str); MISTAKES.len()] = [
    ("DurableBeforeSync", "watermarks out of order"),
    ("AnchorIgnored", "a log of another history is not refused"),
    ("DatagramReadTwice", "the server refuses what a client says in order"),
    ("AnswerForgotten", "faults are healed, and somebody is not answered"),
    ("AnswerBeforeDurable", "and the disk has less"),
    ("PublishAtOnce", "for readers, not"),
    ("SubjectRevokeForgetsOne", "an inspection says"),
    ("ExpiryOffByOne", ": Answer { verdict: Valid"),
    ("ConsumeWithoutEvent", "a use was spent without an event"),
    ("MovedAndUnlisted", "an inspection says"),
    ("ReclaimedAlive", ": Answer { verdict: Unknown"),
    ("UsesForgottenInMove", "an inspection says"),
    ("KeysForgottenInReplay", "a replay ends in another state than the one that is running"),
    ("IssueOverRevoke", "an inspection says"),
    ("PendingRevokeCounts", "an inspection says"),
    ("RenewalSeenAtOnce", ": Answer { verdict: Forbidden"),
    ("CommandCutInTwo", "a crash parted the events"),
    ("BindingNotAsked", ": Answer { verdict: Valid"),
    ("OneScopeIsEnough", ": Answer { verdict: Valid"),
    ("FamilyForgetsRoot", ": Answer { verdict: Valid"),
    ("RightGivenBack", "for readers, not"),
    ("DeadClaimsReused", "an inspection says"),
    ("RenewalShortens", "a renewal, to"),
    ("ParentNotAsked", "a command that has to be rejected has events"),
    ("KeyOfAnother", "a key that was used for another command is taken"),
    ("FailureAcknowledged", "or on what is not published"),
    ("NewestNotCovered", "a consume has to come to"),
    ("NumbersSeenEarly", "subject 1 is Some("),
    ("SnapshotBeforeDurable", "and the log ends at"),
    ("SnapshotForgetsRenewals", ": Answer { verdict: Revoked"),
    ("SnapshotAmidMarking", "a start from a snapshot ends in another state than a replay"),
    ("SnapshotForgetsUses", "an inspection says"),
    ("SnapshotUnlisted", "a start from a snapshot ends in another state than a replay"),
    ("ClientNeverServed", "was served"),
    ("TurnWithoutEnd", "was served"),
    ("OrderWithinClientSwapped", "came first"),
    ("ChainNotAsked", "a log with a gap is not refused"),
    ("PartNotCompared", "a start from a snapshot ends in another state than a replay"),
    ("SealedAheadForgotten", "the chain is broken"),
    ("RevokeRefusedOnLowDisk", "it is refused for what is not so"),
    ("RevokeRefusedOnDoubt", "it is refused for what is not so"),
    ("KeptRoomGivenAway", "a command that has to be rejected has events"),
    ("BusyTooEarly", "it is refused for what is not so"),
    ("StopNotAsked", "a command that has to be rejected has events"),
    ("QueueRoomGivenAway", "taken in, and there is no room"),
    ("TurnedAwayTooEarly", "turned away, and there is room"),
    ("FamilyLimitNotAsked", "a family has more members than it may"),
];

/// Does `work` with each number below `until`, on every core.
fn on_all_cores(until: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Relaxed) {
                        number if number < until => work(number),
                        _ => break,
                    }
                }
            });
        }
    });
}

#[test]
fn no_seed_breaks_a_promise_and_every_situation_comes_up() {
    let (reports, broken) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    on_all_cores(SEEDS, |seed| {
        if broken.lock().unwrap().is_empty() {
            match run(seed, None) {
                Ok(report) => reports.lock().unwrap().push(report),
                Err(found) => broken.lock().unwrap().push(found),
            }
        }
    });
    if let Some(broken) = broken.into_inner().unwrap().first() {
        panic!("{broken}");
    }
    let reports = reports.into_inner().unwrap();
    let mut seen = Seen::default();
    reports.iter().for_each(|report| seen.add(&report.seen));
    for situation in SITUATIONS {
        assert!(seen.times(situation) >= 10, "'{situation}' hardly ever comes up: the workload has changed");
    }
    let total = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    println!(
        "{} seeds: {} steps, {} verdicts, {} writes acknowledged, {} crashes, {} starts refused",
        reports.len(),
        total(|report| report.steps),
        total(|report| report.verdicts),
        total(|report| report.acknowledged),
        total(|report| report.crashes),
        total(|report| report.refused),
    );
}

#[test]
fn a_seed_is_always_the_same_run() {
    for seed in 0..20 {
        assert_eq!(run(seed, None), run(seed, None), "seed {seed}");
    }
    let traces: std::collections::BTreeSet<_> = (0..20).map(|seed| run(seed, None).unwrap().trace).collect();
    assert_eq!(traces.len(), 20, "another seed is another run");
}

#[test]
fn seeds_that_once_broke_a_promise_keep_it() {
    for (seed, what) in PINNED {
        if let Err(broken) = run(seed, None) {
            panic!("once more, {what}: {broken}");
        }
    }
}

#[test]
fn every_deliberate_mistake_is_found() {
    let missed = Mutex::new(Vec::new());
    on_all_cores(MISTAKES.len() as u64, |at| {
        let mistake = MISTAKES[at as usize];
        match (0..SEEDS_TO_FIND_A_MISTAKE).find_map(|seed| run(seed, Some(mistake)).err()) {
            Some(broken) => {
                // The line that it prints is enough to see it again.
                assert_eq!(run(broken.seed, Some(mistake)), Err(broken.clone()));
                let name = mistake.name();
                let what: String = broken.what.chars().take(90).collect();
                println!("{name}: seed {}, step {}: {what}", broken.seed, broken.step);
                let due = FOUND_BY.iter().find(|(of, _)| *of == name).map(|(_, due)| *due);
                let due = due.expect("each mistake has its line");
                let is_due = broken.what.contains(due) && !broken.what.starts_with("it panicked");
                assert!(is_due, "{name} is found by something else than '{due}': {}", broken.what);
            }
            None => missed.lock().unwrap().push(mistake),
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found by {SEEDS_TO_FIND_A_MISTAKE} seeds: {missed:?}");
}
