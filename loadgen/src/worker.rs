//! One thread that asks: connects, waits for the others, warms up, measures, takes what is still under way.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use anyhow::bail;
use crossbeam_channel::{Receiver, Sender};

use crate::engine::{Engine, Shared};
use crate::fill::SILENCE_MAX;
use crate::measure::thread_cpu;
use crate::peer::Peer;
use crate::recorder::Sample;
use crate::schedule::{DueTimes, Pace, Profile};

/// How long a worker looks for more to do before it waits in the kernel: a wake-up costs more than that.
const SPIN: Duration = Duration::from_micros(50);
/// It wakes up so long before something is due, for timers are late by about as much.
const WAKE_EARLY: Duration = Duration::from_micros(150);
/// The longest that it waits without looking around.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// What all workers of a run and whoever collects from them share.
pub(crate) struct Crew {
    pub(crate) shared: Arc<Shared>,
    /// Everybody is connected.
    pub(crate) barrier: Barrier,
    began: OnceLock<Instant>,
    /// Nobody goes on.
    pub(crate) stop: AtomicBool,
    pub(crate) interval: Duration,
}

impl Crew {
    pub(crate) fn new(shared: Arc<Shared>, interval: Duration) -> Self {
        let workers = usize::from(shared.workload.workers);
        Self {
            shared,
            barrier: Barrier::new(workers + 1),
            began: OnceLock::new(),
            stop: AtomicBool::new(false),
            interval,
        }
    }

    /// When the run began, for everybody the same: to be asked for behind the barrier.
    pub(crate) fn began(&self) -> Instant {
        *self.began.get_or_init(Instant::now)
    }

    /// When measuring begins, and ends.
    pub(crate) fn window(&self) -> (Instant, Instant) {
        let from = self.began() + self.shared.workload.warm_up.0;
        (from, from + self.shared.workload.duration.0)
    }
}

/// What a worker says.
pub(crate) enum Said {
    /// Which worker, and what it measured in the interval with this number; what came after the end has the last number
    /// and one.
    Interval(u16, usize, Box<Sample>),
    /// It is done: when it was answered last, until when it counted what was due, whether it ran out of tokens to revoke,
    /// and what went wrong if anything.
    Done { heard: Instant, counted: Instant, ran_dry: bool, result: anyhow::Result<()> },
}

/// A worker.
pub(crate) struct Worker<'a> {
    pub(crate) crew: &'a Crew,
    pub(crate) number: u16,
    pub(crate) say: Sender<Said>,
    pub(crate) spare: Receiver<Box<Sample>>,
}

impl Worker<'_> {
    /// Runs to the end; what goes wrong is said like everything else.
    pub(crate) fn run(self, connect: impl FnOnce() -> anyhow::Result<Box<dyn Peer>>) {
        let connected = connect();
        if connected.is_err() {
            self.crew.stop.store(true, Relaxed);
        }
        self.crew.barrier.wait();
        let (mut heard, mut counted) = (Instant::now(), Instant::now());
        let mut ran_dry = false;
        let result = connected.and_then(|mut peer| {
            let connections = peer.connections();
            let clock = Instant::now;
            let shared = Arc::clone(&self.crew.shared);
            let mut engine = Engine::new(shared, self.number, connections, &clock);
            let result = self.phases(&mut engine, peer.as_mut());
            (heard, counted, ran_dry) = (engine.heard, engine.ends(), engine.ran_dry);
            // Also what was under way when something went wrong: then nobody waited for it.
            engine.note_unanswered();
            self.hand_over(&mut engine, self.intervals());
            result
        });
        if result.is_err() {
            self.crew.stop.store(true, Relaxed);
        }
        // Whoever collects may have given up already: then nobody wants to know.
        let _ = self.say.send(Said::Done { heard, counted, ran_dry, result });
    }

    /// How many intervals there are.
    fn intervals(&self) -> usize {
        let (from, until) = self.crew.window();
        (until - from).as_nanos().div_ceil(self.crew.interval.as_nanos()) as usize
    }

    fn phases(&self, engine: &mut Engine<'_>, peer: &mut dyn Peer) -> anyhow::Result<()> {
        let workload = &self.crew.shared.workload;
        let (from, until) = self.crew.window();
        let profile = Profile::new(&workload.schedule, workload.duration.0);
        let place = (self.number, workload.workers);
        let times = |pace: Pace, began, salt| {
            let seed = workload.seed ^ u64::from(self.number) << 32 ^ salt;
            DueTimes::new(pace, began, place, workload.arrivals, seed)
        };
        let warm =
            profile.as_ref().map(|profile| times(Pace::Profile(profile.warm_up()), self.crew.began(), 1));
        engine.begin(warm, from, from);
        let is_warm = self.ask_until(engine, peer, from);
        engine.sample.clear_but_wrong();
        is_warm?;
        let trace = self.crew.shared.trace.clone().map(Pace::Trace);
        let pace = trace.or(profile.map(Pace::Profile));
        engine.begin(pace.map(|pace| times(pace, from, 2)), from, until);
        for interval in 0..self.intervals() {
            let end = until.min(from + self.crew.interval * (interval as u32 + 1));
            let result = self.ask_until(engine, peer, end);
            let is_stopped = self.crew.stop.load(Relaxed);
            if result.is_err() || is_stopped || interval + 1 == self.intervals() {
                engine.note_unsent();
            } else {
                engine.note_offered(end);
            }
            self.hand_over(engine, interval);
            result?;
            if is_stopped {
                break;
            }
        }
        self.drain(engine, peer)
    }

    fn hand_over(&self, engine: &mut Engine<'_>, interval: usize) {
        let mut sample = self.spare.try_recv().unwrap_or_default();
        sample.clear();
        std::mem::swap(&mut engine.sample, &mut sample);
        let _ = self.say.send(Said::Interval(self.number, interval, sample));
    }

    fn ask_until(&self, engine: &mut Engine<'_>, peer: &mut dyn Peer, until: Instant) -> anyhow::Result<()> {
        let (began, cpu_before) = (Instant::now(), thread_cpu());
        let (mut busy_until, mut now) = (began, began);
        let mut waited = Duration::ZERO;
        while now < until && !self.crew.stop.load(Relaxed) {
            let is_moved = engine.turn(peer)?;
            let after = Instant::now();
            if is_moved {
                busy_until = after;
            } else {
                if after - busy_until > SPIN {
                    let next = engine.next_send().unwrap_or(after + WAIT_MAX);
                    let wake = next.min(until).min(after + WAIT_MAX) - WAKE_EARLY;
                    if wake > after {
                        peer.wait(wake)?;
                        // What it is woken up too late by is no wait of its own choice.
                        waited += Instant::now().min(wake + WAKE_EARLY) - after;
                    }
                }
                engine.sample.idle += now.elapsed();
                self.check_silence(engine)?;
            }
            now = Instant::now();
        }
        engine.sample.held_back += (now - began).saturating_sub(waited + (thread_cpu() - cpu_before));
        Ok(())
    }

    fn check_silence(&self, engine: &Engine<'_>) -> anyhow::Result<()> {
        if engine.silence() > SILENCE_MAX {
            bail!("the server did not answer for {} s", SILENCE_MAX.as_secs());
        }
        Ok(())
    }

    /// Takes the answers of what is still under way.
    fn drain(&self, engine: &mut Engine<'_>, peer: &mut dyn Peer) -> anyhow::Result<()> {
        let until = Instant::now() + SILENCE_MAX;
        while engine.under_way() > 0 && Instant::now() < until && !self.crew.stop.load(Relaxed) {
            if !engine.turn(peer)? {
                peer.wait(Instant::now() + Duration::from_millis(1))?;
            }
        }
        Ok(())
    }
}
