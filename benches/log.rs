//! Durable appends by size of commit, beside what a plain file with fdatasync takes for the same bytes.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::io::Write as _;
use std::time::Instant;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jeton_log_store::conformance::batch_after;
use jeton_log_store::{AppendKind, LogStore as _, Options, SledStore, StoredBatch};

/// Bytes of an event in the log, about.
const EVENT_BYTES: usize = 100;
/// Events of one sealed batch, about.
const BATCH_EVENTS: u64 = 64;
/// Events that are made durable one by one for the figure that is printed.
const SYNCS: u32 = 200;

/// The batches of so many events behind this one.
fn commit_after(head: u64, events: u64) -> Vec<StoredBatch> {
    let end = head + events;
    let (mut batches, mut last) = (Vec::new(), head);
    while last < end {
        let count = (end - last).min(BATCH_EVENTS);
        batches.push(batch_after(last, count, count as usize * EVENT_BYTES));
        last += count;
    }
    batches
}

/// How many times a second a plain file makes one more event durable, with nothing else.
fn syncs_per_s() -> f64 {
    let mut file = tempfile::tempfile().expect("a file");
    let mut append =
        || file.write_all(&[7; EVENT_BYTES]).and_then(|()| file.sync_data()).expect("it is written");
    append(); // the first has the file made
    let began = Instant::now();
    for _ in 0..SYNCS {
        append();
    }
    f64::from(SYNCS) / began.elapsed().as_secs_f64()
}

/// Of both only the write and the sync are timed: what is written is made before, each time anew, and given back after.
fn appends(criterion: &mut Criterion) {
    println!(
        "the machine's limit: {:.0} fdatasyncs a second of a plain file, {EVENT_BYTES} bytes appended before each",
        syncs_per_s()
    );
    let mut group = criterion.benchmark_group("durable append");
    group.sample_size(20);
    for events in [1_u64, 16, 64, 256, 1_024] {
        group.throughput(Throughput::Elements(events));
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = SledStore::open(dir.path(), Options::default(), [1; 16]).expect("a log");
        group.bench_function(BenchmarkId::new("sled store", events), |bencher| {
            let mut last = store.head().sequence;
            bencher.iter_batched_ref(
                || {
                    let batches = commit_after(last, events);
                    last += events; // each follows the one before, which is appended by then
                    batches
                },
                |batches| {
                    let head = store.head();
                    store.append(head, batches, AppendKind::Ordinary).expect("it is appended")
                },
                BatchSize::PerIteration,
            );
        });
        let mut file = tempfile::tempfile_in(dir.path()).expect("a file");
        group.bench_function(BenchmarkId::new("plain file", events), |bencher| {
            bencher.iter_batched_ref(
                || vec![7_u8; events as usize * EVENT_BYTES],
                |bytes| file.write_all(bytes).and_then(|()| file.sync_data()).expect("it is written"),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, appends);
criterion_main!(benches);
