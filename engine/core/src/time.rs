//! Points in time, as arguments: nothing in this crate asks a clock.

use std::fmt;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// A whole second since the Unix epoch, up to the year 2106: the resolution of a token's lifetime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub u32);

impl Millis {
    /// The whole second this moment lies in.
    #[must_use]
    pub fn floor_seconds(self) -> Seconds {
        Seconds(u32::try_from(self.0 / 1_000).unwrap_or(u32::MAX))
    }

    /// The expiry of something that is to live `ttl_s` seconds from now: the next whole second at or after the end,
    /// so that a lifetime is never shorter than what was asked for, and less than a second longer.
    /// Saturates at the end of [`Seconds`].
    #[must_use]
    pub fn expiry_after(self, ttl_s: u32) -> Seconds {
        let end_ms = self.0.saturating_add(u64::from(ttl_s) * 1_000);
        Seconds(u32::try_from(end_ms.div_ceil(1_000)).unwrap_or(u32::MAX))
    }
}

impl Seconds {
    /// The first millisecond of this second.
    #[must_use]
    pub fn millis(self) -> Millis {
        Millis(u64::from(self.0) * 1_000)
    }

    /// Whole seconds from `now` until this moment, rounded down, so that whoever counts on them never counts on too
    /// many; 0 in the last second and after.
    #[must_use]
    pub fn left_after(self, now: Millis) -> u32 {
        let left_ms = self.millis().0.saturating_sub(now.0);
        u32::try_from(left_ms / 1_000).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_rounded_up_to_the_next_whole_second() {
        for (now_ms, ttl_s, expected_s) in [(0, 1, 1), (1, 1, 2), (999, 1, 2), (1_000, 1, 2), (1_001, 0, 2)] {
            assert_eq!(Millis(now_ms).expiry_after(ttl_s), Seconds(expected_s), "{now_ms} + {ttl_s}");
        }
        assert_eq!(Millis(u64::MAX).expiry_after(u32::MAX), Seconds(u32::MAX));
    }

    #[test]
    fn the_seconds_left_are_never_more_than_there_are() {
        assert_eq!(Seconds(2).left_after(Millis(0)), 2);
        assert_eq!(Seconds(2).left_after(Millis(1)), 1);
        assert_eq!(Seconds(2).left_after(Millis(1_999)), 0);
        assert_eq!(Seconds(2).left_after(Millis(2_000)), 0);
        assert_eq!(Seconds(2).left_after(Millis(9_000)), 0);
    }
}
