//! The parts that a request is made of, one by one: token text, grants, events, batches, frames.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jeton_core::batch::{ChainEnd, OpenBatch, open, seal};
use jeton_core::check::Check;
use jeton_core::claims::{Claims, ResourceQuery};
use jeton_core::event::{Entry, Event, Fact};
use jeton_core::numbers::{ClaimsNo, Partition, Sequence, SubjectNo};
use jeton_core::recovery::Replay;
use jeton_core::state::{State, StateConfig};
use jeton_core::token::Token;
use jeton_core::verdict::{Answer, Verdict};
use jeton_wire::frame::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, split};
use jeton_wire::request::{Request, encode_validate};
use jeton_wire::response::{Response, encode_answers};

#[path = "fill.rs"]
mod fill;

use fill::{LOG, NOW, Random, Size, logged};

fn token_text(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("token text");
    let token = Token::from_bytes(std::array::from_fn(|at| at as u8 * 7));
    let text = token.to_text();
    group.bench_function("write", |bencher| bencher.iter(|| black_box(&token).to_text()));
    group.bench_function("read", |bencher| bencher.iter(|| Token::parse(black_box(&text))));
    group.finish();
}

fn grants(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("grant match, warm claim set");
    for count in [1_usize, 8, 64] {
        // Of the same length: grants are sorted by their text, and the last one is to be found last.
        let grant = |at| format!("read,comment on journal/{at:02}/*").parse().expect("a grant");
        let claims =
            Claims::new([], [], (0..count).map(grant), Default::default()).expect("claims").compile();
        let last = format!("journal/{:02}/page", count - 1);
        let hit = ResourceQuery::new("comment", &last).expect("a resource");
        let miss = ResourceQuery::new("comment", "journal/none/page").expect("a resource");
        group.bench_function(BenchmarkId::new("the last of", count), |bencher| {
            bencher.iter(|| black_box(&claims).allows(black_box(&hit)));
        });
        group.bench_function(BenchmarkId::new("none of", count), |bencher| {
            bencher.iter(|| black_box(&claims).allows(black_box(&miss)));
        });
    }
    group.finish();
}

fn issued(random: &mut Random) -> Entry {
    let (mut id, mut digest) = ([0; 16], [0; 32]);
    random.fill(&mut id);
    random.fill(&mut digest);
    let seconds = NOW.floor_seconds().0;
    let fact = Fact::TokenIssued {
        id,
        digest,
        claims: 1,
        subject: 1,
        issued_s: seconds,
        expires_s: seconds + 3_600,
        terms: None,
    };
    Entry { event: Event { actor: 1, fact }, detached: None }
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch of issues");
    let mut random = Random(3);
    for count in [1_usize, 40] {
        let entries: Vec<Entry> = (0..count).map(|_| issued(&mut random)).collect();
        let start = ChainEnd::genesis(LOG, Partition(0));
        let sealed = seal(&mut start.clone(), NOW, entries.iter().cloned());
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("seal", count), |bencher| {
            bencher.iter(|| seal(&mut start.clone(), NOW, entries.iter().cloned()));
        });
        group.bench_function(BenchmarkId::new("open and verify", count), |bencher| {
            bencher.iter(|| open(black_box(&sealed.bytes)).expect("it is whole"));
        });
    }
    group.finish();
}

fn events(criterion: &mut Criterion) {
    let size = Size { tokens: 100_000, subjects: 10_000, claim_sets: 100 };
    let log = logged(size);
    let events = log.last().map_or(0, |batch| batch.last.0);
    let config = StateConfig { tokens_initial: size.tokens, tokens_max: 1 << 20, ..StateConfig::default() };
    let mut group = criterion.benchmark_group("event");
    group.sample_size(10);
    group.throughput(Throughput::Elements(events));
    group.bench_function("read, verify and apply: a replay of 100,000 issues", |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut replay = Replay::new(LOG, Partition(0), config, None).expect("memory");
            log.iter().for_each(|batch| drop(replay.apply(&batch.bytes).expect("it follows")));
            replay
        });
    });
    let opened: Vec<OpenBatch> = log.iter().map(|batch| open(&batch.bytes).expect("it is whole")).collect();
    group.throughput(Throughput::Elements(1));
    for (name, publishes) in [("one of them, apply alone", false), ("one of them, apply and publish", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let took: Duration = (0..rounds).map(|_| applied(&opened, config, publishes)).sum();
                took.div_f64(events as f64) // so that criterion tells the time of one event
            });
        });
    }
    group.finish();
}

/// How long a new state takes to apply the events of these batches, and to show readers what they allow if it `publishes`.
fn applied(log: &[OpenBatch], config: StateConfig, publishes: bool) -> Duration {
    let (mut state, _reader) = State::new(LOG, Partition(0), config).expect("memory");
    let began = Instant::now();
    for batch in log {
        let mut sequence = batch.first;
        for entry in &batch.entries {
            let publication = state.apply(sequence, batch.time, entry).expect("it follows");
            if let Some(publication) = publication.filter(|_| publishes) {
                state.publish(&publication);
            }
            sequence = sequence.next();
        }
    }
    began.elapsed()
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame of 64");
    let tokens: Vec<[u8; 32]> = (0..64).map(|at| [at; 32]).collect();
    let answer =
        Answer { verdict: Verdict::Valid, claims: ClaimsNo(5), subject: SubjectNo(6), ..Answer::default() };
    let (answers, checks) = (vec![answer; 64], [Check::default()]);
    let (mut request, mut response) = (Vec::new(), Vec::new());
    encode_validate(7, &tokens, &checks, None, Sequence(0), false, &mut request);
    encode_answers(7, Sequence(9), &answers, false, &mut response);
    group.throughput(Throughput::Elements(64));
    let mut into = Vec::new();
    group.bench_function("validate, written", |bencher| {
        bencher.iter(|| {
            into.clear();
            encode_validate(7, black_box(&tokens), &checks, None, Sequence(0), false, &mut into);
        });
    });
    group.bench_function("validate, read in place", |bencher| {
        bencher.iter(|| {
            let (frame, _) = split(black_box(&request), REQUEST_BYTES_MAX).ok()??;
            black_box(Request::decode(&frame).ok()?);
            Some(())
        });
    });
    group.bench_function("answers, written", |bencher| {
        bencher.iter(|| {
            into.clear();
            encode_answers(7, Sequence(9), black_box(&answers), false, &mut into);
        });
    });
    group.bench_function("answers, read", |bencher| {
        bencher.iter(|| {
            let (frame, _) = split(black_box(&response), RESPONSE_BYTES_MAX).ok()??;
            Response::decode(&frame).ok()
        });
    });
    group.finish();
}

criterion_group!(benches, token_text, grants, batches, events, frames);
criterion_main!(benches);
