//! The fuzz targets without a fuzzer: every kept input, every regression, and seeded mutations of them.
//!
//! `PROPTEST_CASES` sets how many mutations each target gets; libFuzzer (`tests/fuzz/long`) is the better way to try
//! many.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

use jeton_fuzz::{TARGETS, Target};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// Mutations that each target gets.
const CASES: u32 = 5_000;
/// Places in which a mutation changes an input.
const EDITS_MAX: usize = 6;
/// The longest input that is tried.
const INPUT_BYTES_MAX: usize = 8 * 1024;

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

/// The inputs in a folder, by name, so that every run takes them in the same order.
fn inputs(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> = files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    inputs.sort();
    inputs
}

fn kept(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let of = |kind: &str| inputs(&folder(kind).join(name));
    [of("corpus"), of("regressions")].concat()
}

fn broken_by(target: Target, input: &[u8]) -> bool {
    std::panic::catch_unwind(|| target(input)).is_err()
}

#[test]
fn every_kept_input_and_every_regression_keeps_every_promise() {
    for (name, target) in TARGETS {
        let all = kept(name);
        assert!(!all.is_empty(), "{name} has a corpus");
        for (path, input) in all {
            assert!(!broken_by(*target, &input), "{name} is broken by {}", path.display());
        }
    }
}

#[test]
fn nothing_is_kept_that_no_target_takes() {
    for kind in ["corpus", "regressions"] {
        for entry in std::fs::read_dir(folder(kind)).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(
                TARGETS.iter().any(|(target, _)| *target == name),
                "{kind}/{} is orphaned",
                name.display()
            );
        }
    }
    for (name, _) in TARGETS {
        assert!(folder("bin").join(name).with_extension("rs").is_file(), "{name} has a binary for libFuzzer");
    }
}

/// A change of an input.
#[derive(Clone, Debug)]
enum Edit {
    Put(Index, Vec<u8>),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// The rest comes from another input.
    Splice(Index, Index, Index),
}

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(1 << 31), Just(1 << 16), 0..300_u64];
    let little_endian =
        (number, 1..=8_usize).prop_map(|(number, length)| number.to_le_bytes()[..length].to_vec());
    prop_oneof![prop::collection::vec(any::<u8>(), 1..5), little_endian]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<Index>(), some_bytes()).prop_map(|(at, bytes)| Edit::Put(at, bytes)),
        2 => (any::<Index>(), some_bytes()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        2 => (any::<Index>(), 1..20_usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        1 => any::<(Index, Index, Index)>().prop_map(|(at, other, from)| Edit::Splice(at, other, from)),
    ]
}

fn apply(edit: Edit, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let place = |index: Index, bytes: &[u8]| index.index(bytes.len() + 1);
    match edit {
        Edit::Put(at, bytes) => {
            let at = place(at, input);
            let end = input.len().min(at + bytes.len());
            input.splice(at..end, bytes);
        }
        Edit::Insert(at, bytes) => {
            let at = place(at, input);
            input.splice(at..at, bytes);
        }
        Edit::Remove(at, length) => {
            let at = place(at, input);
            input.drain(at..input.len().min(at + length));
        }
        Edit::Splice(at, other, from) => {
            let other = other.get(corpus);
            input.truncate(place(at, input));
            input.extend_from_slice(&other[place(from, other)..]);
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn mutated(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (any::<Index>(), prop::collection::vec(edit(), 1..=EDITS_MAX)).prop_map(move |(which, edits)| {
        let mut input = which.get(&corpus).clone();
        edits.into_iter().for_each(|edit| apply(edit, &mut input, &corpus));
        input
    })
}

#[test]
fn no_seeded_mutation_of_a_kept_input_breaks_a_promise() {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    for (name, target) in TARGETS {
        let corpus: Vec<Vec<u8>> = kept(name).into_iter().map(|(_, input)| input).collect();
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let outcome = TestRunner::new_with_rng(config.clone(), rng).run(&mutated(corpus), |input| {
            if broken_by(*target, &input) { Err(TestCaseError::fail("a promise is broken")) } else { Ok(()) }
        });
        if let Err(TestError::Fail(reason, input)) = &outcome {
            panic!(
                "{name}: {reason} by {:?}: keep it in regressions/{name}",
                input.escape_ascii().to_string()
            );
        }
        outcome.unwrap();
    }
}
