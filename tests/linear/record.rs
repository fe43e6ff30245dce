//! Records histories: clients that ask at the same time, a server that is killed under them.
//!
//! A long history is one workload from the first kill to the last ([`long`]); short ones are rounds of a few clients on a
//! few tokens of their own, one after the other ([`rounds`]).

mod asker;
mod host;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use asker::{Asker, Client, Shared, Workload};
use host::Host;

use super::history::{Operation, Recorder, read};
use super::weather::Passed;
use crate::sim::rng::Rng;

/// A way to break the promise, to see it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Clients remember that a token was alive, and never ask again.
    ClientCache,
    /// The server is set back to an older copy of its data, as by an administrator who restores a backup.
    OldCopy,
}

/// What to record.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the server's data and the history go.
    pub dir: PathBuf,
    /// Clients, each with a connection of its own.
    pub clients: u32,
    /// Decides what is asked, and when the server is killed.
    pub seed: u64,
    /// What to do wrong.
    pub lie: Option<Lie>,
    /// Tokens of a validate in a long history, and of an issue, which has 64 at most.
    pub batch: u64,
    /// Whether the network loses, repeats and exchanges datagrams.
    pub bad_network: bool,
}

impl Plan {
    fn weather(&self) -> Option<u64> {
        self.bad_network.then_some(self.seed)
    }
}

/// What was recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The history.
    pub path: PathBuf,
    /// How often the server was killed.
    pub kills: u32,
    /// How long it took.
    pub took: Duration,
    /// What no client should be told, in words; the first few.
    pub surprises: Vec<String>,
    /// What a bad network did.
    pub network: Option<Passed>,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Records one history of `answers` answers about tokens, with `kills` kills spread over it.
///
/// # Panics
/// If the server cannot be started again, or the clients do not get that far within `limit`.
pub fn long(plan: &Plan, answers: u64, kills: u32, limit: Duration) -> Recorded {
    let began = Instant::now();
    let mut host = Host::start(&plan.dir.join("data"), plan.weather());
    let path = plan.dir.join("history.jsonl");
    let recorder = Recorder::new(&path).expect("a history file");
    let shared = Arc::new(Shared::new(recorder, plan.lie));
    let is_over = Arc::new(AtomicBool::new(false));
    let runtime = runtime();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..plan.clients {
        let connecting = Client::new(&host, number, plan.seed);
        let (is_over, shared) = (Arc::clone(&is_over), Arc::clone(&shared));
        let workload = Workload::long(plan.batch);
        clients.spawn_on(
            async move {
                let mut asker = Asker::new(connecting.await, workload, shared);
                while !is_over.load(Relaxed) {
                    asker.ask().await;
                }
            },
            runtime.handle(),
        );
    }
    let every = answers / u64::from(kills + 1);
    for kill in 1..=kills {
        wait_for(&shared.answers, every * u64::from(kill), began + limit);
        match (plan.lie, kill) {
            (Some(Lie::OldCopy), 1) => host.kill_and(Host::copy),
            (Some(Lie::OldCopy), 2) => host.kill_and(Host::set_back),
            _ => host.kill_and(|_| {}),
        }
    }
    wait_for(&shared.answers, answers, began + limit);
    is_over.store(true, Relaxed);
    runtime.block_on(clients.join_all());
    shared.recorder.flush();
    let (kills, network) = (host.kills(), host.stop());
    Recorded { path, kills, took: began.elapsed(), surprises: shared.surprises(), network }
}

fn wait_for(count: &AtomicU64, least: u64, until: Instant) {
    while count.load(Relaxed) < least {
        assert!(Instant::now() < until, "{} of {least} answers came in time", count.load(Relaxed));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Operations of each client in one round.
const ROUND_OPERATIONS: u32 = 14;
/// One round in so many has a kill in its middle.
const KILL_EVERY: u64 = 4;

/// Records `rounds` short histories one after the other, and hands each to `judge`, until that does not want more.
///
/// A round has tokens, subjects and resources of its own, so that what an earlier one left open does not reach into it; a
/// revoke of all that an identity asked for, which could, is repeated until it is acknowledged.
///
/// # Panics
/// If the server cannot be started again.
pub fn rounds(plan: &Plan, rounds: u32, mut judge: impl FnMut(u32, &Path, &[Operation]) -> bool) -> Recorded {
    let began = Instant::now();
    let mut host = Host::start(&plan.dir.join("data"), plan.weather());
    let runtime = runtime();
    let mut rng = Rng::new(plan.seed);
    let mut recorded = Recorded {
        path: plan.dir.clone(),
        kills: 0,
        took: Duration::ZERO,
        surprises: Vec::new(),
        network: None,
    };
    let connecting = (0..plan.clients).map(|number| Client::new(&host, number, plan.seed));
    let mut clients: Vec<Client> = runtime.block_on(async {
        let mut connected = Vec::new();
        for client in connecting {
            connected.push(client.await);
        }
        connected
    });
    for round in 0..rounds {
        let path = plan.dir.join("round.jsonl");
        let shared = Arc::new(Shared::new(Recorder::new(&path).expect("a history file"), plan.lie));
        let mut under_way = tokio::task::JoinSet::new();
        for client in clients.drain(..) {
            let mut asker = Asker::new(client, Workload::round(round), Arc::clone(&shared));
            under_way.spawn_on(
                async move {
                    for _ in 0..ROUND_OPERATIONS {
                        asker.ask().await;
                    }
                    asker.into_client()
                },
                runtime.handle(),
            );
        }
        let pause = Duration::from_millis(rng.within(1..40));
        if plan.lie == Some(Lie::OldCopy) {
            for act in [Host::copy, Host::set_back] {
                std::thread::sleep(pause);
                host.kill_and(act);
            }
        } else if rng.one_in(KILL_EVERY) {
            std::thread::sleep(pause);
            host.kill_and(|_| {});
        }
        clients = runtime.block_on(under_way.join_all());
        recorded.surprises.extend(shared.surprises());
        let history: Vec<Operation> = read(shared.recorder.flush()).collect();
        if !judge(round, &path, &history) {
            break;
        }
    }
    let (kills, network) = (host.kills(), host.stop());
    Recorded { kills, took: began.elapsed(), network, ..recorded }
}
