//! How long a client's frame waits for others to share its datagram.
//!
//! What a datagram costs a server hardly depends on how many small frames are in it: one that gets each frame in a datagram
//! of its own answers a fourth of what it answers when they come together. A client that sends each as soon as it has it
//! therefore keeps a server that is short of time short of it. While datagrams are taken as fast as the path brings them,
//! nothing waits; once they wait in queues until the server takes them, frames wait for a part of that time
//! (docs/decisions/0018-frames-wait-for-company.md).
//!
//! A rule without a clock: whoever sends has one.

use std::time::Duration;

/// Requests without an answer from which on a frame waits. By Little's law 16 of them mean two more in the time that it
/// waits, if all of a round trip is waiting in queues.
pub const UNANSWERED_MIN: usize = 16;
/// Which part of the time that datagrams wait until they are taken a frame waits, and the longest that it does.
pub const PART: u32 = 8;
/// See [`PART`].
pub const WAIT_MAX: Duration = Duration::from_millis(1);

/// What one connection knows of its path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Company {
    least: Option<Duration>,
}

impl Company {
    /// How long a frame is to wait, at most, from when it could be sent: until then, or until those that wait fill a
    /// datagram. `round_trip` is the smoothed one (RFC 9002, section 5.3); what it is beyond the least of those that were
    /// told is taken for time in queues before the server took a datagram; how long it then works on an answer is not in it. `unanswered` are the requests that have no answer yet.
    pub fn wait(&mut self, round_trip: Duration, unanswered: usize) -> Duration {
        let least = self.least.map_or(round_trip, |least| least.min(round_trip));
        self.least = Some(least);
        match unanswered {
            0..UNANSWERED_MIN => Duration::ZERO,
            _ => ((round_trip - least) / PART).min(WAIT_MAX),
        }
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

    #[test]
    fn who_asks_little_never_waits() {
        let mut path = Company::default();
        path.wait(30 * US, 0);
        assert_eq!(path.wait(30_000 * US, UNANSWERED_MIN - 1), Duration::ZERO);
    }
}
