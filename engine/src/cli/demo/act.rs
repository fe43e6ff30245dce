//! What the demo does to its server, and what it insists on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use jeton_client::{
    Check, Claims, Client, Config, Consistency, Identity, IssueTokens, Name, RevokeTarget, Token, Verdict,
};

use crate::cli::target::running_address;
use crate::credentials::Identities;

/// Connections, and tasks on each of them.
const CONNECTIONS: usize = 4;
const TASKS_PER_CONNECTION: usize = 4;
/// Tokens of one issue command.
const ISSUE_BATCH: usize = 256;
/// Tokens of one validate under load.
const VALIDATE_BATCH: usize = 64;
/// Pause between two revokes under load.
const REVOKE_EVERY: Duration = Duration::from_millis(5);
const CROWD_SUBJECT: &str = "crowd";

// What a token is to be, by its position.
const LIVE: u8 = 0;
const REVOKING: u8 = 1;
const REVOKED: u8 = 2;

/// Clients, and the tokens they were given.
pub(super) struct Actors {
    clients: Vec<Client>,
    tokens: Arc<Vec<Token>>,
    plan: Arc<Vec<AtomicU8>>,
    crowd: Vec<Token>,
}

/// What came of the mixed load.
pub(super) struct Load {
    pub(super) validated: u64,
    pub(super) revoked: u64,
    pub(super) latency_us: [u64; 4],
}

fn issue(subjects: Vec<Name>, ttl_s: u32, uses_max: u32) -> anyhow::Result<IssueTokens> {
    Ok(IssueTokens {
        tenant: jeton_core::sequencer::FIRST_TENANT.parse()?,
        subjects,
        claims: Claims::new([], [], ["read on journal/*".parse()?], Default::default())?,
        ttl_s,
        not_before_s: 0,
        renewable_s: 0,
        uses_max,
        parent: None,
        binding: None,
    })
}

async fn connect(data: &Path) -> anyhow::Result<Vec<Client>> {
    let address = running_address(data).context("the server left no address")?;
    let identity = Identity::from_dir(Identities::of(data).client_dir("admin"))?;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(Config::new(address, identity.clone())).await?);
    }
    Ok(clients)
}

/// A small generator of positions: the demo is the same each time (Marsaglia, "Xorshift RNGs", 2003).
struct Positions(u64);

impl Positions {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

impl Actors {
    pub(super) async fn connect(data: &Path) -> anyhow::Result<Self> {
        let clients = connect(data).await?;
        Ok(Self { clients, tokens: Arc::default(), plan: Arc::default(), crowd: Vec::new() })
    }

    pub(super) async fn reconnect(&mut self, data: &Path) -> anyhow::Result<()> {
        self.clients = connect(data).await?;
        Ok(())
    }

    pub(super) fn disconnect(&mut self) -> Vec<Client> {
        std::mem::take(&mut self.clients)
    }

    fn client(&self) -> anyhow::Result<&Client> {
        self.clients.first().context("the demo is connected")
    }

    /// Issues `count` tokens in batches over all connections; the first `crowd` of them to one subject.
    pub(super) async fn issue_all(
        &mut self,
        bar: &ProgressBar,
        count: usize,
        crowd: usize,
    ) -> anyhow::Result<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for client in self.clients.iter().cycle().take(CONNECTIONS * TASKS_PER_CONNECTION) {
            let (client, next, bar) = (client.clone(), Arc::clone(&next), bar.clone());
            tasks.spawn(async move {
                let mut issued = Vec::new();
                loop {
                    let first = next.fetch_add(ISSUE_BATCH, Ordering::Relaxed);
                    if first >= count {
                        return anyhow::Ok(issued);
                    }
                    let subject_at = |at: usize| match at < crowd {
                        true => Name::new(CROWD_SUBJECT),
                        false => Name::new(&format!("user-{at}")),
                    };
                    let subjects: Result<Vec<_>, _> =
                        (first..count.min(first + ISSUE_BATCH)).map(subject_at).collect();
                    let tokens = client.issue(issue(subjects?, 3_600, 0)?, None).await?.tokens;
                    bar.inc(tokens.len() as u64);
                    issued.push((first, tokens));
                }
            });
        }
        let mut batches = Vec::new();
        while let Some(done) = tasks.join_next().await {
            batches.extend(done??);
        }
        batches.sort_by_key(|(first, _)| *first);
        let mut all = batches.into_iter().flat_map(|(_, tokens)| tokens);
        self.crowd = all.by_ref().take(crowd).collect();
        let rest: Vec<Token> = all.collect();
        ensure!(self.crowd.len() + rest.len() == count, "not every token was issued");
        self.plan = Arc::new(rest.iter().map(|_| AtomicU8::new(LIVE)).collect());
        self.tokens = Arc::new(rest);
        Ok(())
    }

    /// Validates, issues and revokes at once; every answer has to fit what was acknowledged before it was asked.
    pub(super) async fn mixed_load(&self, bar: &ProgressBar, duration: Duration) -> anyhow::Result<Load> {
        let until = Instant::now() + duration;
        let validated = Arc::new(AtomicU64::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for (number, client) in
            (0..).zip(self.clients.iter().cycle().take(CONNECTIONS * TASKS_PER_CONNECTION))
        {
            let (client, tokens, plan) = (client.clone(), Arc::clone(&self.tokens), Arc::clone(&self.plan));
            let validated = Arc::clone(&validated);
            tasks.spawn(
                async move { validate_until(until, number, &client, &tokens, &plan, &validated).await },
            );
        }
        let (client, tokens, plan) =
            (self.client()?.clone(), Arc::clone(&self.tokens), Arc::clone(&self.plan));
        let revoking = tokio::spawn(async move { revoke_until(until, &client, &tokens, &plan).await });
        let client = self.client()?.clone();
        let issuing = tokio::spawn(async move {
            while Instant::now() < until {
                client.issue(issue(vec![Name::new("passer-by")?], 60, 0)?, None).await?;
            }
            anyhow::Ok(())
        });
        for second in 0..duration.as_secs() {
            bar.set_position(second);
            tokio::time::sleep_until((until - Duration::from_secs(duration.as_secs() - second - 1)).into())
                .await;
        }
        let mut latency = Histogram::<u64>::new(3)?;
        while let Some(done) = tasks.join_next().await {
            latency.add(done??)?;
        }
        issuing.await??;
        let revoked = revoking.await??;
        let quantiles = [0.5, 0.9, 0.99, 1.0].map(|quantile| latency.value_at_quantile(quantile));
        Ok(Load { validated: validated.load(Ordering::Relaxed), revoked, latency_us: quantiles })
    }

    pub(super) async fn revoke_crowd(&self) -> anyhow::Result<u64> {
        let tenant = jeton_core::sequencer::FIRST_TENANT.parse()?;
        let target = RevokeTarget::Subject { tenant, subject: CROWD_SUBJECT.parse()? };
        let revoked = self.client()?.revoke(target).await?.report.revoked;
        ensure!(revoked == self.crowd.len() as u64, "{revoked} of {} tokens were revoked", self.crowd.len());
        Ok(revoked)
    }

    /// Asks on every connection.
    pub(super) async fn assert_crowd_denied(&self) -> anyhow::Result<()> {
        for client in &self.clients {
            let answers =
                client.validate_batch(&self.crowd, &Check::live(), Consistency::ReadYourWrites).await?;
            let alive = answers.iter().filter(|answer| answer.verdict != Verdict::Revoked).count();
            ensure!(alive == 0, "{alive} tokens of a revoked subject were not denied");
        }
        Ok(())
    }

    pub(super) async fn assert_as_planned(&self) -> anyhow::Result<()> {
        let answers =
            self.client()?.validate_batch(&self.tokens, &Check::live(), Consistency::Latest).await?;
        for (position, (answer, plan)) in answers.iter().zip(&*self.plan).enumerate() {
            let expected =
                if plan.load(Ordering::Acquire) == LIVE { Verdict::Valid } else { Verdict::Revoked };
            ensure!(
                answer.verdict == expected,
                "token {position} is {}, not {}",
                answer.verdict.word(),
                expected.word()
            );
        }
        Ok(())
    }

    pub(super) async fn use_once(&self) -> anyhow::Result<()> {
        let client = self.client()?;
        let issued = client.issue(issue(vec!["guest".parse()?], 60, 1)?, None).await?;
        let token = issued.tokens.first().context("a token")?;
        let asked = client.validate(token, &Check::live()).await?.verdict;
        ensure!(asked == Verdict::ConsumeRequired, "a one-use token was answered {}", asked.word());
        let first = client.consume(token, &Check::live(), None).await?.0.verdict;
        let second = client.consume(token, &Check::live(), None).await?.0.verdict;
        ensure!(first == Verdict::Valid, "the first use was answered {}", first.word());
        ensure!(second == Verdict::Spent, "the second use was answered {}", second.word());
        Ok(())
    }

    pub(super) async fn expire(&self) -> anyhow::Result<()> {
        let client = self.client()?;
        let issued = client.issue(issue(vec!["visitor".parse()?], 1, 0)?, None).await?;
        let token = issued.tokens.first().context("a token")?;
        let fresh = client.validate(token, &Check::live()).await?.verdict;
        ensure!(fresh == Verdict::Valid, "a fresh token was answered {}", fresh.word());
        // A second, rounded up to the next whole one.
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
            match client.validate(token, &Check::live()).await?.verdict {
                Verdict::Valid => {}
                Verdict::Expired => return Ok(()),
                other => bail!("an expiring token was answered {}", other.word()),
            }
        }
        bail!("a token outlived its second")
    }

    pub(super) async fn bytes_per_token(&self) -> anyhow::Result<f64> {
        let stats: serde_json::Value = serde_json::from_str(&self.client()?.stats().await?)?;
        let number =
            |key: &str| stats.get(key).and_then(serde_json::Value::as_f64).context("a figure of the server");
        Ok(number("memory_bytes")? / number("tokens")?)
    }
}

async fn validate_until(
    until: Instant,
    number: u64,
    client: &Client,
    tokens: &[Token],
    plan: &[AtomicU8],
    validated: &AtomicU64,
) -> anyhow::Result<Histogram<u64>> {
    let mut latency = Histogram::new(3)?;
    let mut positions = Positions(0x9e37_79b9_7f4a_7c15 ^ (number + 1));
    let check = Check::access("read", "journal/7")?;
    while Instant::now() < until {
        let asked: Vec<usize> = (0..VALIDATE_BATCH).map(|_| positions.next(tokens.len())).collect();
        let batch: Vec<Token> = asked.iter().map(|at| tokens[*at].clone()).collect();
        let before: Vec<u8> = asked.iter().map(|at| plan[*at].load(Ordering::Acquire)).collect();
        let began = Instant::now();
        let answers = client.validate_batch(&batch, &check, Consistency::Latest).await?;
        latency.record(u64::try_from(began.elapsed().as_micros())?.max(1))?;
        for ((at, before), answer) in asked.iter().zip(before).zip(&answers) {
            let after = plan[*at].load(Ordering::Acquire);
            let is_valid = answer.verdict == Verdict::Valid;
            ensure!(
                !(is_valid && before == REVOKED),
                "token {at} was valid after its revoke was acknowledged"
            );
            ensure!(
                is_valid || after != LIVE,
                "token {at} was {} and nobody had revoked it",
                answer.verdict.word()
            );
        }
        validated.fetch_add(answers.len() as u64, Ordering::Relaxed);
    }
    Ok(latency)
}

async fn revoke_until(
    until: Instant,
    client: &Client,
    tokens: &[Token],
    plan: &[AtomicU8],
) -> anyhow::Result<u64> {
    let mut positions = Positions(7);
    let mut revoked = 0;
    while Instant::now() < until {
        let at = positions.next(tokens.len());
        if plan[at].load(Ordering::Acquire) != LIVE {
            continue;
        }
        plan[at].store(REVOKING, Ordering::Release);
        client.revoke(RevokeTarget::Id(tokens[at].id)).await?;
        plan[at].store(REVOKED, Ordering::Release);
        revoked += 1;
        tokio::time::sleep(REVOKE_EVERY).await;
    }
    Ok(revoked)
}
