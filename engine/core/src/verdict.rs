//! Verdicts: the answers to "is this token good for this?".

use crate::numbers::{ClaimsNo, SubjectNo};

/// The answer for one token. The numbers are those of the wire; 0 is a denial, so that memory nobody wrote to
/// never says yes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Verdict {
    /// Not good, and the caller may not learn why.
    #[default]
    Denied = 0,
    /// Good for what was asked.
    Valid = 1,
    /// A live token that does not reach this action, resource, audience or scope.
    Forbidden = 2,
    /// Good, but it has a limited number of uses and has to be consumed.
    ConsumeRequired = 3,
    /// A limited-use token while the log takes no writes.
    Unavailable = 4,
    /// No such token. This and the following are only told to callers with the right to inspect.
    Unknown = 5,
    /// The id is known, the secret is another.
    WrongSecret = 6,
    /// Its time has not begun.
    NotYetValid = 7,
    /// Its time is over.
    Expired = 8,
    /// It was revoked.
    Revoked = 9,
    /// All its uses are spent.
    Spent = 10,
    /// It is bound to something the holder did not present.
    BindingMismatch = 11,
}

/// Every verdict, in the order of their numbers.
const ALL: [Verdict; 12] = [
    Verdict::Denied,
    Verdict::Valid,
    Verdict::Forbidden,
    Verdict::ConsumeRequired,
    Verdict::Unavailable,
    Verdict::Unknown,
    Verdict::WrongSecret,
    Verdict::NotYetValid,
    Verdict::Expired,
    Verdict::Revoked,
    Verdict::Spent,
    Verdict::BindingMismatch,
];

impl Verdict {
    /// The verdict with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        ALL.get(usize::from(code)).copied()
    }

    /// The number of this verdict.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What a caller without the right to inspect is told: one denial for every reason that has to do with the token
    /// itself, so that nobody can tell a guess from an expired token.
    #[must_use]
    pub fn concealed(self) -> Self {
        match self {
            Self::Valid | Self::Forbidden | Self::ConsumeRequired | Self::Unavailable => self,
            _ => Self::Denied,
        }
    }

    /// The word for it in human output and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Valid => "valid",
            Self::Forbidden => "forbidden",
            Self::ConsumeRequired => "consume_required",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::WrongSecret => "wrong_secret",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Spent => "spent",
            Self::BindingMismatch => "binding_mismatch",
        }
    }
}

/// What is told of a token beside the verdict, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerFlags(pub u8);

impl AnswerFlags {
    /// The token has a limited number of uses.
    pub const LIMITED: Self = Self(1);
    /// The token can be renewed.
    pub const RENEWABLE: Self = Self(1 << 1);
    /// The token is bound to something its holder must prove to have.
    pub const BOUND: Self = Self(1 << 2);
    /// Every flag there is; they fit into four bits.
    pub const ALL: Self = Self(0b111);

    /// Whether every flag of `other` is set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of either.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The answer for one token of a validate.
///
/// Everything but the verdict is zero unless the verdict is `Valid`, `Forbidden` or `ConsumeRequired`, or the caller
/// may inspect: a denial tells nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Good or not.
    pub verdict: Verdict,
    /// What kind of token it is.
    pub flags: AnswerFlags,
    /// Whole seconds until it expires, rounded down.
    pub seconds_left: u32,
    /// Its claim set.
    pub claims: ClaimsNo,
    /// Its subject.
    pub subject: SubjectNo,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_comes_back_from_its_code_and_no_other_code_is_one() {
        for code in 0..=u8::MAX {
            match Verdict::from_code(code) {
                Some(verdict) => assert_eq!(verdict.code(), code),
                None => assert!(usize::from(code) >= ALL.len()),
            }
        }
    }

    #[test]
    fn only_a_live_token_tells_more_than_a_denial_to_those_who_may_not_inspect() {
        let told: Vec<_> = ALL.into_iter().filter(|v| v.concealed() == *v).map(Verdict::word).collect();
        assert_eq!(told, ["denied", "valid", "forbidden", "consume_required", "unavailable"]);
    }
}
