//! The tokens that the load works with: alive until they expire or somebody sets out to revoke them, and a few dead ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use jeton_client::Token;

use crate::sim::rng::Rng;

/// Dead tokens remembered, the latest ones.
const DEAD_MAX: usize = 1_000;
/// Live tokens held; more are forgotten, oldest first. Lifetimes keep the pool far below.
const LIVE_MAX: usize = 100_000;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Renewable,
    Limited,
}

/// One token and what is known of it here.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) kind: Kind,
    pub(super) subject: usize,
    /// Until then it is good, unless it is doomed.
    pub(super) good_until: Instant,
    /// Somebody has set out to revoke it: from here on any answer is right until the revoke is acknowledged.
    pub(super) is_doomed: AtomicBool,
    /// Uses that were granted.
    pub(super) spent: AtomicU32,
}

impl Held {
    /// Whether a validate that is answered now has to have found it good.
    pub(super) fn must_be_good(&self) -> bool {
        !self.is_doomed.load(Relaxed) && Instant::now() < self.good_until
    }
}

#[derive(Debug, Default)]
struct Tokens {
    live: VecDeque<Arc<Held>>,
    dead: VecDeque<Token>,
}

/// Live and dead tokens.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Tokens>);

impl Pool {
    fn with<R>(&self, act: impl FnOnce(&mut Tokens) -> R) -> R {
        act(&mut self.0.lock().expect("nobody panics with it"))
    }

    pub(super) fn add(&self, held: impl IntoIterator<Item = Held>) {
        self.with(|tokens| {
            tokens.live.extend(held.into_iter().map(Arc::new));
            while tokens.live.len() > LIVE_MAX {
                tokens.live.pop_front();
            }
        });
    }

    /// Up to `count` live tokens of a kind, by chance; those that have expired by then are let go.
    pub(super) fn pick(&self, rng: &mut Rng, kind: Kind, count: usize) -> Vec<Arc<Held>> {
        const TRIES_PER_TOKEN: usize = 8;
        let now = Instant::now();
        let mut picked = Vec::with_capacity(count);
        self.with(|tokens| {
            for _ in 0..count * TRIES_PER_TOKEN {
                if picked.len() == count || tokens.live.is_empty() {
                    break;
                }
                let at = rng.below(tokens.live.len() as u64) as usize;
                if tokens.live[at].good_until <= now {
                    tokens.live.swap_remove_back(at);
                } else if tokens.live[at].kind == kind {
                    picked.push(Arc::clone(&tokens.live[at]));
                }
            }
        });
        picked
    }

    /// Takes a live token out, doomed.
    pub(super) fn take(&self, rng: &mut Rng) -> Option<Arc<Held>> {
        self.with(|tokens| {
            let at = rng.below(tokens.live.len().max(1) as u64) as usize;
            let held = tokens.live.swap_remove_back(at)?;
            held.is_doomed.store(true, Relaxed);
            Some(held)
        })
    }

    /// Takes out all that a subject has, doomed.
    pub(super) fn take_subject(&self, subject: usize) -> Vec<Arc<Held>> {
        self.with(|tokens| {
            let (gone, kept) = tokens.live.drain(..).partition(|held| held.subject == subject);
            tokens.live = kept;
            let gone: VecDeque<Arc<Held>> = gone;
            gone.iter().for_each(|held| held.is_doomed.store(true, Relaxed));
            gone.into()
        })
    }

    /// The revoke of these was acknowledged.
    pub(super) fn bury(&self, tokens: impl IntoIterator<Item = Token>) {
        self.with(|pool| {
            pool.dead.extend(tokens);
            while pool.dead.len() > DEAD_MAX {
                pool.dead.pop_front();
            }
        });
    }

    /// Some dead tokens.
    pub(super) fn dead(&self, rng: &mut Rng, count: usize) -> Vec<Token> {
        self.with(|tokens| match tokens.dead.len() as u64 {
            0 => Vec::new(),
            length => (0..count).map(|_| tokens.dead[rng.below(length) as usize].clone()).collect(),
        })
    }
}
