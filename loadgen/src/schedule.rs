//! When requests are due in an open loop: at times fixed beforehand, whatever becomes of them.
//!
//! A closed loop asks less of a server that is slow, and so hides that it is. Here latency counts from times that the
//! server has no influence on. A rate over time is a [`Profile`]; its integral, inverted, says when the `n`th request
//! is due. Several workers share one profile: worker `w` of `n` takes the requests `w`, `w + n`, `w + 2n`...

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand_distr::{Distribution as _, Exp1};

use crate::trace::{Trace, Traced};
use crate::workload::{Arrivals, Schedule};

/// A rate over time: pieces in which it is constant or changes evenly, the last one without end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Profile {
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    /// When it begins, in seconds, and how many requests are due before it.
    from_s: f64,
    before: f64,
    seconds: f64,
    /// Requests a second at its two ends.
    begin: f64,
    end: f64,
}

impl Piece {
    fn requests(&self) -> f64 {
        (self.begin + self.end) / 2.0 * self.seconds
    }

    /// How far into the piece `requests` of its own are due: the root of begin t + (end - begin) t^2 / (2 seconds).
    fn time_of(&self, requests: f64) -> f64 {
        let slope = (self.end - self.begin) / self.seconds;
        if slope == 0.0 || !slope.is_finite() {
            return requests / self.begin;
        }
        // The form of the root that does not subtract what is nearly equal.
        2.0 * requests / (self.begin + (self.begin * self.begin + 2.0 * slope * requests).max(0.0).sqrt())
    }
}

impl Profile {
    /// The rate of a schedule over a run of this length; the last rate goes on after it. `None` for a closed loop.
    pub(crate) fn new(schedule: &Schedule, duration: Duration) -> Option<Self> {
        let whole = duration.as_secs_f64();
        let rates: Vec<(f64, f64)> = match schedule {
            Schedule::Closed => return None,
            Schedule::Fixed(rate) => vec![(f64::from(*rate), f64::from(*rate))],
            Schedule::Ramp(ramp) => vec![(f64::from(ramp.from), f64::from(ramp.to))],
            Schedule::Steps(rates) => rates.iter().map(|rate| (f64::from(*rate), f64::from(*rate))).collect(),
        };
        let seconds = whole / rates.len() as f64;
        let last = rates.last().map_or(1.0, |(_, end)| *end);
        let mut pieces = Vec::with_capacity(rates.len() + 1);
        let (mut from_s, mut before) = (0.0, 0.0);
        for (begin, end) in rates {
            let piece = Piece { from_s, before, seconds, begin, end };
            before += piece.requests();
            from_s += seconds;
            pieces.push(piece);
        }
        pieces.push(Piece { from_s, before, seconds: f64::INFINITY, begin: last, end: last });
        Some(Self { pieces })
    }

    /// The steady rate that a warm-up for this profile has: the one that it begins with.
    pub(crate) fn warm_up(&self) -> Self {
        let rate = self.pieces[0].begin;
        Self {
            pieces: vec![Piece { from_s: 0.0, before: 0.0, seconds: f64::INFINITY, begin: rate, end: rate }],
        }
    }

    /// How many requests are due before `time`; they need not be whole.
    pub(crate) fn requests_by(&self, time: Duration) -> f64 {
        let time = time.as_secs_f64();
        let after = self.pieces.partition_point(|piece| piece.from_s <= time);
        let piece = &self.pieces[after.saturating_sub(1)];
        let within = (time - piece.from_s).max(0.0);
        let slope = (piece.end - piece.begin) / piece.seconds;
        piece.before + within * (piece.begin + slope * within / 2.0)
    }

    /// When so many requests are due, from the beginning on; they need not be whole.
    pub(crate) fn time_of(&self, requests: f64) -> Duration {
        let after = self.pieces.partition_point(|piece| piece.before <= requests);
        let piece = &self.pieces[after.saturating_sub(1)];
        let seconds = piece.from_s + piece.time_of((requests - piece.before).max(0.0));
        Duration::from_secs_f64(seconds.clamp(0.0, 1e9))
    }
}

/// What times follow from.
#[derive(Clone, Debug)]
pub(crate) enum Pace {
    /// A rate.
    Profile(Profile),
    /// What was asked before.
    Trace(Arc<Trace>),
}

/// Later than any run goes on.
const NEVER: Duration = Duration::from_secs(1_000_000);

impl Pace {
    /// When the request at this position is due.
    fn time_of(&self, position: f64) -> Duration {
        match self {
            Self::Profile(profile) => profile.time_of(position),
            Self::Trace(trace) => trace.requests.get(position as usize).map_or(NEVER, |request| request.at),
        }
    }

    fn requests_by(&self, time: Duration) -> f64 {
        match self {
            Self::Profile(profile) => profile.requests_by(time),
            Self::Trace(trace) => trace.requests.partition_point(|request| request.at < time) as f64,
        }
    }
}

/// The due times of one worker.
#[derive(Clone, Debug)]
pub(crate) struct DueTimes {
    pace: Pace,
    began: Instant,
    /// The next request, in requests of all workers together, and how far apart a worker's own are.
    position: f64,
    stride: f64,
    next: Instant,
    /// The request of a trace that was given out last.
    given: Option<Traced>,
    random: Option<SmallRng>,
}

impl DueTimes {
    /// Of worker `worker` of `workers`, from `began` on.
    pub(crate) fn new(
        pace: Pace,
        began: Instant,
        (worker, workers): (u16, u16),
        arrivals: Arrivals,
        seed: u64,
    ) -> Self {
        let random = (arrivals == Arrivals::Poisson).then(|| SmallRng::seed_from_u64(seed));
        let mut times = Self {
            pace,
            began,
            given: None,
            position: f64::from(worker),
            stride: f64::from(workers.max(1)),
            next: began,
            random,
        };
        // Independent workers with a share of the rate each make together what one with all of it would make.
        if let Some(random) = &mut times.random {
            let gap: f64 = Exp1.sample(random);
            times.position = gap * times.stride;
        }
        times.next = times.due();
        times
    }

    fn due(&self) -> Instant {
        self.began + self.pace.time_of(self.position)
    }

    /// When the next request is due.
    pub(crate) fn peek(&self) -> Instant {
        self.next
    }

    /// The next request's time, if that is not after `now`; it counts as given out.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<Instant> {
        if self.next > now {
            return None;
        }
        let due = self.next;
        if let Pace::Trace(trace) = &self.pace {
            self.given = trace.requests.get(self.position as usize).copied();
        }
        let gap: f64 = self.random.as_mut().map_or(1.0, |random| Exp1.sample(random));
        self.position += gap * self.stride;
        self.next = self.due();
        Some(due)
    }

    /// What a trace says of the request that was given out last.
    pub(crate) fn traced(&self) -> Option<Traced> {
        self.given
    }

    /// How many are due before `until` and were not given out, and about when: in at most `groups_max` groups of equally
    /// many. Exact for constant arrivals, the expectation for random ones.
    pub(crate) fn left(&self, until: Instant, groups_max: u64) -> impl Iterator<Item = (Instant, u64)> + '_ {
        let by = self.pace.requests_by(until.saturating_duration_since(self.began));
        let count =
            if self.next >= until { 0.0 } else { ((by - self.position) / self.stride).ceil().max(0.0) };
        let count = count as u64;
        let groups = count.min(groups_max);
        (0..groups).map(move |group| {
            let (from, to) = (count * group / groups, count * (group + 1) / groups);
            let middle = self.position + (from + to) as f64 / 2.0 * self.stride;
            (self.began + self.pace.time_of(middle), to - from)
        })
    }
}

#[cfg(test)]
mod tests;
