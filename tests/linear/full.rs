//! The full check, for short histories: is there an order of all operations, each at one moment between its invocation and
//! its return, in which a single-threaded token would have given these answers?
//!
//! Tokens are independent objects, and a history is linearizable if it is so for each object (Herlihy and Wing, 1990,
//! theorem 1): each token is checked alone. What is checked thereby of a revoke by subject, family, identity or resource is
//! that it kills each of its tokens at a moment within its call, not that it kills all of them at the same one; Jeton does
//! not promise that.
//!
//! # The sequential specification
//!
//! A token is `Absent`, `Live` with so many uses left, or `Dead`; it begins `Absent`.
//!
//! | operation and answer | possible in | then |
//! |---|---|---|
//! | issue, acknowledged | `Absent` | `Live`, all uses left |
//! | validate: valid, forbidden | `Live`, without a limit of uses | the same |
//! | validate: consume required | `Live` with a use left | the same |
//! | validate: a denial, *excused* | any | the same |
//! | validate: any other denial | `Absent` | the same |
//! | consume: valid, n left | `Live` with n + 1 uses left | `Live` with n uses left |
//! | consume: spent | `Live` with no use left | the same |
//! | consume or renew: another denial | `Dead` | `Dead` |
//! | renew: granted | `Live` | the same |
//! | revoke, acknowledged | `Absent`; `Live`, `Dead` | `Absent` (what it names is issued later); `Dead` |
//! | revoke without an answer | any, at any later time or never | as above |
//! | consume without an answer | any, at any later time or never | one use less of `Live` with one left |
//!
//! **Readers deny early.** A revoke denies from the moment it is decided, and is acknowledged once durable; a crash between
//! takes it back, and the token is alive again. Nothing can therefore be learnt from a reader's denial: it is *excused*, and
//! fits any state, if a revoke that names the token had been invoked before the denial was told; or if it says `spent`, and as
//! many consumes had been invoked as the token has uses. A denial that nobody had asked for is a loss of what was acknowledged, and fits no state but `Absent`.
//!
//! **The sequencer does not.** It answers consume and renew, also when it denies, only once everything that the answer rests
//! on is durable. Its denials are taken at their word: whoever was told so by a consume never sees the token alive again.
//!
//! Expiry is left out: tokens of short histories outlive them by far. Operations without an answer that change nothing
//! (validate, renew) are left out as well.
//!
//! The search is that of Wing and Gong with Lowe's memory of states, from `todc-utils`. An operation that may never have
//! happened is given a return after everything else: happening last is the same as never.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jeton_client::Verdict;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use super::history::{Act, Issue, Operation, is_alive, verdict};
use super::quick::Violation;

/// A single-threaded token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Token {
    Absent,
    Live { limit: u32, left: u32 },
    Dead,
}

/// An operation on it, with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Issue { uses: u32 },
    Alive,
    ConsumeRequired,
    DeniedByReader { is_excused: bool },
    Used { left: u32 },
    Spent,
    DeniedBySequencer,
    Renewed,
    Revoke,
    MayUse,
}

impl Step {
    /// The state after it; `None` if this answer cannot be given in `token`.
    pub(super) fn from(self, token: Token) -> Option<Token> {
        use Token::{Absent, Dead, Live};
        let same = Some(token);
        match (self, token) {
            (Self::Issue { uses }, Absent) => Some(Live { limit: uses, left: uses }),
            (Self::Alive, Live { limit: 0, .. }) => same,
            (Self::ConsumeRequired, Live { left: 1.., .. }) => same,
            (Self::DeniedByReader { is_excused: true }, _) | (Self::DeniedByReader { .. }, Absent) => same,
            (Self::Used { left }, Live { limit, left: before }) if before == left + 1 => {
                Some(Live { limit, left })
            }
            (Self::Spent, Live { limit: 1.., left: 0 }) => same,
            (Self::DeniedBySequencer, Dead) | (Self::Renewed, Live { .. }) => same,
            (Self::Revoke, Absent) => same,
            (Self::Revoke, Live { .. } | Dead) => Some(Dead),
            (Self::MayUse, Live { limit, left: before @ 1.. }) => Some(Live { limit, left: before - 1 }),
            (Self::MayUse, _) => same,
            _ => None,
        }
    }
}

struct TokenSpecification;

impl Specification for TokenSpecification {
    type State = Token;
    type Operation = Step;

    fn init() -> Token {
        Token::Absent
    }

    fn apply(step: &Step, token: &Token) -> (bool, Token) {
        step.from(*token).map_or((false, *token), |after| (true, after))
    }
}

/// Whether some order explains these steps; each with its invocation and return.
pub(super) fn is_linearizable(steps: &[(u64, u64, Step)]) -> bool {
    if steps.is_empty() {
        return true;
    }
    // At the same moment calls come before returns: then both orders are open.
    let mut actions: Vec<(u64, bool, usize)> = Vec::with_capacity(steps.len() * 2);
    for (process, (invoked, returned, _)) in steps.iter().enumerate() {
        actions.push((*invoked, false, process));
        actions.push((*returned, true, process));
    }
    actions.sort_unstable();
    let actions = actions.into_iter().map(|(_, is_return, process)| {
        let step = steps[process].2;
        (process, if is_return { Action::Response(step) } else { Action::Call(step) })
    });
    WGLChecker::<TokenSpecification>::is_linearizable(History::from_actions(actions.collect()))
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Tokens whose histories are linearizable.
    pub tokens: u64,
    /// Operations on them, one that names several counted for each.
    pub steps: u64,
    /// The most of one token.
    pub longest: u64,
}

/// Checks every token of a history.
///
/// # Errors
/// The first token whose answers no order explains, with the first answer that is one too many.
pub fn check(history: &[Operation]) -> Result<Checked, Box<Violation>> {
    let mut issues = BTreeMap::new();
    for operation in history {
        if let Act::Issue(issue) = operation.act {
            issues.extend(issue.tokens().map(|token| (token, issue)));
        }
    }
    let mut checked = Checked::default();
    for (token, issue) in &issues {
        let operations = of_token(history, *token, issue);
        let steps = steps(&operations, *token, issue);
        if !is_linearizable(&steps) {
            return Err(Box::new(explain(operations, *token, issue)));
        }
        checked.tokens += 1;
        checked.steps += steps.len() as u64;
        checked.longest = checked.longest.max(steps.len() as u64);
    }
    Ok(checked)
}

/// Everything that names the token and can have met it, by invocation.
fn of_token(history: &[Operation], token: u32, issue: &Issue) -> Vec<Operation> {
    let targets = issue.targets(token);
    let is_about = |operation: &&Operation| match &operation.act {
        Act::Issue(other) => other.first == issue.first,
        Act::Validate { tokens, .. } => tokens.contains(&token),
        Act::Consume { token: of, .. } | Act::Renew { token: of, .. } => *of == token,
        Act::Revoke { target, .. } => targets.contains(target),
        Act::Head { .. } => false,
    };
    let mut operations: Vec<Operation> = history.iter().filter(is_about).cloned().collect();
    operations.sort_by_key(|operation| (operation.invoked, operation.returned));
    operations
}

fn steps(operations: &[Operation], token: u32, issue: &Issue) -> Vec<(u64, u64, Step)> {
    let mut steps = Vec::with_capacity(operations.len());
    for operation in operations {
        let (invoked, returned) = (operation.invoked, operation.returned);
        let mut add = |step| steps.push((invoked, returned, step));
        match &operation.act {
            Act::Issue(issue) => add(Step::Issue { uses: issue.uses }),
            Act::Revoke { .. } => add(Step::Revoke),
            Act::Consume { .. } if !operation.is_answered() => add(Step::MayUse),
            _ if !operation.is_answered() => {}
            Act::Consume { verdict: code, uses_left, .. } => add(match verdict(*code) {
                Verdict::Valid => Step::Used { left: *uses_left },
                Verdict::Spent => Step::Spent,
                _ => Step::DeniedBySequencer,
            }),
            Act::Renew { verdict: code, .. } => add(match verdict(*code) {
                Verdict::Valid => Step::Renewed,
                _ => Step::DeniedBySequencer,
            }),
            Act::Validate { tokens, verdicts, .. } => {
                for (_, code) in tokens.iter().zip(verdicts).filter(|(of, _)| **of == token) {
                    add(match verdict(*code) {
                        Verdict::ConsumeRequired => Step::ConsumeRequired,
                        alive if is_alive(alive) => Step::Alive,
                        denial => Step::DeniedByReader {
                            is_excused: is_excused(operations, returned, issue, denial),
                        },
                    });
                }
            }
            Act::Head { .. } => {}
        }
    }
    steps
}

/// Whether a reader may deny by `told`, durable or not: see the module's head.
fn is_excused(operations: &[Operation], told: u64, issue: &Issue, denial: Verdict) -> bool {
    let issued = operations.iter().find(|operation| matches!(operation.act, Act::Issue(_)));
    // A revoke that was over before the issue began can have met nothing.
    let since = issued.map_or(0, |operation| operation.invoked);
    let can_have_met = |operation: &&Operation| operation.invoked <= told && operation.returned >= since;
    let before = || operations.iter().filter(can_have_met);
    let consumes = before().filter(|operation| matches!(operation.act, Act::Consume { .. })).count();
    before().any(|operation| matches!(operation.act, Act::Revoke { .. }))
        || (denial == Verdict::Spent && issue.uses > 0 && consumes >= issue.uses as usize)
}

/// Finds the first answer that cannot be explained: the history up to each return, in order, everything that had not
/// returned by then being without an answer.
fn explain(operations: Vec<Operation>, token: u32, issue: &Issue) -> Violation {
    let mut by_return: Vec<&Operation> =
        operations.iter().filter(|operation| operation.is_answered()).collect();
    by_return.sort_by_key(|operation| operation.returned);
    let is_explained = |until: u64| {
        let so_far: Vec<Operation> =
            operations.iter().filter_map(|operation| cut(operation, until)).collect();
        is_linearizable(&steps(&so_far, token, issue))
    };
    let last = by_return.iter().find(|operation| !is_explained(operation.returned)).or(by_return.last());
    let answer = last.map_or_else(|| operations[0].clone(), |operation| (*operation).clone());
    let rule = "no order of these operations explains the answers";
    Violation { rule, token: Some(token), answer, around: operations }
}

/// An operation as it was known at a moment; `None` if it had not begun.
fn cut(operation: &Operation, until: u64) -> Option<Operation> {
    let mut operation = operation.clone();
    if operation.returned > until && !matches!(operation.act, Act::Issue(_)) {
        operation.returned = super::history::NEVER;
    }
    (operation.invoked <= until).then_some(operation)
}
