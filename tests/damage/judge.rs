//! Who says what a change comes to: the real binary in a process for each, or workers that take one after another.

use std::path::Path;
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use super::change::Change;
use super::image::Image;
use super::workbench::{Failure, Outcome, PATIENCE, Workbench};
use super::worker::Worker;
use super::{FAILURES_MAX, Report};

/// How often a long run says how far it is.
const SAID_STEP: usize = 10_000;

/// Who judges.
#[derive(Clone, Copy, Debug)]
pub enum Judges<'p> {
    /// The real binary.
    RealBinary,
    /// Workers, some three times as fast.
    Workers {
        /// The `damage` binary.
        program: &'p Path,
        /// Every so many-th change is judged by the real binary as well, which has to say the same, and so is whatever a worker
        /// takes for a failure. After each of those another worker goes on, so that none lives on with what many changes
        /// may have left in it.
        sample: usize,
    },
}

/// One thread's: a copy of the image, and whoever judges it.
struct Desk<'a> {
    bench: Workbench<'a>,
    judges: Judges<'a>,
    worker: Option<Worker>,
    judged: usize,
    sampled: usize,
}

impl Desk<'_> {
    fn verify(&mut self, change: &Change) -> Result<Outcome, Failure> {
        let Judges::Workers { program, sample } = self.judges else { return self.bench.verify(change) };
        self.judged += 1;
        let (bench, worker) = (&self.bench, &mut self.worker);
        let told = bench.verify_by(change, |arguments| ask(worker, program, bench.dir(), arguments));
        if told.is_ok() && !self.judged.is_multiple_of(sample) {
            return told;
        }
        self.worker = None;
        self.sampled += 1;
        let real = self.bench.verify(change);
        if is_same(&told, &real) {
            return told;
        }
        Err(Failure(format!("a worker says {told:?}, and the real binary {real:?}")))
    }
}

/// Asks the worker, or a new one in its place.
fn ask(worker: &mut Option<Worker>, program: &Path, data: &Path, arguments: &[&str]) -> Option<Output> {
    let worker = match worker {
        Some(worker) => worker,
        none => none.insert(Worker::start(program, data).expect("a process")),
    };
    worker.ask(arguments, PATIENCE).expect("a socket and two files")
}

/// What was put right is told with the time of day, and a failure with how a process ended.
fn is_same(one: &Result<Outcome, Failure>, other: &Result<Outcome, Failure>) -> bool {
    match (one, other) {
        (Ok(Outcome::Refused(one)), Ok(Outcome::Refused(other))) => {
            one.lines().last() == other.lines().last()
        }
        (Ok(Outcome::Repaired(_)), Ok(Outcome::Repaired(_))) => true,
        (Ok(Outcome::NoEffect), Ok(Outcome::NoEffect)) => true,
        (Err(_), Err(_)) => true,
        _ => false,
    }
}

/// Judges each change, in so many threads, with a copy of its own for each.
pub fn judge_by(
    judges: Judges<'_>,
    threads: usize,
    (image, foreign): (&Image, &Image),
    changes: &[Change],
    is_over: impl Fn() -> bool + Sync,
) -> Report {
    let (next, report) = (AtomicUsize::new(0), Mutex::new(Report::default()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let bench = Workbench::new(image, foreign);
                let mut desk = Desk { bench, judges, worker: None, judged: 0, sampled: 0 };
                while let Some(change) = changes.get(next.fetch_add(1, Relaxed)).filter(|_| !is_over()) {
                    let outcome = desk.verify(change);
                    let mut report = report.lock().expect("nobody panics with it");
                    report.add(change, outcome);
                    let (judged, failed) = (report.changes(), report.failures.len());
                    if judged.is_multiple_of(SAID_STEP) {
                        let seconds = began.elapsed().as_secs();
                        println!("{judged} of {} changes in {seconds} s, {failed} failures", changes.len());
                    }
                    if failed >= FAILURES_MAX {
                        break;
                    }
                }
                report.lock().expect("nobody panics with it").sampled += desk.sampled;
            });
        }
    });
    report.into_inner().expect("nobody panics with it")
}
