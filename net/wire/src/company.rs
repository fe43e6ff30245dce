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
/// Of late: for so long, or up to twice as long. A server that answers all that a connection has asked at once leaves it
/// with nothing under way each time, which is not to ask little.
const OF_LATE: Duration = Duration::from_millis(100);
/// Which part of the time that is lost in queues a frame waits, and the longest that it does.
pub const PART: u32 = 8;
/// See [`PART`].
pub const WAIT_MAX: Duration = Duration::from_millis(1);
/// What a new sample is worth: an eighth, as in a smoothed round trip (RFC 9002, section 5.3).
const SMOOTHING: u32 = 8;
/// What a validate took longer ago than that says nothing of now; one that has no answer for so long is taken for one of
/// that length, and the next is timed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

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
    /// When the last of them was answered.
    validated: Option<Instant>,
    /// The validate that is timed, one at a time.
    timed: Option<(u64, Instant)>,
    /// The most requests without an answer at a time: since then, and in the [`OF_LATE`] before.
    most: [usize; 2],
    since: Option<Instant>,
}

impl Company {
    /// Says that a validate with this request id is handed over to be sent. One at a time is timed: `now` is called if it is this one.
    ///
    /// Round trips alone do not tell of all queues: whoever takes a full queue at once acknowledges its last datagram, which
    /// waited least. Writes are not timed, nor is a validate that waits for an event: they wait for a disk.
    pub fn asked(&mut self, request: u64, now: impl FnOnce() -> Instant) {
        if self.timed.is_none() {
            self.timed = Some((request, now()));
        }
    }

    fn note(&mut self, unanswered: usize, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let age = now.saturating_duration_since(since);
        if age >= OF_LATE {
            let is_next = age < 2 * OF_LATE;
            self.most = [0, if is_next { self.most[0] } else { 0 }];
            self.since = Some(if is_next { since + OF_LATE } else { now });
        }
        self.most[0] = self.most[0].max(unanswered);
    }

    /// Says that an answer to this request came, and how many requests, this one among them, had none until then.
    pub fn answered(&mut self, request: u64, unanswered: usize, at: Instant) {
        self.note(unanswered, at);
        let Some((timed, since)) = self.timed else { return };
        let took = at.saturating_duration_since(since).min(FORGOTTEN_AFTER);
        if timed == request || took == FORGOTTEN_AFTER {
            let before = self.validates.unwrap_or(Lag { least: took, smoothed: took });
            let smoothed = (before.smoothed * (SMOOTHING - 1) + took) / SMOOTHING;
            let smoothed = if self.is_known(at) { smoothed } else { took };
            self.validates = Some(Lag { least: before.least.min(took), smoothed });
            (self.validated, self.timed) = (Some(at), None);
        }
    }

    /// Whether what validates took is not too long ago.
    fn is_known(&self, now: Instant) -> bool {
        self.validated.is_some_and(|at| now.saturating_duration_since(at) < FORGOTTEN_AFTER)
    }

    /// How long a frame is to wait, at most, from when it could be sent: until then, or until those that wait fill a
    /// datagram. `round_trip` is the smoothed one (RFC 9002, section 5.3); what it is beyond the least of those that were
    /// told is taken for time in queues before the server took a datagram, and so is what a validate takes beyond the least
    /// that one took, of late. `unanswered` are the requests that have no answer yet.
    pub fn wait(&mut self, round_trip: Duration, unanswered: usize, now: Instant) -> Duration {
        let least = self.path.map_or(round_trip, |path| path.least.min(round_trip));
        self.path = Some(Lag { least, smoothed: round_trip });
        self.note(unanswered, now);
        if self.most.iter().all(|most| *most < UNANSWERED_MIN) {
            return Duration::ZERO;
        }
        let validates = self.validates.filter(|_| self.is_known(now));
        let queues = Lag::in_queues(self.path).max(Lag::in_queues(validates));
        (queues / PART).min(WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn nothing_waits_while_datagrams_are_taken_as_fast_as_the_path_brings_them() {
        let (mut near, now) = (Company::default(), Instant::now());
        assert_eq!(near.wait(30 * US, 1_000, now), Duration::ZERO);
        let mut far = Company::default();
        assert_eq!(far.wait(80_000 * US, 1_000, now), Duration::ZERO);
        assert_eq!(far.wait(79_000 * US, 1_000, now), Duration::ZERO);
    }

    #[test]
    fn a_frame_waits_for_an_eighth_of_what_is_lost_in_queues_and_no_longer_than_a_millisecond() {
        let (mut path, now) = (Company::default(), Instant::now());
        path.wait(30 * US, 0, now);
        assert_eq!(path.wait(830 * US, UNANSWERED_MIN, now), 100 * US);
        assert_eq!(path.wait(30_000 * US, UNANSWERED_MIN, now), WAIT_MAX);
        assert_eq!(path.wait(30 * US, UNANSWERED_MIN, now), Duration::ZERO, "the queue is gone");
    }

    /// Validates of a connection one after another, each taking so long; what a frame waits after the last, and when.
    fn validates(company: &mut Company, mut at: Instant, took: Duration, count: u64) -> (Duration, Instant) {
        let mut wait = Duration::ZERO;
        for request in 0..count {
            company.asked(2 * request, || at);
            company.asked(2 * request + 1, || panic!("one is timed already"));
            company.answered(2 * request + 1, 2, at + took / 2);
            at += took;
            company.answered(2 * request, 1, at);
            wait = company.wait(30 * US, UNANSWERED_MIN, at);
        }
        (wait, at)
    }

    #[test]
    fn a_server_that_acknowledges_what_waited_least_is_known_by_its_answers() {
        let mut company = Company::default();
        let (wait, at) = validates(&mut company, Instant::now(), 50 * US, 1);
        assert_eq!(wait, Duration::ZERO);
        let (wait, at) = validates(&mut company, at, 850 * US, 1);
        assert_eq!(wait, 100 * US / SMOOTHING);
        let (wait, at) = validates(&mut company, at, 80_000 * US, 50);
        assert_eq!(wait, WAIT_MAX);
        let (wait, _) = validates(&mut company, at, 50 * US, 100);
        assert!(wait < US, "the queue is gone: {wait:?}");
    }

    #[test]
    fn what_validates_took_is_forgotten_by_who_only_writes_from_then_on() {
        let mut company = Company::default();
        let (_, at) = validates(&mut company, Instant::now(), 50 * US, 1);
        let (wait, at) = validates(&mut company, at, 80_000 * US, 50);
        assert_eq!(wait, WAIT_MAX);
        let later = at + FORGOTTEN_AFTER;
        company.answered(1_000, 20, later);
        assert_eq!(company.wait(30 * US, 20, later), Duration::ZERO);
        assert_eq!(validates(&mut company, later, 50 * US, 1).0, Duration::ZERO, "nor does it come back");
    }

    #[test]
    fn a_validate_that_has_no_answer_yet_counts_as_slow_and_does_not_end_the_timing() {
        let mut company = Company::default();
        let (_, at) = validates(&mut company, Instant::now(), US, 1);
        company.asked(1_001, || at);
        let at = at + 100 * FORGOTTEN_AFTER;
        company.answered(1_000, 1, at);
        assert_eq!(company.wait(30 * US, UNANSWERED_MIN, at), WAIT_MAX);
        assert!(validates(&mut company, at, US, 100).0 < US, "it is forgotten as any other");
    }

    #[test]
    fn who_is_answered_all_at_once_has_asked_much_of_late() {
        let (mut path, now) = (Company::default(), Instant::now());
        path.wait(30 * US, 0, now);
        let mut burst = |unanswered: usize, at: Instant| {
            (1..=unanswered).rev().for_each(|left| path.answered(0, left, at));
            path.wait(30_000 * US, 1, at)
        };
        assert_eq!(burst(UNANSWERED_MIN - 1, now), Duration::ZERO);
        assert_eq!(burst(256, now), WAIT_MAX);
        assert_eq!(burst(1, now + OF_LATE), WAIT_MAX);
        assert_eq!(burst(1, now + 2 * OF_LATE), Duration::ZERO, "that is forgotten in time");
        assert_eq!(burst(256, now + 3 * OF_LATE), WAIT_MAX);
        assert_eq!(burst(1, now + 9 * OF_LATE), Duration::ZERO, "at once, if nothing came in between");
        let again = now + 20 * OF_LATE;
        assert_eq!(burst(256, again), WAIT_MAX);
        assert_eq!(burst(1, again + OF_LATE * 199 / 100), WAIT_MAX);
        assert_eq!(burst(1, again + OF_LATE * 201 / 100), Duration::ZERO, "however seldom anything comes");
    }

    #[test]
    fn who_asks_little_never_waits() {
        let (mut path, now) = (Company::default(), Instant::now());
        path.wait(30 * US, 0, now);
        assert_eq!(path.wait(30_000 * US, UNANSWERED_MIN - 1, now), Duration::ZERO);
    }
}
