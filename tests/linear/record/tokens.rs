//! The tokens that clients know of, by what can be done with them.

use std::sync::{Arc, PoisonError, RwLock};

use jeton_client::Token;

use crate::linear::history::Issue;
use crate::sim::rng::Rng;

/// Half of all questions are about tokens as young as this.
const YOUNG: u64 = 2_000;
/// Dead tokens asked about again, the latest ones.
const DEAD_MAX: usize = 4_000;

/// A token by its number, and its terms.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) number: u32,
    pub(super) token: Token,
    pub(super) issue: Issue,
}

#[derive(Debug, Default)]
struct Lists {
    /// All that are not consumed.
    plain: Vec<Arc<Known>>,
    renewable: Vec<Arc<Known>>,
    limited: Vec<Arc<Known>>,
    /// Their revoke was acknowledged to somebody.
    dead: Vec<Arc<Known>>,
}

/// Which tokens to pick from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    Plain,
    Renewable,
    Limited,
    Dead,
}

/// Every token that was given to anybody. All clients know all tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens(RwLock<Lists>);

impl Tokens {
    pub(super) fn add(&self, tokens: Vec<Token>, issue: Issue, is_renewable: bool) {
        let mut lists = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (number, token) in issue.tokens().zip(tokens) {
            let known = Arc::new(Known { number, token, issue });
            match (issue.uses, is_renewable) {
                (1.., _) => lists.limited.push(known),
                (0, false) => lists.plain.push(known),
                (0, true) => {
                    lists.renewable.push(Arc::clone(&known));
                    lists.plain.push(known);
                }
            }
        }
    }

    pub(super) fn bury(&self, known: Arc<Known>, rng: &mut Rng) {
        let dead = &mut self.0.write().unwrap_or_else(PoisonError::into_inner).dead;
        if dead.len() < DEAD_MAX {
            dead.push(known);
        } else {
            dead[rng.below(DEAD_MAX as u64) as usize] = known;
        }
    }

    /// Up to `count` tokens by chance, the young more often.
    pub(super) fn pick(&self, rng: &mut Rng, of: Of, count: usize) -> Vec<Arc<Known>> {
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let list = match of {
            Of::Plain => &lists.plain,
            Of::Renewable => &lists.renewable,
            Of::Limited => &lists.limited,
            Of::Dead => &lists.dead,
        };
        let length = list.len() as u64;
        if length == 0 {
            return Vec::new();
        }
        let mut one = || {
            let from_end = if rng.one_in(2) { rng.below(length) } else { rng.below(length.min(YOUNG)) };
            Arc::clone(&list[(length - 1 - from_end) as usize])
        };
        (0..count).map(|_| one()).collect()
    }

    pub(super) fn one(&self, rng: &mut Rng, of: Of) -> Option<Arc<Known>> {
        self.pick(rng, of, 1).pop()
    }
}
