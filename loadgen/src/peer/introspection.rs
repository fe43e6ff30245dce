//! An endpoint for token introspection (RFC 7662), over HTTP/1.1 with connections that are kept, or HTTP/2.
//!
//! It can only be asked: tokens come from a list. What lies in the key space is the number of a token in that list, and
//! the bits by which the generator spoils a token say that it is to be asked about spoilt: the endpoint must then call it
//! inactive. A validate is a request for each of its tokens, one after another on HTTP/1.1 and within a stream each on
//! HTTP/2. The protocol itself is hyper's.

mod exchange;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use jeton_core::verdict::Verdict;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

pub(crate) use self::exchange::Endpoint;
use super::{Peer, Question, Reply, TokenBytes};
use crate::workload::kind::Kind;

/// How often tasks get their turn before the engine does.
const YIELDS: usize = 4;

/// Which token of the list to ask about, and whether spoilt.
#[derive(Clone, Copy, Debug)]
struct Subject {
    number: usize,
    is_spoilt: bool,
}

/// A request on its way to the task of a connection.
struct Job {
    id: u64,
    subjects: Vec<Subject>,
}

/// What became of one.
struct Done {
    id: u64,
    at: Instant,
    result: Result<Vec<Verdict>, Failure>,
}

/// Why there is no answer.
enum Failure {
    /// Too much to do (429 or 503).
    Refused,
    /// Something else than an introspection response.
    Wrong(String),
    /// The connection is gone: nothing more can be asked on it.
    Lost(String),
}

/// Where tasks put what they have, and how they say so.
#[derive(Clone, Default)]
struct Finished {
    queue: Rc<RefCell<VecDeque<Done>>>,
    bell: Rc<Notify>,
}

impl Finished {
    fn push(&self, id: u64, result: Result<Vec<Verdict>, Failure>) {
        self.queue.borrow_mut().push_back(Done { id, at: Instant::now(), result });
        self.bell.notify_one();
    }
}

/// The connections of one worker, each a task on the worker's own thread.
pub(crate) struct IntrospectionPeer {
    endpoint: Rc<Endpoint>,
    // Tasks go before the runtime that their sockets belong to.
    tasks: LocalSet,
    runtime: Runtime,
    connections: Vec<mpsc::UnboundedSender<Job>>,
    finished: Finished,
    /// The next token of the list to be given a place in the key space.
    next: usize,
    /// Places that were given out: answers without a server.
    issued: VecDeque<(u64, Vec<TokenBytes>)>,
}

impl IntrospectionPeer {
    /// Connects so many times.
    pub(crate) fn connect(endpoint: &Endpoint, count: usize) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut peer = Self {
            endpoint: Rc::new(endpoint.clone()),
            tasks: LocalSet::new(),
            runtime,
            connections: Vec::with_capacity(count),
            finished: Finished::default(),
            next: 0,
            issued: VecDeque::new(),
        };
        for _ in 0..count {
            let connection = peer.open()?;
            peer.connections.push(connection);
        }
        Ok(peer)
    }

    fn open(&self) -> anyhow::Result<mpsc::UnboundedSender<Job>> {
        let (endpoint, finished) = (Rc::clone(&self.endpoint), self.finished.clone());
        let connecting = exchange::open(endpoint, finished);
        self.tasks.block_on(&self.runtime, connecting)
    }

    fn give_out(&mut self, id: u64, count: usize) {
        let all = self.endpoint.tokens.len();
        let tokens = (0..count).map(|at| place((self.next + at) % all)).collect();
        self.next = (self.next + count) % all;
        self.issued.push_back((id, tokens));
    }
}

/// What lies in the key space for a token of the list. The first byte and the last are the generator's to spoil.
fn place(number: usize) -> TokenBytes {
    let mut token = [0; 32];
    token[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    // No place is all zeros: that would be no token.
    token[16] = 1;
    token
}

fn subject(token: &TokenBytes) -> Subject {
    let (head, rest) = token.split_at(8);
    let number = rest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Subject { number: number as usize, is_spoilt: head[0] != 0 || token[31] != 0 }
}

impl Peer for IntrospectionPeer {
    fn identity(&self) -> String {
        self.endpoint.to_string()
    }

    fn connections(&self) -> usize {
        self.connections.len()
    }

    fn is_ready(&self, _connection: usize) -> bool {
        true
    }

    fn ask(&mut self, connection: usize, id: u64, question: &Question<'_>) -> anyhow::Result<()> {
        match question {
            Question::Validate { tokens, .. } => {
                let job = Job { id, subjects: tokens.iter().map(subject).collect() };
                // Its receiver lives as long as its connection: what is lost is told by `turn`.
                let _ = self.connections[connection].send(job);
            }
            Question::Issue { subjects, .. } => self.give_out(id, subjects.len()),
            _ => bail!("introspection has no counterpart of that"),
        }
        Ok(())
    }

    fn turn(&mut self, take: &mut dyn FnMut(Instant, u64, Reply<'_>)) -> anyhow::Result<bool> {
        self.tasks.block_on(&self.runtime, async {
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
        });
        let mut is_moved = false;
        while let Some((id, tokens)) = self.issued.pop_front() {
            take(Instant::now(), id, Reply::Issued(&tokens));
            is_moved = true;
        }
        loop {
            let Some(done) = self.finished.queue.borrow_mut().pop_front() else { return Ok(is_moved) };
            is_moved = true;
            match done.result {
                Ok(verdicts) => take(done.at, done.id, Reply::Verdicts(&verdicts)),
                Err(Failure::Refused) => take(done.at, done.id, Reply::Refused),
                Err(Failure::Wrong(words)) => take(done.at, done.id, Reply::Failed(words)),
                Err(Failure::Lost(words)) => bail!("the connection to {} was lost: {words}", self.endpoint),
            }
        }
    }

    fn wait(&mut self, until: Instant) -> anyhow::Result<()> {
        if !self.issued.is_empty() || !self.finished.queue.borrow().is_empty() {
            return Ok(());
        }
        let bell = Rc::clone(&self.finished.bell);
        self.tasks.block_on(&self.runtime, async {
            let _ = tokio::time::timeout_at(until.into(), bell.notified()).await;
        });
        Ok(())
    }

    fn reconnect(&mut self, connection: usize) -> anyhow::Result<()> {
        // Its task ends once nobody can ask it any more.
        self.connections[connection] = self.open().context("a new connection")?;
        Ok(())
    }

    fn lacks(&self, kind: Kind) -> bool {
        kind != Kind::Validate
    }

    fn has_checks(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
