//! What the threads of a process had of the processors, as Linux tells it.
//!
//! The first two numbers of `/proc/<pid>/task/<tid>/schedstat` are nanoseconds on a processor and nanoseconds ready but waiting
//! for one: `Documentation/scheduler/sched-stats.rst` in the kernel's source.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};

/// The times of all threads of a process at a moment, in nanoseconds, those of one name together.
pub(crate) struct Threads {
    at: Instant,
    by_name: BTreeMap<String, [u64; 2]>,
}

/// What the threads of one name had between two moments, as parts of the time between.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Share {
    pub(crate) ran: f64,
    pub(crate) waited: f64,
}

impl Threads {
    /// Those of now.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let folder = format!("/proc/{pid}/task");
        let at = Instant::now();
        let mut by_name = BTreeMap::<_, [u64; 2]>::new();
        for entry in std::fs::read_dir(&folder).with_context(|| folder.clone())? {
            // A thread may have ended since it was listed.
            let Some((name, times)) = read(&entry?.path()) else { continue };
            let sum = by_name.entry(name).or_default();
            (sum[0], sum[1]) = (sum[0] + times[0], sum[1] + times[1]);
        }
        Ok(Self { at, by_name })
    }

    /// What threads whose names begin so have had since then.
    ///
    /// # Errors
    /// If there is no such thread, or the system does not tell what threads have.
    pub(crate) fn since(&self, then: &Self, name: &str) -> anyhow::Result<Share> {
        let sum = |threads: &Self| {
            let named =
                threads.by_name.iter().filter(|(own, _)| own.starts_with(name)).map(|(_, times)| *times);
            named.reduce(|one, other| [one[0] + other[0], one[1] + other[1]])
        };
        let (Some(now), Some(then_ns)) = (sum(self), sum(then)) else {
            bail!("the system tells of no thread {name}")
        };
        let all_s = (self.at - then.at).as_secs_f64();
        let [ran, waited] =
            [0, 1].map(|which| now[which].saturating_sub(then_ns[which]) as f64 / 1e9 / all_s);
        Ok(Share { ran, waited })
    }
}

fn read(thread: &Path) -> Option<(String, [u64; 2])> {
    let name = std::fs::read_to_string(thread.join("comm")).ok()?;
    let schedstat = std::fs::read_to_string(thread.join("schedstat")).ok()?;
    let mut numbers = schedstat.split_ascii_whitespace().map(|number| number.parse().ok());
    Some((name.trim_end().to_owned(), [numbers.next()??, numbers.next()??]))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_works_is_told_from_one_that_sleeps() {
        let pid = std::process::id();
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let (is_over, are_there) = (AtomicBool::new(false), Barrier::new(3));
        std::thread::scope(|scope| {
            let sleep = || {
                are_there.wait(); // a thread gives itself its name
                std::thread::park();
            };
            let sleeper = named("sleeper-of-this").spawn_scoped(scope, sleep).unwrap();
            let work = || {
                are_there.wait();
                while !is_over.load(Relaxed) {
                    std::hint::spin_loop();
                }
            };
            named("worker-of-this").spawn_scoped(scope, work).unwrap();
            are_there.wait();
            let before = Threads::of(pid);
            std::thread::sleep(Duration::from_millis(200));
            let after = Threads::of(pid);
            // Before anything that may panic: the scope waits for both.
            is_over.store(true, Relaxed);
            sleeper.thread().unpark();
            let (before, after) = (before.unwrap(), after.unwrap());
            let [slept, worked] = ["sleeper-", "worker-"].map(|name| after.since(&before, name).unwrap());
            assert!(worked.ran > slept.ran, "{worked:?} {slept:?}");
            assert!(after.since(&before, "nobody").is_err());
        });
    }
}
