//! How long a client's frame waits for others to share its datagram.
//!
//! What a datagram costs a server hardly depends on how many small frames are in it: one that gets each frame in a datagram
//! of its own answers a fourth of what it answers when they come together. A client that sends each as soon as it has it
//! therefore keeps a server that is short of time short of it. While requests are taken as fast as the path brings them,
//! nothing waits; once they wait in queues until the server takes them, frames wait for a part of that time
//! (docs/decisions/0018-frames-wait-for-company.md).
//!
//! A rule without a clock: whoever sends has one.

use std::time::{Duration, Instant};

/// Requests without an answer at a time, of late, from which on a frame waits. By Little's law 16 of them mean two more in
/// the time that it waits, if all of a round trip is waiting in queues.
pub const UNANSWERED_MIN: usize = 16;
/// Of late: since so many answers, or up to twice as many. A server that answers all that a connection has asked at once
/// leaves it with nothing under way each time, which is not to ask little.
const OF_LATE: u32 = 64;
/// Which part of the time that is lost in queues a frame waits, and the longest that it does.
pub const PART: u32 = 8;
/// See [`PART`].
pub const WAIT_MAX: Duration = Duration::from_millis(1);
/// What a new sample is worth: an eighth, as in a smoothed round trip (RFC 9002, section 5.3).
const SMOOTHING: u32 = 8;
/// A validate whose answer takes longer than that is forgotten, and the next one timed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// A time that is short as long as nothing waits in queues, and the shortest that it was.
#[derive(Clone, Copy, Debug)]
struct Lag {
    least: Duration,
    smoothed: Duration,
}

impl Lag {
    fn in_queues(lag: Option<Self>) -> Duration {
        lag.map_or(Duration::ZERO, |lag| lag.smoothed.saturating_sub(lag.least))
    }
}

/// What one connection knows of its path, of its server and of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Company {
    path: Option<Lag>,
    validates: Option<Lag>,
    /// The validate that is timed, one at a time.
    timed: Option<(u64, Instant)>,
    /// The most requests without an answer at a time: since `answers` answers ago, and while the [`OF_LATE`] before came.
    most: [usize; 2],
    answers: u32,
}

impl Company {
    /// Says that a validate with this request id is asked. One at a time is timed: `now` is called if it is this one.
    ///
    /// Round trips alone do not tell of all queues: whoever takes a full queue at once acknowledges its last datagram, which
    /// waited least. Writes are not timed, for they wait for a disk.
    pub fn asked(&mut self, request: u64, now: impl FnOnce() -> Instant) {
        if self.timed.is_none() {
            self.timed = Some((request, now()));
        }
    }

    /// Says that an answer to this request came, and how many requests, this one among them, had none until then.
    pub fn answered(&mut self, request: u64, unanswered: usize, at: Instant) {
        self.most[0] = self.most[0].max(unanswered);
        self.answers += 1;
        if self.answers == OF_LATE {
            (self.answers, self.most) = (0, [0, self.most[0]]);
        }
        let Some((timed, since)) = self.timed else { return };
        let took = at.saturating_duration_since(since);
        if timed == request {
            let lag = self.validates.get_or_insert(Lag { least: took, smoothed: took });
            lag.least = lag.least.min(took);
            lag.smoothed = (lag.smoothed * (SMOOTHING - 1) + took) / SMOOTHING;
        }
        if timed == request || took > FORGOTTEN_AFTER {
            self.timed = None;
        }
    }

    /// How long a frame is to wait, at most, from when it could be sent: until then, or until those that wait fill a
    /// datagram. `round_trip` is the smoothed one (RFC 9002, section 5.3); what it is beyond the least of those that were
    /// told is taken for time in queues before the server took a datagram, and so is what a validate takes beyond the least
    /// that one took. `unanswered` are the requests that have no answer yet.
    pub fn wait(&mut self, round_trip: Duration, unanswered: usize) -> Duration {
        let least = self.path.map_or(round_trip, |path| path.least.min(round_trip));
        self.path = Some(Lag { least, smoothed: round_trip });
        self.most[0] = self.most[0].max(unanswered);
        if self.most.iter().all(|most| *most < UNANSWERED_MIN) {
            return Duration::ZERO;
        }
        let queues = Lag::in_queues(self.path).max(Lag::in_queues(self.validates));
        (queues / PART).min(WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn nothing_waits_while_datagrams_are_taken_as_fast_as_the_path_brings_them() {
        let mut near = Company::default();
        assert_eq!(near.wait(30 * US, 1_000), Duration::ZERO);
        let mut far = Company::default();
        assert_eq!(far.wait(80_000 * US, 1_000), Duration::ZERO);
        assert_eq!(far.wait(79_000 * US, 1_000), Duration::ZERO);
    }

    #[test]
    fn a_frame_waits_for_an_eighth_of_what_is_lost_in_queues_and_no_longer_than_a_millisecond() {
        let mut path = Company::default();
        path.wait(30 * US, 0);
        assert_eq!(path.wait(830 * US, UNANSWERED_MIN), 100 * US);
        assert_eq!(path.wait(30_000 * US, UNANSWERED_MIN), WAIT_MAX);
        assert_eq!(path.wait(30 * US, UNANSWERED_MIN), Duration::ZERO, "the queue is gone");
    }

    /// A validate that takes so long, in a second of its own; what a frame waits after it.
    fn validate(company: &mut Company, began: Instant, second: u64, took: Duration) -> Duration {
        let at = began + Duration::from_secs(second);
        company.asked(2 * second, || at);
        company.asked(2 * second + 1, || panic!("one is timed already"));
        company.answered(2 * second + 1, 2, at + took / 2);
        company.answered(2 * second, 1, at + took);
        company.wait(30 * US, UNANSWERED_MIN)
    }

    #[test]
    fn a_server_that_acknowledges_what_waited_least_is_known_by_its_answers() {
        let (mut company, began) = (Company::default(), Instant::now());
        assert_eq!(validate(&mut company, began, 0, 50 * US), Duration::ZERO);
        assert_eq!(validate(&mut company, began, 1, 850 * US), 100 * US / SMOOTHING);
        let overloaded: Vec<_> = (2..50).map(|at| validate(&mut company, began, at, 80_000 * US)).collect();
        assert_eq!(overloaded.last(), Some(&WAIT_MAX));
        let healed: Vec<_> = (50..150).map(|at| validate(&mut company, began, at, 50 * US)).collect();
        assert!(healed.last() < Some(&US), "the queue is gone: {:?}", healed.last());
    }

    #[test]
    fn a_validate_that_is_never_answered_does_not_end_the_timing() {
        let (mut company, began) = (Company::default(), Instant::now());
        company.asked(1, || began);
        company.answered(2, 1, began + FORGOTTEN_AFTER + US);
        let waits: Vec<_> = (20..100)
            .map(|at| validate(&mut company, began, at, if at == 20 { US } else { 80_000 * US }))
            .collect();
        assert_eq!(waits.last(), Some(&WAIT_MAX));
    }

    #[test]
    fn who_is_answered_all_at_once_has_asked_much_of_late() {
        let (mut path, now) = (Company::default(), Instant::now());
        path.wait(30 * US, 0);
        let mut burst = |unanswered: usize| {
            (1..=unanswered).rev().for_each(|left| path.answered(0, left, now));
            path.wait(30_000 * US, 1)
        };
        assert_eq!(burst(UNANSWERED_MIN - 1), Duration::ZERO);
        assert_eq!(burst(256), WAIT_MAX);
        let after: Vec<_> = (0..2 * OF_LATE).map(|_| burst(1)).collect();
        assert_eq!((after[0], after.last()), (WAIT_MAX, Some(&Duration::ZERO)), "that is forgotten in time");
    }

    #[test]
    fn who_asks_little_never_waits() {
        let mut path = Company::default();
        path.wait(30 * US, 0);
        assert_eq!(path.wait(30_000 * US, UNANSWERED_MIN - 1), Duration::ZERO);
    }
}
