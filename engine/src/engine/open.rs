//! Opening an engine: verify and replay the log, then start the threads behind it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use crossbeam_utils::sync::Parker;
use jeton_core::fair_queue::FairQueue;
use jeton_core::numbers::Sequence;
use jeton_core::pacing::Pacing;
use jeton_core::recovery::ReplayError;
use jeton_core::sequencer::{Restrictions, Sequencer};
use jeton_core::time::Millis;
use jeton_core::view::View;
use jeton_log_store::{AppendError, LogStore, Position, ReadError};

use super::entropy::EntropyPool;
use super::post::Post;
use super::reader_thread::ReaderThread;
use super::recover::{Recovered, recover};
use super::sequencer_thread::SequencerThread;
use super::snapshot_desk::{self, Before, SnapshotSchedule};
use super::writer_thread::WriterThread;
use super::{Engine, EngineConfig, Figures, LOG_READS_MAX, QUEUE_LIMITS, ReplyTo};
use crate::clock::Clock;
use crate::snapshots::SnapshotDir;

/// How long the first commit of a new log may take, and how often to look.
const CREATION_PATIENCE: Duration = Duration::from_secs(30);
const CREATION_LOOK: Duration = Duration::from_millis(1);

/// Why an engine does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store cannot give what it holds.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What it holds is broken.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// What was read ends elsewhere than the store says.
    #[error("the log's store says that it ends elsewhere than at {0}, where what it holds does")]
    End(Sequence),
    /// A snapshot, which exists only once its event is durable, knows of more than the log has.
    #[error(
        "the log ends at {head}, but there is a snapshot of event {snapshot}: events that were acknowledged are gone. Restore \
         the log; or, to go on without them, remove the folder `snapshots`"
    )]
    SnapshotAhead {
        /// The event of the snapshot.
        snapshot: Sequence,
        /// The last event of the log.
        head: Sequence,
    },
    /// More tokens live than there may be.
    #[error(
        "at event {at} of the log more tokens live than the {tokens_max} that this server holds (tokens_max, or what memory has room \
         for): set it higher, or give the process more memory; the log is as it was"
    )]
    TooManyTokens {
        /// The issue for which there was no room.
        at: Sequence,
        /// How many records of tokens there may be.
        tokens_max: u32,
    },
    /// It cannot be written. All of it was read before, and nothing of it is lost.
    #[error(
        "the log was read, but cannot be written: {0}; it is as it was: make room or mend the disk, and start again"
    )]
    Write(String),
    /// There is no memory for it.
    #[error(transparent)]
    Index(#[from] jeton_core::IndexError),
    /// The first events of a new log did not become durable.
    #[error("the log takes no writes: its first events did not become durable")]
    Creation,
    /// A thread cannot be had.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl Engine {
    /// Opens the engine over a log. A new log begins with a client named `admin` that has every right.
    ///
    /// # Errors
    /// [`OpenError`]; the log is as it was.
    pub fn open(mut store: Box<dyn LogStore>, config: EngineConfig, admin: &str) -> Result<Self, OpenError> {
        let began = Instant::now();
        let Recovered { state, reader, end, snapshot, read_bytes } = recover(&mut *store, &config)?;
        if store.head() != (Position { sequence: end.sequence.0, chain: end.hash }) {
            return Err(OpenError::End(end.sequence));
        }
        store.begin_writing().map_err(|error| match error {
            AppendError::Indeterminate(reason) | AppendError::Poisoned(reason) => OpenError::Write(reason),
            other => OpenError::Write(other.to_string()),
        })?;
        let view = View::new(reader, Arc::clone(state.registry()));
        let clock = Clock::start(state.last_time(), config.clock_jump_max_ms, config.accept_clock);
        let replayed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            events = end.sequence.0,
            tokens = state.tokens(),
            replayed_ms,
            "the log is read and whole"
        );

        let mut sequencer = Sequencer::new(state, end);
        if end.sequence == Sequence(0) {
            sequencer.handle_creation(admin, clock.now().max(Millis(1)));
        }
        if clock.is_in_doubt() {
            tracing::error!(
                "the wall clock is in doubt: no token is issued or renewed until a start with --accept-clock"
            );
        }
        let age_ms = snapshot.as_ref().map_or(0, |snapshot| clock.now().0.saturating_sub(snapshot.time_ms));
        let before = Before { snapshot, log_bytes: read_bytes, age: Duration::from_millis(age_ms) };
        let engine = Self::start(store, sequencer, view, clock, (config.snapshots, before))?;
        engine.await_creation()?;
        Ok(engine)
    }

    /// Starts the threads, and what they talk through.
    fn start(
        store: Box<dyn LogStore>,
        mut sequencer: Sequencer<ReplyTo>,
        view: View,
        clock: Clock,
        snapshots: (Option<(SnapshotDir, SnapshotSchedule)>, Before),
    ) -> Result<Self, OpenError> {
        let restrictions = Restrictions { clock_in_doubt: clock.is_in_doubt(), ..Restrictions::default() };
        sequencer.set_restrictions(restrictions);
        let (for_sequencer, for_writer) = (Parker::new(), Parker::new());
        let (commands, command_receiver) = Post::unbounded(for_sequencer.unparker()); // bounded where it is filled
        let (stop, stop_receiver) = Post::bounded(1, for_sequencer.unparker());
        let (commits, commit_receiver) = Post::bounded(1, for_writer.unparker());
        let (reads, read_receiver) = bounded(LOG_READS_MAX);
        let (open_reads, open_read_receiver) = Post::bounded(1, for_writer.unparker());
        let (events, event_receiver) = Post::unbounded(for_sequencer.unparker());
        let reading = ReaderThread::new(&*store, read_receiver, open_reads);
        let figures = Arc::new(Figures::default());
        let is_stopping = Arc::new(AtomicBool::new(false));
        let close_segment = Arc::new(AtomicBool::new(false));
        let writing = WriterThread {
            store,
            parker: for_writer,
            commits: commit_receiver,
            reads: open_read_receiver,
            reach: Arc::clone(&reading.reach),
            events,
            figures: Arc::clone(&figures),
            is_stopping: Arc::clone(&is_stopping),
            close_segment: Arc::clone(&close_segment),
            is_low: false,
            has_failed: false,
        };
        let (orders, snapshots, snapshot_thread) = snapshot_desk::set_up(
            sequencer.state().registry(),
            &figures,
            &is_stopping,
            &close_segment,
            for_sequencer.unparker(),
            snapshots,
        )?;
        let sequencing = SequencerThread {
            sequencer,
            queue: FairQueue::new(QUEUE_LIMITS),
            has_more: false,
            clock: clock.clone(),
            parker: for_sequencer,
            commands: command_receiver,
            stop: stop_receiver,
            log_events: event_receiver,
            commits,
            figures: Arc::clone(&figures),
            restrictions,
            committing: None,
            pacing: Pacing::default(),
            ticked: Instant::now(),
            entropy: EntropyPool::default(),
            snapshots,
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let writer_thread = thread("jeton-log").spawn(move || writing.run())?;
        let reader_thread = thread("jeton-log-read").spawn(move || reading.run())?;
        let sequencer_thread = thread("jeton-sequencer").spawn(move || sequencing.run())?;
        Ok(Self {
            view,
            clock,
            commands,
            stop,
            is_stopping,
            reads,
            snapshots: orders,
            figures,
            sequencer_thread,
            reader_thread,
            writer_thread,
            snapshot_thread,
        })
    }

    /// A new log's first events give the administrator its rights: nobody can be answered before they are durable.
    fn await_creation(&self) -> Result<(), OpenError> {
        let began = Instant::now();
        while self.published() == Sequence(0) {
            if self.view.registry().log_failed() || began.elapsed() > CREATION_PATIENCE {
                return Err(OpenError::Creation);
            }
            std::thread::sleep(CREATION_LOOK);
        }
        Ok(())
    }
}
