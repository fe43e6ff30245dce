//! The sequencer's side of snapshots: when one is due, and handing its pieces over between commands.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded, never};
use crossbeam_utils::sync::Unparker;
use jeton_core::numbers::Sequence;
use jeton_core::registry::Registry;
use jeton_core::sequencer::Sequencer;
use jeton_core::snapshot::{Manifest, SnapshotPiece};
use jeton_net::doors::{DoorReply, SnapshotTaken};

use super::post::Post;
use super::snapshot_thread::{SnapshotInput, SnapshotResult, SnapshotThread};
use super::{Figures, ReplyTo};
use crate::snapshots::SnapshotDir;

/// Pieces copied before commands get their turn: a quarter of a millisecond or so.
const PIECES_PER_TURN: usize = 16;
/// Pieces on their way to the thread that writes them: 4 MiB. Past that the copy waits.
const PIECES_MAX: usize = 64;
/// Snapshots that were asked for and are waited for.
const ORDERS_MAX: usize = 64;

/// When a snapshot is written without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSchedule {
    /// Once the log has grown by so many bytes since the last; 0 for never.
    pub log_bytes: u64,
    /// Once so much time has passed since the last, if anything was written; zero for never.
    pub interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// One is wanted, and begins when nothing is in the way.
    Due,
    /// The sequencer copies.
    Copying,
    /// The other thread writes.
    Writing,
}

impl SnapshotSchedule {
    /// Only when one is asked for.
    pub const NEVER: Self = Self { log_bytes: 0, interval: Duration::ZERO };
}

pub(super) struct SnapshotDesk {
    schedule: SnapshotSchedule,
    /// Who asks for one.
    orders: Receiver<ReplyTo>,
    pieces: Sender<SnapshotInput>,
    results: Receiver<SnapshotResult>,
    phase: Phase,
    /// Asked while one was under way: they get the next.
    next: Vec<ReplyTo>,
    waiting: Vec<ReplyTo>,
    /// A piece that found no room.
    held: Option<SnapshotPiece>,
    last: Last,
}

/// The last snapshot, and what of the log came behind it.
struct Last {
    /// What this server had written to the log by then.
    written: u64,
    /// What it read behind it when it started.
    read: u64,
    sequence: Sequence,
    at: Instant,
}

/// What a start went on from.
pub(super) struct Before {
    pub(super) snapshot: Option<Manifest>,
    /// Bytes of the log behind it, or of all of it.
    pub(super) log_bytes: u64,
    /// How long ago the last event was that it holds.
    pub(super) age: Duration,
}

/// Starts the thread that writes snapshots, if there is a folder for them; returns where they are asked for, the sequencer's
/// desk and the thread.
pub(super) fn set_up(
    registry: &Arc<Registry>,
    figures: &Figures,
    is_stopping: &Arc<AtomicBool>,
    close_segment: &Arc<AtomicBool>,
    sequencer: &Unparker,
    (config, before): (Option<(SnapshotDir, SnapshotSchedule)>, Before),
) -> io::Result<(Post<ReplyTo>, SnapshotDesk, JoinHandle<()>)> {
    let (orders, order_receiver) = Post::bounded(ORDERS_MAX, sequencer);
    let (pieces, piece_receiver) = bounded(PIECES_MAX);
    let (result_sender, results) = Post::bounded(1, sequencer);
    let last = Last::of(&before);
    figures.snapshot_event.store(last.sequence.0, Relaxed);
    let (dir, schedule) = config.unzip();
    let writing = SnapshotThread {
        dir,
        input: piece_receiver,
        results: result_sender,
        registry: Arc::clone(registry),
        is_stopping: Arc::clone(is_stopping),
        close_segment: Arc::clone(close_segment),
        before: before.snapshot,
    };
    let schedule = schedule.unwrap_or(SnapshotSchedule::NEVER);
    let desk = SnapshotDesk::new(schedule, order_receiver, pieces, results, last);
    let thread = std::thread::Builder::new().name("jeton-snapshot".to_owned());
    Ok((orders, desk, thread.spawn(move || writing.run())?))
}

/// What comes of a snapshot if that thread has panicked: everything else goes on without one.
fn gone() -> SnapshotResult {
    Err("the thread that writes snapshots is gone: it panicked, see the server's messages; a restart brings it back".to_owned())
}

impl Last {
    /// The one that a start went on from: a server that is restarted often has to write one in the end as well.
    fn of(before: &Before) -> Self {
        let now = Instant::now();
        Self {
            written: 0,
            read: before.log_bytes,
            sequence: Sequence(before.snapshot.as_ref().map_or(0, |snapshot| snapshot.sequence)),
            at: now.checked_sub(before.age).unwrap_or(now),
        }
    }
}

impl SnapshotDesk {
    /// A desk with nothing under way.
    fn new(
        schedule: SnapshotSchedule,
        orders: Receiver<ReplyTo>,
        pieces: Sender<SnapshotInput>,
        results: Receiver<SnapshotResult>,
        last: Last,
    ) -> Self {
        Self {
            schedule,
            orders,
            pieces,
            results,
            phase: Phase::Idle,
            next: Vec::new(),
            waiting: Vec::new(),
            held: None,
            last,
        }
    }

    /// Somebody asks for a snapshot.
    fn order(&mut self, reply_to: ReplyTo) {
        if self.waiting.len() + self.next.len() >= ORDERS_MAX {
            answer(std::iter::once(reply_to), "too many wait for a snapshot already");
            return;
        }
        self.next.push(reply_to);
    }

    /// How long the sequencer may wait for something else.
    pub(super) fn patience(&self, usual: Duration) -> Duration {
        match self.phase {
            // The other thread makes room piece by piece.
            Phase::Copying => Duration::from_millis(1),
            Phase::Idle | Phase::Due | Phase::Writing => usual,
        }
    }

    /// Whether somebody has sent something, or there is something to copy and room for it.
    pub(super) fn has_work(&self) -> bool {
        let may_copy = self.phase == Phase::Copying && !self.pieces.is_full();
        may_copy || !self.orders.is_empty() || !self.results.is_empty()
    }

    /// Asks for one if it is time.
    pub(super) fn tick(&mut self, figures: &Figures, assigned: Sequence) {
        let Last { written, read, sequence, at } = self.last;
        let grown = figures.log_bytes.load(Relaxed).saturating_sub(written) + read;
        let by_log = self.schedule.log_bytes > 0 && grown >= self.schedule.log_bytes;
        let by_time = !self.schedule.interval.is_zero()
            && at.elapsed() >= self.schedule.interval
            && assigned > sequence;
        if self.phase == Phase::Idle && (by_log || by_time || !self.next.is_empty()) {
            self.phase = Phase::Due;
        }
    }

    /// Goes on with what is under way. To be called when a commit was just taken: then nothing waits to be sealed.
    pub(super) fn turn(&mut self, sequencer: &mut Sequencer<ReplyTo>, figures: &Figures) {
        while let Ok(reply_to) = self.orders.try_recv() {
            self.order(reply_to);
        }
        if self.phase == Phase::Idle && !self.next.is_empty() {
            self.phase = Phase::Due;
        }
        if self.phase == Phase::Due && sequencer.has_failed() {
            self.phase = Phase::Idle;
            answer(
                self.next.drain(..),
                "the log takes no writes, and so no snapshot is written: a restart repairs it",
            );
        }
        match self.phase {
            Phase::Idle => {}
            Phase::Due => self.begin(sequencer, figures),
            Phase::Copying => self.copy(sequencer),
            Phase::Writing => {}
        }
        match self.results.try_recv() {
            Ok(result) => self.handle_result(&result, sequencer, figures),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => match self.phase {
                Phase::Idle | Phase::Due => {}
                Phase::Copying | Phase::Writing => self.handle_result(&gone(), sequencer, figures),
            },
        }
    }

    /// The thread that writes is through with the snapshot, one way or the other.
    fn handle_result(
        &mut self,
        result: &SnapshotResult,
        sequencer: &mut Sequencer<ReplyTo>,
        figures: &Figures,
    ) {
        self.finish(result, figures);
        sequencer.end_snapshot();
    }

    fn begin(&mut self, sequencer: &mut Sequencer<ReplyTo>, figures: &Figures) {
        if self.pieces.is_full() {
            return; // of one that failed, which nobody has cleared away yet
        }
        let Some(cut) = sequencer.begin_snapshot() else { return };
        let (written, sequence) = (figures.log_bytes.load(Relaxed), cut.end().sequence);
        self.last = Last { written, read: 0, sequence, at: Instant::now() };
        self.waiting.append(&mut self.next);
        self.phase = Phase::Copying;
        if self.pieces.try_send(SnapshotInput::Begin(Box::new(cut))).is_err() {
            self.handle_result(&gone(), sequencer, figures);
        }
    }

    fn copy(&mut self, sequencer: &mut Sequencer<ReplyTo>) {
        for _ in 0..PIECES_PER_TURN {
            let input = match self.held.take().or_else(|| sequencer.poll_snapshot()) {
                Some(piece) => SnapshotInput::Piece(piece),
                None => SnapshotInput::Whole,
            };
            let is_whole = matches!(input, SnapshotInput::Whole);
            match self.pieces.try_send(input) {
                Ok(()) if is_whole => {
                    self.phase = Phase::Writing;
                    return;
                }
                Ok(()) => {}
                Err(TrySendError::Full(SnapshotInput::Piece(piece))) => {
                    self.held = Some(piece);
                    return;
                }
                Err(_) => return, // full, or gone: then its result says so
            }
        }
    }

    fn finish(&mut self, result: &SnapshotResult, figures: &Figures) {
        if let Ok(report) = result {
            figures.snapshot_event.store(report.sequence.0, Relaxed);
            figures.snapshots.fetch_add(1, Relaxed);
        } else {
            figures.snapshots_failed.fetch_add(1, Relaxed);
        }
        self.phase = Phase::Idle;
        self.held = None;
        for reply_to in self.waiting.drain(..) {
            let taken = result.as_ref().map(|report| SnapshotTaken {
                sequence: report.sequence,
                tokens: report.tokens,
                bytes: report.bytes,
                bytes_written: report.bytes_written,
            });
            reply_to.send(DoorReply::Snapshot(taken.map_err(Clone::clone)));
            reply_to.ring();
        }
    }

    /// Whoever still waits is told that nothing comes, and whoever comes later that there is no place.
    pub(super) fn end(&mut self) {
        let late = std::mem::replace(&mut self.orders, never());
        answer(self.waiting.drain(..).chain(self.next.drain(..)).chain(late.try_iter()), "the server stops");
    }
}

fn answer(all: impl Iterator<Item = ReplyTo>, why: &str) {
    for reply_to in all {
        reply_to.send(DoorReply::Snapshot(Err(why.to_owned())));
        reply_to.ring();
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_utils::sync::Parker;
    use jeton_core::batch::ChainEnd;
    use jeton_core::numbers::{LogId, Partition};
    use jeton_core::state::{State, StateConfig};
    use jeton_core::time::Millis;

    use super::*;

    /// What a start behind a snapshot of event 7 went on from.
    fn before(log_bytes: u64, age: Duration) -> Last {
        let last = Last::of(&Before { snapshot: None, log_bytes, age });
        Last { sequence: Sequence(7), ..last }
    }

    #[test]
    fn one_is_due_by_time_once_something_was_written_and_by_bytes_of_log() {
        let (hour, second) = (Duration::from_secs(3_600), Duration::from_secs(1));
        let is_due_behind = |last, schedule, log_bytes, assigned| {
            let (pieces, _piece_receiver) = bounded(PIECES_MAX);
            let (_order_sender, orders) = bounded(ORDERS_MAX);
            let (_result_sender, results) = bounded(1);
            let mut desk = SnapshotDesk::new(schedule, orders, pieces, results, last);
            let figures = Figures::default();
            figures.log_bytes.store(log_bytes, Relaxed);
            desk.tick(&figures, Sequence(assigned));
            desk.phase == Phase::Due
        };
        let is_due = |schedule, passed, log_bytes, assigned| {
            is_due_behind(before(0, passed), schedule, log_bytes, assigned)
        };
        let by_time = SnapshotSchedule { log_bytes: 0, interval: hour };
        assert!(is_due(by_time, hour, 1, 8));
        assert!(!is_due(by_time, hour, 0, 7), "nothing was written since");
        assert!(!is_due(by_time, hour - second, 1, 8), "it is not time");
        let by_log = SnapshotSchedule { log_bytes: 1_000, interval: Duration::ZERO };
        assert!(is_due(by_log, Duration::ZERO, 1_000, 8));
        assert!(!is_due(by_log, hour, 999, 8));
        assert!(!is_due(SnapshotSchedule::NEVER, hour, 1_000_000, 9));
        // What a start had to read counts as well, or a server that is restarted often would never write one.
        assert!(is_due_behind(before(600, second), by_log, 400, 8));
        assert!(!is_due_behind(before(600, second), by_log, 399, 8));
        assert!(is_due_behind(before(1_000, second), by_log, 0, 8));
        assert!(!is_due_behind(before(u64::MAX, hour), SnapshotSchedule::NEVER, 0, 8));
    }

    /// A sequencer of which a snapshot can be cut.
    fn with_an_event() -> Sequencer<ReplyTo> {
        let state = StateConfig {
            tokens_initial: 100,
            tokens_max: 100_000,
            huge_pages: false,
            ..StateConfig::default()
        };
        let (log, partition) = (LogId([1; 16]), Partition::default());
        let (state, _reader) = State::new(log, partition, state).unwrap();
        let mut sequencer = Sequencer::new(state, ChainEnd::genesis(log, partition));
        sequencer.handle_creation("test:admin", Millis(1));
        let commit = sequencer.poll_commit().unwrap();
        sequencer.handle_durable(commit.last());
        sequencer
    }

    #[test]
    fn whoever_wants_one_of_a_log_that_has_failed_is_told_so() {
        let mut sequencer = with_an_event();
        let figures = Figures::default();
        let (pieces, _piece_receiver) = bounded(PIECES_MAX);
        let (order_sender, orders) = bounded(ORDERS_MAX);
        let (_result_sender, results) = bounded(1);
        let mut desk =
            SnapshotDesk::new(SnapshotSchedule::NEVER, orders, pieces, results, before(0, Duration::ZERO));
        sequencer.handle_failure();
        let ask = |desk: &mut SnapshotDesk, sequencer: &mut Sequencer<ReplyTo>| {
            let (reply_sender, reply) = bounded(1);
            let sent = order_sender.send(ReplyTo::Channel(reply_sender));
            desk.turn(sequencer, &figures);
            sent.is_ok().then(|| reply.try_recv().unwrap())
        };
        for _ in 0..2 {
            let Some(DoorReply::Snapshot(Err(words))) = ask(&mut desk, &mut sequencer) else {
                panic!("answered")
            };
            assert!(words.contains("the log takes no writes"), "{words}");
            assert_eq!((desk.phase, desk.has_work()), (Phase::Idle, false));
        }
        desk.end();
        assert!(ask(&mut desk, &mut sequencer).is_none(), "behind its end there is nobody to send to");
    }

    #[test]
    fn one_begins_once_what_is_left_of_one_that_failed_is_cleared_away() {
        let mut sequencer = with_an_event();
        let figures = Figures::default();
        let (pieces, piece_receiver) = bounded(1);
        pieces.send(SnapshotInput::Whole).unwrap();
        let (order_sender, orders) = bounded(ORDERS_MAX);
        let (_result_sender, results) = bounded(1);
        let mut desk =
            SnapshotDesk::new(SnapshotSchedule::NEVER, orders, pieces, results, before(0, Duration::ZERO));
        let (reply_sender, reply) = bounded(1);
        order_sender.send(ReplyTo::Channel(reply_sender)).unwrap();
        desk.turn(&mut sequencer, &figures);
        assert_eq!((desk.phase, reply.is_empty()), (Phase::Due, true), "it waits");
        drop(piece_receiver.recv());
        desk.turn(&mut sequencer, &figures);
        assert_eq!(desk.phase, Phase::Copying);
    }

    #[test]
    fn a_thread_that_panics_in_a_snapshot_fails_it_and_leaves_nothing_to_be_done() {
        let mut sequencer = with_an_event();
        let figures = Figures::default();
        for pieces_taken in [0, 1] {
            let (pieces, piece_receiver) = bounded(PIECES_MAX);
            let (order_sender, orders) = bounded(ORDERS_MAX);
            let (result_sender, results) = Post::bounded(1, Parker::new().unparker());
            let mut desk = SnapshotDesk::new(
                SnapshotSchedule::NEVER,
                orders,
                pieces,
                results,
                before(0, Duration::ZERO),
            );
            let thread = std::thread::spawn(move || {
                let _dropped = result_sender;
                (0..=pieces_taken).for_each(|_| drop(piece_receiver.recv()));
            });
            let (reply_sender, reply) = bounded(1);
            order_sender.send(ReplyTo::Channel(reply_sender)).unwrap();
            desk.turn(&mut sequencer, &figures);
            assert_eq!(desk.phase, Phase::Copying);
            if pieces_taken == 1 {
                desk.turn(&mut sequencer, &figures);
            }
            thread.join().unwrap();
            desk.turn(&mut sequencer, &figures);
            let DoorReply::Snapshot(Err(words)) = reply.try_recv().unwrap() else { panic!("it has one") };
            assert!(words.contains("is gone"), "{words}");
            assert_eq!((desk.phase, desk.has_work()), (Phase::Idle, false));
        }
        assert_eq!(figures.snapshots_failed.load(Relaxed), 2);
    }
}
