//! Making the key space: tokens of every role, durable before the load begins.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::checker::Truth;
use crate::interrupt;
use crate::keyspace::KeySpace;
use crate::layout::{Layout, ROLES, Role};
use crate::peer::{Peer, Question, Reply, TokenBytes};
use crate::workload::ISSUE_BATCH_MAX;

/// Lifetime of the tokens: longer than any run.
pub(crate) const TTL_S: u32 = 24 * 3_600;
/// Lifetime of those that are to be dead when the load begins, and how long it takes until they are for certain.
pub(crate) const EXPIRED_TTL_S: u32 = 1;
const EXPIRED_AFTER: Duration = Duration::from_millis(2_100);
/// Issue commands outstanding while the key space is filled: 1,024 tokens.
const IN_FLIGHT: usize = 4;
/// How often an issue that was refused is tried again, and how long it waits before.
const REFUSED_MAX: u32 = 10_000;
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// How long nothing may be answered.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often it is told how far the filling is, where no bar can be drawn.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Of the tokens that are asked about as revoked, so many in a hundred are before the load begins; and at most.
const REVOKED_BEFORE: u32 = 10;
const REVOKED_BEFORE_MAX: u32 = 1_000;

/// A stretch of the key space that one issue makes.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    role: Role,
    first: u32,
    count: u32,
}

/// The stretches of a layout; those that have to expire first.
fn stretches(layout: Layout) -> impl Iterator<Item = Stretch> {
    ROLES.into_iter().rev().flat_map(move |role| {
        let region = layout.region(role);
        region.clone().step_by(usize::from(ISSUE_BATCH_MAX)).map(move |first| Stretch {
            role,
            first,
            count: (region.end - first).min(u32::from(ISSUE_BATCH_MAX)),
        })
    })
}

fn subjects(keys: &KeySpace, layout: &Layout, stretch: Stretch) -> Vec<String> {
    let begin = layout.region(stretch.role).start;
    (stretch.first..stretch.first + stretch.count)
        .map(|position| match stretch.role {
            Role::Member => keys.member_subject(position - begin),
            _ => keys.subject(position),
        })
        .collect()
}

/// How far something is: a bar if standard error is a terminal, otherwise a plain line now and then.
pub(crate) struct Progress {
    bar: ProgressBar,
    what: &'static str,
    /// When a line was told last, if there are lines.
    told: Option<Instant>,
}

impl Progress {
    pub(crate) fn new(count: u64, what: &'static str) -> Self {
        let style = ProgressStyle::with_template("{msg:>10} {bar:40} {human_pos}/{human_len}  {rate}  {eta}");
        let style = style.expect("the template is sound").with_key("rate", rate);
        let bar = ProgressBar::new(count).with_style(style).with_message(what);
        let told = (!std::io::stderr().is_terminal()).then(Instant::now);
        Self { bar, what, told }
    }

    pub(crate) fn set(&mut self, done: u64) {
        self.bar.set_position(done);
        if self.told.is_some_and(|told| told.elapsed() > TOLD_EVERY) {
            eprintln!("{}: {done} of {}", self.what, self.bar.length().unwrap_or(0));
            self.told = Some(Instant::now());
        }
    }

    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}

/// How many a second, without the decimals that indicatif's own key has.
fn rate(state: &ProgressState, to: &mut dyn std::fmt::Write) {
    let _ = write!(to, "{}/s", HumanCount(state.per_sec() as u64));
}

/// Makes all tokens of the key space; returns how many were made in a second.
pub(crate) fn fill(
    peer: &mut dyn Peer,
    keys: &mut KeySpace,
    layout: &Layout,
    seed: u64,
) -> anyhow::Result<f64> {
    interrupt::listen()?;
    let mut progress = Progress::new(u64::from(layout.tokens()), "issuing");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut fresh: Vec<TokenBytes> = Vec::new();
    let mut waiting = stretches(*layout);
    let mut again: Vec<Stretch> = Vec::new();
    let mut under_way: HashMap<u64, Stretch> = HashMap::new();
    let (mut id, mut done, mut refused) = (1_u64, 0_u32, 0_u32);
    let (began, mut heard) = (Instant::now(), Instant::now());
    let mut wrong = None;
    while done < layout.tokens() {
        while under_way.len() < IN_FLIGHT {
            let Some(stretch) = again.pop().or_else(|| waiting.next()) else { break };
            let names = subjects(keys, layout, stretch);
            fresh.clear();
            if peer.takes_tokens() {
                fresh.resize(stretch.count as usize, [0; 32]);
                random.fill_bytes(fresh.as_flattened_mut());
            }
            let connection = id as usize % peer.connections();
            peer.ask(
                connection,
                id,
                &Question::Issue { role: stretch.role, subjects: &names, fresh: &fresh },
            )?;
            under_way.insert(id, stretch);
            id += 1;
        }
        let before = refused;
        let is_moved = peer.turn(&mut |_, id, reply| {
            let Some(stretch) = under_way.remove(&id) else { return };
            heard = Instant::now();
            match reply {
                Reply::Issued(issued) if issued.len() == stretch.count as usize => {
                    (stretch.first..).zip(issued).for_each(|(position, token)| keys.put(position, token));
                    done += stretch.count;
                }
                Reply::Refused => {
                    refused += 1;
                    again.push(stretch);
                }
                Reply::Failed(words) => wrong = Some(words),
                other => wrong = Some(format!("{other:?}")),
            }
        })?;
        progress.set(u64::from(done));
        interrupt::check(interrupt::WHILE_FILLING)?;
        if let Some(wrong) = wrong.take() {
            bail!("the key space cannot be filled: {wrong}");
        }
        if refused > REFUSED_MAX {
            bail!("the key space cannot be filled: the server refused {refused} issues");
        }
        if heard.elapsed() > SILENCE_MAX {
            bail!("the server did not answer for {} s", SILENCE_MAX.as_secs());
        }
        if refused > before {
            std::thread::sleep(REFUSED_PAUSE);
        } else if !is_moved {
            peer.wait(Instant::now() + Duration::from_millis(10))?;
        }
    }
    progress.end();
    let seconds = began.elapsed().as_secs_f64();
    if layout.count(Role::Expired) > 0 {
        std::thread::sleep(EXPIRED_AFTER);
    }
    Ok(f64::from(layout.tokens()) / seconds)
}

/// Of so many victims, how many are revoked before the load begins if it asks about revoked tokens.
pub(crate) fn revoked_before(victims: u32) -> u32 {
    (victims * REVOKED_BEFORE / 100).min(REVOKED_BEFORE_MAX)
}

/// Revokes a part of the victims, so that the first questions about revoked tokens meet some.
pub(crate) fn revoke_some(peer: &mut dyn Peer, keys: &KeySpace, truth: &Truth) -> anyhow::Result<()> {
    let victims = truth.layout.region(Role::Victim);
    let wanted = revoked_before(victims.len() as u32);
    let (mut under_way, mut heard, mut wrong) = (HashMap::new(), Instant::now(), None);
    let (mut taken, mut id) = (0, 1_u64);
    while taken < wanted || !under_way.is_empty() {
        while taken < wanted && under_way.len() < 64 {
            let number = truth.next_victim().context("as many victims as there are")?;
            peer.ask(
                id as usize % peer.connections(),
                id,
                &Question::Revoke(&keys.at(victims.start + number)),
            )?;
            under_way.insert(id, number);
            (taken, id) = (taken + 1, id + 1);
        }
        let is_moved = peer.turn(&mut |_, id, reply| {
            let Some(number) = under_way.remove(&id) else { return };
            heard = Instant::now();
            match reply {
                Reply::Revoked(1) => truth.victim_is_dead(number),
                // It stays uncertain, which is true.
                Reply::Refused => {}
                other => wrong = Some(format!("a revoke was answered {other:?}")),
            }
        })?;
        if let Some(wrong) = wrong.take() {
            bail!(wrong);
        }
        interrupt::check(interrupt::WHILE_FILLING)?;
        if heard.elapsed() > SILENCE_MAX {
            bail!("the server did not answer for {} s", SILENCE_MAX.as_secs());
        }
        if !is_moved {
            peer.wait(Instant::now() + Duration::from_millis(10))?;
        }
    }
    Ok(())
}
