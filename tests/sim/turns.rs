//! What the queue before the sequencer promises, in plain lists: each client's order is kept, and nobody waits for more
//! of another than that one's turns, and nobody is turned away while there is room.

use std::collections::{BTreeMap, VecDeque};

use jeton_core::command::{Command, Submission};
use jeton_core::fair_queue::{QueueLimits, Serving, cost};
use jeton_wire::doors::Ticket;

/// Of the room there is, the part kept for commands that take something from somebody, as documented.
const KEPT_SHARE: usize = 8;

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
    limits: QueueLimits,
    lines: BTreeMap<u32, Line>,
    /// Somebody was turned away and had room, or taken in and had none.
    wrong: Option<String>,
}

impl Turns {
    pub(super) fn new(quantum: u64, limits: QueueLimits) -> Self {
        Self { quantum, limits, lines: BTreeMap::new(), wrong: None }
    }

    /// Whether there is room for this: the last part is for what takes something from somebody.
    fn has_room(&self, submission: &Submission) -> bool {
        let takes = matches!(submission.command, Command::Revoke(_) | Command::WithdrawRights(_));
        let room = |max: usize| if takes { max } else { max - max / KEPT_SHARE };
        let own = self.lines.get(&submission.actor.0).map_or(0, |line| line.waiting.len());
        let all: usize = self.lines.values().map(|line| line.waiting.len()).sum();
        own < room(self.limits.per_client_max) && all < room(self.limits.commands_max)
    }

    /// A command was not taken in.
    pub(super) fn turned_away(&mut self, submission: &Submission) {
        if self.has_room(submission) {
            self.wrong = Some(format!("turned away, and there is room: {submission:?}"));
        }
    }

    /// What went wrong since it was asked the last time.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.wrong.take().map_or(Ok(()), Err)
    }

    /// A command was taken in.
    pub(super) fn taken_in(&mut self, ticket: Ticket, submission: &Submission) {
        if !self.has_room(submission) {
            self.wrong = Some(format!("taken in, and there is no room: {submission:?}"));
        }
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
