//! kill -9 under mixed load, in starts and in stops, again and again: what was acknowledged is there. See `tests/kill`
//! and docs/TESTING.md.

use jeton_tests::kill::{Plan, kill};

const PLAN: Plan = Plan { seed: 1, rounds: 50, rounds_per_log: 17 };

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_under_mixed_load_lose_nothing_acknowledged() {
    let report = match kill(PLAN).await {
        Ok(report) => report,
        Err(what) => panic!("{what}"),
    };
    println!("{report:?}");
    let ended = report.kills + report.kills_in_stop + report.stops;
    assert_eq!(ended, PLAN.rounds);
    // That the load was one: otherwise nothing was tested.
    let figures = [
        report.kills_in_start,
        report.kills_in_stop,
        report.cut_off,
        report.writes / 10,
        report.segments - 1,
        report.snapshots,
        report.from_snapshots,
    ];
    assert!(figures.iter().all(|figure| *figure > 2), "{report:?}");
}
