//! Validation in process: digests, and the whole of a validate over a frame, by frame size.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jeton_core::check::{Check, Checks};
use jeton_core::claims::ResourceQuery;
use jeton_core::command::{Command, RevokeTarget};
use jeton_core::sequencer::Sequencer;
use jeton_core::token::{Token, digest, digest_batch};

#[path = "fill.rs"]
mod fill;

use fill::{ADMIN, NOW, Random, Size, decided, filled, issue, setting};

fn digests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("digest");
    let tokens: Vec<[u8; 32]> = (0..64).map(|at| [at; 32]).collect();
    let mut out = [[0; 32]; 64];
    group.throughput(Throughput::Elements(64));
    group.bench_function("64, 16 at a time", |bencher| {
        bencher.iter(|| digest_batch(black_box(&tokens), &mut out))
    });
    let whole: Vec<Token> = tokens.iter().map(|bytes| Token::from_bytes(*bytes)).collect();
    group.bench_function("64, one by one", |bencher| {
        bencher.iter(|| {
            for token in &whole {
                black_box(digest(&token.id, &token.secret));
            }
        });
    });
    group.finish();
}

fn validates(criterion: &mut Criterion) {
    let count = setting("JETON_BENCH_TOKENS", 1_000_000);
    let size = Size { tokens: count, subjects: 1, claim_sets: 1 };
    let (mut sequencer, view, mut tokens) = filled(size);
    let caller = view.registry().caller(ADMIN);
    // In an order that has nothing to do with where records lie, but read from front to back: what a frame costs is then
    // what the index and the slab cost, not what the benchmark's own memory does.
    Random(99).shuffle(&mut tokens);
    let mut group = criterion.benchmark_group(format!("validate, {count} live tokens"));
    let live = Check::default();
    let access = ResourceQuery::new("read", "journal/0/42").ok();
    let granted = Check { access, ..Check::default() };
    for (name, check) in [("live", &live), ("with a grant", &granted)] {
        for size in [1_usize, 16, 64, 512] {
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let mut answers = Vec::new();
                let mut frames = tokens.chunks_exact(size).cycle();
                bencher.iter(|| {
                    let frame = frames.next().expect("it never ends");
                    answers.clear();
                    view.validate(&caller, NOW, black_box(frame), Checks::Same(check), &mut answers);
                    black_box(&answers);
                });
            });
        }
    }
    group.throughput(Throughput::Elements(64));
    group.bench_function("the machine's limit: two random cache lines for each of 64", |bencher| {
        // As many lines as the records take, and an eighth of that as the index does.
        let (records, words) = (Lines::new(count), Lines::new(count / 6 + 1));
        let mut random = Random(5);
        bencher.iter(|| records.sum(&words, &mut random));
    });
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| write(&mut sequencer, size, &is_over));
        group.bench_function(BenchmarkId::new("live, beside 200,000 events a second", 64), |bencher| {
            let mut answers = Vec::new();
            let mut frames = tokens.chunks_exact(64).cycle();
            bencher.iter(|| {
                let frame = frames.next().expect("it never ends");
                answers.clear();
                view.validate(&caller, NOW, black_box(frame), Checks::Same(&live), &mut answers);
                black_box(&answers);
            });
        });
        is_over.store(true, Relaxed);
    });
    group.finish();
}

/// Events a second that a writer applies, in steps of a millisecond: as many issues as revokes of what it issued before.
const EVENTS_PER_S: u32 = 200_000;
const STEP: Duration = Duration::from_millis(1);

/// Writes until it is over, and says how fast it was.
fn write(sequencer: &mut Sequencer<()>, size: Size, is_over: &AtomicBool) {
    let each = (EVENTS_PER_S / 1_000 / 2) as usize;
    let (mut random, mut live) = (Random(3), VecDeque::new());
    let (began, mut steps, mut worked) = (Instant::now(), 0_u32, Duration::ZERO);
    while !is_over.load(Relaxed) {
        let busy_from = Instant::now();
        live.extend(decided(sequencer, &mut random, issue(steps as usize, each, size)));
        for _ in 0..each.min(live.len().saturating_sub(each)) {
            let token = live.pop_front().expect("as many as there are");
            let id = token.id;
            decided(sequencer, &mut random, Command::Revoke(RevokeTarget::Id(id)));
        }
        if sequencer.has_work() {
            sequencer.handle_work(NOW);
        }
        steps += 1;
        worked += busy_from.elapsed();
        std::thread::sleep((began + STEP * steps).saturating_duration_since(Instant::now()));
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = f64::from(steps) * f64::from(EVENTS_PER_S) / 1_000.0 / seconds;
    println!(
        "the writer: {rate:.0} events a second, busy for {:.0} % of them",
        worked.as_secs_f64() / seconds * 100.0
    );
}

/// Memory of cache lines that are asked for at random, 64 at a time, with nothing to wait for in between.
struct Lines(Vec<[u64; 8]>);

impl Lines {
    fn new(count: usize) -> Self {
        // From huge pages where the system gives them by itself, as the slab asks for.
        Self(vec![[1; 8]; count.max(64)])
    }

    fn sum(&self, others: &Self, random: &mut Random) -> u64 {
        let numbers: [u64; 64] = std::array::from_fn(|_| random.next());
        let at = |lines: &Self, number: u64| ((u128::from(number) * lines.0.len() as u128) >> 64) as usize;
        let words: u64 = numbers.iter().map(|number| others.0[at(others, *number)][0]).sum();
        words + numbers.iter().map(|number| self.0[at(self, number.rotate_left(32))][1]).sum::<u64>()
    }
}

criterion_group!(benches, digests, validates);
criterion_main!(benches);
