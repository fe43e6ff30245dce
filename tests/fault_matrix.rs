//! Every call by which the store and snapshots change or sync their files, made to fail in four ways: what is told, and that
//! nothing acknowledged is missing afterwards.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use jeton_tests::power::{
    Calls, Fault, Outcome, calls, crashes, failures, run_snapshots, snapshot_failures, undisturbed,
};

fn cell(outcomes: &[Outcome]) -> String {
    outcomes.iter().map(Outcome::to_string).collect::<Vec<_>>().join("; ")
}

/// Makes the table: a row for each kind of call, with the cells that `cells` gives it.
fn table(calls: &[Calls], cells: impl Fn(&Calls) -> [Vec<Outcome>; 4] + Sync) -> String {
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(vec![String::new(); calls.len()]));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(at) = Some(next.fetch_add(1, Relaxed)).filter(|at| *at < calls.len()) {
                    let row = row(&calls[at], &cells(&calls[at]));
                    rows.lock().unwrap()[at] = row;
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap();
    let mut table = format!(
        "{:<48} {:>2}  {:<18} {:<18} {:<28} {}\n",
        "", "", "lost, crash", "done, crash", "lost, go on", "done, go on"
    );
    let mut phase = "";
    for (calls, row) in calls.iter().zip(&rows) {
        if phase != calls.phase {
            phase = &calls.phase;
            writeln!(table, "\n{phase}").unwrap();
        }
        writeln!(table, "  {row}").unwrap();
    }
    table
}

fn row(calls: &Calls, cells: &[Vec<Outcome>; 4]) -> String {
    let [lost_crash, done_crash, lost, done] = cells.each_ref().map(|outcomes| cell(outcomes));
    let path = calls.path.replace("[0-9]*", "<segment>").replace("[0-9A-F]*[0-9A-F]", "*");
    let path = path.replace(&"?".repeat(64), "<hash>").replace(&"?".repeat(20), "<event>");
    // How often a copy is written is for the standard library to say.
    let times = if path.ends_with('*') { String::new() } else { calls.count.to_string() };
    let path = path.strip_prefix("data/").unwrap_or(&path);
    let step = format!("{} {}", calls.call, path.strip_prefix("snapshots/").unwrap_or(path));
    format!("{step:<46} {times:>2}  {lost_crash:<18} {done_crash:<18} {lost:<28} {done}")
}

const DRIVER: &str = env!("CARGO_BIN_EXE_power");

#[test]
fn every_call_that_fails_has_the_outcome_of_this_table_and_loses_nothing_acknowledged() {
    let driver = Path::new(DRIVER);
    let recorded = undisturbed(driver);
    assert!(recorded.status.success(), "{}", recorded.words);
    assert!(!recorded.words.contains("failed"), "{}", recorded.words);
    let table = table(&calls(&recorded.trace), |calls| {
        [
            crashes(&recorded.trace, calls, false),
            crashes(&recorded.trace, calls, true),
            failures(driver, calls, false),
            failures(driver, calls, true),
        ]
    });
    insta::assert_snapshot!(table);
}

#[test]
fn every_call_under_a_snapshot_that_fails_has_the_outcome_of_this_table_and_leaves_the_one_before() {
    let driver = Path::new(DRIVER);
    let run = run_snapshots(driver, None);
    assert!(run.recorded.status.success() && run.recorded.words.is_empty(), "{}", run.recorded.words);
    let table = table(&run.calls(), |calls| {
        [
            run.crashes(calls, false),
            run.crashes(calls, true),
            snapshot_failures(driver, calls, false),
            snapshot_failures(driver, calls, true),
        ]
    });
    insta::assert_snapshot!(table);
}

#[test]
fn while_a_disk_fails_for_good_no_snapshot_is_written_and_the_last_one_stays() {
    for (call, path) in [
        ("create", "data/snapshots/*"),
        ("write", "data/snapshots/*"),
        ("fdatasync", "data/snapshots/*"),
        ("rename", "data/snapshots/*"),
        ("fsync", "data"),
        ("fsync", "data/snapshots"),
    ] {
        for is_kept in [false, true] {
            let after = "third snapshot";
            let fault = Fault { after, call, path, number: 0, error: "EIO", is_kept, is_crash: false };
            let run = run_snapshots(Path::new(DRIVER), Some(&fault));
            assert!(run.recorded.words.ends_with("it does not come back\n"), "{}", run.recorded.words);
            run.check_since_fault().unwrap_or_else(|words| panic!("{}: {words}", fault.to_text()));
        }
    }
}

/// sled wakes nobody at one of the places where it notes that a write failed; which one it is is for threads to say, and once
/// in ten or twenty it is that one.
#[test]
fn a_write_that_fails_is_told_at_once_and_does_not_hang_the_commit() {
    const ROUNDS: usize = 12;
    let driver = Path::new(DRIVER);
    let recorded = undisturbed(driver);
    let all = calls(&recorded.trace);
    let writes = all.iter().find(|calls| {
        calls.phase == "rotation" && calls.call == "write" && calls.path == "data/log/[0-9]*/db"
    });
    let writes = writes.expect("a rotation writes to the next segment");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..ROUNDS / 4 {
                    assert_eq!(failures(driver, writes, false), [Outcome::Poisoned]);
                }
            });
        }
    });
}
