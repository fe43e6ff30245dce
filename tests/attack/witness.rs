//! The legitimate client: one connection, one question at a time, every answer checked and timed.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jeton_client::{Check, Client, Config, Consistency, Identity, RevokeTarget, Token, Verdict};

use super::rig::{Stop, Target};
use crate::issue_for;

/// Tokens in a question.
const BATCH: usize = 16;
/// Between two questions: it is a client, not a load.
const PAUSE: Duration = Duration::from_millis(1);

/// A client with live tokens and a dead one.
#[derive(Debug)]
pub struct Witness {
    client: Client,
    live: Vec<Token>,
    dead: Token,
}

/// What a witness saw.
#[derive(Debug)]
pub struct Seen {
    /// Microseconds from question to answer.
    pub latency_us: Histogram<u64>,
    /// Answers that were wrong.
    pub wrong: u64,
    /// Questions without an answer.
    pub unanswered: u64,
    /// Why the last of those had none.
    pub reason: Option<String>,
}

impl Default for Seen {
    fn default() -> Self {
        let latency_us = Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order");
        Self { latency_us, wrong: 0, unanswered: 0, reason: None }
    }
}

impl Witness {
    /// A witness with tokens of its own.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn new(target: &Target) -> anyhow::Result<Self> {
        let identity = Identity::from_dir(target.data.join("identities/admin"))?;
        let client = Client::connect(Config::new(target.address, identity)).await?;
        let mut live = client.issue(issue_for(&["witness"; BATCH]), None).await?.tokens;
        let dead = live.pop().expect("as many tokens as subjects");
        client.revoke(RevokeTarget::Id(dead.id)).await?;
        Ok(Self { client, live, dead })
    }

    /// Its connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Asks once; whether the answer was right.
    ///
    /// # Errors
    /// If there was none.
    pub async fn ask(&self) -> Result<bool, jeton_client::Error> {
        let mut tokens = self.live.clone();
        tokens.push(self.dead.clone());
        let answers = self.client.validate_batch(&tokens, &Check::live(), Consistency::Latest).await?;
        let (dead, live) = answers.split_last().expect("an answer for each token");
        Ok(dead.verdict == Verdict::Revoked && live.iter().all(|answer| answer.verdict == Verdict::Valid))
    }

    /// Asks until told to stop, and once if an attack is over before it began to look.
    pub async fn watch(&self, stop: &Stop) -> Seen {
        let mut seen = Seen::default();
        loop {
            let began = Instant::now();
            match self.ask().await {
                Ok(is_right) => {
                    let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    seen.latency_us.saturating_record(took_us);
                    seen.wrong += u64::from(!is_right);
                }
                Err(error) => {
                    seen.unanswered += 1;
                    seen.reason = Some(error.to_string());
                }
            }
            if stop.is_over() {
                return seen;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Issues and revokes a token again and again until told to stop: how long each revoke took, in microseconds.
    pub async fn revoke_on(&self, stop: &Stop) -> Seen {
        let mut seen = Seen::default();
        let mut victims = Vec::new();
        while !stop.is_over() {
            let Some(victim) = victims.pop() else {
                match self.client.issue(issue_for(&["victim"; 64]), None).await {
                    Ok(issued) => victims = issued.tokens,
                    Err(error) => {
                        seen.unanswered += 1;
                        seen.reason = Some(error.to_string());
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                continue;
            };
            let began = Instant::now();
            let revoked: Token = victim;
            match self.client.revoke(RevokeTarget::Id(revoked.id)).await {
                Ok(done) => {
                    let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    seen.latency_us.saturating_record(took_us);
                    let answer = self.client.validate(&revoked, &Check::live()).await;
                    let is_dead = answer.is_ok_and(|answer| answer.verdict == Verdict::Revoked);
                    seen.wrong += u64::from(!is_dead || done.report.revoked != 1);
                }
                Err(error) => {
                    seen.unanswered += 1;
                    seen.reason = Some(error.to_string());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        seen
    }
}
