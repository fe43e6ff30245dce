//! kill -9 under mixed load, in starts and in stops, again and again: what was acknowledged is there. See `tests/kill`
//! and docs/TESTING.md.

use jeton_tests::kill::{Plan, Report, kill};

/// Side by side, a log each: most of a round is waiting.
const PLANS: [Plan; 5] = [plan(1), plan(2), plan(3), plan(4), plan(5)];

/// So many for each log that fifty of all end in a kill under load, whatever the others end in.
const ROUNDS: u64 = 16;

const fn plan(seed: u64) -> Plan {
    Plan { seed, rounds: ROUNDS, rounds_per_log: ROUNDS }
}

/// Runs a plan where nobody else's starts and checks hold up its clients and its kills.
fn kill_alone(plan: Plan) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(kill(plan))
}

#[test]
fn fifty_kills_under_mixed_load_lose_nothing_acknowledged() {
    let ended = PLANS.map(|plan| std::thread::spawn(move || kill_alone(plan)));
    let ended =
        ended.map(|thread| thread.join().unwrap_or_else(|_| Err("a plan panicked, above".to_owned())));
    let failures: Vec<&String> = ended.iter().filter_map(|ended| ended.as_ref().err()).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    let reports: Vec<Report> = ended.into_iter().flatten().collect();
    let sum = |figure: fn(&Report) -> u64| reports.iter().map(figure).sum::<u64>();
    let ended = sum(|report| report.kills + report.kills_in_stop + report.stops);
    assert_eq!(ended, ROUNDS * PLANS.len() as u64);
    let kills = sum(|report| report.kills);
    assert!(kills >= 50, "kill -9 under load was {kills} of the ends: {reports:?}");
    // That the load was one: otherwise nothing was tested.
    let figures = [
        sum(|report| report.kills_in_start),
        sum(|report| report.kills_in_stop),
        sum(|report| report.cut_off) / 10,
        sum(|report| report.writes) / 100,
        sum(|report| report.segments - 1),
        sum(|report| report.snapshots),
        sum(|report| report.from_snapshots),
    ];
    assert!(figures.iter().all(|figure| *figure > 2), "{reports:?}");
}
