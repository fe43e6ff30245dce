//! What each command does against a real server.

use std::fs;

use jeton_tests::Server;
use serde_json::Value;

use super::rig::{assert_refused, command, load, said, short, summary};

#[test]
fn every_named_workload_is_answered_rightly() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let listed = load(dir.path(), &["workloads"]);
    let names = String::from_utf8(listed.stdout).unwrap();
    let names: Vec<&str> = names.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let summary = summary(&short(dir.path(), &["-w", name]));
        assert_eq!(summary["workload"]["schedule"]["fixed"], 200, "{name}");
        let text = load(dir.path(), &["workloads", name]).stdout;
        fs::write(dir.path().join("again.toml"), text).unwrap();
    }
    summary(&short(dir.path(), &["-w", "again.toml"]));
}

#[test]
fn resources_are_checked_in_frames_of_every_length() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    for batch in ["1", "2", "3", "64"] {
        let asks = ["--asks", "live=20,granted=40,forbidden=40", "--mix", "validate=100", "--batch", batch];
        summary(&short(dir.path(), &asks));
    }
}

#[test]
fn a_run_without_flags_but_its_length_leaves_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let ran = load(
        dir.path(),
        &["run", "--duration", "2s", "--warm-up", "0s", "--tokens", "2000", "--rate", "500"],
    );
    assert_eq!(ran.status.code(), Some(0), "{}", said(&ran));
    assert!(said(&ran).contains(" requests/s  "), "plain lines, for nobody's terminal: {}", said(&ran));
    let folder = dir.path().join("jeton-load-report");
    let text = |name| fs::read_to_string(folder.join(name)).unwrap();
    assert!(text("report.html").contains("</html>"));
    assert!(text("latency.hlog").starts_with("#[Histogram log format version 1.3]"));
    assert!(text("latency.hgrm").contains("#[Mean    ="));
    let record: Value = serde_json::from_str(&text("run.json")).unwrap();
    assert_eq!(record["detail"]["rows"].as_array().unwrap().len(), 10);
    let made = load(
        dir.path(),
        &["report", "jeton-load-report", "jeton-load-report/run.json", "--out", "both.html"],
    );
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let both = fs::read_to_string(dir.path().join("both.html")).unwrap();
    assert_eq!(both.matches("<h1>").count(), 2);
}

#[test]
fn workers_share_connections_that_come_and_go_in_a_closed_loop() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let flags = [
        "run",
        "--json",
        "--tokens",
        "2000",
        "--duration",
        "1s",
        "--warm-up",
        "0s",
        "--closed",
        "--workers",
        "2",
        "--connections",
        "5",
        "--streams",
        "3",
        "--churn",
        "40",
        "--out",
        "out",
        "--mix",
        "validate=80,issue=5,revoke=5,revoke-subject=2,consume=4,renew=4",
        "--asks",
        "live=50,unknown=10,wrong-secret=10,revoked=10,expired=5,granted=10,forbidden=5",
    ];
    summary(&load(dir.path(), &flags));
    let record = fs::read_to_string(dir.path().join("out/run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert!(record["detail"]["reconnects"].as_u64().unwrap() > 0, "{record}");
    let kinds = record["detail"]["kinds"].as_array().unwrap();
    assert_eq!(kinds.len(), 6, "{kinds:?}");
}

#[test]
fn tokens_are_used_again_and_what_was_revoked_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let flags = ["--token-file", "tokens", "--mix", "validate=50,revoke=50", "--asks", "live=50,revoked=50"];
    let fill = || {
        let record = fs::read_to_string(dir.path().join("out/run.json")).unwrap();
        serde_json::from_str::<Value>(&record).unwrap()["detail"]["fill_per_s"].clone()
    };
    let run = |more: &[&str]| summary(&short(dir.path(), &[&flags[..], &["--out", "out"], more].concat()));
    run(&[]);
    assert!(fill().is_number());
    // A second run asks about what the first one revoked: with another memory of it, it would call that wrong.
    run(&["--seed", "2"]);
    assert!(fill().is_null(), "the tokens of the first run");
    let other = short(dir.path(), &[&flags[..], &["--revocable", "50", "--out", "out"]].concat());
    summary(&other);
    assert!(
        said(&other).contains("tokens is made anew: its key space is of another workload"),
        "{}",
        said(&other)
    );
    assert!(fill().is_number());
}

#[test]
fn a_limit_is_found_with_its_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let flags = [
        "saturate",
        "--slo",
        "p50=5s",
        "--from",
        "50",
        "--up-to",
        "100",
        "--duration",
        "300ms",
        "--warm-up",
        "0s",
        "--tokens",
        "1000",
        "--mix",
        "validate=100",
    ];
    let found = load(dir.path(), &flags);
    assert_eq!(found.status.code(), Some(0), "{}", said(&found));
    assert!(String::from_utf8_lossy(&found.stdout).starts_with("100 requests/s ("), "{found:?}");
    let evidence = fs::read_to_string(dir.path().join("jeton-load-report/saturation.json")).unwrap();
    let evidence: Value = serde_json::from_str(&evidence).unwrap();
    let steps = evidence["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3, "50, 100, and 100 once more: {steps:?}");
    assert!(dir.path().join("jeton-load-report/saturation.html").exists());
    // Nothing answers within a microsecond: no rate holds, and that is not called success.
    let none = load(dir.path(), &[&flags[..], &["--slo", "p50=1us"]].concat());
    assert_eq!(none.status.code(), Some(1), "{}", said(&none));
}

#[test]
fn a_baseline_is_made_and_held_against() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let flags = [
        "compare",
        "base.json",
        "--duration",
        "200ms",
        "--warm-up",
        "0s",
        "--tokens",
        "1000",
        "--rate",
        "100",
        "--mix",
        "validate=100",
    ];
    let made = load(dir.path(), &flags);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    // Whatever the machine does meanwhile, no difference is above a thousand percent's threshold.
    let compared =
        load(dir.path(), &["compare", "base.json", "--threshold", "1000", "--fail-on-regression", "--json"]);
    assert_eq!(compared.status.code(), Some(0), "{}", said(&compared));
    let mut figures: Vec<Value> = serde_json::from_slice(&compared.stdout).unwrap();
    let memory = figures.pop_if(|figure| figure["figure"] == "server_rss_bytes").unwrap();
    assert_eq!(memory["change"], "unjudged", "tokens of earlier invocations are in it");
    // Without the one by processor time, if the server took too little of that to be told.
    assert!(figures.len() >= 6, "{figures:?}");
    assert!(figures.iter().all(|figure| figure["change"] == "noise"), "{figures:?}");
    // What a baseline was measured with cannot be changed beside it.
    let refused = |flags: &[&str], words| {
        assert_refused(&load(dir.path(), &[&["compare", "base.json"], flags].concat()), words);
    };
    refused(&["--duration", "1s", "--mix", "validate=99,issue=1"], "with another duration and another mix: ");
    refused(&["-w", "sessions"], "the baseline was measured with another ");
    refused(&["base.json", "--batch", "3"], "the baseline was measured with another batch: ");
    refused(&["--runs", "7"], "the baseline has 5 runs, and is held against as many");
    // A baseline with a tenth of the latency: now it has regressed.
    let text = fs::read_to_string(dir.path().join("base.json")).unwrap();
    let mut better: Value = serde_json::from_str(&text).unwrap();
    for run in better["runs"].as_array_mut().unwrap() {
        run["latency_us"]["p99"] = 1.into();
    }
    fs::write(dir.path().join("better.json"), better.to_string()).unwrap();
    let worse = load(dir.path(), &["compare", "better.json", "base.json", "--fail-on-regression"]);
    assert_eq!(worse.status.code(), Some(1), "{}", said(&worse));
    assert!(String::from_utf8_lossy(&worse.stdout).contains("regressed"));
    let shrugged = load(dir.path(), &["compare", "better.json", "base.json"]);
    assert_eq!(shrugged.status.code(), Some(0));
}

#[test]
fn a_revoke_is_watched_from_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    let seen = load(dir.path(), &["propagation", "--revokes", "30", "--watchers", "3", "--json"]);
    assert_eq!(seen.status.code(), Some(0), "{}", said(&seen));
    let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(
        (&seen["revokes"], &seen["watchers"], &seen["wrong_replies"]),
        (&30.into(), &3.into(), &0.into())
    );
    assert!(seen["acknowledged_us"]["p50"].as_u64().unwrap() > 0);
}

#[test]
fn a_log_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    summary(&short(dir.path(), &["--mix", "validate=50,issue=20,revoke=20,renew=10"]));
    let shown = std::process::Command::new(jeton_tests::jeton())
        .args(["log", "show", "--json", "--tail", "100"])
        .env("JETON_DATA", dir.path())
        .output()
        .unwrap();
    fs::write(dir.path().join("log.jsonl"), shown.stdout).unwrap();
    let again = load(dir.path(), &["replay", "log.jsonl", "--tokens", "2000", "--json", "--out", "out"]);
    let again = summary(&again);
    assert_eq!(again["workload"]["mix"]["validate"], 0.0, "a log has no validates");
    let trace = "{\"at_ms\":0,\"kind\":\"validate\",\"tokens\":7}\n{\"at_ms\":300,\"kind\":\"validate\",\"tokens\":7}\n";
    fs::write(dir.path().join("trace.jsonl"), trace).unwrap();
    let again = summary(&load(dir.path(), &["replay", "trace.jsonl", "--tokens", "2000", "--json"]));
    assert_eq!(again["workload"]["mix"]["validate"], 100.0);
}

#[test]
fn a_trace_has_tokens_enough_for_all_its_revokes() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(dir.path());
    // A tenth of the victims is revoked before it begins: 190 of 200 would not be left.
    let trace: String =
        (0..190).map(|at| format!("{{\"at_ms\":{},\"kind\":\"revoke\"}}\n", at * 4)).collect();
    fs::write(dir.path().join("trace.jsonl"), trace).unwrap();
    let flags = ["replay", "trace.jsonl", "--tokens", "1000", "--json", "--out", "out"];
    let again = summary(&load(dir.path(), &flags));
    assert_eq!(again["workload"]["mix"]["revoke"], 100.0);
    let record: Value = serde_json::from_slice(&fs::read(dir.path().join("out/run.json")).unwrap()).unwrap();
    assert_eq!(record["detail"]["ran_dry"], false, "{record}");
    // Who finds none left validates instead. (The last is due a millisecond before the end: it may not be sent any more.)
    let kinds: Vec<&Value> =
        record["detail"]["kinds"].as_array().unwrap().iter().map(|of| &of["kind"]).collect();
    assert_eq!(kinds, ["revoke"]);
    let trace = "{\"at_ms\":0,\"kind\":\"renew\"}\n{\"at_ms\":7300000,\"kind\":\"renew\"}\n";
    fs::write(dir.path().join("long.jsonl"), trace).unwrap();
    assert_refused(&load(dir.path(), &["replay", "long.jsonl"]), "--speed 3");
}

#[test]
fn workers_stay_on_their_cores_and_small_datagrams_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let small = [("JETON_LARGE_DATAGRAMS", "false")];
    let _server = Server::start_with(dir.path(), "127.0.0.1:0", &small);
    let flags = ["--large-datagrams", "false", "--closed", "--workers", "2"];
    assert_refused(&short(dir.path(), &["--cores", "0,1023"]), "--cores names 1023: there are ");
    let running =
        command(dir.path(), &["run", "--json", "--tokens", "2000", "--duration", "3s", "--cores", "0"])
            .args(flags)
            .args(["--mix", "validate=100", "--batch", "256"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
    let tasks = format!("/proc/{}/task", running.id());
    let cores_of_workers = || -> Vec<String> {
        let threads = fs::read_dir(&tasks).into_iter().flatten().filter_map(Result::ok);
        let status = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
        let workers = status.filter(|text| text.starts_with("Name:\tjeton-load-"));
        let cores = workers.filter_map(|text| {
            let line = text.lines().find(|line| line.starts_with("Cpus_allowed_list:"))?;
            Some(line.split_whitespace().nth(1)?.to_owned())
        });
        cores.collect()
    };
    let is_bound = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        cores_of_workers() == ["0", "0"]
    });
    let ended = running.wait_with_output().unwrap();
    summary(&ended);
    assert!(is_bound, "both workers are bound to core 0");
}
