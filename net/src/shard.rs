//! A shard: one thread on one core that moves datagrams between a socket and a driver, and lets a handler answer.
//!
//! glommio is its clock, its readiness and its parking, and is named here alone. The same loop serves and, with
//! another [`Handler`], drives load. Nothing on it blocks; whatever other threads have to say arrives in the handler's
//! own queues, announced by a [`Bell`].

mod limits;
mod park;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

pub use limits::{StartError, available_cpus, check_memlock, huge_pages};
pub use park::Bell;

use crate::driver::{ConfigError, Driver, DriverConfig, DriverEvent, Transmit};
use crate::socket::{ReceiveBuffer, Received, Socket};

/// A socket that takes nothing is tried again after this; glommio does not tell.
const SEND_RETRY: Duration = Duration::from_micros(50);
/// Receives in one turn, so that sending gets its turn too.
const RECEIVES_PER_TURN: usize = 4;
/// How long a stopping shard waits for what it owes.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long it then goes on sending, so that the last answers and the close get out.
const LINGER: Duration = Duration::from_millis(50);
/// Never: there is one task. With a short timer glommio 0.9.0 parks although the task could run, if the thread lost its
/// core for that long at the wrong moment, and nothing wakes it (docs/decisions/0006-no-preemption.md).
const PREEMPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What a shard does with what arrives. One for each shard, on its thread only.
pub trait Handler: 'static {
    /// Something happened on a connection.
    fn handle_event(&mut self, now: Instant, event: DriverEvent, driver: &mut Driver);

    /// Called once a turn: whatever else there is to do. Returns whether there was anything.
    fn handle_turn(&mut self, now: Instant, driver: &mut Driver) -> bool;

    /// When [`Self::handle_turn`] is to be called at the latest.
    fn next_deadline(&self) -> Option<Instant>;

    /// Whether other threads are at work on what it handed on: they may need the core that the shard would spin on.
    fn waits_for_others(&self) -> bool {
        false
    }

    /// The shard is to stop: nothing new is begun.
    fn handle_stop(&mut self, now: Instant, driver: &mut Driver);

    /// Whether nothing is owed to anybody any more, and all of it has arrived.
    fn is_drained(&self, driver: &mut Driver) -> bool;

    /// The shard stops now: connections are to be closed.
    fn handle_close(&mut self, now: Instant, driver: &mut Driver);
}

/// Running shards.
pub struct Shards {
    joins: Vec<ExecutorJoinHandle<Result<(), ShardError>>>,
    stop: Arc<AtomicBool>,
    bells: Vec<Arc<Bell>>,
    ended: Receiver<()>,
}

/// Says that a shard has ended, however it did.
struct EndNotice(Sender<()>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        let _ = self.0.try_send(()); // one of them is enough
    }
}

/// Why a shard ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// Its socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The TLS configuration is unfit.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The executor could not be had, or panicked.
    #[error("a shard's executor failed: {0}")]
    Executor(String),
    /// The executor panicked before it served.
    #[error(
        "a shard did not start: {0}; io_uring has to be allowed (Linux 5.8 or later; not blocked by seccomp, as \
         Docker's default profile does, nor by the sysctl kernel.io_uring_disabled)"
    )]
    Start(String),
}

/// What one shard is made of.
#[derive(Debug)]
pub struct ShardParts {
    /// The core it runs on.
    pub cpu: usize,
    /// Its socket.
    pub socket: Socket,
    /// Its driver.
    pub driver: DriverConfig,
    /// How long it looks for more to do before it parks.
    pub spin: Duration,
}

impl std::fmt::Debug for Shards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shards({})", self.joins.len())
    }
}

impl Shards {
    /// Starts a thread for each of `parts`; `make` is called on it, with the shard's number and bell. Returns once all
    /// of them serve.
    ///
    /// # Errors
    /// [`ShardError`]; then none is left running.
    pub fn start<H: Handler>(
        parts: Vec<ShardParts>,
        make: impl Fn(usize, Arc<Bell>) -> H + Clone + Send + 'static,
    ) -> Result<Self, ShardError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (end, ended) = bounded(1);
        let mut shards = Self { joins: Vec::new(), stop: Arc::clone(&stop), bells: Vec::new(), ended };
        let mut starting = Vec::new();
        for (number, parts) in parts.into_iter().enumerate() {
            let bell = match Bell::new() {
                Ok(bell) => Arc::new(bell),
                Err(error) => return Err(shards.give_up(ShardError::Executor(error.to_string()))),
            };
            shards.bells.push(Arc::clone(&bell));
            let (make, stop, notice) = (make.clone(), Arc::clone(&stop), EndNotice(end.clone()));
            let (ready, is_ready) = bounded(1);
            starting.push(is_ready);
            let join = LocalExecutorBuilder::new(Placement::Fixed(parts.cpu))
                .name(&format!("jeton-shard-{number}"))
                .io_memory(64 << 10)
                .ring_depth(128)
                .preempt_timer(PREEMPT)
                .spawn(move || async move {
                    let _notice = notice;
                    let handler = make(number, Arc::clone(&bell));
                    // It blocks: nothing else runs on this executor.
                    Shard::new(parts, handler, bell, stop)?.run(&ready)
                });
            match join {
                Ok(join) => shards.joins.push(join),
                Err(error) => return Err(shards.give_up(ShardError::Executor(error.to_string()))),
            }
        }
        // A shard that fails drops its end of the channel without a word.
        if starting.into_iter().any(|is_ready| is_ready.recv().is_err()) {
            return Err(shards.give_up(ShardError::Start("no reason given".to_owned())));
        }
        Ok(shards)
    }

    /// Stops what was started; returns why it came to that.
    fn give_up(self, otherwise: ShardError) -> ShardError {
        self.stop();
        match self.join() {
            Ok(()) => otherwise,
            Err(ShardError::Executor(why)) => ShardError::Start(why),
            Err(error) => error,
        }
    }

    /// Gets a word once a shard has ended, told to or not.
    #[must_use]
    pub fn ended(&self) -> Receiver<()> {
        self.ended.clone()
    }

    /// Tells every shard to stop: answers what it owes, closes its connections, ends.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.bells.iter().for_each(|bell| bell.ring());
    }

    /// Waits for every shard to end.
    ///
    /// # Errors
    /// The first [`ShardError`] of any of them; a panic is one too.
    pub fn join(self) -> Result<(), ShardError> {
        let results: Vec<_> = self.joins.into_iter().map(ExecutorJoinHandle::join).collect();
        results.into_iter().try_for_each(|result| match result {
            Ok(result) => result,
            Err(error) => Err(ShardError::Executor(error.to_string())),
        })
    }
}

/// One shard, on its own thread.
struct Shard<H> {
    socket: Socket,
    receive: ReceiveBuffer,
    driver: Driver,
    handler: H,
    bell: Arc<Bell>,
    stop: Arc<AtomicBool>,
    spin: Duration,
    /// Datagrams that the socket did not take yet.
    unsent: Option<Transmit>,
    buffer: Vec<u8>,
}

/// How far a stop has come.
enum Phase {
    Running,
    Draining { until: Instant },
    Closing { until: Instant },
}

impl<H: Handler> Shard<H> {
    fn new(
        parts: ShardParts,
        handler: H,
        bell: Arc<Bell>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, ShardError> {
        Ok(Self {
            socket: parts.socket,
            receive: ReceiveBuffer::default(),
            driver: Driver::new(parts.driver)?,
            handler,
            bell,
            stop,
            spin: parts.spin,
            unsent: None,
            buffer: Vec::with_capacity(64 << 10),
        })
    }

    fn run(mut self, ready: &Sender<()>) -> Result<(), ShardError> {
        let _ = ready.try_send(());
        let mut phase = Phase::Running;
        let mut worked_at = Instant::now();
        loop {
            let now = Instant::now();
            let has_worked = self.turn(now)?;
            if self.has_stopped(now, &mut phase) {
                return Ok(());
            }
            if has_worked {
                worked_at = now;
                continue; // a turn takes only so much of anything
            }
            if now - worked_at < self.spin && !self.handler.waits_for_others() {
                std::hint::spin_loop();
                continue;
            }
            let wake_at = self.wake_at(&phase);
            self.bell.park(self.socket.inner(), wake_at.map(|at| at.saturating_duration_since(now)))?;
            worked_at = Instant::now();
        }
    }

    /// One round of everything; returns whether there was anything to do.
    fn turn(&mut self, now: Instant) -> Result<bool, ShardError> {
        let mut has_worked = false;
        for _ in 0..RECEIVES_PER_TURN {
            let driver = &mut self.driver;
            let received = self
                .socket
                .receive(&mut self.receive, |origin, data| driver.handle_datagram(now, origin, data))?;
            has_worked |= received != Received::Nothing;
            if received != Received::Part {
                break; // to ask once more for what may have come since costs a system call
            }
        }
        has_worked |= self.driver.handle_handshake(now);
        if self.driver.poll_timeout().is_some_and(|at| at <= now) {
            self.driver.handle_timeout(now);
            has_worked = true;
        }
        while let Some(event) = self.driver.poll_event() {
            self.handler.handle_event(now, event, &mut self.driver);
            has_worked = true;
        }
        has_worked |= self.handler.handle_turn(now, &mut self.driver);
        self.send(now)?;
        Ok(has_worked)
    }

    /// Sends what there is, until the socket takes no more.
    fn send(&mut self, now: Instant) -> Result<(), ShardError> {
        loop {
            let transmit = match self.unsent.take() {
                Some(transmit) => transmit,
                None => {
                    self.buffer.clear();
                    self.driver.limit_segments(self.socket.segments_max());
                    match self.driver.poll_transmit(now, &mut self.buffer) {
                        Some(transmit) => transmit,
                        None => return Ok(()),
                    }
                }
            };
            let contents = self.buffer.get(..transmit.size).unwrap_or_default();
            match self.socket.send(&transmit, contents) {
                Ok(true) => {}
                Ok(false) => {
                    self.unsent = Some(transmit);
                    return Ok(());
                }
                // An unreachable peer is that peer's loss: its connection will time out.
                Err(error) => tracing::debug!(%error, to = %transmit.destination, "datagrams not sent"),
            }
        }
    }

    fn wake_at(&self, phase: &Phase) -> Option<Instant> {
        let until = match phase {
            Phase::Running => None,
            Phase::Draining { until } | Phase::Closing { until } => Some(*until),
        };
        let retry = self.unsent.is_some().then(|| Instant::now() + SEND_RETRY);
        let deadlines = [self.driver.poll_timeout(), self.handler.next_deadline(), retry, until];
        deadlines.into_iter().flatten().min()
    }

    /// Moves a stop along; returns whether it is complete.
    fn has_stopped(&mut self, now: Instant, phase: &mut Phase) -> bool {
        match phase {
            Phase::Running if self.stop.load(Ordering::Acquire) => {
                self.driver.stop_accepting();
                self.handler.handle_stop(now, &mut self.driver);
                *phase = Phase::Draining { until: now + GRACE };
            }
            Phase::Draining { until } if now >= *until || self.handler.is_drained(&mut self.driver) => {
                self.handler.handle_close(now, &mut self.driver);
                *phase = Phase::Closing { until: now + LINGER };
            }
            Phase::Closing { until } if now >= *until => return true,
            _ => {}
        }
        false
    }
}
