//! The check in linear time, for histories of any length.
//!
//! The history is read three times at most, one operation at a time: once for what was issued and revoked, once for every
//! answer, and once more to show what is wrong. Kept are a few words for each token, two for each write; the order of the
//! history does not matter.
//!
//! The rules, for a token T that was issued by I. A revoke *names* T if its target does. It *certainly covers* T if it was
//! invoked after I had returned, and *may cover* T unless it had returned before I was invoked.
//!
//! 1. No answer says that T is alive whose question was invoked after the return of an acknowledged revoke that certainly
//!    covers T. (The cardinal sin.) Neither does one that had to rest on the event of such a revoke (`min_seq`), whenever it
//!    was asked.
//! 2. No answer that came before I was invoked says that T is alive.
//! 3. T is consumed no more often than it has uses.
//! 4. No answer to a question that was invoked after I had returned denies T, unless a revoke that may cover T had been
//!    invoked before that answer came, T may have expired by then, or it has uses that may have been spent.
//! 5. No answer says that T is alive whose question was invoked after T must have expired, if it was never to be renewed.
//! 6. The server never says that its log is published less far than a write that was acknowledged before it was asked.
//!
//! A denial is never held against later answers: one that rested on a revoke not yet acknowledged is undone by a crash.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use jeton_client::Verdict;

use super::history::{Act, Issue, NEVER, Nanos, Operation, Target, is_alive, verdict};

/// How far the server's clock may run ahead of or behind the recording's within a token's life.
const CLOCK_SLACK: Nanos = 1_000_000_000;
/// A lifetime is rounded up to a whole second.
const ROUNDED_UP: Nanos = 1_000_000_000;
/// Operations shown of a token that a rule was broken for.
const SHOWN_MAX: usize = 200;

/// What a history that keeps the rules consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations.
    pub operations: u64,
    /// Operations without an answer.
    pub open: u64,
    /// Tokens issued.
    pub tokens: u64,
    /// Answers about tokens.
    pub verdicts: u64,
    /// Those that said alive.
    pub alive: u64,
    /// Answers about tokens that certainly were revoked, that is, that could have broken rule 1.
    pub after_revoke: u64,
    /// Answers that had to rest on the event of a revoke that covers the token.
    pub after_sequence: u64,
    /// Revokes acknowledged.
    pub revokes: u64,
    /// Uses granted.
    pub uses: u64,
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which, in words.
    pub rule: &'static str,
    /// For which token, if for one.
    pub token: Option<u32>,
    /// The answer that broke it.
    pub answer: Operation,
    /// What else was done with the token.
    pub around: Vec<Operation>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.rule)?;
        if let Some(token) = self.token {
            write!(f, ": token {token}")?;
        }
        write!(f, "\nthe answer:\n{}\neverything about it, by the time it was asked:", self.answer)?;
        self.around.iter().try_for_each(|operation| write!(f, "\n{operation}"))
    }
}

/// What is known of one token.
#[derive(Clone, Copy, Debug)]
struct Facts {
    issue: Issue,
    issued: (Nanos, Nanos),
    /// The earliest return of an acknowledged revoke that certainly covers it.
    dead_at: Nanos,
    /// The event of the earliest such revoke.
    dead_sequence: u64,
    /// The earliest invocation of a revoke that may cover it.
    doubted_at: Nanos,
    is_renewed: bool,
    spent: u32,
}

/// The revokes with one target.
#[derive(Debug, Default)]
struct Revokes {
    /// Acknowledged: invoked, returned, event; sorted by invocation, and from the end on the least return and event.
    acknowledged: Vec<(Nanos, Nanos, u64)>,
    /// All: returned, invoked; sorted by return, and from the end on the least invocation.
    all: Vec<(Nanos, Nanos)>,
}

impl Revokes {
    fn sort(&mut self) {
        self.acknowledged.sort_unstable();
        let mut least = (NEVER, u64::MAX);
        for (_, returned, sequence) in self.acknowledged.iter_mut().rev() {
            least = (least.0.min(*returned), least.1.min(*sequence));
            (*returned, *sequence) = least;
        }
        self.all.sort_unstable();
        let mut least = NEVER;
        for (_, invoked) in self.all.iter_mut().rev() {
            least = least.min(*invoked);
            *invoked = least;
        }
    }

    /// The least return and event of those invoked after `moment`.
    fn certain_after(&self, moment: Nanos) -> (Nanos, u64) {
        let at = self.acknowledged.partition_point(|(invoked, ..)| *invoked <= moment);
        self.acknowledged.get(at).map_or((NEVER, u64::MAX), |(_, returned, sequence)| (*returned, *sequence))
    }

    /// The least invocation of those that had not returned by `moment`.
    fn possible_after(&self, moment: Nanos) -> Nanos {
        let at = self.all.partition_point(|(returned, _)| *returned < moment);
        self.all.get(at).map_or(NEVER, |(_, invoked)| *invoked)
    }
}

/// Everything that the first reading finds.
#[derive(Debug, Default)]
struct Writes {
    /// By number.
    tokens: Vec<Option<Facts>>,
    /// When acknowledged writes returned, and the last event that was known from then on; sorted.
    heads: Vec<(Nanos, u64)>,
}

impl Writes {
    fn of(history: impl Iterator<Item = Operation>, tally: &mut Tally) -> Self {
        let mut writes = Self::default();
        let mut revokes: HashMap<Target, Revokes> = HashMap::new();
        let mut renewed = Vec::new();
        for operation in history {
            tally.operations += 1;
            tally.open += u64::from(!operation.is_answered());
            let (invoked, returned) = (operation.invoked, operation.returned);
            match operation.act {
                Act::Issue(issue) => {
                    tally.tokens += u64::from(issue.count);
                    writes.heads.push((returned, issue.sequence));
                    writes.issue(issue, invoked, returned);
                }
                Act::Revoke { target, sequence } => {
                    let of_target = revokes.entry(target).or_default();
                    of_target.all.push((returned, invoked));
                    if operation.is_answered() {
                        tally.revokes += 1;
                        of_target.acknowledged.push((invoked, returned, sequence));
                        writes.heads.push((returned, sequence));
                    }
                }
                Act::Renew { token, .. } => renewed.push(token),
                _ => {}
            }
        }
        revokes.values_mut().for_each(Revokes::sort);
        writes.tokens.iter_mut().zip(0..).for_each(|(facts, token)| {
            facts.iter_mut().for_each(|facts| facts.note_revokes(token, &revokes));
        });
        renewed.into_iter().for_each(|token| {
            writes.facts(token).into_iter().for_each(|facts| facts.is_renewed = true);
        });
        writes.sort_heads();
        writes
    }

    fn issue(&mut self, issue: Issue, invoked: Nanos, returned: Nanos) {
        let end = issue.tokens().end as usize;
        if self.tokens.len() < end {
            self.tokens.resize(end, None);
        }
        let facts = Facts {
            issue,
            issued: (invoked, returned),
            dead_at: NEVER,
            dead_sequence: u64::MAX,
            doubted_at: NEVER,
            is_renewed: false,
            spent: 0,
        };
        issue.tokens().for_each(|token| self.tokens[token as usize] = Some(facts));
    }

    fn facts(&mut self, token: u32) -> Option<&mut Facts> {
        self.tokens.get_mut(token as usize)?.as_mut()
    }

    fn sort_heads(&mut self) {
        self.heads.sort_unstable();
        let mut most = 0;
        for (_, sequence) in &mut self.heads {
            most = most.max(*sequence);
            *sequence = most;
        }
    }

    /// The last event of all writes that had returned before `moment`.
    fn head_before(&self, moment: Nanos) -> u64 {
        let after = self.heads.partition_point(|(returned, _)| *returned < moment);
        after.checked_sub(1).map_or(0, |at| self.heads[at].1)
    }
}

impl Facts {
    fn note_revokes(&mut self, token: u32, revokes: &HashMap<Target, Revokes>) {
        for target in self.issue.targets(token) {
            let Some(of_target) = revokes.get(&target) else { continue };
            let (dead_at, dead_sequence) = of_target.certain_after(self.issued.1);
            self.dead_at = self.dead_at.min(dead_at);
            self.dead_sequence = self.dead_sequence.min(dead_sequence);
            self.doubted_at = self.doubted_at.min(of_target.possible_after(self.issued.0));
        }
    }

    fn lifetime(&self) -> Nanos {
        Nanos::from(self.issue.ttl_s) * 1_000_000_000
    }

    /// Rules 1, 2, 4 and 5, for one answer to one question.
    fn broken_by(
        &self,
        answer: Verdict,
        asked: Nanos,
        told: Nanos,
        min_sequence: u64,
    ) -> Option<&'static str> {
        if is_alive(answer) {
            let expired = self.issued.1 + self.lifetime() + ROUNDED_UP + CLOCK_SLACK;
            let rules = [
                (asked > self.dead_at, "alive after a revoke was acknowledged"),
                (min_sequence >= self.dead_sequence, "alive on a state that has its revoke"),
                (told < self.issued.0, "alive before it was issued"),
                (!self.is_renewed && asked > expired, "alive after it expired"),
            ];
            return rules.into_iter().find(|(is_broken, _)| *is_broken).map(|(_, rule)| rule);
        }
        let may_be_over = told >= (self.issued.0 + self.lifetime()).saturating_sub(CLOCK_SLACK);
        let may_be_spent = self.issue.uses > 0 && answer == Verdict::Spent;
        let is_excused = self.doubted_at <= told || may_be_over || may_be_spent;
        (asked > self.issued.1 && !is_excused).then_some("denied although nobody had set out to revoke it")
    }
}

/// Checks a history; `read` begins it anew.
///
/// # Errors
/// The first rule that is broken, with everything about the token.
pub fn check<I>(read: impl Fn() -> I) -> Result<Tally, Box<Violation>>
where
    I: Iterator<Item = Operation>,
{
    let mut tally = Tally::default();
    let mut writes = Writes::of(read(), &mut tally);
    for operation in read().filter(Operation::is_answered) {
        if let Some((rule, token)) = answered(&operation, &mut writes, &mut tally) {
            let targets = token.and_then(|token| writes.facts(token).map(|facts| facts.issue.targets(token)));
            let around = match (token, targets) {
                (Some(token), Some(targets)) => about(read(), token, &targets),
                _ => Vec::new(),
            };
            return Err(Box::new(Violation { rule, token, answer: operation, around }));
        }
    }
    Ok(tally)
}

type Broken = Option<(&'static str, Option<u32>)>;

fn answered(operation: &Operation, writes: &mut Writes, tally: &mut Tally) -> Broken {
    let (asked, told) = (operation.invoked, operation.returned);
    let mut one = |token: u32, code: u8, min_sequence: u64| {
        let answer = verdict(code);
        let Some(facts) = writes.facts(token) else {
            return Some(("an answer about a token that nobody was given", Some(token)));
        };
        tally.verdicts += 1;
        tally.alive += u64::from(is_alive(answer));
        tally.after_revoke += u64::from(asked > facts.dead_at);
        tally.after_sequence += u64::from(min_sequence >= facts.dead_sequence);
        facts.broken_by(answer, asked, told, min_sequence).map(|rule| (rule, Some(token)))
    };
    match &operation.act {
        Act::Validate { tokens, verdicts, min_sequence } => {
            if tokens.len() != verdicts.len() {
                return Some(("not one answer for each token", None));
            }
            tokens.iter().zip(verdicts).find_map(|(token, code)| one(*token, *code, *min_sequence))
        }
        Act::Renew { token, verdict } => one(*token, *verdict, 0),
        Act::Consume { token, verdict: code, .. } => {
            if let Some(broken) = one(*token, *code, 0) {
                return Some(broken);
            }
            let facts = writes.facts(*token)?;
            let is_granted = verdict(*code) == Verdict::Valid;
            facts.spent += u32::from(is_granted);
            tally.uses += u64::from(is_granted);
            (facts.spent > facts.issue.uses).then_some(("used more often than it has uses", Some(*token)))
        }
        Act::Head { published } => (*published < writes.head_before(asked))
            .then_some(("the log is shorter than what was acknowledged", None)),
        Act::Issue(_) | Act::Revoke { .. } => None,
    }
}

/// Operations on a token, and revokes that name it.
fn about(history: impl Iterator<Item = Operation>, token: u32, targets: &[Target]) -> Vec<Operation> {
    let is_about = |operation: &Operation| match &operation.act {
        Act::Issue(issue) => issue.tokens().contains(&token),
        Act::Validate { tokens, .. } => tokens.contains(&token),
        Act::Consume { token: of, .. } | Act::Renew { token: of, .. } => *of == token,
        Act::Revoke { target, .. } => targets.contains(target),
        Act::Head { .. } => false,
    };
    let mut around: Vec<Operation> = history.filter(is_about).take(SHOWN_MAX).collect();
    for operation in &mut around {
        // Of a batch only what was said of this one.
        if let Act::Validate { tokens, verdicts, .. } = &mut operation.act {
            let said = tokens.iter().zip(verdicts.iter()).find(|(of, _)| **of == token);
            let said = said.map(|(_, code)| *code);
            (*tokens, *verdicts) = (vec![token], said.into_iter().collect());
        }
    }
    around.sort_by_key(|operation| operation.invoked);
    around
}
