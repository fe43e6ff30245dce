//! The soak in its shortest form: a test of the tool, and that a busy server leaks no descriptor and errs in nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use jeton_tests::soak::{Class, Plan, run};

#[test]
fn under_a_steady_mixed_load_nothing_errs_and_no_descriptor_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan {
        duration: Duration::from_secs(12),
        rate: 100,
        churn: 300,
        every: Duration::from_secs(1),
        seed: 7,
        out: dir.path().to_owned(),
    };
    let report = run(&plan).unwrap();
    assert_eq!(report.errors.0, 0, "{:?}", report.errors.1);
    assert!(report.operations > 1_000, "{} operations", report.operations);
    for class in [Class::Validate, Class::Write, Class::Visit, Class::Audit] {
        let count: u64 = report.samples.iter().map(|sample| sample.latency[class as usize].count).sum();
        assert!(count > 0, "there was a {}", class.name());
    }
    // Memory and latency need an hour and a machine of their own; the rest has to hold here too.
    let flat =
        |what: &str| report.judgement.flat.iter().any(|ruling| ruling.what == what && ruling.is_flat());
    assert!(flat("descriptors") && flat("threads"), "{}", report.judgement);
    let drawn = std::fs::read_to_string(dir.path().join("soak.svg")).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"));
}
