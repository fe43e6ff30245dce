//! Doors behind a session: they answer by rules that a model can follow.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use jeton_core::check::Checks;
use jeton_core::command::Submission;
use jeton_core::inspection::{ClaimsInfo, ClientInfo, Inspection, SubjectInfo};
use jeton_core::numbers::{ClaimsNo, ClientNo, LogId, Partition, Sequence, SubjectNo, TenantNo};
use jeton_core::rights::{Caller, Rights};
use jeton_core::time::Millis;
use jeton_core::token::TokenId;
use jeton_core::verdict::{Answer, Verdict};
use jeton_wire::doors::{QueueFull, Submit, Ticket, Validate};

/// Whose session it is.
pub(super) const IDENTITY: &str = "fuzz:client";

/// Doors that say `valid` to tokens whose first byte is even.
pub(super) struct Doors {
    pub(super) rights: Cell<Rights>,
    pub(super) published: Cell<u64>,
    pub(super) is_full: Cell<bool>,
    /// Tickets taken since this was asked last.
    pub(super) submitted: RefCell<Vec<Ticket>>,
}

impl Default for Doors {
    fn default() -> Self {
        let (rights, published) = (Cell::new(Rights::ALL), Cell::new(3));
        Self { rights, published, is_full: Cell::new(false), submitted: RefCell::default() }
    }
}

/// What the doors say to a token.
pub(super) fn verdict(token: &[u8; 32]) -> Verdict {
    if token[0].is_multiple_of(2) { Verdict::Valid } else { Verdict::Denied }
}

impl Doors {
    fn take(&self, ticket: Ticket) -> Result<(), QueueFull> {
        if self.is_full.get() {
            return Err(QueueFull);
        }
        self.submitted.borrow_mut().push(ticket);
        Ok(())
    }
}

impl Validate for Doors {
    fn log(&self) -> (LogId, Partition) {
        (LogId([4; 16]), Partition(1))
    }

    fn now(&self) -> Millis {
        Millis(0)
    }

    fn published(&self) -> Sequence {
        Sequence(self.published.get())
    }

    fn caller(&self, identity: &str) -> Arc<Caller> {
        assert_eq!(identity, IDENTITY);
        let mut caller = Caller::new(ClientNo(3));
        caller.set(TenantNo::EVERY, self.rights.get());
        Arc::new(caller)
    }

    fn validate(&self, _: &Caller, tokens: &[[u8; 32]], checks: Checks<'_>, answers: &mut Vec<Answer>) {
        for (at, token) in tokens.iter().enumerate() {
            assert!(checks.at(at).is_some(), "each token has a check");
            answers.push(Answer { verdict: verdict(token), ..Answer::default() });
        }
        assert!(checks.at(tokens.len()).is_none() || matches!(checks, Checks::Same(_)));
    }

    fn claims(&self, _: &Caller, _: ClaimsNo) -> Option<ClaimsInfo> {
        None
    }

    fn subject(&self, _: &Caller, _: SubjectNo) -> Option<SubjectInfo> {
        None
    }

    fn inspect(&self, _: &Caller, _: &TokenId) -> Option<Inspection> {
        None
    }

    fn clients(&self, caller: &Caller) -> Option<Vec<ClientInfo>> {
        caller.may_somewhere(Rights::ADMIN).then(Vec::new)
    }

    fn stats(&self, caller: &Caller) -> Option<String> {
        caller.may_somewhere(Rights::AUDIT).then(|| "{}".to_owned())
    }
}

impl Submit for Doors {
    fn submit(&self, ticket: Ticket, submission: Submission) -> Result<(), QueueFull> {
        assert_eq!(submission.actor, ClientNo(3), "a command goes in the name of the caller");
        self.take(ticket)
    }

    fn ring(&self) {}

    fn read_log(&self, ticket: Ticket, _: Sequence, _: u32) -> Result<(), QueueFull> {
        self.take(ticket)
    }

    fn take_snapshot(&self, ticket: Ticket) -> Result<(), QueueFull> {
        self.take(ticket)
    }
}
