//! Damage to a small data directory, one change at a time: refused by name, put right, or without effect. See
//! `tests/damage` and docs/TESTING.md.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jeton_tests::Server;
use jeton_tests::damage::{
    Change, Failure, Image, Judges, Outcome, Repaired, Report, Workbench, all, every_header, gate, judge_by,
    repair, repair_all, serve,
};

const SEED: u64 = 1;
/// Positions by seed, beside headers and every cut between two records.
const SEEDED: usize = 2_000;
/// Every so many-th refused change is repaired, and of all changes is put before a start.
const REPAIR_STEP: usize = 40;
const SERVE_STEP: usize = 150;
/// Changes that are judged at a time: half of what each takes is waiting for sled's threads and for the disk.
const DESKS: usize = 4;
/// Of the changes to the headers of a small one, every so many-th is judged by the real binary as well.
const HEADER_SAMPLE: usize = 100;
/// Of all changes to a small directory, every so many-th is judged in the gate: a prime, so that it meets each bit.
const SMALL_STEP: usize = 1_009;

async fn images() -> (Image, Image) {
    (Image::make().await.unwrap(), Image::make().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_refused_by_name_put_right_or_without_effect_and_what_is_refused_can_be_repaired() {
    let (image, foreign) = images().await;
    assert!(image.segments().len() >= 2, "{image:?}");
    let changes = gate(&image, SEED, SEEDED);
    let report = judge_by(Judges::RealBinary, DESKS, (&image, &foreign), &changes, || false);
    println!("{report}");
    let is_good = report.failures.is_empty();
    assert!(is_good, "seed {SEED}, of {}: {}", image.keep().display(), report.failures.join("\n"));
    assert_eq!(report.changes(), changes.len());
    assert!(report.sums().iter().all(|sum| *sum > 50), "every outcome comes up: {:?}", report.sums());

    let (mut all, mut some, mut nothing) = (0, 0, 0);
    let chosen: Vec<&Change> = report.refused.iter().step_by(REPAIR_STEP).collect();
    for (change, repaired) in chosen.iter().zip(repairs(&image, &foreign, &chosen)) {
        match repaired {
            Ok(Repaired::Kept(events)) if events == image.events => all += 1,
            Ok(Repaired::Kept(_)) => some += 1,
            Ok(Repaired::Nothing) => nothing += 1,
            Err(failure) => panic!("seed {SEED}: repair after {change}: {}", failure.0),
        }
    }
    let repaired = format!("repaired: {all} kept everything, {some} a part, {nothing} had nothing left");
    println!("{repaired}");
    assert!(all > 10 && some > 10, "{repaired}");

    let identities = image.files.keys().filter(|path| path.starts_with("identities"));
    let of_identities = identities.flat_map(|path| {
        let middle = image.files[path].len() / 2;
        [
            Change::Flip { file: path.clone(), at: middle, bit: 0 },
            Change::Cut { file: path.clone(), bytes: middle },
        ]
    });
    for change in changes.iter().step_by(SERVE_STEP).cloned().chain(of_identities) {
        let outcome = serve(Workbench::new(&image, &foreign), &change).await;
        let outcome = outcome.unwrap_or_else(|failure| panic!("start after {change}: {}", failure.0));
        let is_refused = report.refused.contains(&change);
        let is_of_log = !change.path().starts_with("identities");
        assert!(!is_of_log || is_refused == matches!(outcome, Outcome::Refused(_)), "{change}: {outcome:?}");
    }
}

/// What the repair after each change comes to, in the order of the changes.
fn repairs(image: &Image, foreign: &Image, changes: &[&Change]) -> Vec<Result<Repaired, Failure>> {
    std::thread::scope(|scope| {
        let of_desk = |changes: &[&Change]| -> Vec<_> {
            changes.iter().map(|change| repair(&Workbench::new(image, foreign), change)).collect()
        };
        let per_desk = changes.len().div_ceil(DESKS).max(1);
        let desks: Vec<_> =
            changes.chunks(per_desk).map(|chunk| scope.spawn(move || of_desk(chunk))).collect();
        desks.into_iter().flat_map(|desk| desk.join().unwrap()).collect()
    })
}

/// A batch in the middle of the first segment is gone, with every stale copy that sled has left of it.
fn hole(image: &Image) -> Vec<Change> {
    let file = image.segments()[0].join("db");
    let bytes = &image.files[&file];
    let first_of = |at: usize| u64::from_le_bytes(bytes[at + 32..at + 40].try_into().unwrap());
    let places = bytes.windows(4).enumerate().filter(|(_, four)| four == b"JTNB").map(|(at, _)| at);
    let mut batches: Vec<(u64, usize)> = places.map(|at| (first_of(at), at)).collect();
    batches.sort_unstable();
    let gone = batches[batches.len() / 2].0;
    let copies = batches.into_iter().filter(|(first, _)| *first == gone);
    copies.map(|(_, at)| Change::Zero { file: file.clone(), at }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_keeps_all_up_to_a_hole_and_everything_if_only_the_structure_is_damaged() {
    let (image, foreign) = images().await;
    let log = |file: &str| std::path::PathBuf::from("log").join(file);
    let db = image.segments()[0].join("db");
    let all = image.events;
    let cases: [(&str, Vec<Change>, std::ops::Range<u64>); 5] = [
        ("a hole in the middle", hole(&image), 10..all),
        ("without its anchor", vec![Change::Delete(log("anchor"))], all..all + 1),
        ("with another log's anchor", vec![Change::Foreign(log("anchor"))], all..all + 1),
        ("without its last segment", vec![Change::Delete(image.segments()[1].clone())], 10..all),
        // The checksum of the first message of sled's file: every batch is still in it.
        ("with a damaged structure", vec![Change::Flip { file: db, at: 22, bit: 3 }], all..all + 1),
    ];
    for (what, changes, expected) in cases {
        let bench = Workbench::new(&image, &foreign);
        match repair_all(&bench, &changes) {
            Ok(Repaired::Kept(events)) => assert!(expected.contains(&events), "{what}: {events} of {all}"),
            other => panic!("{what}: {other:?}"),
        }
        let server = Server::start(bench.dir());
        let client = server.admin().await;
        let verdict = client.validate(&image.live, &jeton_client::Check::live()).await.unwrap().verdict;
        let is_there = expected.contains(&all);
        assert_eq!(
            verdict == jeton_client::Verdict::Valid,
            is_there,
            "{what}: the last token is {verdict:?}"
        );
        server.terminate();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_snapshot_of_sleds_that_it_needs_a_log_is_refused_and_all_of_it_is_repaired() {
    let (image, foreign) = (Image::make_old().await.unwrap(), Image::make_small().unwrap());
    let [snapshot] = image.sled_snapshots()[..] else { panic!("not one snapshot: {image:?}") };
    let middle = image.files[snapshot].len() / 2;
    let file = || snapshot.clone();
    for change in [
        Change::Flip { file: file(), at: middle, bit: 0 },
        Change::Cut { file: file(), bytes: middle },
        Change::Delete(file()),
    ] {
        let outcome = serve(Workbench::new(&image, &foreign), &change).await.unwrap();
        assert!(matches!(outcome, Outcome::Refused(_)), "{change}: {outcome:?}");
        let bench = Workbench::new(&image, &foreign);
        let outcome = bench.verify(&change).unwrap();
        assert!(matches!(outcome, Outcome::Refused(_)), "{change}: {outcome:?}");
        println!("{change}: {outcome:?}");
        assert_eq!(repair(&bench, &change).unwrap(), Repaired::Kept(image.events), "{change}");
    }
}

/// Every so many-th change to a small directory, each judged by a worker of `program` and by the real binary.
fn judged_twice(program: &str) -> Report {
    let (image, foreign) = (Image::make_small().unwrap(), Image::make_small().unwrap());
    let changes: Vec<Change> = all(&image).into_iter().step_by(SMALL_STEP).collect();
    let judges = Judges::Workers { program: std::path::Path::new(program), sample: 1 };
    let report = judge_by(judges, DESKS, (&image, &foreign), &changes, || false);
    println!("{report}");
    report
}

#[test]
fn a_worker_says_of_damage_to_the_log_and_to_snapshots_what_the_real_binary_says() {
    let report = judged_twice(env!("CARGO_BIN_EXE_damage"));
    assert!(report.failures.is_empty(), "{}", report.failures.join("\n"));
    assert!(report.changes() > 100 && report.sampled == report.changes(), "{report}");
}

#[test]
fn a_byte_changed_in_any_header_of_a_small_log_and_a_cut_at_any_record_are_noticed_or_without_effect() {
    let (image, foreign) = (Image::make_small().unwrap(), Image::make_small().unwrap());
    let (of_log, of_manifests): (Vec<_>, Vec<_>) =
        every_header(&image, SEED).into_iter().partition(|change| change.path().ends_with("db"));
    let workers = Judges::Workers { program: env!("CARGO_BIN_EXE_damage").as_ref(), sample: HEADER_SAMPLE };
    for (judges, changes, at_least) in [(workers, of_log, 1_000), (Judges::RealBinary, of_manifests, 400)] {
        let report = judge_by(judges, DESKS, (&image, &foreign), &changes, || false);
        println!("{report}");
        assert!(report.failures.is_empty(), "seed {SEED}: {}", report.failures.join("\n"));
        assert!(report.changes() == changes.len() && changes.len() > at_least, "{report}");
    }
}

#[test]
fn a_worker_that_ends_before_it_has_said_anything_is_a_failure() {
    let report = judged_twice("false");
    assert!(report.changes() > 10 && report.sums() == [0; 3], "{report}");
    assert!(report.failures.iter().all(|words| words.contains("and the real binary Ok")), "{report}");
}
