//! The index alone: lookups that hit and that miss, by batch and by size, beside what random cache lines cost.
//! `JETON_BENCH_TOKENS=10000000` for other sizes.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jeton_index::{Candidate, IndexConfig, Reader, Record, SEGMENT_RECORDS, State, new};

#[path = "fill.rs"]
mod fill;
#[path = "lines.rs"]
mod lines;

use fill::{Random, setting};

fn look(reader: &Reader, ids: &[[u8; 16]], candidates: &mut [Candidate]) -> usize {
    let pin = reader.pin();
    let candidates = &mut candidates[..ids.len()];
    pin.prefetch(ids);
    if pin.locate(ids, candidates) {
        pin.locate_further(ids, candidates);
    }
    ids.iter()
        .zip(candidates)
        .filter(|(id, candidate)| {
            pin.resolve_plain(id, candidate).is_some() || pin.resolve(id, candidate).is_some()
        })
        .count()
}

fn lookups(criterion: &mut Criterion) {
    let count = setting("JETON_BENCH_TOKENS", 1_000_000);
    let config = IndexConfig {
        tokens_initial: count,
        slots_max: 2 * count as u32,
        segment_records: SEGMENT_RECORDS,
        huge_pages: true,
    };
    let (mut writer, reader) = new(config).expect("memory");
    let mut random = Random(11);
    let mut ids = |count: usize| -> Vec<[u8; 16]> {
        (0..count)
            .map(|_| {
                let mut id = [0; 16];
                random.fill(&mut id);
                id
            })
            .collect()
    };
    let (mut known, unknown) = (ids(count), ids(count.min(1 << 20)));
    for id in &known {
        let record = Record { id: *id, digest: [1; 32], expires_s: 9, issued_s: 1, claims: 1, link: 1 };
        writer.insert(&record, None, State::LIVE).expect("room");
    }
    Random(12).shuffle(&mut known);
    let mut group = criterion.benchmark_group(format!("lookup, {count} tokens"));
    for (name, ids) in [("hit", &known), ("miss", &unknown)] {
        for batch in [1_usize, 16, 64] {
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::new(name, batch), |bencher| {
                let mut candidates = vec![Candidate::default(); batch];
                let mut batches = ids.chunks_exact(batch).cycle();
                bencher.iter(|| {
                    let ids = batches.next().expect("it never ends");
                    black_box(look(&reader, ids, &mut candidates))
                });
            });
        }
    }
    group.throughput(Throughput::Elements(64));
    lines::Limit::of(count).bench(&mut group);
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
