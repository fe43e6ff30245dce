//! Durable appends by size of commit, beside what a plain file with fdatasync takes for the same bytes.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::io::Write as _;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jeton_log_store::conformance::batch_after;
use jeton_log_store::{AppendKind, LogStore as _, Options, SledStore};

/// Bytes of an event in the log, about.
const EVENT_BYTES: usize = 100;
/// Events of one sealed batch, about.
const BATCH_EVENTS: u64 = 64;

fn appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable append");
    group.sample_size(20);
    for events in [1_u64, 16, 64, 256, 1_024] {
        group.throughput(Throughput::Elements(events));
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = SledStore::open(dir.path(), Options::default(), [1; 16]).expect("a log");
        group.bench_function(BenchmarkId::new("sled store", events), |bencher| {
            bencher.iter(|| {
                let head = store.head();
                let mut batches = Vec::new();
                let mut last = head.sequence;
                while last < head.sequence + events {
                    let count = (head.sequence + events - last).min(BATCH_EVENTS);
                    batches.push(batch_after(last, count, count as usize * EVENT_BYTES));
                    last += count;
                }
                store.append(head, &batches, AppendKind::Ordinary).expect("it is appended")
            });
        });
        let mut file = tempfile::tempfile_in(dir.path()).expect("a file");
        let bytes = vec![7; events as usize * EVENT_BYTES];
        group.bench_function(BenchmarkId::new("plain file", events), |bencher| {
            bencher.iter(|| file.write_all(&bytes).and_then(|()| file.sync_data()).expect("it is written"));
        });
    }
    group.finish();
}

criterion_group!(benches, appends);
criterion_main!(benches);
