//! The run: fill the key space, warm up, measure, report.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use jeton_core::claims::Claims;
use jeton_core::command::{Command, ISSUE_TOKENS_MAX, IssueTokens, RevokeTarget};
use jeton_core::numbers::Sequence;
use jeton_core::outcome::{Outcome, Rejection, Reply};
use jeton_core::sequencer::FIRST_TENANT;
use jeton_core::token::TokenId;
use jeton_wire::request::{Request, encode_validate};
use jeton_wire::response::Response;

use crate::cli::Run;
use crate::link::Links;
use crate::measure::{cpu_of, own_cpu, rss_of};
use crate::plan::{Planned, Revokes, is_right, planned, victim, victims};
use crate::report::{Kind, Report, Totals};
use crate::schedule::Schedule;
use crate::tokens::TokenFile;

/// Issue commands outstanding while the key space is filled: 1,024 tokens.
const FILL_IN_FLIGHT: usize = 1_024 / ISSUE_TOKENS_MAX;
/// Requests put on their way in an open loop before answers are taken again.
const SENDS_PER_TURN: usize = 256;
/// How long a run may go on without an answer.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Lifetime of the tokens: longer than any run.
const TTL_S: u32 = 24 * 3_600;

fn issue(subjects: usize) -> anyhow::Result<Command> {
    Ok(Command::IssueTokens(IssueTokens {
        tenant: FIRST_TENANT.parse()?,
        subjects: vec!["load".parse()?; subjects],
        claims: Claims::new([], [], ["read on load/*".parse()?], Default::default())?,
        ttl_s: TTL_S,
        not_before_s: 0,
        renewable_s: 0,
        uses_max: 0,
        parent: None,
        binding: None,
    }))
}

/// Fills the key space with durable tokens; returns how many were made in a second.
fn fill(links: &mut Links, tokens: &mut TokenFile, count: u32) -> anyhow::Result<f64> {
    let bar = ProgressBar::new(u64::from(count));
    let (mut next, mut done) = (0_u32, 0_u32);
    let mut under_way = HashMap::new();
    let mut wrong = None;
    let began = Instant::now();
    let mut heard = began;
    let mut id = 1_u64;
    while done < count {
        while under_way.len() < FILL_IN_FLIGHT && next < count {
            let size = (count - next).min(ISSUE_TOKENS_MAX as u32);
            let request = Request::Write { key: None, command: issue(size as usize)? };
            links.send(id as usize % links.len(), |into| request.encode(id, into));
            under_way.insert(id, next);
            (id, next) = (id + 1, next + size);
        }
        links.turn(|_, id, response| {
            let Some(first) = under_way.remove(&id) else { return };
            match response {
                Response::Written {
                    reply: Reply { result: Ok(Outcome::Issued { tokens: issued, .. }), .. },
                    ..
                } => {
                    for (position, token) in (first..).zip(&issued) {
                        tokens.put(position, &token.to_bytes());
                    }
                    done += issued.len() as u32;
                }
                other => wrong = Some(format!("an issue was answered {other:?}")),
            }
            heard = Instant::now();
        })?;
        bar.set_position(u64::from(done));
        if let Some(wrong) = wrong.take() {
            bail!(wrong);
        }
        if heard.elapsed() > SILENCE_MAX {
            bail!("the server did not answer for {} s", SILENCE_MAX.as_secs());
        }
    }
    bar.finish_and_clear();
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// Changes the tokens of which something else than `valid` is expected.
fn spoil(tokens: &mut TokenFile, count: u32) -> anyhow::Result<()> {
    for position in 0..count {
        let mut token = *tokens.at(position);
        match planned(position) {
            Planned::NeverIssued => getrandom::fill(&mut token).context("random bytes")?,
            Planned::WrongSecret => token[31] ^= 1,
            Planned::Live | Planned::Victim(_) => continue,
        }
        tokens.put(position, &token);
    }
    Ok(())
}

/// A request under way.
struct Asked {
    kind: Kind,
    /// When it was to be sent, and when it was.
    due: Instant,
    at: Instant,
    /// How far the revokes were.
    revokes: Revokes,
    positions: Vec<u32>,
}

/// The closed loop.
struct Loop<'a> {
    config: &'a Run,
    tokens: &'a TokenFile,
    under_way: HashMap<u64, Asked>,
    next_id: u64,
    random: u64,
    victims: u32,
    /// Victims acknowledged out of order wait here.
    revokes: Revokes,
    done_early: std::collections::BTreeSet<u32>,
    totals: Totals,
    heard: Instant,
}

impl<'a> Loop<'a> {
    fn new(config: &'a Run, tokens: &'a TokenFile) -> anyhow::Result<Self> {
        Ok(Self {
            config,
            tokens,
            under_way: HashMap::new(),
            next_id: 1 << 32,
            random: 0x9e37_79b9_7f4a_7c15,
            victims: victims(config.tokens),
            revokes: Revokes::default(),
            done_early: Default::default(),
            totals: Totals::new()?,
            heard: Instant::now(),
        })
    }

    /// Marsaglia, "Xorshift RNGs", 2003: the same run each time.
    fn random(&mut self, below: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(below)) >> 32) as u32
    }

    fn ask(&mut self, links: &mut Links, link: usize, due: Option<Instant>) -> anyhow::Result<()> {
        let die = self.random(100);
        let mix = self.config.mix;
        let kind = if die < mix.validate {
            Kind::Validate
        } else if die < mix.validate + mix.issue || self.revokes.asked >= self.victims {
            if mix.issue > 0 { Kind::Issue } else { Kind::Validate }
        } else {
            Kind::Revoke
        };
        let id = self.next_id;
        self.next_id += 1;
        let positions = match kind {
            Kind::Validate => self.ask_validate(links, link, id),
            Kind::Issue => {
                let request =
                    Request::Write { key: None, command: issue(usize::from(self.config.issue_batch))? };
                links.send(link, |into| request.encode(id, into));
                Vec::new()
            }
            Kind::Revoke => {
                let n = self.revokes.asked;
                self.revokes.asked += 1;
                let token =
                    TokenId(*self.tokens.at(victim(n)).first_chunk().context("32 bytes begin with 16")?);
                let command = Command::Revoke(RevokeTarget::Id(token));
                links.send(link, |into| Request::Write { key: None, command }.encode(id, into));
                vec![n]
            }
        };
        let at = Instant::now();
        let due = due.unwrap_or(at);
        self.under_way.insert(id, Asked { kind, due, at, revokes: self.revokes, positions });
        Ok(())
    }

    fn ask_validate(&mut self, links: &mut Links, link: usize, id: u64) -> Vec<u32> {
        let positions: Vec<u32> = (0..self.config.batch).map(|_| self.random(self.config.tokens)).collect();
        let tokens: Vec<[u8; 32]> = positions.iter().map(|position| *self.tokens.at(*position)).collect();
        links.send(link, |into| encode_validate(id, &tokens, &[], None, Sequence(0), false, into));
        positions
    }

    /// Checks one answer against the plan.
    fn take(&mut self, id: u64, response: &Response) {
        let Some(asked) = self.under_way.remove(&id) else { return };
        self.heard = Instant::now();
        let since = |at: Instant| u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (latency_us, service_us) = (since(asked.due), since(asked.at));
        match (asked.kind, response) {
            (_, Response::Busy { .. }) => {
                self.totals.refused += 1;
                if asked.kind == Kind::Revoke {
                    self.acknowledge(&asked, false);
                }
                return;
            }
            (
                _,
                Response::Written {
                    reply: Reply { result: Err(Rejection::DiskFull | Rejection::ClockInDoubt), .. },
                    ..
                },
            ) => {
                self.totals.refused += 1;
                if asked.kind == Kind::Revoke {
                    self.acknowledge(&asked, false);
                }
                return;
            }
            (Kind::Validate, Response::Answers { answers, .. }) if answers.len() == asked.positions.len() => {
                for (position, answer) in asked.positions.iter().zip(answers) {
                    if !is_right(planned(*position), answer.verdict, asked.revokes, self.revokes) {
                        let words = answer.verdict.word();
                        self.totals
                            .wrong(|| format!("position {position} ({:?}) was {words}", planned(*position)));
                    }
                }
                self.totals.tokens += answers.len() as u64;
            }
            (
                Kind::Issue,
                Response::Written { reply: Reply { result: Ok(Outcome::Issued { .. }), .. }, .. },
            ) => {}
            (
                Kind::Revoke,
                Response::Written { reply: Reply { result: Ok(Outcome::Revoked(report)), .. }, .. },
            ) => {
                if report.revoked != 1 {
                    self.totals.wrong(|| format!("a revoke revoked {} tokens", report.revoked));
                }
                self.acknowledge(&asked, true);
            }
            (kind, other) => {
                self.totals.errors += 1;
                self.totals.wrong(|| format!("a {kind:?} was answered {other:?}"));
            }
        }
        self.totals.count(asked.kind, latency_us, service_us);
    }

    /// Notes that a victim is dead. One that was refused is never asked for again: it stays between both marks.
    fn acknowledge(&mut self, asked: &Asked, is_done: bool) {
        let Some(n) = asked.positions.first().filter(|_| is_done) else { return };
        self.done_early.insert(*n);
        while self.done_early.remove(&self.revokes.acknowledged) {
            self.revokes.acknowledged += 1;
        }
    }

    /// Runs until `until`, at the configured rate or else in a closed loop.
    fn run(&mut self, links: &mut Links, until: Instant) -> anyhow::Result<()> {
        match self.config.rate {
            Some(rate) => self.run_open(links, Schedule::new(Instant::now(), rate), until),
            None => self.run_closed(links, until),
        }
    }

    /// Sends what is due, as long as there is room for it in flight.
    fn run_open(&mut self, links: &mut Links, mut schedule: Schedule, until: Instant) -> anyhow::Result<()> {
        let in_flight_max = links.len() * usize::from(self.config.in_flight);
        let mut link = 0;
        self.heard = Instant::now();
        loop {
            let now = Instant::now();
            if now >= until {
                break;
            }
            for _ in 0..SENDS_PER_TURN {
                let Some(due) = schedule.next_due(now) else { break };
                if self.under_way.len() >= in_flight_max {
                    self.totals.not_sent += 1;
                    continue;
                }
                let lag_us = u64::try_from((now - due).as_micros()).unwrap_or(u64::MAX);
                self.totals.lag_us_max = self.totals.lag_us_max.max(lag_us);
                self.ask(links, link % links.len(), Some(due))?;
                link += 1;
            }
            links.turn(|_, id, response| self.take(id, &response))?;
            self.check_silence()?;
        }
        self.totals.offered += schedule.offered();
        Ok(())
    }

    /// Takes the answers of what is still under way, and counts what has none. These answers are checked, not counted.
    fn drain(&mut self, links: &mut Links) -> anyhow::Result<()> {
        let until = Instant::now() + SILENCE_MAX;
        while !self.under_way.is_empty() && Instant::now() < until {
            links.turn(|_, id, response| self.take(id, &response))?;
        }
        self.totals.unanswered = self.under_way.len() as u64;
        Ok(())
    }

    fn check_silence(&self) -> anyhow::Result<()> {
        if !self.under_way.is_empty() && self.heard.elapsed() > SILENCE_MAX {
            bail!("the server did not answer for {} s", SILENCE_MAX.as_secs());
        }
        Ok(())
    }

    /// Always with as many requests in flight as configured.
    fn run_closed(&mut self, links: &mut Links, until: Instant) -> anyhow::Result<()> {
        let mut free: Vec<usize> = Vec::new();
        let wanted = links.len() * usize::from(self.config.in_flight);
        if self.under_way.is_empty() {
            free = (0..wanted).map(|at| at % links.len()).collect();
        }
        while Instant::now() < until {
            for link in std::mem::take(&mut free) {
                self.totals.offered += 1;
                self.ask(links, link, None)?;
            }
            links.turn(|link, id, response| {
                self.take(id, &response);
                free.push(link);
            })?;
            self.check_silence()?;
        }
        // What came last goes out first thing in the next phase.
        for link in free {
            self.ask(links, link, None)?;
        }
        Ok(())
    }
}

/// Carries out a run; returns whether every reply was right.
pub(crate) fn run(config: &Run) -> anyhow::Result<bool> {
    let address = config.target.address()?;
    let mut links = Links::connect(address, config.target.credentials()?, usize::from(config.connections))?;
    let mut tokens = TokenFile::anonymous(config.tokens)?;
    let fill_per_s = fill(&mut links, &mut tokens, config.tokens)?;
    spoil(&mut tokens, config.tokens)?;
    if let Some(path) = &config.token_file {
        tokens.save(path)?;
    }
    let pid = config.server_pid.or_else(|| config.target.pid());
    let mut load = Loop::new(config, &tokens)?;
    load.run(&mut links, Instant::now() + config.warm_up)?;
    load.totals.reset();
    let (began, own, server) = (Instant::now(), own_cpu(), pid.and_then(cpu_of));
    let ended = load.run(&mut links, began + config.duration);
    if load.revokes.asked >= load.victims && config.mix.revoke > 0 {
        eprintln!("jeton-load: every token set aside to be revoked was: the rest of the run had no revokes");
    }
    // A server that fell silent is measured up to its last word.
    let until = if ended.is_ok() { Instant::now() } else { load.heard };
    let generator_cpu_s = (own_cpu() - own).as_secs_f64();
    let server_cpu_s = pid.and_then(cpu_of).zip(server).map(|(after, before)| (after - before).as_secs_f64());
    let server_rss_bytes = pid.and_then(rss_of);
    let counted = load.totals.clone();
    let ended = ended.and_then(|()| load.drain(&mut links));
    let totals = counted.with_late(load.totals);
    let seconds = until.saturating_duration_since(began).as_secs_f64();
    let report = Report { seconds, fill_per_s, generator_cpu_s, server_cpu_s, server_rss_bytes, totals };
    report.print(config);
    // A server that died in mid-run: what was measured is told, and then that.
    ended?;
    Ok(report.totals.wrong_replies == 0)
}

/// A histogram from a microsecond to a minute, three digits.
pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    histogram.auto(true);
    Ok(histogram)
}
