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
use jeton_core::verdict::Verdict;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

#[path = "fill.rs"]
mod fill;
#[path = "lines.rs"]
mod lines;

use fill::{ADMIN, NOW, Over, Random, Size, claim_set_of, decided, filled, issue, setting};

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

/// Tokens in an order that has nothing to do with where records lie, but read from front to back: what a frame costs is then
/// what the index and the slab cost, not what the benchmark's own memory does. Beside each the number of its claim set.
fn shuffled(tokens: Vec<[u8; 32]>, size: Size) -> (Vec<[u8; 32]>, Vec<u16>) {
    let set_of = |at: usize| u16::try_from(claim_set_of(at, size)).expect("some thousands of claim sets");
    let mut pairs: Vec<_> = tokens.into_iter().enumerate().map(|(at, token)| (token, set_of(at))).collect();
    Random(99).shuffle(&mut pairs);
    pairs.into_iter().unzip()
}

fn validates(criterion: &mut Criterion) {
    let count = setting("JETON_BENCH_TOKENS", 1_000_000);
    let claim_sets = setting("JETON_BENCH_CLAIM_SETS", 1_000);
    let size = Size { tokens: count, subjects: count.div_ceil(10), claim_sets };
    let (mut sequencer, view, tokens) = filled(size);
    let (tokens, sets) = shuffled(tokens, size);
    let caller = view.registry().caller(ADMIN);
    let name = format!("validate, {count} live tokens of {claim_sets} claim sets");
    let mut group = criterion.benchmark_group(name);
    let mut answers = Vec::new();
    let mut ask = |frame: &[[u8; 32]], checks: Checks<'_>| {
        answers.clear();
        view.validate(&caller, NOW, black_box(frame), checks, &mut answers);
        assert!(answers.iter().all(|answer| answer.verdict == Verdict::Valid));
    };
    let live = Check::default();
    for size in [1_usize, 16, 64, 512] {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("live", size), |bencher| {
            let mut frames = tokens.chunks_exact(size).cycle();
            bencher.iter(|| ask(frames.next().expect("it never ends"), Checks::Same(&live)));
        });
    }
    let resources: Vec<String> = (0..claim_sets).map(|number| format!("journal/{number}/42")).collect();
    for size in [1_usize, 16, 64, 512] {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("with a grant, each its own", size), |bencher| {
            let mut frames = tokens.chunks_exact(size).zip(sets.chunks_exact(size)).cycle();
            let mut checks = Vec::with_capacity(size);
            bencher.iter(|| {
                let (frame, sets) = frames.next().expect("it never ends");
                checks.clear();
                checks.extend(sets.iter().map(|set| {
                    let access = ResourceQuery::new("read", &resources[usize::from(*set)]).ok();
                    Check { access, ..Check::default() }
                }));
                ask(frame, Checks::Each(&checks));
            });
        });
    }
    group.throughput(Throughput::Elements(64));
    let mut limit = lines::Limit::of(count);
    limit.bench(&mut group);
    let mut frames = tokens.chunks_exact(64).cycle();
    by_turns(|| ask(frames.next().expect("it never ends"), Checks::Same(&live)), || limit.ask());
    let (is_over, reader_core) = (AtomicBool::new(false), stay());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            keep_off(reader_core);
            write(&mut sequencer, size, &is_over);
        });
        let _over = Over(&is_over);
        group.bench_function(BenchmarkId::new("live, beside 200,000 events a second", 64), |bencher| {
            let mut frames = tokens.chunks_exact(64).cycle();
            bencher.iter(|| ask(frames.next().expect("it never ends"), Checks::Same(&live)));
        });
    });
    group.finish();
}

/// How often a frame and its limit are measured in turn, and for how long each time. The machine may be another one a moment
/// later: only what was measured beside one another can be compared.
const TURNS: usize = 15;
const TURN: Duration = Duration::from_millis(400);

/// Prints what a token of a frame of 64 and its two random lines take by turns, and how they compare.
fn by_turns(mut frame: impl FnMut(), mut limit: impl FnMut()) {
    let (mut of_frames, mut of_lines, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..TURNS {
        // Each is first in turn: a machine that grows slower favours what comes first.
        let early = (turn % 2 == 0).then(|| ns_per_token(&mut frame));
        let lines = ns_per_token(&mut limit);
        let token = early.unwrap_or_else(|| ns_per_token(&mut frame));
        of_frames.push(token);
        of_lines.push(lines);
        ratios.push(token / lines);
    }
    let turns: Vec<_> =
        of_frames.iter().zip(&of_lines).map(|(token, lines)| format!("{token:.2} {lines:.2}")).collect();
    println!("turns: {}", turns.join(", ")); // what `peers --only in-process` reads
    println!("huge pages: {} MiB of {}", of_this_process("AnonHugePages:"), of_this_process("Rss:"));
    let spread = |values: &mut Vec<f64>| {
        values.sort_unstable_by(f64::total_cmp);
        format!("{:.2} ({:.2} to {:.2})", values[TURNS / 2], values[0], values[TURNS - 1])
    };
    println!(
        "{TURNS} times by turns, medians: {} ns a token, {} ns two lines, {} times those",
        spread(&mut of_frames),
        spread(&mut of_lines),
        spread(&mut ratios)
    );
}

/// So many MiB of memory are of this kind, by the system's own account; 0 where it does not say.
fn of_this_process(kind: &str) -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix(kind)?.trim().strip_suffix(" kB"));
    line.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1_024
}

/// What each of 64 takes of a round, in nanoseconds.
fn ns_per_token(round: &mut impl FnMut()) -> f64 {
    let (began, mut rounds) = (Instant::now(), 0_u32);
    while began.elapsed() < TURN {
        (0..100).for_each(|_| round());
        rounds += 100;
    }
    began.elapsed().as_nanos() as f64 / f64::from(rounds) / 64.0
}

/// Stays on this core from now on; returns which.
fn stay() -> usize {
    let core = sched_getcpu();
    let mut own = CpuSet::new();
    own.set(core);
    if let Err(error) = sched_setaffinity(None, &own) {
        println!("the reader may come to the writer's core: {error}");
    }
    core
}

/// Leaves a core to the reader, although the whole process was put there (`taskset`): else they would take turns.
fn keep_off(core: usize) {
    let mut others = CpuSet::new();
    (0..CpuSet::MAX_CPU).filter(|other| *other != core).for_each(|other| others.set(other));
    if let Err(error) = sched_setaffinity(None, &others) {
        println!("the writer shares the reader's core: {error}");
    }
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

criterion_group!(benches, digests, validates);
criterion_main!(benches);
