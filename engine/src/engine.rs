//! The engine without any network: a log, the sequencer's thread, the threads that write and read the log, and the
//! view.

mod doors;
mod entropy;
mod open;
mod pace;
mod post;
mod reader_thread;
mod recover;
mod sequencer_thread;
mod snapshot_desk;
mod snapshot_thread;
mod writer_thread;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};
use jeton_core::command::Submission;
use jeton_core::fair_queue::QueueLimits;
use jeton_core::numbers::Sequence;
use jeton_core::outcome::Reply;
use jeton_core::sequencer::TAKING_SHARE;
use jeton_core::state::StateConfig;
use jeton_core::view::View;
use jeton_net::doors::{DoorReply, QueueFull, SnapshotTaken, Ticket};
use jeton_net::server::ReplyQueue;

pub use doors::{DoorMaker, Doors};
pub use open::OpenError;
use post::Post;
use reader_thread::LogRead;
pub(crate) use recover::anchor_of;
pub use snapshot_desk::SnapshotSchedule;

use crate::clock::Clock;
use crate::snapshots::SnapshotDir;

/// Commands on their way to the sequencer's thread, which puts them into the lines of their clients; past that they are
/// refused as busy. Room for what comes while the thread is at something else, which takes it milliseconds.
const COMMANDS_MAX: usize = 1 << 14;
/// Commands that wait for their turn there; past that they are answered busy. One client has half of it at most.
const QUEUE_LIMITS: QueueLimits = QueueLimits { commands_max: 1 << 16, per_client_max: 1 << 15 };
/// Reads of the log waiting for the thread that does them.
const LOG_READS_MAX: usize = 1_024;

/// How an engine is to be.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Room for tokens.
    pub state: StateConfig,
    /// How far the wall clock may be ahead of the last event before it is doubted, in milliseconds.
    pub clock_jump_max_ms: u64,
    /// Believe the wall clock whatever it says.
    pub accept_clock: bool,
    /// Where snapshots lie and when one is written; none are if this is `None`.
    pub snapshots: Option<(SnapshotDir, SnapshotSchedule)>,
    /// Read the whole log at the start although there is a snapshot.
    pub read_whole_log: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            state: StateConfig::default(),
            clock_jump_max_ms: 366 * 24 * 3_600_000,
            accept_clock: false,
            snapshots: None,
            read_whole_log: false,
        }
    }
}

/// Where an answer goes.
#[derive(Clone, Debug)]
pub enum ReplyTo {
    /// To a shard, by ticket.
    Shard(ReplyQueue, Ticket),
    /// To whoever waits at the other end.
    Channel(Sender<DoorReply>),
}

impl ReplyTo {
    fn send(&self, reply: DoorReply) {
        match self {
            Self::Shard(queue, ticket) => queue.push(*ticket, reply),
            Self::Channel(sender) => drop(sender.try_send(reply)), // nobody waits any more
        }
    }

    fn ring(&self) {
        if let Self::Shard(queue, _) = self {
            queue.ring();
        }
    }
}

/// A command on its way to the sequencer.
struct Command {
    reply_to: ReplyTo,
    submission: Submission,
}

impl Post<Command> {
    /// Takes a command in, and lets the sequencer sleep on. The last part of the room is for what takes something from
    /// somebody, as it is in the sequencer's own queue. Shards that look at the same moment may find the same last place: it
    /// can be passed by one command for each who submits at that moment.
    fn submit(&self, command: Command) -> Result<(), QueueFull> {
        let kept = if command.submission.command.takes() { 0 } else { COMMANDS_MAX / TAKING_SHARE };
        if self.len() >= COMMANDS_MAX - kept {
            return Err(QueueFull);
        }
        self.try_send_quietly(command).map_err(|_| QueueFull)
    }
}

/// Figures that the threads write and [`Doors`] tell.
#[derive(Debug, Default)]
struct Figures {
    tokens: std::sync::atomic::AtomicU64,
    memory_bytes: std::sync::atomic::AtomicU64,
    subjects: std::sync::atomic::AtomicU64,
    assigned: std::sync::atomic::AtomicU64,
    durable: std::sync::atomic::AtomicU64,
    commits: std::sync::atomic::AtomicU64,
    commit_ns: std::sync::atomic::AtomicU64,
    log_bytes: std::sync::atomic::AtomicU64,
    /// The event of the last snapshot; 0 if there is none.
    snapshot_event: std::sync::atomic::AtomicU64,
    /// Snapshots written, and attempts that came to nothing, since the start.
    snapshots: std::sync::atomic::AtomicU64,
    snapshots_failed: std::sync::atomic::AtomicU64,
}

/// An open engine. Dropping it without [`Engine::stop`] loses nothing acknowledged; it only skips the tidying up.
pub struct Engine {
    view: View,
    clock: Clock,
    commands: Post<Command>,
    stop: Post<()>,
    is_stopping: Arc<AtomicBool>,
    reads: Sender<LogRead>,
    snapshots: Post<ReplyTo>,
    figures: Arc<Figures>,
    sequencer_thread: JoinHandle<()>,
    reader_thread: JoinHandle<()>,
    writer_thread: JoinHandle<Result<(), String>>,
    snapshot_thread: JoinHandle<()>,
}

/// Why an engine did not stop in order.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The log did not close.
    #[error("the log did not close in order: {0}")]
    Log(String),
    /// A thread panicked.
    #[error("the {0} thread panicked")]
    Panicked(&'static str),
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    /// What answers validates.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Its time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The last event that answers rest on.
    #[must_use]
    pub fn published(&self) -> Sequence {
        self.view.registry().published()
    }

    /// Hands a command over and waits for its answer.
    ///
    /// # Errors
    /// [`QueueFull`] if there is no room for it, or the engine is gone.
    pub fn call(&self, submission: Submission) -> Result<Reply, QueueFull> {
        let (sender, receiver) = bounded(1);
        let command = Command { reply_to: ReplyTo::Channel(sender), submission };
        self.commands.submit(command)?;
        self.commands.ring();
        match receiver.recv() {
            Ok(DoorReply::Command(reply)) => Ok(reply),
            _ => Err(QueueFull),
        }
    }

    /// Has a snapshot written, and waits until it exists.
    ///
    /// # Errors
    /// Why there is none, in words for people. The one before it stays, and the log has everything.
    pub fn take_snapshot(&self) -> Result<SnapshotTaken, String> {
        let (sender, receiver) = bounded(1);
        let ordered = self.snapshots.try_send(ReplyTo::Channel(sender));
        ordered.map_err(|_| "too many wait for a snapshot already".to_owned())?;
        match receiver.recv() {
            Ok(DoorReply::Snapshot(taken)) => taken,
            _ => Err("the engine is gone".to_owned()),
        }
    }

    /// Makes doors for shards. They keep the engine's queues open: [`Engine::stop`] waits for the last to be dropped.
    #[must_use]
    pub fn door_maker(&self) -> DoorMaker {
        DoorMaker {
            view: self.view.clone(),
            clock: self.clock.clone(),
            commands: self.commands.clone(),
            reads: self.reads.clone(),
            snapshots: self.snapshots.clone(),
            figures: Arc::clone(&self.figures),
        }
    }

    /// From now on commands are refused as stopping; what was taken on is still answered.
    pub fn begin_stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        let _ = self.stop.try_send(());
    }

    /// Stops: everything taken on is made durable and answered, then the log is closed.
    ///
    /// # Errors
    /// [`StopError`]; what was acknowledged is durable all the same.
    pub fn stop(self) -> Result<(), StopError> {
        self.begin_stop();
        drop((self.commands, self.stop, self.snapshots));
        self.sequencer_thread.join().map_err(|_| StopError::Panicked("sequencer"))?;
        self.snapshot_thread.join().map_err(|_| StopError::Panicked("snapshot"))?;
        drop(self.reads);
        self.reader_thread.join().map_err(|_| StopError::Panicked("log reader"))?;
        let closed = self.writer_thread.join().map_err(|_| StopError::Panicked("log writer"))?;
        closed.map_err(StopError::Log)
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_utils::sync::Parker;
    use jeton_core::command::{Command as Order, RevokeTarget};
    use jeton_core::numbers::ClientNo;
    use jeton_core::token::TokenId;

    use super::*;

    #[test]
    fn commands_have_a_bound_and_the_last_of_the_room_is_for_what_takes_something() {
        let parker = Parker::new();
        let (commands, end) = Post::<Command>::unbounded(parker.unparker());
        let (sender, _answers) = bounded(1);
        let submit = |command: Order| {
            let submission = Submission { actor: ClientNo(1), key: None, command };
            commands.submit(Command { reply_to: ReplyTo::Channel(sender.clone()), submission })
        };
        let gives = || submit(Order::CreateTenant { name: "acme".parse().expect("a name") });
        let takes = || submit(Order::Revoke(RevokeTarget::Id(TokenId([7; 16]))));
        let kept = COMMANDS_MAX / TAKING_SHARE;
        assert!((kept..COMMANDS_MAX).all(|_| gives().is_ok()));
        assert!(gives().is_err(), "the rest is kept");
        assert!((0..kept).all(|_| takes().is_ok()));
        assert!(takes().is_err(), "it is full");
        assert_eq!(end.len(), COMMANDS_MAX);
        end.recv().expect("one of them");
        assert!(takes().is_ok(), "there is room for one again");
        drop(end);
        assert!(takes().is_err(), "nobody takes them");
    }
}
