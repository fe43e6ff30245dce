//! What every log store must do, as one suite. A new store is done when it passes.

use crate::store::{AppendError, AppendKind, LogStore, Position, ReadError, StoredBatch};

/// A log that can be opened again and again.
pub trait Fixture {
    /// Opens the log; it is created the first time. Whoever had it open before has closed or dropped it.
    fn open(&mut self) -> Box<dyn LogStore>;
}

/// A batch of `count` events behind `after`, with bytes and chain that its number makes.
#[must_use]
pub fn batch_after(after: u64, count: u64, bytes: usize) -> StoredBatch {
    let (first, last) = (after + 1, after + count);
    StoredBatch { first, last, chain: chain_at(last), bytes: vec![(first % 251) as u8; bytes] }
}

fn chain_at(sequence: u64) -> [u8; 32] {
    let mut chain = [0; 32];
    chain[..8].copy_from_slice(&sequence.to_be_bytes());
    chain
}

fn position_at(sequence: u64) -> Position {
    if sequence == 0 { Position::START } else { Position { sequence, chain: chain_at(sequence) } }
}

fn append(store: &mut dyn LogStore, batches: &[StoredBatch]) {
    let expected = store.head();
    let end = store.append(expected, batches, AppendKind::Ordinary);
    assert_eq!(end, Ok(position_at(batches.last().expect("a batch").last)));
    assert_eq!(end.ok(), Some(store.head()));
}

fn read_all(store: &mut dyn LogStore, bytes_max: usize) -> Vec<StoredBatch> {
    let mut all: Vec<StoredBatch> = Vec::new();
    for _ in 0..100_000 {
        let next = all.last().map_or(store.first(), |batch| batch.last + 1);
        let page = store.read_from(next, bytes_max).expect("the log is whole");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
    panic!("the log does not end");
}

/// Runs every case, each on a fixture of its own.
///
/// # Panics
/// If the store does not conform; the message names the rule.
pub fn run<F: Fixture>(make: impl Fn() -> F) {
    type Case = fn(&mut dyn Fixture);
    let cases: [(&str, Case); 7] = [
        ("a new log is empty", a_new_log_is_empty),
        ("what was appended is read back in order", what_was_appended_is_read_back),
        ("a read starts with the batch that holds the number", a_read_starts_inside_a_batch),
        ("an append at another place is a conflict and writes nothing", a_conflict_writes_nothing),
        ("what was acknowledged is there after opening again", it_is_there_after_opening_again),
        ("a drop without close loses nothing acknowledged", a_drop_loses_nothing),
        ("batches of every size are kept", batches_of_every_size_are_kept),
    ];
    for (rule, case) in cases {
        eprintln!("conformance: {rule}");
        case(&mut make());
    }
}

fn a_new_log_is_empty(fixture: &mut dyn Fixture) {
    let mut store = fixture.open();
    assert_eq!((store.head(), store.first(), store.anchor()), (Position::START, 1, None));
    assert_eq!(store.read_from(1, 1_000), Ok(Vec::new()));
}

fn what_was_appended_is_read_back(fixture: &mut dyn Fixture) {
    let mut store = fixture.open();
    let (one, two, three) = (batch_after(0, 3, 10), batch_after(3, 1, 2_000), batch_after(4, 9, 0));
    append(&mut *store, std::slice::from_ref(&one));
    append(&mut *store, &[two.clone(), three.clone()]);
    for bytes_max in [0, 10, 2_005, 1 << 20] {
        assert_eq!(read_all(&mut *store, bytes_max), [one.clone(), two.clone(), three.clone()]);
    }
}

fn a_read_starts_inside_a_batch(fixture: &mut dyn Fixture) {
    let mut store = fixture.open();
    append(&mut *store, &[batch_after(0, 3, 10), batch_after(3, 4, 10)]);
    let firsts = |store: &mut dyn LogStore, sequence| -> Result<Vec<u64>, ReadError> {
        Ok(store.read_from(sequence, 1_000)?.iter().map(|batch| batch.first).collect())
    };
    assert_eq!(firsts(&mut *store, 2), Ok(vec![1, 4]));
    assert_eq!(firsts(&mut *store, 4), Ok(vec![4]));
    assert_eq!(firsts(&mut *store, 7), Ok(vec![4]));
    assert_eq!(firsts(&mut *store, 8), Ok(vec![]));
    assert_eq!(firsts(&mut *store, 100), Ok(vec![]));
    assert_eq!(firsts(&mut *store, 0), Err(ReadError::Trimmed { first: 1 }));
}

fn a_conflict_writes_nothing(fixture: &mut dyn Fixture) {
    let mut store = fixture.open();
    append(&mut *store, &[batch_after(0, 3, 10)]);
    let head = store.head();
    let elsewhere = Position { chain: [7; 32], ..head };
    for expected in [Position::START, elsewhere, position_at(9)] {
        let batch = batch_after(expected.sequence, 1, 10);
        assert_eq!(
            store.append(expected, &[batch], AppendKind::Essential),
            Err(AppendError::Conflict { head })
        );
    }
    assert_eq!(read_all(&mut *store, 1_000).len(), 1);
}

fn it_is_there_after_opening_again(fixture: &mut dyn Fixture) {
    let mut written = Vec::new();
    for round in 0..3_u64 {
        let mut store = fixture.open();
        assert_eq!(store.head(), position_at(round * 20));
        assert_eq!(read_all(&mut *store, 100), written);
        for _ in 0..5 {
            let batches = [batch_after(store.head().sequence, 4, 300)];
            append(&mut *store, &batches);
            written.extend(batches);
        }
        store.close().expect("a store closes");
    }
}

fn a_drop_loses_nothing(fixture: &mut dyn Fixture) {
    let id = {
        let mut store = fixture.open();
        append(&mut *store, &[batch_after(0, 4, 300)]);
        store.log_id()
    };
    let mut store = fixture.open();
    assert_eq!((store.log_id(), store.head()), (id, position_at(4)));
    assert_eq!(read_all(&mut *store, 100).len(), 1);
}

fn batches_of_every_size_are_kept(fixture: &mut dyn Fixture) {
    let mut store = fixture.open();
    let max = store.max_batch_bytes();
    let mut written = Vec::new();
    for bytes in [0, 1, 100, 4_096, max - 1, max] {
        let batch = batch_after(store.head().sequence, 1 + bytes as u64 % 7, bytes);
        append(&mut *store, std::slice::from_ref(&batch));
        written.push(batch);
    }
    assert_eq!(read_all(&mut *store, 1 << 20), written);
    drop(store);
    assert_eq!(read_all(&mut *fixture.open(), 1 << 20), written);
}
