//! Every call by which the store changes or syncs its files, made to fail in four ways: what is told, and that nothing
//! acknowledged is missing afterwards.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use jeton_tests::power::{Calls, Outcome, Trace, calls, crashes, failures, undisturbed};

fn cell(outcomes: &[Outcome]) -> String {
    outcomes.iter().map(Outcome::to_string).collect::<Vec<_>>().join("; ")
}

fn row(calls: &Calls, undisturbed: &Trace) -> String {
    let driver = Path::new(env!("CARGO_BIN_EXE_power"));
    let cells = [
        cell(&crashes(undisturbed, calls, false)),
        cell(&crashes(undisturbed, calls, true)),
        cell(&failures(driver, calls, false)),
        cell(&failures(driver, calls, true)),
    ];
    let path = calls.path.replace("[0-9]*", "<segment>").replace("[0-9A-F]*[0-9A-F]", "*");
    // How often a copy is written is for the standard library to say.
    let times = if path.ends_with('*') { String::new() } else { calls.count.to_string() };
    let step = format!("{} {}", calls.call, path.strip_prefix("data/").unwrap_or(&path));
    format!("{:<46} {:>2}  {:<18} {:<18} {:<28} {}", step, times, cells[0], cells[1], cells[2], cells[3])
}

#[test]
fn every_call_that_fails_has_the_outcome_of_this_table_and_loses_nothing_acknowledged() {
    let recorded = undisturbed(Path::new(env!("CARGO_BIN_EXE_power")));
    assert!(recorded.status.success(), "{}", recorded.words);
    assert!(!recorded.words.contains("failed"), "{}", recorded.words);
    let calls = calls(&recorded.trace);
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(vec![String::new(); calls.len()]));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(at) = Some(next.fetch_add(1, Relaxed)).filter(|at| *at < calls.len()) {
                    let row = row(&calls[at], &recorded.trace);
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
    insta::assert_snapshot!(table);
}
