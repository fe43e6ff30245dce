//! kill -9 under mixed load, in starts and in stops, again and again: what was acknowledged is there. See `tests/kill`
//! and docs/TESTING.md.

use jeton_tests::kill::{Plan, Report, kill};
use tokio::task::JoinSet;

/// Side by side, a log each: most of a round is waiting.
const PLANS: [Plan; 5] = [plan(1), plan(2), plan(3), plan(4), plan(5)];

const fn plan(seed: u64) -> Plan {
    Plan { seed, rounds: 10, rounds_per_log: 10 }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_under_mixed_load_lose_nothing_acknowledged() {
    let killing: JoinSet<_> = PLANS.into_iter().map(kill).collect();
    let ended: Result<Vec<Report>, String> = killing.join_all().await.into_iter().collect();
    let reports = match ended {
        Ok(reports) => reports,
        Err(what) => panic!("{what}"),
    };
    let sum = |figure: fn(&Report) -> u64| reports.iter().map(figure).sum::<u64>();
    let ended = sum(|report| report.kills + report.kills_in_stop + report.stops);
    assert_eq!(ended, 50);
    // That the load was one: otherwise nothing was tested.
    let figures = [
        sum(|report| report.kills_in_start),
        sum(|report| report.kills_in_stop),
        sum(|report| report.cut_off),
        sum(|report| report.writes) / 10,
        sum(|report| report.segments - 1),
        sum(|report| report.snapshots),
        sum(|report| report.from_snapshots),
    ];
    assert!(figures.iter().all(|figure| *figure > 2), "{reports:?}");
}
