//! What was decided and waits to be sealed: events in order, and where each command's end.

use std::collections::VecDeque;

use super::Commit;
use crate::batch::{ChainEnd, fitting, seal};
use crate::event::Entry;
use crate::mutation::{limit, mutated};
use crate::time::Millis;

/// Batches in one commit, and then as many as the last command takes.
pub const COMMIT_BATCHES_MAX: usize = 512;

/// An event on its way into a batch.
struct Item {
    time: Millis,
    entry: Entry,
    /// Whether it is the last event of its command.
    ends_command: bool,
}

/// Events on their way into batches, oldest first.
#[derive(Default)]
pub(super) struct Unsealed {
    items: VecDeque<Item>,
    /// Commands of which the last event is in there.
    commands: usize,
}

impl Unsealed {
    /// An event behind all others; whether it is the last of its command.
    pub(super) fn push(&mut self, time: Millis, entry: Entry, ends_command: bool) {
        self.commands += usize::from(ends_command);
        self.items.push_back(Item { time, entry, ends_command });
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.items.iter().map(|item| &item.entry)
    }

    /// Events that wait.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Commands of which the last event waits.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    /// Seals as much as one commit takes, behind `end`, which moves on to its last event.
    pub(super) fn seal_commit(&mut self, end: &mut ChainEnd) -> Commit {
        let behind = *end;
        let mut batches = Vec::new();
        let mut denies = false;
        let mut is_whole = true;
        while let Some(first) = self.items.front() {
            // A commit is all or nothing: a command that does not end with it could be cut in two by a crash.
            if batches.len() >= limit!(commit_batches, COMMIT_BATCHES_MAX) && is_whole {
                break;
            }
            let time = first.time;
            let count = self.next_batch(time);
            is_whole = self.items[count - 1].ends_command;
            let commands = &mut self.commands;
            let entries = self.items.drain(..count).map(|item| {
                *commands -= usize::from(item.ends_command);
                item.entry
            });
            let entries = entries.inspect(|entry| denies |= entry.event.fact.denies());
            batches.push(seal(end, time, entries));
        }
        Commit { behind, batches, denies }
    }

    /// How many events the next batch takes: all of one time, as many as fit, whole commands only unless the first one
    /// takes more than a batch by itself.
    fn next_batch(&self, time: Millis) -> usize {
        let same_time = self.items.iter().take_while(|item| item.time == time);
        let count = fitting(same_time.map(|item| &item.entry));
        if mutated!(CommandCutInTwo) {
            return 1;
        }
        let whole = self.items.iter().take(count).rposition(|item| item.ends_command);
        whole.map_or(count, |last| last + 1)
    }
}
