//! Snapshots: writing one beside nothing else, and what a start does with it. `JETON_BENCH_TOKENS=10000000` for other sizes.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use jeton::snapshots::{SNAPSHOTS_DIR, SnapshotDir};
use jeton_core::sequencer::Sequencer;
use jeton_core::snapshot::{Manifest, SnapshotWriter};
use jeton_core::state::StateConfig;

use memmap2::{Advice, MmapMut};

#[path = "fill.rs"]
mod fill;

use fill::{Random, Size, filled, setting};

const PAGE_BYTES: usize = 4_096;
/// Bytes of a file in which as much is written as a snapshot is.
const FILE_BYTES: usize = 4 << 20;

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
    let took = began.elapsed();
    let bytes: u64 = manifest.parts().map(|part| part.bytes).sum();
    println!(
        "first snapshot: {} MiB in {took:?}, {:.0} MB/s; the sequencer was held for {all:?} in all, {longest:?} at a time",
        bytes >> 20,
        mb_per_s(bytes, took)
    );
    let took = write_files(&data.path().join(SNAPSHOTS_DIR), bytes as usize);
    println!(
        "the machine's limit: {:.0} MB/s for as much in files of {} MiB, each synced and renamed",
        mb_per_s(bytes, took),
        FILE_BYTES >> 20
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
    limits(&mut group, &data.path().join(SNAPSHOTS_DIR));
    group.finish();
}

fn mb_per_s(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

/// How long so many bytes take to be written and made durable as a snapshot's are, with nothing else. The files are gone then.
fn write_files(folder: &Path, bytes: usize) -> Duration {
    let mut content = vec![0; FILE_BYTES];
    Random(1).fill(&mut content); // a disk may make less of zeros
    let name = |number: usize| folder.join(format!("limit-{number}"));
    let count = bytes.div_ceil(FILE_BYTES);
    let began = Instant::now();
    for number in 0..count {
        let unfinished = folder.join("limit.unfinished");
        let length = FILE_BYTES.min(bytes - number * FILE_BYTES);
        let mut file = File::create(&unfinished).expect("a file");
        file.write_all(&content[..length]).and_then(|()| file.sync_data()).expect("it is written");
        std::fs::rename(&unfinished, name(number)).expect("it has its name");
    }
    File::open(folder).and_then(|folder| folder.sync_all()).expect("the names are durable");
    let took = began.elapsed();
    (0..count).for_each(|number| std::fs::remove_file(name(number)).expect("it is removed"));
    took
}

/// A file, and as much memory.
struct Piece<'a>(&'a Path, &'a mut [u8]);

/// What the machine takes for the steps of an opening, each by itself, in two threads as a start does: memory is cleared by the
/// kernel when it is first touched, the files are copied into it, and hashed.
fn limits(group: &mut BenchmarkGroup<'_, WallTime>, folder: &Path) {
    let entries =
        std::fs::read_dir(folder).expect("the folder of snapshots").map(|entry| entry.expect("a file"));
    let files: Vec<(PathBuf, usize)> =
        entries.map(|entry| (entry.path(), entry.metadata().expect("a size").len() as usize)).collect();
    let bytes = files.iter().map(|(_, bytes)| bytes).sum();
    let touch = |Piece(_, room): Piece<'_>| room.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
    let copy = |Piece(path, room): Piece<'_>| {
        File::open(path).and_then(|mut file| file.read_exact(room)).expect("it is read");
    };
    let hash = |Piece(_, room): Piece<'_>| {
        black_box(blake3::hash(room));
    };
    group.bench_function("the machine's limit: clear as much memory", |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut room = anonymous(bytes);
            in_two_threads(&files, &mut room, touch);
            room
        });
    });
    let mut room = anonymous(bytes);
    group.bench_function("the machine's limit: copy the files into memory that is there", |bencher| {
        bencher.iter(|| in_two_threads(&files, &mut room, copy));
    });
    group.bench_function("the machine's limit: hash it", |bencher| {
        bencher.iter(|| in_two_threads(&files, &mut room, hash));
    });
}

fn anonymous(bytes: usize) -> MmapMut {
    let room = MmapMut::map_anon(bytes).expect("memory");
    let _ = room.advise(Advice::HugePage); // without, it is slower
    room
}

fn in_two_threads<'a>(
    files: &'a [(PathBuf, usize)],
    mut room: &'a mut [u8],
    work: impl Fn(Piece<'_>) + Sync,
) {
    let mut shares = [Vec::new(), Vec::new()];
    for (number, (path, bytes)) in files.iter().enumerate() {
        let (piece, rest) = room.split_at_mut(*bytes);
        shares[number % 2].push(Piece(path, piece));
        room = rest;
    }
    let work = &work;
    std::thread::scope(|scope| {
        for share in shares {
            scope.spawn(move || share.into_iter().for_each(work));
        }
    });
}

criterion_group!(benches, snapshots);
criterion_main!(benches);
