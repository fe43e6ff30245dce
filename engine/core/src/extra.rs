//! The extra record: what the few tokens have that do not fit their record, in the 64 bytes that the index keeps behind
//! it.

use jeton_index::State;

use crate::numbers::Binding;
use crate::time::{Millis, Seconds};
use crate::token::TokenId;

const NOT_BEFORE_BITS: u32 = 48;
/// Flags, in the bits of word 1 above [`Extra::not_before`].
const IS_BOUND: u64 = 1 << NOT_BEFORE_BITS;
const HAS_FAMILY: u64 = 1 << (NOT_BEFORE_BITS + 1);

/// An extra record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extra {
    /// Below 2^48, the year 10889; what is later is kept as that, long after every expiry there can be.
    pub(crate) not_before: Millis,
    /// Uses at issue; 0 for no limit.
    pub(crate) uses_max: u32,
    /// 0 if the token cannot be renewed.
    pub(crate) renewable_until: Seconds,
    /// The root of the family it was issued into.
    pub(crate) family: Option<TokenId>,
    pub(crate) binding: Option<Binding>,
}

impl Extra {
    /// The record as the index keeps it: word 0 uses and renewable-until, 1 not-before and flags, 2 and 3 the root of the
    /// family, 4 to 7 the binding.
    pub(crate) fn to_words(self) -> [u64; 8] {
        let not_before = self.not_before.0.min((1 << NOT_BEFORE_BITS) - 1);
        let mut words = [0; 8];
        words[0] = u64::from(self.uses_max) | u64::from(self.renewable_until.0) << 32;
        words[1] = not_before;
        if let Some(root) = self.family {
            words[1] |= HAS_FAMILY;
            fill(&mut words[2..4], root.0.as_chunks().0);
        }
        if let Some(binding) = self.binding {
            words[1] |= IS_BOUND;
            fill(&mut words[4..], binding.0.as_chunks().0);
        }
        words
    }

    pub(crate) fn from_words(words: &[u64; 8]) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
        let uses_max = words[0] as u32;
        let mut root = [0; 16];
        let mut binding = [0; 32];
        spill(root.as_chunks_mut().0, &words[2..4]);
        spill(binding.as_chunks_mut().0, &words[4..]);
        Self {
            not_before: Millis(words[1] & ((1 << NOT_BEFORE_BITS) - 1)),
            uses_max,
            renewable_until: Seconds((words[0] >> 32) as u32),
            family: (words[1] & HAS_FAMILY != 0).then_some(TokenId(root)),
            binding: (words[1] & IS_BOUND != 0).then_some(Binding(binding)),
        }
    }
}

impl Extra {
    /// Uses left of a token with these terms, in this state, of which so many have been spent.
    pub(crate) fn uses_left(&self, state: State, spent: u64) -> u32 {
        if state.contains(State::SPENT) {
            return 0;
        }
        self.uses_max.saturating_sub(u32::try_from(spent).unwrap_or(u32::MAX))
    }
}

fn fill(words: &mut [u64], bytes: &[[u8; 8]]) {
    words.iter_mut().zip(bytes).for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
}

fn spill(bytes: &mut [[u8; 8]], words: &[u64]) {
    bytes.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extra_record_comes_back_from_its_words() {
        let full = Extra {
            not_before: Millis(1_700_000_000_123),
            uses_max: u32::MAX,
            renewable_until: Seconds(4_000_000_000),
            family: Some(TokenId(std::array::from_fn(|at| at as u8 + 100))),
            binding: Some(Binding(std::array::from_fn(|at| at as u8))),
        };
        let latest = Millis((1 << 48) - 1);
        for extra in [
            full,
            Extra::default(),
            Extra { binding: None, ..full },
            Extra { family: None, ..full },
            Extra { binding: Some(Binding([0; 32])), family: Some(TokenId([0; 16])), ..Extra::default() },
            Extra { not_before: latest, ..Extra::default() },
        ] {
            assert_eq!(Extra::from_words(&extra.to_words()), extra);
        }
    }
}
