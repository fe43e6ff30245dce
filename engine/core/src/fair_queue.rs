//! Commands that wait for the sequencer: a line for each client, served by turns.
//!
//! Deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing using Deficit Round Robin", 1995): with each turn a
//! client is credited [`QUANTUM`], and served as far as that goes; a command costs what it may make of events, so that
//! an issue of 256 tokens counts 256 times as much as a revoke. What always holds:
//!
//! - the commands of one client leave in the order in which they came;
//! - while two clients both wait, neither is served [`QUANTUM`] and twice [`ISSUE_TOKENS_MAX`] more than the other;
//! - whoever waits is served after one turn of everybody else, for each [`QUANTUM`] that the command costs;
//! - it is bounded, for each client and for all of them.
//!
//! It knows nothing of the sequencer, of time or of the way back to clients, which is `T`.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::command::{Command, ISSUE_TOKENS_MAX, Submission};
use crate::mutation::{limit, mutated};
use crate::numbers::ClientNo;
use crate::sequencer::TAKING_SHARE;

/// What a client is credited with for each of its turns. Small, for it is what a revoke waits for behind each of the
/// others; a command that costs more waits for several turns.
pub const QUANTUM: u64 = 32;
/// Commands of one client that pass by [`Serving::Taking`] between two commits.
pub const TAKING_AHEAD_MAX: usize = 64;
/// Lines kept for their memory, and for how many commands each has room at most.
const SPARES_MAX: usize = 16;
const SPARE_MAX: usize = 1_024;

const _: () = assert!(QUANTUM >= 1, "with each turn a client comes nearer to being served");
const _: () = assert!(ISSUE_TOKENS_MAX as u64 / QUANTUM < 64, "the largest command waits for few turns");

/// How much may wait. Of both, one part in [`TAKING_SHARE`] is kept for commands that take something from somebody.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Commands of all clients.
    pub commands_max: usize,
    /// Commands of one client.
    pub per_client_max: usize,
}

/// What may be decided at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// Everything, by turns.
    Everything,
    /// Enough for the next commit was decided already. What takes something from somebody is decided all the same, so
    /// that it is denied from now on even if the log hangs, but of each client so much only; nothing overtakes what came
    /// before it from the same client.
    Taking,
}

/// The commands of one client.
struct Line<T> {
    waiting: VecDeque<(T, Submission)>,
    credit: u64,
}

/// The lines of all clients of which something waits.
pub struct FairQueue<T> {
    limits: QueueLimits,
    // By numbers that the log gives out: no client chooses where they collide.
    lines: FxHashMap<ClientNo, Line<T>>,
    /// Whose turn it is, and who comes after; each client with a line once.
    turns: VecDeque<ClientNo>,
    waiting: usize,
    /// Lines that nobody has any more, kept for their memory.
    spare: Vec<VecDeque<(T, Submission)>>,
    /// How many commands of a client were served ahead of a commit since the last one.
    ahead: FxHashMap<ClientNo, usize>,
}

impl<T> std::fmt::Debug for FairQueue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FairQueue({} of {} clients)", self.waiting, self.turns.len())
    }
}

/// What a command costs: the tokens that it issues, or one.
#[must_use]
pub fn cost(command: &Command) -> u64 {
    match command {
        // More subjects than a command may name are refused, and make no more work than the refusal.
        Command::IssueTokens(issue) => issue.subjects.len().clamp(1, ISSUE_TOKENS_MAX) as u64,
        _ => 1,
    }
}

impl<T> FairQueue<T> {
    /// Nobody waits.
    ///
    /// # Panics
    /// If there is room for less than a command of each kind.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        assert!(limits.per_client_max >= 1, "every client may have something wait");
        assert!(limits.commands_max >= limits.per_client_max, "what one may have, all together may");
        Self {
            limits,
            lines: FxHashMap::default(),
            turns: VecDeque::new(),
            waiting: 0,
            spare: Vec::new(),
            ahead: FxHashMap::default(),
        }
    }

    /// Commands that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Takes a command in.
    ///
    /// # Errors
    /// The ticket, if there is no room: nothing was taken.
    pub fn handle_submission(&mut self, ticket: T, submission: Submission) -> Result<(), T> {
        let client = submission.actor;
        let may_have_all = submission.command.takes() || mutated!(QueueRoomGivenAway);
        let room = |max: usize| {
            let max = if mutated!(TurnedAwayTooEarly) { max / 2 } else { max };
            if may_have_all { max } else { max - max / TAKING_SHARE }
        };
        let own = self.lines.get(&client).map_or(0, |line| line.waiting.len());
        if own >= room(self.limits.per_client_max) || self.waiting >= room(self.limits.commands_max) {
            return Err(ticket);
        }
        let (turns, spare) = (&mut self.turns, &mut self.spare);
        let line = self.lines.entry(client).or_insert_with(|| {
            turns.push_back(client);
            Line { waiting: spare.pop().unwrap_or_default(), credit: quantum() }
        });
        line.waiting.push_back((ticket, submission));
        self.waiting += 1;
        Ok(())
    }

    /// A commit has left: what is decided from now on is for the next one.
    pub fn handle_commit(&mut self) {
        self.ahead.clear();
    }

    /// The next command to decide; `None` if there is none that may be.
    pub fn poll_submission(&mut self, serving: Serving) -> Option<(T, Submission)> {
        match serving {
            Serving::Everything => self.poll_in_turn(),
            Serving::Taking => self.poll_taking(),
        }
    }

    fn poll_in_turn(&mut self) -> Option<(T, Submission)> {
        if mutated!(ClientNeverServed) && self.turns.iter().all(is_second) {
            return None;
        }
        loop {
            let client = *self.turns.front()?;
            let line = self.lines.get_mut(&client)?;
            let cost = cost(&line.waiting.front()?.1.command);
            if line.credit >= cost && !(mutated!(ClientNeverServed) && is_second(&client)) {
                if !mutated!(TurnWithoutEnd) {
                    line.credit -= cost;
                }
                return self.take_first(0);
            }
            // For its next turn, which is after those of all the others.
            line.credit += quantum();
            self.turns.rotate_left(1);
        }
    }

    fn poll_taking(&mut self) -> Option<(T, Submission)> {
        let at = self.turns.iter().position(|client| {
            let first = self.lines.get(client).and_then(|line| line.waiting.front());
            let takes = first.is_some_and(|(_, submission)| submission.command.takes());
            takes && self.ahead.get(client).is_none_or(|ahead| *ahead < TAKING_AHEAD_MAX)
        })?;
        *self.ahead.entry(self.turns[at]).or_insert(0) += 1;
        self.take_first(at)
    }

    /// Takes the first command of the client with this turn. Who has none left gives up turn and credit.
    fn take_first(&mut self, at: usize) -> Option<(T, Submission)> {
        let client = *self.turns.get(at)?;
        let line = self.lines.get_mut(&client)?;
        if mutated!(OrderWithinClientSwapped) && line.waiting.len() > 1 {
            line.waiting.swap(0, 1);
        }
        let first = line.waiting.pop_front()?;
        self.waiting -= 1;
        if line.waiting.is_empty() {
            let left = self.lines.remove(&client).map(|line| line.waiting);
            self.spare
                .extend(left.filter(|line| line.capacity() <= SPARE_MAX && self.spare.len() < SPARES_MAX));
            self.turns.remove(at);
        }
        Some(first)
    }
}

fn quantum() -> u64 {
    limit!(queue_quantum, QUANTUM)
}

/// Whom a deliberate mistake forgets: the second client of a log.
fn is_second(client: &ClientNo) -> bool {
    client.0 == 2
}

#[cfg(test)]
mod tests;
