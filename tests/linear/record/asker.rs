//! One client: draws an operation, asks, and writes down what it was told and when.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jeton_client::{
    Check, Claims, Config, Consistency, Error, Grant, IdempotencyKey, IssueTokens, Rejection, RevokeTarget,
    Sequence, Verdict,
};

use super::Lie;
use super::host::{Host, IDENTITIES};
use super::tokens::{Known, Of, Tokens};
use crate::linear::history::{Act, Issue, NEVER, Nanos, Operation, Recorder, Target, is_alive};
use crate::name;
use crate::sim::rng::Rng;

/// Patience of a request, a restart of the server included. The client's own for a silent server is a third of it, and it is
/// that which a round with a kill takes: the answer of a server that is dead has nothing to be sent again for.
const DEADLINE: Duration = Duration::from_millis(1_500);
/// How often a consume is repeated with its key before its answer is given up.
const REPEATED_MAX: u32 = 3;
/// Lifetimes: most outlive the run, some end in it.
const LONG_S: u32 = 3_600;
const BRIEF_S: u32 = 2;
const USES: u32 = 3;
const SURPRISES_MAX: usize = 5;

/// What a client asks for, and how often, of a thousand operations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload {
    /// Tokens of a validate, and of an issue.
    batch: u64,
    issued: u64,
    /// Names with numbers from here on, so many.
    names_from: u32,
    subjects: u32,
    resources: u32,
    /// Tokens that expire in the course of the run, of a hundred.
    brief_percent: u64,
    issue: u64,
    consume: u64,
    renew: u64,
    head: u64,
    revoke_token: u64,
    revoke_family: u64,
    revoke_subject: u64,
    revoke_resource: u64,
    revoke_identity: u64,
}

impl Workload {
    /// Batches of so many, many tokens.
    pub(super) fn long(batch: u64) -> Self {
        Self {
            batch,
            issued: batch.min(64),
            names_from: 0,
            subjects: 2_000,
            resources: 200,
            brief_percent: 5,
            issue: 60,
            consume: 60,
            renew: 30,
            head: 20,
            revoke_token: 60,
            revoke_family: 20,
            revoke_subject: 20,
            revoke_resource: 2,
            revoke_identity: 1,
        }
    }

    /// A few tokens, with much happening to each.
    pub(super) fn round(round: u32) -> Self {
        Self {
            batch: 2,
            issued: 2,
            names_from: round * 4,
            subjects: 3,
            resources: 2,
            brief_percent: 0,
            issue: 130,
            consume: 150,
            renew: 80,
            head: 20,
            revoke_token: 100,
            revoke_family: 50,
            revoke_subject: 50,
            revoke_resource: 20,
            revoke_identity: 3,
        }
    }
}

/// What all clients of one history share.
pub(super) struct Shared {
    pub(super) recorder: Recorder,
    pub(super) answers: AtomicU64,
    lie: Option<Lie>,
    tokens: Tokens,
    next_token: AtomicU32,
    /// The last event that anybody was told of.
    head: AtomicU64,
    surprises: Mutex<Vec<String>>,
}

impl Shared {
    pub(super) fn new(recorder: Recorder, lie: Option<Lie>) -> Self {
        Self {
            recorder,
            answers: AtomicU64::new(0),
            lie,
            tokens: Tokens::default(),
            next_token: AtomicU32::new(0),
            head: AtomicU64::new(0),
            surprises: Mutex::default(),
        }
    }

    pub(super) fn surprises(&self) -> Vec<String> {
        self.surprises.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A client's connection and its chance, which outlive a history.
pub(super) struct Client {
    number: u32,
    identity: u32,
    connection: jeton_client::Client,
    rng: Rng,
}

/// A client in one history.
pub(super) struct Asker {
    number: u32,
    identity: u32,
    client: jeton_client::Client,
    rng: Rng,
    workload: Workload,
    shared: Arc<Shared>,
    /// What the lie of a cache remembers.
    remembered: HashMap<u32, u8>,
}

/// Connects, however long the server takes to come back.
async fn connected(config: Config) -> jeton_client::Client {
    const TRIES: u32 = 20;
    for _ in 0..TRIES {
        if let Ok(client) = jeton_client::Client::connect(config.clone()).await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the server does not come back");
}

impl Client {
    /// Client `number`, connected.
    pub(super) fn new(host: &Host, number: u32, seed: u64) -> impl Future<Output = Self> + use<> {
        let identity = number % IDENTITIES.len() as u32;
        let mut config = host.config(IDENTITIES[identity as usize]);
        config.deadline = DEADLINE;
        let rng = Rng::new(seed ^ (u64::from(number) << 32));
        async move { Self { number, identity, connection: connected(config).await, rng } }
    }
}

impl Asker {
    /// This client begins a history.
    pub(super) fn new(client: Client, workload: Workload, shared: Arc<Shared>) -> Self {
        let Client { number, identity, connection, rng } = client;
        Self { number, identity, client: connection, rng, workload, shared, remembered: HashMap::new() }
    }

    /// It has ended it.
    pub(super) fn into_client(self) -> Client {
        Client { number: self.number, identity: self.identity, connection: self.client, rng: self.rng }
    }

    /// One operation.
    pub(super) async fn ask(&mut self) {
        let of = self.workload;
        let mut dice = self.rng.below(1_000);
        let mut is = |share: u64| {
            let hit = dice < share;
            dice = if hit { u64::MAX } else { dice - share };
            hit
        };
        if is(of.issue) {
            self.issue().await;
        } else if is(of.consume) {
            self.consume().await;
        } else if is(of.renew) {
            self.renew().await;
        } else if is(of.head) {
            self.head().await;
        } else if is(of.revoke_token) {
            self.revoke_one(false).await;
        } else if is(of.revoke_family) {
            self.revoke_one(true).await;
        } else if is(of.revoke_subject) {
            let subject = self.subject();
            self.revoke(
                Target::Subject(subject),
                RevokeTarget::Subject {
                    tenant: name("default"),
                    subject: name(&format!("subject-{subject}")),
                },
            )
            .await;
        } else if is(of.revoke_resource) {
            let resource = self.resource();
            let pattern = format!("resource/{resource}/**").parse().expect("a pattern");
            self.revoke(
                Target::Resource(resource),
                RevokeTarget::Resource { tenant: name("default"), pattern },
            )
            .await;
        } else if is(of.revoke_identity) {
            self.revoke_identity().await;
        } else {
            self.validate().await;
        }
    }

    fn subject(&mut self) -> u32 {
        self.workload.names_from + self.rng.below(self.workload.subjects.into()) as u32
    }

    fn resource(&mut self) -> u32 {
        self.workload.names_from + self.rng.below(self.workload.resources.into()) as u32
    }

    fn keep(&self, invoked: Nanos, returned: Nanos, act: Act) {
        self.shared.recorder.keep(&Operation { client: self.number, invoked, returned, act });
    }

    fn now(&self) -> Nanos {
        self.shared.recorder.now()
    }

    /// Waits for an answer; once in a while not for long. `None` if there is none, for a reason that is to be expected of a
    /// server that is killed.
    async fn answer<T>(
        &mut self,
        asking: impl Future<Output = Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let patience =
            if self.rng.one_in(25) { Duration::from_micros(self.rng.below(5_000)) } else { DEADLINE * 2 };
        match tokio::time::timeout(patience, asking).await {
            Err(_) => None,
            Ok(Err(
                Error::Closed(_)
                | Error::Connect { .. }
                | Error::Deadline
                | Error::Busy
                | Error::Indeterminate,
            )) => None,
            Ok(answer) => Some(answer),
        }
    }

    fn surprise(&self, what: &str, error: &Error) {
        let mut surprises = self.shared.surprises.lock().unwrap_or_else(PoisonError::into_inner);
        if surprises.len() < SURPRISES_MAX {
            surprises.push(format!("{what}: {error}"));
        }
    }

    async fn issue(&mut self) {
        let (subject, resource) = (self.subject(), self.resource());
        let parent = if self.rng.one_in(4) { self.shared.tokens.one(&mut self.rng, Of::Plain) } else { None };
        let kind = self.rng.below(4);
        let uses = if kind == 0 { USES } else { 0 };
        let is_renewable = kind == 1;
        let ttl_s = if self.rng.percent(self.workload.brief_percent) { BRIEF_S } else { LONG_S };
        let count = 1 + self.rng.below(self.workload.issued) as usize;
        let grant: Grant = format!("read on resource/{resource}/page").parse().expect("a grant");
        let issue = IssueTokens {
            tenant: name("default"),
            subjects: vec![name(&format!("subject-{subject}")); count],
            claims: Claims::new([], [], [grant], Default::default()).expect("claims"),
            ttl_s,
            not_before_s: 0,
            renewable_s: if is_renewable { 2 * LONG_S } else { 0 },
            uses_max: uses,
            parent: parent.as_ref().map(|parent| parent.token.id),
            binding: None,
        };
        let (client, invoked) = (self.client.clone(), self.now());
        match self.answer(client.issue(issue, None)).await {
            Some(Ok(issued)) => {
                let returned = self.now();
                let family = parent.map(|parent| parent.issue.family.unwrap_or(parent.number));
                let count = count as u32;
                let first = self.shared.next_token.fetch_add(count, Relaxed);
                let identity = self.identity;
                let sequence = issued.sequence.0;
                let issue =
                    Issue { first, count, subject, resource, identity, family, uses, ttl_s, sequence };
                self.keep(invoked, returned, Act::Issue(issue));
                self.shared.head.fetch_max(sequence, Relaxed);
                self.shared.tokens.add(issued.tokens, issue, is_renewable);
            }
            None | Some(Err(Error::Rejected(Rejection::ParentNotLive | Rejection::Limit(_)))) => {}
            Some(Err(error)) => self.surprise("issue", &error),
        }
    }

    async fn validate(&mut self) {
        let count = 1 + self.rng.below(self.workload.batch) as usize;
        let rng = &mut self.rng;
        let mut known = self.shared.tokens.pick(rng, Of::Plain, count.div_ceil(2));
        known.extend(self.shared.tokens.pick(rng, Of::Dead, count.div_ceil(4)));
        known.extend(self.shared.tokens.pick(rng, Of::Limited, count.div_ceil(4)));
        let min_sequence = if rng.one_in(4) { self.shared.head.load(Relaxed) } else { 0 };
        let consistency = match min_sequence {
            0 => Consistency::Latest,
            sequence => Consistency::AtLeast(Sequence(sequence)),
        };
        let tokens: Vec<_> = known.iter().map(|known| known.token.clone()).collect();
        let numbers: Vec<u32> = known.iter().map(|known| known.number).collect();
        if tokens.is_empty() {
            return;
        }
        let (client, check, invoked) = (self.client.clone(), Check::live(), self.now());
        match self.answer(client.validate_batch(&tokens, &check, consistency)).await {
            Some(Ok(answers)) => {
                let returned = self.now();
                let mut verdicts: Vec<u8> = answers.iter().map(|answer| answer.verdict.code()).collect();
                if self.shared.lie == Some(Lie::ClientCache) {
                    self.remember(&numbers, &mut verdicts);
                }
                self.shared.answers.fetch_add(verdicts.len() as u64, Relaxed);
                self.keep(invoked, returned, Act::Validate { tokens: numbers, verdicts, min_sequence });
            }
            // An event that was acknowledged: whoever is behind it has lost it.
            Some(Err(Error::Behind { published })) => self.keep(invoked, self.now(), Act::Head { published }),
            Some(Err(error)) => self.surprise("validate", &error),
            None => {}
        }
    }

    fn remember(&mut self, numbers: &[u32], verdicts: &mut [u8]) {
        for (number, code) in numbers.iter().zip(verdicts) {
            if let Some(remembered) = self.remembered.get(number) {
                *code = *remembered;
            } else if is_alive(crate::linear::history::verdict(*code)) {
                self.remembered.insert(*number, *code);
            }
        }
    }

    /// Spends a use; an answer that was lost is sometimes asked for again with the same key, which is the same operation.
    async fn consume(&mut self) {
        let Some(known) = self.shared.tokens.one(&mut self.rng, Of::Limited) else { return };
        let mut key = [0; 16];
        self.rng.fill(&mut key);
        let (client, check, invoked) = (self.client.clone(), Check::live(), self.now());
        let mut act = Act::Consume { token: known.number, verdict: 0, uses_left: 0 };
        let mut returned = NEVER;
        for _ in 0..=REPEATED_MAX {
            match self.answer(client.consume(&known.token, &check, Some(IdempotencyKey(key)))).await {
                Some(Ok((answer, uses_left))) => {
                    returned = self.now();
                    act = Act::Consume { token: known.number, verdict: answer.verdict.code(), uses_left };
                    break;
                }
                Some(Err(error)) => {
                    self.surprise("consume", &error);
                    break;
                }
                None if self.rng.one_in(2) => break,
                None => {}
            }
        }
        self.shared.answers.fetch_add(1, Relaxed);
        self.keep(invoked, returned, act);
    }

    async fn renew(&mut self) {
        let Some(known) = self.shared.tokens.one(&mut self.rng, Of::Renewable) else { return };
        let (client, invoked) = (self.client.clone(), self.now());
        let verdict = match self.answer(client.renew(&known.token, LONG_S + 60, None)).await {
            Some(Ok(_)) => Some(Verdict::Valid),
            Some(Err(Error::Rejected(Rejection::Token(verdict)))) => Some(verdict),
            Some(Err(error)) => {
                self.surprise("renew", &error);
                None
            }
            None => None,
        };
        let returned = if verdict.is_some() { self.now() } else { NEVER };
        let code = verdict.unwrap_or_default().code();
        self.keep(invoked, returned, Act::Renew { token: known.number, verdict: code });
    }

    /// Only whoever may audit is told; others do something else.
    async fn head(&mut self) {
        if self.identity != 0 {
            return self.validate().await;
        }
        let (client, invoked) = (self.client.clone(), self.now());
        let Some(Ok(stats)) = self.answer(client.stats()).await else { return };
        let stats: serde_json::Value = serde_json::from_str(&stats).expect("figures are JSON");
        let published = stats.get("published").and_then(serde_json::Value::as_u64).expect("a figure");
        self.keep(invoked, self.now(), Act::Head { published });
    }

    async fn revoke_one(&mut self, is_family: bool) {
        let of = if self.rng.one_in(4) { Of::Limited } else { Of::Plain };
        let Some(known) = self.shared.tokens.one(&mut self.rng, of) else { return };
        let (target, on_wire) = match (is_family, self.rng.one_in(2)) {
            (true, _) => {
                let root = known.issue.family.unwrap_or(known.number);
                (Target::Family(root), RevokeTarget::Family(known.token.id))
            }
            (false, true) => (Target::Token(known.number), RevokeTarget::Token(known.token.clone())),
            (false, false) => (Target::Token(known.number), RevokeTarget::Id(known.token.id)),
        };
        if self.revoke(target, on_wire).await {
            self.bury(known);
        }
    }

    fn bury(&mut self, known: Arc<Known>) {
        self.shared.tokens.bury(known, &mut self.rng);
    }

    /// Whether it was acknowledged.
    async fn revoke(&mut self, target: Target, on_wire: RevokeTarget) -> bool {
        let (client, invoked) = (self.client.clone(), self.now());
        match self.answer(client.revoke(on_wire)).await {
            Some(Ok(revoked)) => {
                self.keep(invoked, self.now(), Act::Revoke { target, sequence: revoked.sequence.0 });
                self.shared.head.fetch_max(revoked.sequence.0, Relaxed);
                true
            }
            // There is no such subject yet.
            Some(Err(Error::Rejected(Rejection::NotFound))) => false,
            Some(Err(error)) => {
                self.surprise("revoke", &error);
                false
            }
            None => {
                self.keep(invoked, NEVER, Act::Revoke { target, sequence: 0 });
                false
            }
        }
    }

    /// Everything that an identity asked for; repeated until it is acknowledged, and one operation.
    async fn revoke_identity(&mut self) {
        let identity = self.rng.below(IDENTITIES.len() as u64) as u32;
        let of = name(&format!("jeton:client:{}", IDENTITIES[identity as usize]));
        let target = RevokeTarget::Client { tenant: name("default"), client: of };
        let invoked = self.now();
        for _ in 0..=REPEATED_MAX {
            match self.client.revoke(target.clone()).await {
                Ok(revoked) => {
                    let sequence = revoked.sequence.0;
                    self.keep(
                        invoked,
                        self.now(),
                        Act::Revoke { target: Target::Identity(identity), sequence },
                    );
                    return;
                }
                // It has asked for nothing yet.
                Err(Error::Rejected(Rejection::NotFound)) => return,
                Err(_) => {}
            }
        }
        self.keep(invoked, NEVER, Act::Revoke { target: Target::Identity(identity), sequence: 0 });
    }
}
