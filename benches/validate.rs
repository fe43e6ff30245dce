//! Validation in process: digests, and the whole of a validate over a frame, by frame size.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jeton_core::check::{Check, Checks};
use jeton_core::claims::ResourceQuery;
use jeton_core::token::{Token, digest, digest_batch};

#[path = "fill.rs"]
mod fill;

use fill::{ADMIN, NOW, Random, Size, filled, setting};

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
    let (_sequencer, view, mut tokens) = filled(Size { tokens: count, subjects: 1, claim_sets: 1 });
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
    group.finish();
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
