//! Work that can wait: it goes on as fast as it can while nobody else wants the core, and takes a thirtieth of it otherwise.
//!
//! Linux tells a thread how long it has been ready to run while others ran: `run_delay` in `/proc/thread-self/schedstat`, see
//! `Documentation/scheduler/sched-stats.rst` in its source. A low priority alone would not do, see decision 0020.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// Of a core that others want, one part of so many is taken.
const PARTS: u32 = 30;
/// Others want the core if this thread has waited for more than an eighth of the time that it ran.
const WAITED_SHARE: u32 = 8;
/// The longest rest: whoever stops the server waits for the end of it.
const REST_MAX: Duration = Duration::from_secs(1);

/// Time that a thread has had, and has waited for, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    ran: Duration,
    waited: Duration,
}

/// The pace of one thread: for that which made it alone.
#[derive(Debug)]
pub(super) struct Pace {
    /// `None` where the system does not tell: then others are taken to want the core, and the thread to have run all the time.
    schedstat: Option<File>,
    began: Instant,
    last: Times,
}

impl Pace {
    /// The pace of this thread, from now on.
    pub(super) fn new() -> Self {
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        let mut pace = Self { schedstat, began: Instant::now(), last: Times::default() };
        pace.last = pace.times();
        pace
    }

    /// To be called after each step: rests if others wanted the core, for as long as makes the step a thirtieth.
    pub(super) fn rest(&mut self) {
        let now = self.times();
        let ran = now.ran.saturating_sub(self.last.ran);
        let waited = now.waited.saturating_sub(self.last.waited);
        std::thread::sleep(rest_after(ran, waited));
        // What it waits for until it runs again counts with the next step, where that is told from what it runs.
        self.last = if self.schedstat.is_some() { now } else { self.times() };
    }

    fn times(&self) -> Times {
        let told = self.schedstat.as_ref().and_then(|file| {
            let mut text = [0; 128];
            let length = file.read_at(&mut text, 0).ok()?;
            parse(std::str::from_utf8(&text[..length]).ok()?)
        });
        told.unwrap_or_else(|| {
            let ran = self.began.elapsed();
            Times { ran, waited: ran }
        })
    }
}

/// The first two numbers of three: nanoseconds run and waited.
fn parse(schedstat: &str) -> Option<Times> {
    let mut numbers =
        schedstat.split_ascii_whitespace().map(|number| number.parse().ok().map(Duration::from_nanos));
    Some(Times { ran: numbers.next()??, waited: numbers.next()?? })
}

fn rest_after(ran: Duration, waited: Duration) -> Duration {
    let others_want_it = waited * WAITED_SHARE > ran;
    if others_want_it { (ran * (PARTS - 1)).min(REST_MAX) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_others_waited_for_is_a_thirtieth_of_the_time_and_others_are_not_held_up() {
        let [ms5, ms1] = [5, 1].map(Duration::from_millis);
        assert_eq!(rest_after(ms5, Duration::ZERO), Duration::ZERO);
        assert_eq!(rest_after(ms5, ms5 / 8), Duration::ZERO);
        assert_eq!(rest_after(ms5, ms1), Duration::from_millis(145));
        assert_eq!(rest_after(Duration::ZERO, Duration::ZERO), Duration::ZERO);
        assert_eq!(rest_after(Duration::from_secs(9), Duration::from_secs(9)), REST_MAX);
    }

    #[test]
    fn the_system_tells_how_long_a_thread_ran_and_waited() {
        let told =
            |ran, waited| Times { ran: Duration::from_nanos(ran), waited: Duration::from_nanos(waited) };
        assert_eq!(parse("12 345 6\n"), Some(told(12, 345)));
        assert_eq!(["", "12", "12 x 6", "-1 2 3"].map(parse), [None; 4]);
        let pace = Pace::new();
        let mut sum = 0_u64;
        while pace.times().ran <= pace.last.ran + Duration::from_millis(2) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(pace.times().waited >= pace.last.waited);
    }

    #[test]
    fn where_the_system_does_not_tell_others_are_taken_to_want_the_core() {
        let pace = Pace { schedstat: None, began: Instant::now(), last: Times::default() };
        let Times { ran, waited } = pace.times();
        assert!(ran > Duration::ZERO && rest_after(ran, waited) > Duration::ZERO);
        let mut pace = pace;
        for _ in 0..3 {
            let before = pace.began.elapsed();
            pace.rest();
            assert!(pace.last.ran >= before, "rests are no steps");
        }
    }
}
