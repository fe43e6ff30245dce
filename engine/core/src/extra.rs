//! The extra record: what the few tokens have that do not fit the slot, in the 64 bytes the index keeps for it.

use crate::numbers::{Binding, SubjectNo};
use crate::time::{Millis, Seconds};

/// Set in a slot's link if it names an extra record rather than a subject.
const EXTRA_BIT: u32 = 1 << 31;

/// What a slot's link names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The subject itself; the token has no other terms.
    Subject(SubjectNo),
    /// The extra record with this number.
    Extra(u32),
}

impl Link {
    pub(crate) fn from_bits(bits: u32) -> Self {
        if bits & EXTRA_BIT == 0 { Self::Subject(SubjectNo(bits)) } else { Self::Extra(bits & !EXTRA_BIT) }
    }

    /// # Panics
    /// If the number needs more than 31 bits: `decide` refuses before that.
    pub(crate) fn bits(self) -> u32 {
        let (number, bit) = match self {
            Self::Subject(subject) => (subject.0, 0),
            Self::Extra(number) => (number, EXTRA_BIT),
        };
        assert!(number < EXTRA_BIT, "subject and extra numbers stay below 2^31");
        number | bit
    }
}

/// An extra record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extra {
    pub(crate) subject: SubjectNo,
    pub(crate) not_before: Millis,
    /// Uses at issue; 0 for no limit.
    pub(crate) uses_max: u32,
    /// 0 if the token cannot be renewed.
    pub(crate) renewable_until: Seconds,
    /// The family's number in the registry; 0 for none.
    pub(crate) family: u32,
    pub(crate) binding: Option<Binding>,
}

impl Extra {
    /// The record as the index keeps it: word 0 subject and uses, 1 not-before, 2 renewable-until and family,
    /// 3 whether it is bound, 4 to 7 the binding.
    pub(crate) fn to_words(self) -> [u64; 8] {
        let mut words = [0; 8];
        words[0] = pair(self.subject.0, self.uses_max);
        words[1] = self.not_before.0;
        words[2] = pair(self.renewable_until.0, self.family);
        if let Some(binding) = self.binding {
            words[3] = 1;
            for (word, bytes) in words[4..].iter_mut().zip(binding.0.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
        }
        words
    }

    pub(crate) fn from_words(words: &[u64; 8]) -> Self {
        let (subject, uses_max) = halves(words[0]);
        let (renewable_until, family) = halves(words[2]);
        let binding = (words[3] == 1).then(|| {
            let mut bytes = [0; 32];
            for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&words[4..]) {
                *bytes = word.to_le_bytes();
            }
            Binding(bytes)
        });
        Self {
            subject: SubjectNo(subject),
            not_before: Millis(words[1]),
            uses_max,
            renewable_until: Seconds(renewable_until),
            family,
            binding,
        }
    }
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn halves(word: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
    let low = word as u32;
    (low, (word >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extra_record_comes_back_from_its_words() {
        let bound = Extra {
            subject: SubjectNo(5),
            not_before: Millis(1_700_000_000_123),
            uses_max: u32::MAX,
            renewable_until: Seconds(4_000_000_000),
            family: 3,
            binding: Some(Binding(std::array::from_fn(|at| at as u8))),
        };
        for extra in [bound, Extra::default(), Extra { binding: Some(Binding([0; 32])), ..bound }] {
            assert_eq!(Extra::from_words(&extra.to_words()), extra);
        }
    }

    #[test]
    fn a_link_names_a_subject_or_an_extra_record() {
        for link in [
            Link::Subject(SubjectNo(0)),
            Link::Subject(SubjectNo(EXTRA_BIT - 1)),
            Link::Extra(0),
            Link::Extra(9),
        ] {
            assert_eq!(Link::from_bits(link.bits()), link);
        }
    }
}
