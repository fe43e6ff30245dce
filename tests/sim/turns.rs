//! What the queue before the sequencer promises, in plain lists: each client's order is kept, and nobody waits for more
//! of another than that one's turns.

use std::collections::{BTreeMap, VecDeque};

use jeton_core::command::Submission;
use jeton_core::fair_queue::{Serving, cost};
use jeton_wire::doors::Ticket;

/// A client's commands that wait, each with its cost.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<(Ticket, u64)>,
    /// What each other client was served since the first of them came to be the first, and the dearest command of it.
    passed_by: BTreeMap<u32, (u64, u64)>,
}

/// The lines of one incarnation of the server.
#[derive(Debug)]
pub(super) struct Turns {
    quantum: u64,
    lines: BTreeMap<u32, Line>,
}

impl Turns {
    pub(super) fn new(quantum: u64) -> Self {
        Self { quantum, lines: BTreeMap::new() }
    }

    /// A command was taken in.
    pub(super) fn taken_in(&mut self, ticket: Ticket, submission: &Submission) {
        let line = self.lines.entry(submission.actor.0).or_default();
        line.waiting.push_back((ticket, cost(&submission.command)));
    }

    /// A command is to be decided.
    pub(super) fn served(
        &mut self,
        ticket: Ticket,
        submission: &Submission,
        serving: Serving,
    ) -> Result<(), String> {
        let (client, cost) = (submission.actor.0, cost(&submission.command));
        let line = self.lines.entry(client).or_default();
        let first = line.waiting.pop_front().map(|(first, _)| first);
        line.passed_by.clear();
        if first != Some(ticket) {
            return Err(format!("client {client}: {ticket} is decided, {first:?} came first"));
        }
        if serving == Serving::Taking {
            return match submission.command.takes() {
                true => Ok(()),
                false => {
                    Err(format!("{ticket} takes nothing, and is decided ahead of a commit that is full"))
                }
            };
        }
        for (other, line) in &mut self.lines {
            let Some((_, own)) = line.waiting.front() else { continue };
            if *other == client {
                continue;
            }
            let (passed, dearest) = line.passed_by.entry(client).or_default();
            (*passed, *dearest) = (*passed + cost, cost.max(*dearest));
            // The turns that the first of the line has to wait for, one that goes on, and what was credited before.
            let bound = (own.div_ceil(self.quantum) + 2) * self.quantum + *dearest;
            if *passed > bound {
                return Err(format!(
                    "client {other} waits for {own}, and client {client} was served {passed} meanwhile"
                ));
            }
        }
        Ok(())
    }

    /// How many clients wait.
    pub(super) fn clients(&self) -> usize {
        self.lines.values().filter(|line| !line.waiting.is_empty()).count()
    }
}
