//! Wakes a commit that waits for nothing.
//!
//! If a write within the database fails, those who wait for it are woken at one of the two places where it begins writes, and
//! at the other (where the last of several writers leaves a buffer) the error is noted and nobody is woken: the commit would
//! wait for ever. Any other flush finds the error and wakes all who wait. So there is one when a commit takes long; if it takes
//! long because the disk does, that flush waits too, and does nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A commit that takes longer is given another flush, and then each time that this has passed again.
const LONG: Duration = Duration::from_millis(500);

/// What the thread and who commits share.
#[derive(Default)]
struct Watched {
    /// Which commit is under way, if the number is odd; behind or before it if not.
    turns: AtomicU64,
    is_over: AtomicBool,
}

/// Looks after the commits of one database, on a thread of its own.
pub(super) struct Nudger {
    watched: Arc<Watched>,
    /// Taken only when it is dropped.
    thread: Option<JoinHandle<()>>,
}

impl Nudger {
    /// `nudge` is called while a commit takes long.
    pub(super) fn start(nudge: impl Fn() + Send + 'static) -> io::Result<Self> {
        let watched = Arc::new(Watched::default());
        let seen = Arc::clone(&watched);
        let thread = std::thread::Builder::new()
            .name("jeton-log-nudge".to_owned())
            .spawn(move || run(&seen, &nudge))?;
        Ok(Self { watched, thread: Some(thread) })
    }

    /// Does something that may need a nudge.
    pub(super) fn watch<R>(&self, commit: impl FnOnce() -> R) -> R {
        self.watched.turns.fetch_add(1, Relaxed);
        let result = commit();
        self.watched.turns.fetch_add(1, Relaxed);
        result
    }
}

impl Drop for Nudger {
    fn drop(&mut self) {
        self.watched.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // a nudge that panicked has done no harm
        }
    }
}

fn run(watched: &Watched, nudge: &impl Fn()) {
    let mut seen = (0, Instant::now());
    while !watched.is_over.load(Relaxed) {
        let turns = watched.turns.load(Relaxed);
        if turns != seen.0 {
            seen = (turns, Instant::now());
        } else if turns % 2 == 1 && seen.1.elapsed() >= LONG {
            nudge();
        }
        std::thread::park_timeout(LONG);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn only_what_takes_long_is_nudged() {
        let (nudged, nudges) = mpsc::channel();
        let nudger = Nudger::start(move || nudged.send(()).unwrap()).unwrap();
        for _ in 0..1_000 {
            nudger.watch(|| ());
        }
        std::thread::sleep(2 * LONG);
        assert!(nudges.try_recv().is_err(), "nothing is under way");
        for _ in 0..2 {
            nudger.watch(|| nudges.recv_timeout(Duration::from_secs(60)).expect("it is nudged"));
        }
        drop(nudger);
    }
}
