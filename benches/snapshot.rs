//! Snapshots: writing one beside nothing else, and what a start does with it. `JETON_BENCH_TOKENS=10000000` for other sizes.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jeton::snapshots::SnapshotDir;
use jeton_core::sequencer::Sequencer;
use jeton_core::snapshot::{Manifest, SnapshotWriter};
use jeton_core::state::StateConfig;

#[path = "fill.rs"]
mod fill;

use fill::{Size, filled, setting};

/// Writes a snapshot; returns its manifest, the longest time the sequencer was held, and what the sequencer did in all.
fn write(
    sequencer: &mut Sequencer<()>,
    before: Option<Manifest>,
    dir: &mut SnapshotDir,
) -> (Manifest, Duration, Duration) {
    let (mut longest, mut all) = (Duration::ZERO, Duration::ZERO);
    let mut note = |began: Instant| {
        longest = longest.max(began.elapsed());
        all += began.elapsed();
    };
    let began = Instant::now();
    let cut = sequencer.begin_snapshot().expect("nothing is in the way");
    note(began);
    let mut writer = SnapshotWriter::new(cut, before);
    loop {
        let began = Instant::now();
        let Some(piece) = sequencer.poll_snapshot() else { break };
        note(began);
        writer.take(piece, dir).expect("it is written");
    }
    while writer.write_next(dir).expect("it is written") {}
    let durable = sequencer.watermarks().durable;
    let (manifest, _) = writer.commit(durable, dir).expect("it is there");
    (manifest, longest, all)
}

fn snapshots(criterion: &mut Criterion) {
    let tokens = setting("JETON_BENCH_TOKENS", 1_000_000);
    let size = Size { tokens, subjects: tokens / 10, claim_sets: 1_000 };
    let (mut sequencer, _view, _) = filled(size);
    let memory = sequencer.state().memory();
    println!(
        "{tokens} tokens, {} subjects, {} claim sets: {:.1} bytes a token (index {}, slab {}, lists {})",
        size.subjects,
        size.claim_sets,
        memory.total() as f64 / tokens as f64,
        memory.index_bytes,
        memory.slab_bytes,
        memory.list_bytes
    );
    let data = tempfile::tempdir().expect("a directory");
    let mut dir = SnapshotDir::of(data.path());
    dir.prepare().expect("a folder");
    let began = Instant::now();
    let (manifest, longest, all) = write(&mut sequencer, None, &mut dir);
    let bytes: u64 = manifest.parts().map(|part| part.bytes).sum();
    println!(
        "first snapshot: {} MiB in {:?}; the sequencer was held for {all:?} in all, {longest:?} at a time",
        bytes >> 20,
        began.elapsed()
    );
    let config = StateConfig { tokens_max: 2 * tokens as u32, ..StateConfig::default() };
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10);
    group.throughput(Throughput::Elements(tokens as u64));
    group.bench_function("write, nothing changed", |bencher| {
        bencher.iter(|| write(&mut sequencer, Some(manifest.clone()), &mut dir));
    });
    group.bench_function("open: read, compare hashes, ready to validate", |bencher| {
        bencher.iter_with_large_drop(|| black_box(dir.load(manifest.clone(), config).expect("it is whole")));
    });
    group.bench_function("and what only commands need: lists, families, names", |bencher| {
        bencher.iter_batched(
            || dir.load(manifest.clone(), config).expect("it is whole").0,
            |mut restored| {
                restored.state.make_whole();
                restored
            },
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, snapshots);
criterion_main!(benches);
