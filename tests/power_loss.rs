//! The power goes at every sync of a log's life, in seven ways: nothing acknowledged is missing, and the log goes on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use jeton_tests::power::{Campaign, Lie, Report, SnapshotLie, SnapshotReport, cut_snapshots};

/// The gate's seed; others are for the long mode, `cargo run -p jeton-tests --bin power`.
const SEED: u64 = 0;

fn lived(campaign: Campaign) -> Report {
    campaign.run(Path::new(env!("CARGO_BIN_EXE_power")))
}

fn run(commits: usize, lie: Option<Lie>) -> Report {
    lived(Campaign { seed: SEED, commits, deaths: 0, lie, point: None, keep: None })
}

#[test]
fn two_hundred_commits_survive_a_power_cut_at_every_sync_in_every_variant() {
    let report = run(200, None);
    assert!(report.broken.is_empty(), "{} broken:\n{}", report.broken_count, report.broken.join("\n"));
    assert!(report.refused.is_empty(), "none of them is taken for damage: {:?}", report.refused);
    assert!(report.points >= 250, "{} sync points", report.points);
    assert_eq!(report.images, report.points * 7);
    assert!(report.distinct > report.points * 2, "{} different images", report.distinct);
    assert!(
        report.kept_unacknowledged > 100,
        "{} kept what was not acknowledged",
        report.kept_unacknowledged
    );
}

#[test]
fn what_a_killed_process_left_unsynced_survives_a_power_cut_in_the_next_ones_start() {
    let report = lived(Campaign { seed: SEED, commits: 40, deaths: 8, lie: None, point: None, keep: None });
    assert!(report.broken.is_empty(), "{} broken:\n{}", report.broken_count, report.broken.join("\n"));
    assert!(report.refused.is_empty(), "none of them is taken for damage: {:?}", report.refused);
    assert!(report.deaths >= 6 && report.points >= 100, "{} deaths, {} points", report.deaths, report.points);
    assert!(report.kept_unacknowledged > 20, "{}", report.kept_unacknowledged);
}

#[test]
fn a_start_that_syncs_nothing_that_a_killed_process_left_is_found_out() {
    let lie = Some(Lie::NoSyncAtStart);
    let report = lived(Campaign { seed: SEED, commits: 40, deaths: 8, lie, point: None, keep: None });
    assert!(report.broken_count > 0, "{} losses found", report.broken_count);
}

#[test]
fn a_store_that_trusts_the_flush_of_sled_is_found_out() {
    let report = run(60, Some(Lie::NoDataSync));
    assert!(report.broken_count > 50, "{} losses found", report.broken_count);
}

#[test]
fn a_store_that_does_not_sync_its_directories_is_found_out() {
    let report = run(60, Some(Lie::NoDirectorySync));
    assert!(report.broken_count > 50, "{} losses found", report.broken_count);
}

#[test]
fn a_store_that_does_not_sync_its_anchor_is_refused_and_read_for_repair_without_a_loss() {
    let report = run(60, Some(Lie::NoAnchorSync));
    assert!(report.broken.is_empty(), "{} broken:\n{}", report.broken_count, report.broken.join("\n"));
    assert!(
        report.refused.keys().any(|words| words.contains("is missing or unreadable")),
        "{:?}",
        report.refused
    );
}

fn cut(lie: Option<SnapshotLie>) -> SnapshotReport {
    cut_snapshots(Path::new(env!("CARGO_BIN_EXE_power")), SEED, 12, lie)
}

#[test]
fn a_dozen_snapshots_survive_a_power_cut_at_every_sync_in_every_variant() {
    let report = cut(None);
    assert!(report.broken.is_empty(), "{} broken:\n{}", report.broken_count, report.broken.join("\n"));
    assert!(report.points >= 60, "{} sync points", report.points);
    assert!(report.without > 0, "some are from before the first");
    assert!(report.kept_unacknowledged > 5, "{} kept what was not acknowledged", report.kept_unacknowledged);
}

#[test]
fn snapshots_whose_files_are_not_synced_are_found_out() {
    let report = cut(Some(SnapshotLie::NoDataSync));
    assert!(report.broken_count > 50, "{} losses found", report.broken_count);
}

#[test]
fn snapshots_whose_folder_is_not_synced_are_found_out() {
    let report = cut(Some(SnapshotLie::NoDirectorySync));
    assert!(report.broken_count > 50, "{} losses found", report.broken_count);
}

#[test]
fn snapshots_whose_manifest_may_come_before_its_parts_are_found_out() {
    let report = cut(Some(SnapshotLie::PartsNotNamedFirst));
    assert!(report.broken_count > 0, "{} losses found", report.broken_count);
    let is_said = |words: &String| words.contains("it cannot be read");
    assert!(report.broken.iter().all(is_said), "{:?}", report.broken);
}
