//! The sequencer's thread: takes commands, hands commits to the log's thread, sends answers back.
//!
//! Commands come over one channel, and wait in a line for each client until their turn. One commit is with the log at a
//! time; what is decided meanwhile makes up the next, which may wait a moment for those who were just answered. Not more
//! than that: the rest waits in the lines, where whoever comes next does not have to wait behind it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, never};
use crossbeam_utils::sync::Parker;
use jeton_core::command::Submission;
use jeton_core::fair_queue::{FairQueue, Serving};
use jeton_core::numbers::Sequence;
use jeton_core::pacing::Pacing;
use jeton_core::sequencer::{Commit, Restrictions, Sequencer};
use jeton_net::doors::DoorReply;

use super::entropy::EntropyPool;
use super::post::Post;
use super::snapshot_desk::SnapshotDesk;
use super::{Command, Figures, ReplyTo};
use crate::clock::Clock;

/// Commands put into lines, and commands decided, before anything else gets its turn: below a millisecond each, but
/// for commands of many tokens, of which what is decided ahead is bounded by their events.
const TAKEN_IN_PER_TURN: usize = 4_096;
const DECIDED_PER_TURN: usize = 256;
/// How often the clock is compared and figures are written.
const TICK: Duration = Duration::from_millis(250);
/// A commit that takes longer than this has hung: sled can, on a dying disk.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);

/// What the log's thread has to say.
#[derive(Debug)]
pub(super) enum LogEvent {
    /// Everything up to this event is durable.
    Durable(Sequence),
    /// The commit waits for space on the disk: it has not hung.
    StillTrying,
    /// The log takes no more writes.
    Failed,
    /// Whether the disk is nearly full.
    DiskLow(bool),
}

pub(super) struct SequencerThread {
    pub(super) sequencer: Sequencer<ReplyTo>,
    pub(super) queue: FairQueue<ReplyTo>,
    /// Whether the last turn ended before everything was decided that may be.
    pub(super) has_more: bool,
    pub(super) clock: Clock,
    /// Where it waits for the queues below and those of `snapshots`.
    pub(super) parker: Parker,
    pub(super) commands: Receiver<Command>,
    pub(super) stop: Receiver<()>,
    /// Without a bound: at most one commit is answered at a time.
    pub(super) log_events: Receiver<LogEvent>,
    pub(super) commits: Post<Commit>,
    pub(super) figures: Arc<Figures>,
    pub(super) restrictions: Restrictions,
    /// Since when a commit is with the log.
    pub(super) committing: Option<Instant>,
    pub(super) pacing: Pacing,
    pub(super) ticked: Instant,
    pub(super) entropy: EntropyPool,
    pub(super) snapshots: SnapshotDesk,
}

impl SequencerThread {
    /// Runs until nobody can hand it anything any more and all is answered. A panic is a mistake of ours: nothing is
    /// written after it, what waits is indeterminate, and validation goes on with what readers were shown.
    pub(super) fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.run_unguarded()));
        self.snapshots.end();
        if ended.is_ok() {
            return;
        }
        tracing::error!("the sequencer failed: validation goes on, writes are refused; restart to repair");
        self.sequencer.handle_failure();
        // What waited in the lines was not decided: nothing of it was done, and its answer says so.
        while let Some((reply_to, submission)) = self.queue.poll_submission(Serving::Everything) {
            self.decide(reply_to, submission);
        }
        self.reply();
        while let Ok(Command { reply_to, submission }) = self.commands.recv() {
            self.decide(reply_to, submission);
            self.reply();
        }
    }

    fn run_unguarded(&mut self) {
        self.sequencer.handle_start();
        self.tick();
        let mut is_open = true;
        while is_open || !self.is_done() {
            self.wait();
            is_open &= self.take_mail();
            self.turn();
        }
    }

    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.sequencer.is_idle() && self.committing.is_none()
    }

    /// Waits for something to do, but not if there is.
    fn wait(&mut self) {
        let has_mail = !self.commands.is_empty() || !self.log_events.is_empty() || !self.stop.is_empty();
        if has_mail || self.has_more || self.sequencer.has_work() || self.snapshots.has_work() {
            return;
        }
        let patience = self.patience();
        if !patience.is_zero() {
            self.parker.park_timeout(patience); // at once if something was sent since it was looked for
        }
    }

    /// Takes what others have sent. Returns whether commands may still come.
    fn take_mail(&mut self) -> bool {
        loop {
            match self.log_events.try_recv() {
                Ok(event) => self.take(&event),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.log_events = never();
                    self.fail();
                }
            }
        }
        match self.stop.try_recv() {
            Err(TryRecvError::Empty) => {}
            asked => {
                if asked.is_err() {
                    self.stop = never();
                }
                self.restrict(|restrictions| restrictions.stopping = true);
            }
        }
        for _ in 0..TAKEN_IN_PER_TURN {
            match self.commands.try_recv() {
                Ok(command) => self.take_in(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    /// How long it may wait for something to happen.
    fn patience(&mut self) -> Duration {
        let patience = self.snapshots.patience(TICK);
        if self.committing.is_some() || !self.sequencer.has_unsealed() {
            return patience;
        }
        let wait = self.pacing.poll_wait(self.sequencer.answers_held(), Instant::now());
        patience.min(wait.unwrap_or(Duration::ZERO))
    }

    fn turn(&mut self) {
        self.decide_by_turns();
        if self.sequencer.has_work() {
            self.sequencer.handle_work(self.clock.now());
        }
        self.commit();
        self.snapshots.turn(&mut self.sequencer, &self.figures);
        self.reply();
        let marks = self.sequencer.watermarks();
        self.figures.assigned.store(marks.assigned.0, Relaxed);
        self.figures.durable.store(marks.durable.0, Relaxed);
        if self.ticked.elapsed() >= TICK {
            self.tick();
        }
    }

    /// Puts a command into the line of its client.
    fn take_in(&mut self, Command { reply_to, submission }: Command) {
        if let Err(reply_to) = self.queue.handle_submission(reply_to, submission) {
            self.sequencer.handle_overflow(reply_to);
        }
    }

    fn decide_by_turns(&mut self) {
        for _ in 0..DECIDED_PER_TURN {
            let serving = if self.sequencer.is_ahead() { Serving::Taking } else { Serving::Everything };
            let Some((reply_to, submission)) = self.queue.poll_submission(serving) else {
                self.has_more = false;
                return;
            };
            self.decide(reply_to, submission);
        }
        self.has_more = true;
    }

    fn decide(&mut self, reply_to: ReplyTo, submission: Submission) {
        let (now, pool) = (self.clock.now(), &mut self.entropy);
        let mut entropy = |bytes: &mut [u8]| pool.fill(bytes);
        self.sequencer.handle_submission(reply_to, submission, now, &mut entropy);
    }

    fn take(&mut self, event: &LogEvent) {
        match event {
            LogEvent::Durable(sequence) => {
                let (now, held) = (Instant::now(), self.sequencer.answers_held());
                let took = self.committing.take().map_or(Duration::ZERO, |since| now - since);
                self.sequencer.handle_durable(*sequence);
                let waiting = self.sequencer.answers_held();
                self.pacing.handle_durable(held - waiting, waiting, took, now);
            }
            LogEvent::StillTrying => self.committing = self.committing.map(|_| Instant::now()),
            LogEvent::Failed => self.fail(),
            LogEvent::DiskLow(is_low) => self.restrict(|restrictions| restrictions.disk_low = *is_low),
        }
    }

    fn fail(&mut self) {
        self.committing = None;
        self.sequencer.handle_failure();
    }

    fn restrict(&mut self, change: impl FnOnce(&mut Restrictions)) {
        change(&mut self.restrictions);
        self.sequencer.set_restrictions(self.restrictions);
    }

    fn commit(&mut self) {
        if self.committing.is_some() {
            self.sequencer.seal_ahead(); // while the log is busy
            return;
        }
        if !self.sequencer.has_unsealed() {
            return;
        }
        // Enough for a commit is enough.
        let waiting = self.sequencer.answers_held();
        if !self.sequencer.is_ahead() && self.pacing.poll_wait(waiting, Instant::now()).is_some() {
            return;
        }
        let Some(commit) = self.sequencer.poll_commit() else { return };
        self.committing = Some(Instant::now());
        // What it took is decided no more: there is room for the next.
        self.queue.handle_commit();
        self.has_more |= !self.queue.is_empty();
        // One at a time is with the log, so this never waits.
        if self.commits.send(commit).is_err() {
            self.fail();
        }
    }

    fn reply(&mut self) {
        let mut rung: Option<ReplyTo> = None;
        while let Some((reply_to, reply)) = self.sequencer.poll_reply() {
            reply_to.send(DoorReply::Command(reply));
            // One ring for a run of answers to the same shard.
            if let (Some(ReplyTo::Shard(last, _)), ReplyTo::Shard(this, _)) = (&rung, &reply_to)
                && !last.is_same(this)
            {
                last.ring();
            }
            rung = Some(reply_to);
        }
        if let Some(last) = rung {
            last.ring();
        }
    }

    fn tick(&mut self) {
        self.ticked = Instant::now();
        self.clock.adjust();
        let is_in_doubt = self.clock.is_in_doubt();
        if is_in_doubt != self.restrictions.clock_in_doubt {
            tracing::error!(
                "the wall clock is in doubt: no token is issued or renewed until a start with --accept-clock"
            );
            self.restrict(|restrictions| restrictions.clock_in_doubt = is_in_doubt);
        }
        if self.committing.is_some_and(|since| since.elapsed() > COMMIT_PATIENCE) {
            tracing::error!("the log did not answer for a minute: it takes no more writes");
            self.fail();
        }
        self.snapshots.tick(&self.figures, self.sequencer.watermarks().assigned);
        let state = self.sequencer.state();
        self.figures.tokens.store(state.tokens() as u64, Relaxed);
        self.figures.subjects.store(state.subjects() as u64, Relaxed);
        self.figures.memory_bytes.store(state.memory().total() as u64, Relaxed);
    }
}
