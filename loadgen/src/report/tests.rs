//! The figures of a report, and its keys.

use std::time::Duration;

use super::hdr::IntervalLog;
use super::*;
use crate::recorder::Sample;
use crate::workload::Schedule;
use crate::workload::kind::Kind;

/// A run of ten seconds in which a request took from 1 us to 1 ms.
pub(crate) fn outcome() -> Outcome {
    let mut whole = Sample::default();
    for us in 1..=1_000 {
        whole.record(Kind::Validate, Duration::from_micros(2 * us), Duration::from_micros(us));
    }
    whole.counts.offered = 1_200;
    whole.counts.achieved = 1_000;
    whole.counts.refused = 100;
    whole.counts.tokens = 64_000;
    whole.counts.no_room = 500;
    whole.counts.lag_us_max = 250;
    let row = |at: u32| Row {
        at_s: f64::from(at),
        seconds: 1.0,
        offered_per_s: 120.0,
        achieved_per_s: 100.0 + f64::from(at),
        p50_us: 1_000,
        p90_us: 1_500,
        p99_us: 2_000,
        p99_9_us: 2_100,
        max_us: 2_200,
        bands: (0..25).map(|band| band * u64::from(at)).collect(),
        server_cores: Some(0.4),
        generator_cores: 0.3,
        server_rss_bytes: Some(100 << 20),
        ..Row::default()
    };
    let mut log = IntervalLog::new("latency", Duration::ZERO);
    log.add(&whole.all_latency(), Duration::ZERO, Duration::from_secs(10));
    Outcome {
        seconds: 10.0,
        counted_seconds: 10.0,
        rows: (1..=10).map(row).collect(),
        log,
        service_log: IntervalLog::default(),
        generator_cpu_s: 3.0,
        server_cpu_s: Some(4.0),
        server_rss_bytes: Some(100 << 20),
        busiest: 0.3,
        held_back: 0.01,
        ran_dry: false,
        is_replay: false,
        failed: None,
        whole,
    }
}

pub(crate) fn record() -> Record {
    Record::new(&Workload::default(), "a test".to_owned(), Some(1_000.0), &outcome())
}

#[test]
fn the_summary_has_the_keys_that_are_promised_and_no_others() {
    let value = serde_json::to_value(&record().summary).unwrap();
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let mut promised: Vec<&str> = "tool, version, machine, target, workload, offered_per_s, achieved_per_s, \
        requests_per_s, tokens_per_s, tokens_per_server_cpu_s, server_cpu_s, generator_cpu_s, server_rss_bytes, \
        refused, errors, wrong_replies, latency_us, service_us"
        .split(", ")
        .collect();
    keys.sort_unstable();
    promised.sort_unstable();
    assert_eq!(keys, promised);
    for times in ["latency_us", "service_us"] {
        let quantiles: Vec<&String> = value[times].as_object().unwrap().keys().collect();
        assert_eq!(quantiles, ["max", "p50", "p90", "p99", "p99_9"]);
    }
}

#[test]
fn offered_achieved_and_refused_are_kept_apart() {
    let summary = record().summary;
    assert_eq!(
        (summary.offered_per_s, summary.achieved_per_s, summary.requests_per_s),
        (120.0, 100.0, 110.0)
    );
    assert_eq!((summary.tokens_per_s, summary.tokens_per_server_cpu_s), (6_400.0, Some(16_000.0)));
    assert_eq!((summary.latency_us.p50, summary.service_us.p50), (1_000, 500));
}

#[test]
fn a_busy_generator_that_falls_behind_is_named_as_the_limit() {
    let mut record = record();
    record.detail.generator_busiest = 0.99;
    let said = warnings(&record);
    assert!(said[0].starts_with("the generator is the limit: its busiest worker worked 99 % of the time"));
    assert!(said[0].contains("(server: 0.40 cores)"), "{}", said[0]);
    (record.summary.achieved_per_s, record.summary.requests_per_s) = (120.0, 120.0);
    assert_eq!(warnings(&record), Vec::<String>::new());
}

#[test]
fn a_server_is_blamed_only_by_a_generator_that_was_free_to_work() {
    let (usual, blamed) = (record(), "the server did not keep up: 110/s of 120/s were answered");
    let said = |record: &Record| warnings(record).concat();
    assert!(said(&usual).starts_with(blamed) && said(&usual).contains("late by 250 us"), "{}", said(&usual));
    let neutral = "only 110/s of 120/s were answered; the generator was not always given its core";
    let mut other = usual.clone();
    other.detail.no_room = 0;
    let roomy = "only 110/s of 120/s were answered, although there was room for more";
    assert!(said(&other).starts_with(roomy), "{}", said(&other));
    let mut other = usual.clone();
    other.detail.generator_held_back = 0.07;
    assert!(
        said(&other).starts_with(neutral) && said(&other).contains("7 % of the time"),
        "{}",
        said(&other)
    );
    // Also where all was answered, and in a closed loop.
    for schedule in [other.summary.workload.schedule.clone(), Schedule::Closed] {
        (other.summary.requests_per_s, other.summary.workload.schedule) = (120.0, schedule);
        assert!(
            said(&other).starts_with("the generator was not always given its core: "),
            "{}",
            said(&other)
        );
    }
    let mut other = usual;
    (other.summary.requests_per_s, other.summary.errors) = (120.0, 100);
    assert_eq!(warnings(&other), Vec::<String>::new(), "all were answered, if with errors");
}

#[test]
fn a_run_that_ended_early_is_offered_what_was_due_while_it_was_counted_and_blames_nobody() {
    let mut outcome = outcome();
    (outcome.counted_seconds, outcome.busiest) = (12.0, 1.0);
    outcome.failed = Some(anyhow::anyhow!("the server's process is gone"));
    let record = Record::new(&Workload::default(), "a test".to_owned(), None, &outcome);
    assert_eq!((record.summary.offered_per_s, record.summary.achieved_per_s), (100.0, 100.0));
    // Nothing was answered after the beginning: what was offered is known all the same.
    outcome.seconds = 0.0;
    let record = Record::new(&Workload::default(), "a test".to_owned(), None, &outcome);
    assert_eq!((record.summary.offered_per_s, record.summary.achieved_per_s), (100.0, 0.0));
    assert_eq!(warnings(&record), Vec::<String>::new());
}

#[test]
fn a_run_of_nothing_but_refusals_has_no_latency_and_is_no_success() {
    let mut outcome = outcome();
    assert!(outcome.check_answers().is_ok());
    outcome.whole = Sample::default();
    (outcome.whole.counts.offered, outcome.whole.counts.refused) = (100, 100);
    let said = outcome.check_answers().unwrap_err().to_string();
    assert!(said.starts_with("nothing was answered as asked: 100 requests were refused"), "{said}");
    let record = Record::new(&Workload::default(), "a test".to_owned(), None, &outcome);
    let html = page::runs(&[record]);
    assert!(
        html.contains("none was answered as asked") && html.contains("<b>-</b><span>p50</span>"),
        "{html}"
    );
    outcome.whole.counts = crate::recorder::Counts::default();
    assert!(outcome.check_answers().is_ok(), "nothing was asked");
}

#[test]
fn a_record_comes_back_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let folder = files::Folder::new(&dir.path().join("made/on/demand")).unwrap();
    folder.save(&record(), &outcome()).unwrap();
    let read = files::read(folder.path()).unwrap();
    let summary = |record: &Record| serde_json::to_string(&record.summary).unwrap();
    assert!(summary(&read) == summary(&record()) && read.detail.rows.len() == 10, "{}", summary(&read));
    // A run that is about to begin has nothing yet to put in the place of this one.
    files::Folder::new(folder.path()).unwrap();
    assert!(files::read(folder.path()).is_ok());
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 7, "no temporary file is left: {left:?}");
    std::fs::write(dir.path().join("nonsense.json"), "{}").unwrap();
    let said = format!("{:#}", files::read(&dir.path().join("nonsense.json")).unwrap_err());
    assert!(said.contains("nonsense.json is no run.json of jeton-load"), "{said}");
    std::fs::write(dir.path().join("file"), "").unwrap();
    let said = format!("{:#}", files::Folder::new(&dir.path().join("file/within")).unwrap_err());
    assert!(said.starts_with("the folder ") && said.contains("cannot be made"), "{said}");
}
