//! What one identity takes of a shard over all of its connections, so that none takes what belongs to everybody.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use jeton_wire::{Refusing, WRITES_IN_FLIGHT_MAX};

use super::answers::Answer;

/// Writes and log reads of one identity under way on a shard: what two of its connections may have, a small part of what the
/// engine's queue for commands holds.
pub const WRITES_PER_IDENTITY_MAX: usize = 2 * WRITES_IN_FLIGHT_MAX;
/// And so many revokes and withdrawals on top of that: a service that runs wild can still take back what it gave.
const TAKING_PER_IDENTITY_MAX: usize = WRITES_PER_IDENTITY_MAX / 8;

/// What one identity has.
#[derive(Debug)]
pub(super) struct Share {
    identity: String,
    connections: Cell<usize>,
    /// Writes that were handed on and not answered, those of connections that are gone too.
    under_way: Cell<usize>,
    /// Answers to them that were not delivered yet.
    answers: RefCell<VecDeque<Answer>>,
}

/// The shares of all identities that have anything.
#[derive(Debug)]
pub(super) struct Shares {
    of: HashMap<String, Rc<Share>>,
    connections_max: usize,
}

impl Share {
    /// What its connections refuse for now. Looked at once for each read of a stream, whose writes come on top.
    pub(super) fn refusing(&self) -> Refusing {
        match self.under_way.get() {
            under_way if under_way >= WRITES_PER_IDENTITY_MAX + TAKING_PER_IDENTITY_MAX => Refusing::All,
            under_way if under_way >= WRITES_PER_IDENTITY_MAX => Refusing::AllButTaking,
            _ => Refusing::Nothing,
        }
    }

    /// Notes a write that was handed on.
    pub(super) fn take_on(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    /// Notes an answer that is to be delivered; whether it is the only one.
    pub(super) fn add_answer(&self, answer: Answer) -> bool {
        let mut answers = self.answers.borrow_mut();
        answers.push_back(answer);
        answers.len() == 1
    }

    /// The oldest answers, so many at most, and whether there are more.
    pub(super) fn take_answers(&self, at_most: usize) -> (Vec<Answer>, bool) {
        let mut answers = self.answers.borrow_mut();
        let count = at_most.min(answers.len());
        let taken = answers.drain(..count).collect();
        (taken, !answers.is_empty())
    }
}

impl Shares {
    /// Nobody has anything; each may have so many connections.
    pub(super) fn new(connections_max: usize) -> Self {
        Self { of: HashMap::new(), connections_max }
    }

    /// One more connection of this identity; `None` if it has as many as it may.
    pub(super) fn join(&mut self, identity: &str) -> Option<Rc<Share>> {
        if !self.of.contains_key(identity) {
            let share = Share {
                identity: identity.to_owned(),
                connections: Cell::new(0),
                under_way: Cell::new(0),
                answers: RefCell::default(),
            };
            self.of.insert(identity.to_owned(), Rc::new(share));
        }
        let share = self.of.get(identity)?;
        if share.connections.get() >= self.connections_max {
            return None;
        }
        share.connections.set(share.connections.get() + 1);
        Some(Rc::clone(share))
    }

    /// One connection less.
    pub(super) fn leave(&mut self, share: &Share) {
        share.connections.set(share.connections.get() - 1);
        self.forget_empty(share);
    }

    /// One write was answered.
    pub(super) fn settle(&mut self, share: &Share) {
        share.under_way.set(share.under_way.get() - 1);
        self.forget_empty(share);
    }

    fn forget_empty(&mut self, share: &Share) {
        if share.connections.get() == 0 && share.under_way.get() == 0 {
            self.of.remove(&share.identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_so_many_connections_and_no_more_until_one_has_ended() {
        let mut shares = Shares::new(2);
        let first = shares.join("a").unwrap();
        let second = shares.join("a").unwrap();
        assert!(shares.join("a").is_none() && shares.join("b").is_some(), "others are not concerned");
        shares.leave(&first);
        assert!(shares.join("a").is_some());
        shares.leave(&second);
    }

    #[test]
    fn what_a_connection_that_is_gone_has_under_way_counts_until_it_is_answered() {
        let mut shares = Shares::new(2);
        let share = shares.join("a").unwrap();
        (0..WRITES_PER_IDENTITY_MAX).for_each(|_| share.take_on());
        shares.leave(&share);
        let again = shares.join("a").unwrap();
        assert_eq!(again.refusing(), Refusing::AllButTaking, "it can still revoke");
        shares.settle(&share);
        assert_eq!(again.refusing(), Refusing::Nothing);
        (1..WRITES_PER_IDENTITY_MAX).for_each(|_| shares.settle(&share));
        shares.leave(&again);
        assert!(shares.of.is_empty(), "nothing is kept of whom nothing is known any more");
    }
}
