//! How long after an acknowledged revoke somebody else is still told `valid`.
//!
//! One connection revokes tokens, one after another; on every other one the token in question is asked about all the time.
//! Two times count from when the acknowledgement came: when the last `valid` came, which may have been on its way already,
//! and when the last validate was sent that was answered `valid`. The first is the histogram; the second must never be
//! positive: a validate that is sent after the acknowledgement and answered `valid` is a wrong reply.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use jeton_core::verdict::Verdict;
use serde::Serialize;

use crate::checker::Truth;
use crate::fill::{Progress, SILENCE_MAX};
use crate::interrupt;
use crate::keyspace::KeySpace;
use crate::layout::Role;
use crate::peer::{Peer, Question, Reply};
use crate::recorder::{histogram, micros};
use crate::report::Quantiles;

/// How long the watchers ask before a revoke is sent, and go on after its acknowledgement.
const BEFORE: Duration = Duration::from_micros(500);
const AFTER: Duration = Duration::from_millis(2);
/// The id of a revoke; watchers' are those of their connections.
const REVOKE: u64 = u64::MAX;

/// What was seen.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Propagation {
    pub(crate) revokes: u64,
    pub(crate) watchers: usize,
    /// `valid` answers to validates that were sent after the acknowledgement had come.
    pub(crate) wrong_replies: u64,
    /// From the acknowledgement to the last `valid` that came after it; 0 if none did.
    pub(crate) last_valid_us: Quantiles,
    /// From sending a revoke to the first denial anywhere, and to its acknowledgement.
    pub(crate) first_denied_us: Quantiles,
    pub(crate) acknowledged_us: Quantiles,
    /// Revokes after whose acknowledgement no `valid` came at all.
    pub(crate) none_after: u64,
    /// What ended it early: then the figures are those until then.
    pub(crate) failed: Option<String>,
    #[serde(skip)]
    pub(crate) histogram: Histogram<u64>,
}

/// What is known of one revoke while it goes on.
#[derive(Default)]
struct Round {
    sent: Option<Instant>,
    acknowledged: Option<Instant>,
    first_denied: Option<Instant>,
    last_valid: Option<Instant>,
    /// When each watcher's question was sent; `None` while it has none.
    asked: Vec<Option<Instant>>,
    wrong: u64,
    failed: Option<String>,
}

impl Round {
    fn take(&mut self, at: Instant, id: u64, reply: &Reply<'_>) {
        match (id, reply) {
            (REVOKE, Reply::Revoked(1)) => self.acknowledged = Some(at),
            (REVOKE, other) => self.failed = Some(format!("a revoke was answered {other:?}")),
            (watcher, Reply::Verdicts([verdict])) => {
                let asked = self.asked.get_mut(watcher as usize).and_then(Option::take);
                if *verdict == Verdict::Valid {
                    self.last_valid = Some(at);
                    let is_late = asked.zip(self.acknowledged).is_some_and(|(asked, known)| asked > known);
                    self.wrong += u64::from(is_late);
                } else if self.first_denied.is_none() {
                    self.first_denied = Some(at);
                }
                if *verdict != Verdict::Valid && self.sent.is_none() {
                    self.failed = Some(format!("a token was {} before it was revoked", verdict.word()));
                }
            }
            (_, other) => self.failed = Some(format!("a validate was answered {other:?}")),
        }
    }

    /// Whether the round is over: some time after the acknowledgement, and not before a watcher was answered behind the revoke, however
    /// long this process had no core.
    fn is_over(&self, now: Instant) -> bool {
        let is_told = self.first_denied.is_some() || self.wrong > 0;
        is_told && self.acknowledged.is_some_and(|known| now > known + AFTER)
    }
}

/// What is known of all revokes so far.
struct Seen {
    last_valid: Histogram<u64>,
    first_denied: Histogram<u64>,
    acknowledged: Histogram<u64>,
    wrong_replies: u64,
    none_after: u64,
}

/// Revokes so many tokens, one at a time, while all connections but the first watch; tells what was seen also if that
/// ends early, and why it did.
pub(crate) fn measure(
    peer: &mut dyn Peer,
    keys: &KeySpace,
    truth: &Truth,
    revokes: u32,
) -> (Propagation, anyhow::Result<()>) {
    let mut seen = Seen {
        last_valid: histogram(),
        first_denied: histogram(),
        acknowledged: histogram(),
        wrong_replies: 0,
        none_after: 0,
    };
    let result = revoke_all(peer, keys, truth, revokes, &mut seen);
    let told = Propagation {
        revokes: seen.last_valid.len(),
        watchers: peer.connections() - 1,
        wrong_replies: seen.wrong_replies,
        last_valid_us: Quantiles::of(&seen.last_valid),
        first_denied_us: Quantiles::of(&seen.first_denied),
        acknowledged_us: Quantiles::of(&seen.acknowledged),
        none_after: seen.none_after,
        failed: result.as_ref().err().map(|error| format!("{error:#}")),
        histogram: seen.last_valid,
    };
    (told, result)
}

fn revoke_all(
    peer: &mut dyn Peer,
    keys: &KeySpace,
    truth: &Truth,
    revokes: u32,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    interrupt::listen()?;
    let mut progress = Progress::new(u64::from(revokes), "revoking");
    for _ in 0..revokes {
        let number = truth.next_victim().context("no tokens are left to revoke: give --revokes less")?;
        let token = keys.at(truth.layout.region(Role::Victim).start + number);
        let round = watch(peer, &token)?;
        let (Some(sent), Some(known)) = (round.sent, round.acknowledged) else { bail!("a revoke got lost") };
        truth.victim_is_dead(number);
        let late = round.last_valid.filter(|at| *at > known).map(|at| at - known);
        let denied = round.first_denied.context("no watcher was told of the revoke")?;
        seen.none_after += u64::from(late.is_none());
        seen.last_valid.saturating_record(late.map_or(0, micros));
        seen.first_denied.saturating_record(micros(denied.saturating_duration_since(sent)).max(1));
        seen.acknowledged.saturating_record(micros(known - sent).max(1));
        seen.wrong_replies += round.wrong;
        progress.set(seen.last_valid.len());
    }
    progress.end();
    Ok(())
}

/// One revoke, from the first question to the last answer.
fn watch(peer: &mut dyn Peer, token: &[u8; 32]) -> anyhow::Result<Round> {
    let mut round = Round { asked: vec![None; peer.connections()], ..Round::default() };
    let began = Instant::now();
    loop {
        let now = Instant::now();
        let is_over = round.is_over(now);
        if is_over && round.asked.iter().all(Option::is_none) {
            return Ok(round);
        }
        for watcher in (1..peer.connections()).filter(|_| !is_over) {
            if round.asked[watcher].is_none() {
                round.asked[watcher] = Some(Instant::now());
                let tokens = std::slice::from_ref(token);
                peer.ask(watcher, watcher as u64, &Question::Validate { tokens, checks: None })?;
            }
        }
        if round.sent.is_none() && now > began + BEFORE {
            round.sent = Some(Instant::now());
            peer.ask(0, REVOKE, &Question::Revoke(token))?;
        }
        peer.turn(&mut |at, id, reply| round.take(at, id, &reply))?;
        if let Some(failed) = round.failed.take() {
            bail!(failed);
        }
        interrupt::check(interrupt::WITH_FIGURES)?;
        if began.elapsed() > SILENCE_MAX {
            bail!("the server did not answer for {} s", SILENCE_MAX.as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(answers: &[(u64, bool)], acknowledged: u64, asked: u64) -> Round {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut round = Round { sent: Some(zero), asked: vec![None; 2], ..Round::default() };
        let mut is_told = false;
        for (ms, is_valid) in answers {
            if *ms >= acknowledged && !is_told {
                round.take(at(acknowledged), REVOKE, &Reply::Revoked(1));
                is_told = true;
            }
            round.asked[1] = Some(at(asked.min(*ms)));
            let verdict = if *is_valid { Verdict::Valid } else { Verdict::Revoked };
            round.take(at(*ms), 1, &Reply::Verdicts(&[verdict]));
        }
        round
    }

    #[test]
    fn a_round_is_not_over_before_a_watcher_was_told_however_late_that_is() {
        let mut round = round(&[(1, true)], 5, 1);
        let at = |ms| round.sent.unwrap() + Duration::from_millis(ms);
        let (known, late) = (at(5), at(5_000));
        round.take(known, REVOKE, &Reply::Revoked(1));
        assert!(!round.is_over(late), "this process slept, and nobody was asked meanwhile");
        round.take(late, 1, &Reply::Verdicts(&[Verdict::Revoked]));
        assert!(round.is_over(late) && !round.is_over(known));
    }

    #[test]
    fn what_was_on_its_way_is_late_and_what_was_sent_afterwards_is_wrong() {
        let fine = round(&[(1, true), (2, false), (6, false)], 5, 1);
        assert_eq!((fine.wrong, fine.last_valid < fine.acknowledged), (0, true));
        let late = round(&[(1, true), (6, true), (7, false)], 5, 4);
        assert_eq!((late.wrong, late.last_valid > late.acknowledged), (0, true));
        let wrong = round(&[(1, true), (8, true)], 5, 7);
        assert_eq!(wrong.wrong, 1);
    }
}
