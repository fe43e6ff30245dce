//! What several benchmarks begin with: a sequencer with live tokens in it, made as a server makes them.
#![allow(dead_code, reason = "each benchmark takes what it needs")]

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use jeton_core::batch::{ChainEnd, SealedBatch};
use jeton_core::claims::Claims;
use jeton_core::command::{Command, IssueTokens, Submission};
use jeton_core::numbers::{ClientNo, LogId, Partition};
use jeton_core::outcome::Outcome;
use jeton_core::sequencer::{Commit, FIRST_TENANT, Sequencer};
use jeton_core::state::{State, StateConfig};
use jeton_core::time::Millis;
use jeton_core::token::Token;
use jeton_core::view::View;

/// The identity that has every right.
pub(crate) const ADMIN: &str = "bench:admin";
/// When all of it happens.
pub(crate) const NOW: Millis = Millis(1_700_000_000_000);
pub(crate) const LOG: LogId = LogId([1; 16]);

/// Tokens of one issue.
const BATCH: usize = 256;

/// A generator of bytes, the same each time (Steele and others, "Fast splittable pseudorandom number generators", 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Puts items into another order (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        bytes
            .chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]));
    }
}

/// How much there is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) tokens: usize,
    pub(crate) subjects: usize,
    pub(crate) claim_sets: usize,
}

/// A number for a setting of a benchmark, such as `JETON_BENCH_TOKENS=10000000`.
pub(crate) fn setting(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.replace('_', "").parse().ok()).unwrap_or(otherwise)
}

/// The number of the claim set of the token that was filled in at this position.
pub(crate) fn claim_set_of(position: usize, size: Size) -> usize {
    (position / BATCH) % size.claim_sets
}

/// A command that issues so many tokens, the first of them for the subject of this number.
pub(crate) fn issue(number: usize, count: usize, size: Size) -> Command {
    let grant = format!("read on journal/{}/*", number % size.claim_sets).parse().expect("a grant");
    let subject =
        |at: usize| format!("subject {}", (number * BATCH + at) % size.subjects).parse().expect("a name");
    Command::IssueTokens(IssueTokens {
        tenant: FIRST_TENANT.parse().expect("a name"),
        subjects: (0..count).map(subject).collect(),
        claims: Claims::new([], [], [grant], Default::default()).expect("claims"),
        ttl_s: 3_600,
        not_before_s: 0,
        renewable_s: 0,
        uses_max: 0,
        parent: None,
        binding: None,
    })
}

/// A sequencer with live tokens, what readers see of them, and the tokens.
pub(crate) fn filled(size: Size) -> (Sequencer<()>, View, Vec<[u8; 32]>) {
    fill(size, |_| {})
}

/// The log of what makes such a sequencer.
pub(crate) fn logged(size: Size) -> Vec<SealedBatch> {
    let mut log = Vec::new();
    fill(size, |commit| log.extend_from_slice(&commit.batches));
    log
}

/// Carries out a command, as if the log made it durable at once; the tokens that it issued.
pub(crate) fn decided(sequencer: &mut Sequencer<()>, random: &mut Random, command: Command) -> Vec<Token> {
    let mut entropy = |bytes: &mut [u8]| random.fill(bytes);
    sequencer.handle_submission((), Submission { actor: ClientNo(1), key: None, command }, NOW, &mut entropy);
    while let Some(commit) = sequencer.poll_commit() {
        sequencer.handle_durable(commit.last());
    }
    let mut tokens = Vec::new();
    while let Some(((), reply)) = sequencer.poll_reply() {
        match reply.result {
            Ok(Outcome::Issued { tokens: issued, .. }) => tokens.extend(issued),
            Ok(_) => {}
            Err(rejection) => panic!("rejected: {rejection:?}"),
        }
    }
    tokens
}

fn fill(size: Size, mut keep: impl FnMut(&Commit)) -> (Sequencer<()>, View, Vec<[u8; 32]>) {
    let config = StateConfig {
        tokens_initial: size.tokens,
        tokens_max: 2 * size.tokens as u32,
        ..StateConfig::default()
    };
    let (state, reader) = State::new(LOG, Partition(0), config).expect("memory");
    let view = View::new(reader, state.registry().clone());
    let mut sequencer = Sequencer::new(state, ChainEnd::genesis(LOG, Partition(0)));
    sequencer.handle_creation(ADMIN, NOW);
    let mut random = Random(7);
    let mut tokens = Vec::with_capacity(size.tokens);
    let mut number = 0;
    while tokens.len() < size.tokens {
        let mut entropy = |bytes: &mut [u8]| random.fill(bytes);
        let command = issue(number, BATCH.min(size.tokens - tokens.len()), size);
        number += 1;
        let submission = Submission { actor: ClientNo(1), key: None, command };
        sequencer.handle_submission((), submission, NOW, &mut entropy);
        while let Some(commit) = sequencer.poll_commit() {
            keep(&commit);
            sequencer.handle_durable(commit.last());
        }
        while let Some(((), reply)) = sequencer.poll_reply() {
            let Ok(Outcome::Issued { tokens: issued, .. }) = reply.result else { panic!("not issued") };
            tokens.extend(issued.iter().map(Token::to_bytes));
        }
    }
    while sequencer.has_work() {
        sequencer.handle_work(NOW);
    }
    (sequencer, view, tokens)
}

/// Says so when it is dropped, in a panic too: whoever waits for it would go on for ever.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
