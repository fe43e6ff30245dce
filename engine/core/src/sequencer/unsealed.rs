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

/// Events on their way into commits, oldest first: some sealed already, the others not.
#[derive(Default)]
pub(super) struct Unsealed {
    items: VecDeque<Item>,
    /// Commands of which the last event is in there, sealed or not.
    commands: usize,
    /// The beginning of the next commit: `None` before anything of it is sealed.
    sealed: Option<Sealed>,
}

/// The beginning of a commit that grows.
struct Sealed {
    commit: Commit,
    /// Whether it ends with a command's last event.
    is_whole: bool,
    events: usize,
    commands: usize,
}

impl Unsealed {
    /// An event behind all others; whether it is the last of its command.
    pub(super) fn push(&mut self, time: Millis, entry: Entry, ends_command: bool) {
        self.commands += usize::from(ends_command);
        self.items.push_back(Item { time, entry, ends_command });
    }

    /// What is not sealed yet.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.items.iter().map(|item| &item.entry)
    }

    /// Events that wait to be handed out.
    pub(super) fn len(&self) -> usize {
        self.items.len() + self.sealed.as_ref().map_or(0, |sealed| sealed.events)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.sealed.is_none()
    }

    /// Commands of which the last event waits to be handed out.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    /// Seals what is a batch whatever comes next, behind `end`, which moves on to the last event sealed; no more than the
    /// next commit takes.
    pub(super) fn seal_ahead(&mut self, end: &mut ChainEnd) {
        while let Some(batch) = self.next_batch()
            && batch.is_full
        {
            self.seal(&batch, end);
        }
    }

    /// Seals the rest of what one commit takes, as [`Self::seal_ahead`] does. `None` if nothing waits.
    pub(super) fn seal_commit(&mut self, end: &mut ChainEnd) -> Option<Commit> {
        let ahead = self.sealed.as_ref().map_or(0, |sealed| sealed.commit.batches.len());
        while let Some(batch) = self.next_batch() {
            self.seal(&batch, end);
        }
        let mut sealed = self.sealed.take()?;
        if mutated!(SealedAheadForgotten) && ahead < sealed.commit.batches.len() {
            sealed.commit.batches.drain(..ahead);
        }
        self.commands -= sealed.commands;
        Some(sealed.commit)
    }

    fn seal(&mut self, batch: &NextBatch, end: &mut ChainEnd) {
        let sealed = self.sealed.get_or_insert_with(|| Sealed {
            commit: Commit { behind: *end, batches: Vec::new(), denies: false },
            is_whole: true,
            events: 0,
            commands: 0,
        });
        sealed.events += batch.count;
        let entries = self.items.drain(..batch.count).map(|item| {
            sealed.commands += usize::from(item.ends_command);
            sealed.is_whole = item.ends_command;
            sealed.commit.denies |= item.entry.event.fact.denies();
            item.entry
        });
        sealed.commit.batches.push(seal(end, batch.time, entries));
    }

    /// The next batch of the next commit: events of one time, as many as fit, whole commands only unless the first one takes
    /// more than a batch by itself. `None` if nothing waits or the commit has all it takes.
    fn next_batch(&self) -> Option<NextBatch> {
        let time = self.items.front()?.time;
        // A commit is all or nothing: a command that does not end with it could be cut in two by a crash.
        if let Some(Sealed { commit, is_whole: true, .. }) = &self.sealed
            && commit.batches.len() >= limit!(commit_batches, COMMIT_BATCHES_MAX)
        {
            return None;
        }
        let same_time = self.items.iter().take_while(|item| item.time == time);
        let count = fitting(same_time.map(|item| &item.entry));
        let is_full = count < self.items.len();
        if mutated!(CommandCutInTwo) {
            return Some(NextBatch { time, count: 1, is_full });
        }
        let whole = self.items.iter().take(count).rposition(|item| item.ends_command);
        Some(NextBatch { time, count: whole.map_or(count, |last| last + 1), is_full })
    }
}

/// What the next batch is made of.
struct NextBatch {
    time: Millis,
    /// Events.
    count: usize,
    /// Whether nothing that comes later would be put into it.
    is_full: bool,
}
