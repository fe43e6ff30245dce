//! One client's mixed load: what it does next, and how it is done over the wire.

use std::time::Duration;

use jeton_client::{
    Check, Claims, Client, Consistency, Error, Grant, IdempotencyKey, IssueTokens, Rejection, RevokeTarget,
    Seconds, Sequence,
};
use tokio::sync::watch;

use super::ledger::{Ledger, Target, Told, Write};
use crate::sim::rng::Rng;
use crate::{issue_for, name};

/// Longer than any run with one log.
const TTL_S: u32 = 24 * 3_600;
const RENEWABLE_S: u32 = 7 * 24 * 3_600;
const TOKENS_MAX: u64 = 8;
const USES_MAX: u64 = 4;
const RESOURCES: u64 = 6;
/// Tokens in one validate of the load.
const ASKED: u64 = 32;
/// Tokens of a client that are inspected after each restart.
const INSPECTED: u64 = 6;

/// A client, what it was told, and what it will do.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) ledger: Ledger,
    rng: Rng,
    /// The subject that tokens are issued for now; it changes often, so that a revoke counts few.
    subject: u32,
}

/// How sending a write ended.
enum Ended {
    Told(Told, Sequence),
    /// The server said that nothing was done.
    Refused,
    /// No answer.
    CutOff,
}

impl Worker {
    pub(super) fn new(number: usize, seed: u64) -> Self {
        Self { number, ledger: Ledger::default(), rng: Rng::new(seed ^ ((number as u64) << 32)), subject: 0 }
    }

    /// The name of its identity.
    pub(super) fn identity(&self) -> String {
        format!("worker-{}", self.number)
    }

    fn subject_name(&self, subject: u32) -> String {
        format!("{}-{subject}", self.identity())
    }

    fn resource(&self, resource: u32) -> String {
        format!("{}/{resource}", self.identity())
    }

    fn key(&mut self) -> IdempotencyKey {
        let mut key = [0; 16];
        self.rng.fill(&mut key);
        IdempotencyKey(key)
    }

    fn pick(&mut self, places: &[usize]) -> Option<usize> {
        (!places.is_empty()).then(|| *self.rng.pick(places))
    }

    /// What to do next; `None` for a validate.
    fn next(&mut self) -> Option<Write> {
        let [living, limited, parents, renewable] = self.ledger.living();
        let target = match self.rng.below(100) {
            0..36 => return Some(self.next_issue(&parents)),
            36..54 => {
                let (token, key) = (self.pick(&limited)?, self.key());
                return Some(Write::Consume { token, key });
            }
            54..62 => return self.pick(&renewable).map(|token| Write::Renew { token }),
            62..72 => Target::Id(self.pick(&living)?),
            72..77 => {
                Target::Subject(u32::try_from(self.rng.below(u64::from(self.subject) + 1)).unwrap_or(0))
            }
            77..81 => Target::Family(self.pick(&living)?),
            81..83 => Target::Resource(u32::try_from(self.rng.below(RESOURCES)).unwrap_or(0)),
            83 => Target::Client,
            _ => return None,
        };
        // Of a subject that was never named the server knows nothing.
        let is_known = |ledger: &Ledger| match target {
            Target::Subject(_) | Target::Resource(_) | Target::Client => !ledger.tokens().is_empty(),
            Target::Id(_) | Target::Family(_) => true,
        };
        let key = self.key();
        is_known(&self.ledger).then(|| Write::Revoke { target, key: self.rng.one_in(2).then_some(key) })
    }

    fn next_issue(&mut self, parents: &[usize]) -> Write {
        if self.rng.one_in(3) {
            self.subject += 1;
        }
        let uses = if self.rng.one_in(3) { self.rng.within(1..USES_MAX + 1) } else { 0 };
        let parent = if self.rng.one_in(4) { self.pick(parents) } else { None };
        Write::Issue {
            subject: self.subject,
            count: usize::try_from(self.rng.within(1..TOKENS_MAX + 1)).unwrap_or(1),
            resource: u32::try_from(self.rng.below(RESOURCES)).unwrap_or(0),
            uses: u32::try_from(uses).unwrap_or(0),
            renewable: self.rng.one_in(3),
            parent,
            key: self.key(),
        }
    }

    fn issue(&self, write: &Write) -> Option<IssueTokens> {
        let Write::Issue { subject, count, resource, uses, renewable, parent, .. } = write else {
            return None;
        };
        let subject = self.subject_name(*subject);
        let grant: Grant = format!("read on {}/page", self.resource(*resource)).parse().expect("a grant");
        Some(IssueTokens {
            claims: Claims::new([], [], [grant], Default::default()).expect("claims"),
            ttl_s: TTL_S,
            renewable_s: if *renewable { RENEWABLE_S } else { 0 },
            uses_max: *uses,
            parent: parent.map(|parent| self.ledger.token(parent).id),
            ..issue_for(&vec![subject.as_str(); *count])
        })
    }

    fn target(&self, target: Target) -> RevokeTarget {
        let tenant = name("default");
        match target {
            Target::Id(at) => RevokeTarget::Id(self.ledger.token(at).id),
            Target::Family(at) => RevokeTarget::Family(self.ledger.token(at).id),
            Target::Subject(subject) => {
                RevokeTarget::Subject { tenant, subject: name(&self.subject_name(subject)) }
            }
            Target::Client => {
                RevokeTarget::Client { tenant, client: name(&format!("jeton:client:{}", self.identity())) }
            }
            Target::Resource(resource) => {
                let pattern = format!("{}/**", self.resource(resource)).parse().expect("a pattern");
                RevokeTarget::Resource { tenant, pattern }
            }
        }
    }

    async fn send(&self, client: &Client, write: &Write) -> Result<Ended, String> {
        let answer = match write {
            Write::Issue { key, .. } => {
                let issue = self.issue(write).expect("it is one");
                client.issue(issue, Some(*key)).await.map(|issued| {
                    let until = Seconds(issued.expires.0 + (RENEWABLE_S - TTL_S));
                    (Told::Issued(issued.tokens, issued.expires, until), issued.sequence)
                })
            }
            Write::Revoke { target, key } => {
                let target = self.target(*target);
                let revoked = match key {
                    Some(key) => client.revoke_with_key(target, *key).await,
                    None => client.revoke(target).await,
                };
                revoked.map(|revoked| (Told::Revoked(revoked.report.revoked), revoked.sequence))
            }
            Write::Consume { token, key } => {
                let consumed = client.consume(self.ledger.token(*token), &Check::live(), Some(*key)).await;
                consumed.map(|(answer, left)| (Told::Consumed(answer.verdict, left), Sequence(0)))
            }
            Write::Renew { token } => {
                let renewed = client.renew(self.ledger.token(*token), RENEWABLE_S, None).await;
                renewed.map(|expires| (Told::Renewed(expires), Sequence(0)))
            }
        };
        match answer {
            Ok((told, sequence)) => Ok(Ended::Told(told, sequence)),
            Err(Error::Rejected(Rejection::Token(verdict))) => {
                Ok(Ended::Told(Told::Dead(verdict), Sequence(0)))
            }
            // A subject whose only issue was never answered may be unknown.
            Err(Error::Rejected(Rejection::NotFound)) => Ok(Ended::Told(Told::Revoked(0), Sequence(0))),
            Err(Error::Busy | Error::Rejected(Rejection::Stopping)) => Ok(Ended::Refused),
            Err(Error::Closed(_) | Error::Connect { .. } | Error::Deadline | Error::Indeterminate) => {
                Ok(Ended::CutOff)
            }
            Err(other) => Err(format!("{write:?}: {other}")),
        }
    }

    /// Writes and validates until the server is gone.
    pub(super) async fn work(
        &mut self,
        client: &Client,
        over: &mut watch::Receiver<bool>,
    ) -> Result<(), String> {
        loop {
            let is_over = tokio::select! {
                biased;
                _ = over.wait_for(|is_over| *is_over) => true,
                done = self.step(client) => done?,
            };
            if is_over {
                self.ledger.cut_off += u64::from(self.ledger.pending().is_some());
                return Ok(());
            }
        }
    }

    /// One write or one validate. Returns whether the server is gone.
    async fn step(&mut self, client: &Client) -> Result<bool, String> {
        let Some(write) = self.next() else { return self.ask(client).await };
        self.ledger.begin(write.clone());
        match self.send(client, &write).await? {
            Ended::Told(told, sequence) => self.ledger.told(told, sequence, false).map(|()| false),
            Ended::Refused => {
                self.ledger.refused();
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(false)
            }
            Ended::CutOff => Ok(true),
        }
    }

    async fn ask(&mut self, client: &Client) -> Result<bool, String> {
        let all = self.ledger.tokens();
        if all.is_empty() {
            return Ok(false);
        }
        let places: Vec<usize> =
            (0..ASKED).map(|_| usize::try_from(self.rng.below(all.len() as u64)).unwrap_or(0)).collect();
        let asked: Vec<_> = places.iter().map(|at| all[*at].clone()).collect();
        match client.validate_batch(&asked, &Check::live(), Consistency::Latest).await {
            Ok(answers) => self.ledger.check(&places, &answers).map(|()| false),
            Err(Error::Closed(_) | Error::Connect { .. } | Error::Deadline) => Ok(true),
            Err(other) => Err(other.to_string()),
        }
    }

    /// After a restart: everything that was acknowledged is there, and what the kill cut off is settled.
    pub(super) async fn recover(&mut self, client: &Client) -> Result<(), String> {
        let failed = |error: Error| format!("after a restart: {error}");
        let tokens = self.ledger.tokens();
        let all: Vec<usize> = (0..tokens.len()).collect();
        let at_least = Consistency::AtLeast(self.ledger.sequence);
        let answers = client.validate_batch(&tokens, &Check::live(), at_least).await.map_err(failed)?;
        self.ledger.check(&all, &answers).map_err(|what| format!("after a restart: {what}"))?;
        for _ in 0..INSPECTED.min(tokens.len() as u64) {
            let at = usize::try_from(self.rng.below(tokens.len() as u64)).unwrap_or(0);
            let info = client.inspect(tokens[at].id).await.map_err(failed)?.ok_or("a token is unknown")?;
            self.ledger.inspected(at, info.expires, info.uses)?;
        }
        match self.ledger.pending().cloned() {
            Some(write) if self.rng.one_in(2) => match self.send(client, &write).await? {
                Ended::Told(told, sequence) => self.ledger.told(told, sequence, true)?,
                Ended::Refused | Ended::CutOff => {
                    return Err(format!("{write:?}: no answer after a restart"));
                }
            },
            _ => self.ledger.settle(&answers)?,
        }
        if self.ledger.can_ask_again() && self.rng.one_in(2) {
            let write = self.ledger.answered().cloned().ok_or("nothing to ask again")?;
            match self.send(client, &write).await? {
                Ended::Told(told, _) => self.ledger.told_again(told)?,
                Ended::Refused | Ended::CutOff => {
                    return Err(format!("{write:?}: no answer to a repetition"));
                }
            }
        }
        Ok(())
    }
}
