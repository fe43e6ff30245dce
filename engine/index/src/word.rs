//! The index word: tag, state bits and slot number in one atomic.
//!
//! | bits | |
//! |---|---|
//! | 63..40 | tag: 24 bits of the id that do not choose the bucket |
//! | 39..32 | [`State`] |
//! | 31..0 | slot number; never 0 |

/// The state bits of a token. One is admissible only if `LIVE` is set and no bit that denies is.
///
/// Bits are only ever added: publishing and revoking are both an OR on the same word, so neither can undo the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State(u8);

impl State {
    /// No bit: decided, not yet published.
    pub const NONE: Self = Self(0);
    /// The issue is durable.
    pub const LIVE: Self = Self(1);
    /// Revoked; denies.
    pub const REVOKED: Self = Self(1 << 1);
    /// All uses spent; denies.
    pub const SPENT: Self = Self(1 << 2);
    /// The token has a limited number of uses.
    pub const LIMITED: Self = Self(1 << 3);
    /// The word was copied to a larger table: this one no longer changes. Never seen outside of this crate.
    pub(crate) const MOVED: Self = Self(1 << 4);

    /// Whoever reclaims has found it dead: the bit, and two more for when that was.
    const FOUND_DEAD: u8 = 1 << 5;
    const FOUND_SHIFT: u32 = 6;

    /// Bits that say in which epoch a token was found dead; they say nothing of it that the others do not. Epochs are told
    /// apart up to four.
    #[must_use]
    pub fn found_dead_in(epoch: u64) -> Self {
        Self(Self::FOUND_DEAD | ((epoch % 4) as u8) << Self::FOUND_SHIFT)
    }

    /// How many epochs before this one the token was found dead, as far as that is told apart: 0 to 3; `None` if it was
    /// not.
    #[must_use]
    pub fn epochs_dead(self, epoch: u64) -> Option<u64> {
        let found = u64::from(self.0 >> Self::FOUND_SHIFT);
        (self.0 & Self::FOUND_DEAD != 0).then_some((epoch % 4 + 4 - found) % 4)
    }

    /// Whether every bit of `other` is set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of either.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a token in this state is good at all.
    #[must_use]
    pub fn is_admissible(self) -> bool {
        self.0 & (Self::LIVE.0 | Self::REVOKED.0 | Self::SPENT.0) == Self::LIVE.0
    }

    /// Whether a bit that denies is set.
    #[must_use]
    pub fn is_denied(self) -> bool {
        self.0 & (Self::REVOKED.0 | Self::SPENT.0) != 0
    }

    /// The bits, for digests and figures.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// These bits where they stand in a word.
    pub(crate) fn in_word(self) -> u64 {
        u64::from(self.0) << 32
    }
}

/// A word, as loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    /// A place that was never used: a search ends here.
    pub(crate) const EMPTY: Self = Self(0);
    /// A place whose token was removed: a search goes on, an insert may take it.
    pub(crate) const REMOVED: Self = Self(0xffff_ffff);

    pub(crate) fn new(tag: u32, state: State, slot: u32) -> Self {
        debug_assert!(tag < 1 << 24 && slot != 0 && slot != u32::MAX, "tag and slot are in range");
        Self(u64::from(tag) << 40 | state.in_word() | u64::from(slot))
    }

    /// A word of this tag and nothing else.
    #[inline]
    pub(crate) const fn of_tag(tag: u32) -> Self {
        Self((tag as u64) << 40)
    }

    #[inline]
    pub(crate) fn tag(self) -> u32 {
        (self.0 >> 40) as u32
    }

    pub(crate) fn state(self) -> State {
        State((self.0 >> 32) as u8)
    }

    pub(crate) fn slot(self) -> u32 {
        self.0 as u32
    }

    /// Whether a token can be put here.
    pub(crate) fn is_free(self) -> bool {
        self == Self::EMPTY || self == Self::REMOVED
    }

    pub(crate) fn is_moved(self) -> bool {
        self.state().contains(State::MOVED)
    }
}

/// Which bucket and tag an id has. Ids are random, so their bits serve as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    bits: u64,
    pub(crate) tag: u32,
}

impl Place {
    pub(crate) fn of(id: &[u8; 16]) -> Self {
        let number = u128::from_le_bytes(*id);
        Self { bits: number as u64, tag: (number >> 64) as u32 & 0x00ff_ffff }
    }

    /// The home bucket among `buckets`: a multiplication instead of a division (Lemire, "Fast random integer
    /// generation in an interval", 2019), so that tables need not be powers of two.
    pub(crate) fn bucket(self, buckets: usize) -> usize {
        ((u128::from(self.bits) * buckets as u128) >> 64) as usize
    }
}
