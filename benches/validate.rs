//! Validation in process: digests, and the whole of a validate over a frame, by frame size.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jeton_core::batch::ChainEnd;
use jeton_core::check::{Check, Checks};
use jeton_core::claims::{Claims, ResourceQuery};
use jeton_core::command::{Command, IssueTokens, Submission};
use jeton_core::numbers::{ClientNo, LogId, Partition};
use jeton_core::outcome::Outcome;
use jeton_core::sequencer::{FIRST_TENANT, Sequencer};
use jeton_core::state::{State, StateConfig};
use jeton_core::time::Millis;
use jeton_core::token::{Token, digest, digest_batch};
use jeton_core::view::View;

const ADMIN: &str = "bench:admin";
const NOW: Millis = Millis(1_700_000_000_000);
/// Enough that neither index nor records fit into a cache.
const TOKENS: usize = 1_000_000;

/// A generator of bytes, the same each time (Steele and others, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes
            .chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]));
    }
}

/// A view with live tokens, made as a server makes them.
fn filled() -> (View, Vec<[u8; 32]>) {
    let (log, partition) = (LogId([1; 16]), Partition(0));
    let config =
        StateConfig { tokens_initial: TOKENS, tokens_max: 2 * TOKENS as u32, ..StateConfig::default() };
    let (state, reader) = State::new(log, partition, config).expect("memory");
    let view = View::new(reader, state.registry().clone());
    let mut sequencer = Sequencer::new(state, ChainEnd::genesis(log, partition));
    sequencer.handle_creation(ADMIN, NOW);
    let mut random = Random(7);
    let mut tokens = Vec::with_capacity(TOKENS);
    while tokens.len() < TOKENS {
        let mut entropy = |bytes: &mut [u8]| random.fill(bytes);
        let claims = Claims::new([], [], ["read on journal/*".parse().expect("a grant")], Default::default());
        let issue = IssueTokens {
            tenant: FIRST_TENANT.parse().expect("a name"),
            subjects: vec!["bench".parse().expect("a name"); 256],
            claims: claims.expect("claims"),
            ttl_s: 3_600,
            not_before_s: 0,
            renewable_s: 0,
            uses_max: 0,
            parent: None,
            binding: None,
        };
        let submission = Submission { actor: ClientNo(1), key: None, command: Command::IssueTokens(issue) };
        sequencer.handle_submission((), submission, NOW, &mut entropy);
        while let Some(commit) = sequencer.poll_commit() {
            sequencer.handle_durable(commit.last());
        }
        while let Some(((), reply)) = sequencer.poll_reply() {
            let Ok(Outcome::Issued { tokens: issued, .. }) = reply.result else { panic!("not issued") };
            tokens.extend(issued.iter().map(Token::to_bytes));
        }
    }
    (view, tokens)
}

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
    let (view, tokens) = filled();
    let caller = view.registry().caller(ADMIN);
    let mut random = Random(99);
    let mut group = criterion.benchmark_group("validate, 1 M live tokens");
    let live = Check::default();
    let access = ResourceQuery::new("read", "journal/42").ok();
    let granted = Check { access, ..Check::default() };
    for (name, check) in [("live", &live), ("with a grant", &granted)] {
        for size in [1_usize, 16, 64, 512] {
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let mut answers = Vec::new();
                let mut frame = vec![[0; 32]; size];
                bencher.iter(|| {
                    for token in &mut frame {
                        *token = tokens[(random.next() % TOKENS as u64) as usize];
                    }
                    answers.clear();
                    view.validate(&caller, NOW, black_box(&frame), Checks::Same(check), &mut answers);
                    black_box(&answers);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, digests, validates);
criterion_main!(benches);
