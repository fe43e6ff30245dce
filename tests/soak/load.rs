//! The load: operations that start when they are due, whatever became of those before them, and whose answers are checked.

mod operation;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jeton_client::{Client, Config, Identity};
use tokio::runtime::Handle;

use super::pool::Pool;
use crate::Server;
use crate::sim::rng::Rng;

/// Connections that stay for the whole run.
const STEADY: usize = 4;
/// Subjects that tokens are issued to: named early, so that names do not grow for ever.
const SUBJECTS: usize = 500;
/// Operations under way; one that would be more is an error, for this load saturates nobody.
const UNDER_WAY_MAX: usize = 2_000;
/// Errors kept in words.
const WORDS_MAX: usize = 10;
/// What is recorded at most, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What an operation is, as far as its latency is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A validate of a batch on a connection that stays.
    Validate,
    /// An issue, revoke, consume, renewal or change of rights: durable once answered.
    Write,
    /// A new connection with mutual TLS, one validate on it, and its end.
    Visit,
    /// An inspection, the server's figures, or a page of the log.
    Audit,
}

/// Every class, in the order of their numbers.
pub(super) const CLASSES: [Class; 4] = [Class::Validate, Class::Write, Class::Visit, Class::Audit];

impl Class {
    /// Its name in samples.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Write => "write",
            Self::Visit => "visit",
            Self::Audit => "audit",
        }
    }
}

/// Latencies of one class, in microseconds.
pub(super) type Latencies = Histogram<u64>;

pub(super) fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are in order")
}

/// Clients, tokens and what was measured. Clones share everything.
#[derive(Clone)]
pub(super) struct Load(Arc<Inner>);

struct Inner {
    steady: Vec<Client>,
    guests: Vec<Config>,
    pool: Pool,
    /// Odd while a revoke of this subject is under way; changed by every one.
    subjects: Vec<AtomicU64>,
    /// The last event that a write was told of.
    head: AtomicU64,
    seed: u64,
    under_way: AtomicUsize,
    operations: AtomicU64,
    errors: Mutex<(u64, Vec<String>)>,
    latencies: Mutex<[Latencies; CLASSES.len()]>,
}

impl Load {
    /// Connects.
    pub(super) async fn prepare(server: &Server, guests: &[String], seed: u64) -> Self {
        let mut steady = Vec::new();
        for _ in 0..STEADY {
            steady.push(server.admin().await);
        }
        let config = |guest: &String| {
            let identity = Identity::from_dir(server.data.join("identities").join(guest));
            Config::new(server.address, identity.expect("an identity"))
        };
        Self(Arc::new(Inner {
            steady,
            guests: guests.iter().map(config).collect(),
            pool: Pool::default(),
            subjects: (0..SUBJECTS).map(|_| AtomicU64::new(0)).collect(),
            head: AtomicU64::new(1),
            seed,
            under_way: AtomicUsize::new(0),
            operations: AtomicU64::new(0),
            errors: Mutex::default(),
            latencies: Mutex::new(std::array::from_fn(|_| latencies())),
        }))
    }

    /// Starts `rate` operations a second from a thread of its own: the timers of an async runtime are a millisecond
    /// coarse, which is more than most answers take.
    pub(super) fn start(&self, handle: Handle, rate: u32, duration: Duration) -> JoinHandle<()> {
        let load = self.clone();
        std::thread::spawn(move || {
            let began = Instant::now();
            let period = Duration::from_secs(1) / rate;
            for number in 0.. {
                let due = period * number;
                if due >= duration {
                    break;
                }
                std::thread::sleep(due.saturating_sub(began.elapsed()));
                if load.0.under_way.fetch_add(1, Relaxed) >= UNDER_WAY_MAX {
                    load.0.under_way.fetch_sub(1, Relaxed);
                    load.error(|| "too many operations are under way".to_owned());
                    continue;
                }
                let load = load.clone();
                handle.spawn(async move {
                    load.carry_out(u64::from(number), began + due).await;
                    load.0.under_way.fetch_sub(1, Relaxed);
                });
            }
        })
    }

    async fn carry_out(&self, number: u64, due: Instant) {
        let mut rng = Rng::new(self.0.seed ^ number);
        let (class, result) = operation::carry_out(&self.0, &mut rng).await;
        if let Err(words) = result {
            self.error(|| format!("operation {number}: {words}"));
        }
        self.0.operations.fetch_add(1, Relaxed);
        let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.latencies.lock().expect("nobody panics with it")[class as usize].saturating_record(micros);
    }

    pub(super) fn error(&self, words: impl FnOnce() -> String) {
        let mut errors = self.0.errors.lock().expect("nobody panics with it");
        errors.0 += 1;
        if errors.1.len() < WORDS_MAX {
            errors.1.push(words());
        }
    }

    /// Waits for what is under way, and ends the connections.
    pub(super) async fn finish(&self) {
        let began = Instant::now();
        while self.0.under_way.load(Relaxed) > 0 && began.elapsed() < crate::PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for client in &self.0.steady {
            client.close().await;
        }
    }

    /// A client that stays.
    pub(super) fn client(&self) -> &Client {
        &self.0.steady[0]
    }

    pub(super) fn operations(&self) -> u64 {
        self.0.operations.load(Relaxed)
    }

    /// How many operations went wrong, and the first few in words.
    pub(super) fn errors(&self) -> (u64, Vec<String>) {
        self.0.errors.lock().expect("nobody panics with it").clone()
    }

    /// The latencies since the last call, by class.
    pub(super) fn drain_latencies(&self) -> [Latencies; CLASSES.len()] {
        let fresh = std::array::from_fn(|_| latencies());
        std::mem::replace(&mut *self.0.latencies.lock().expect("nobody panics with it"), fresh)
    }
}
