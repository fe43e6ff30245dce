//! What each answer must be: a function of the token's position, and of how far the revokes have come.
//!
//! In every hundred positions 94 are live, 2 are ids that were never issued, 2 have a wrong secret, and 2 are revoked
//! one after another while the load runs. Of those, a reply is checked against what was acknowledged when its request
//! was sent, and what had been asked for when it came: in between both answers are right.

use jeton_core::verdict::Verdict;

/// What a position stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planned {
    /// Issued, and left alone.
    Live,
    /// Never issued.
    NeverIssued,
    /// Issued, but asked about with another secret.
    WrongSecret,
    /// To be revoked, as the `n`th of all.
    Victim(u32),
}

/// Victims in every hundred positions.
const VICTIMS_PER_HUNDRED: u32 = 2;

/// How far the revokes are: all victims below `acknowledged` are dead, all from `asked` on are alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revokes {
    pub(crate) acknowledged: u32,
    pub(crate) asked: u32,
}

/// What the position stands for.
pub(crate) fn planned(position: u32) -> Planned {
    let (hundred, place) = (position / 100, position % 100);
    match place {
        10 | 60 => Planned::NeverIssued,
        20 | 70 => Planned::WrongSecret,
        30 => Planned::Victim(hundred * VICTIMS_PER_HUNDRED),
        80 => Planned::Victim(hundred * VICTIMS_PER_HUNDRED + 1),
        _ => Planned::Live,
    }
}

/// The position of the `n`th victim.
pub(crate) fn victim(n: u32) -> u32 {
    n / VICTIMS_PER_HUNDRED * 100 + if n.is_multiple_of(VICTIMS_PER_HUNDRED) { 30 } else { 80 }
}

/// How many victims a key space has.
pub(crate) fn victims(tokens: u32) -> u32 {
    (0..).take_while(|n| victim(*n) < tokens).count() as u32
}

/// Whether an answer is right: `before` is how far the revokes were when the request was sent, `after` when the
/// answer came. A generator that may inspect is told why a token is denied; one that may not is told that it is.
pub(crate) fn is_right(planned: Planned, verdict: Verdict, before: Revokes, after: Revokes) -> bool {
    let is_denial_for = |cause: Verdict| verdict == cause || verdict == cause.concealed();
    // What was revoked long ago is reclaimed: then it is as if it had never been.
    let is_revoked = || is_denial_for(Verdict::Revoked) || is_denial_for(Verdict::Unknown);
    match planned {
        Planned::Live => verdict == Verdict::Valid,
        Planned::NeverIssued => is_denial_for(Verdict::Unknown),
        Planned::WrongSecret => is_denial_for(Verdict::WrongSecret),
        Planned::Victim(n) if n < before.acknowledged => is_revoked(),
        Planned::Victim(n) if n >= after.asked => verdict == Verdict::Valid,
        Planned::Victim(_) => verdict == Verdict::Valid || is_revoked(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn in_every_hundred_positions_each_kind_has_its_share() {
        let count = |is: fn(Planned) -> bool| (700..800).filter(|position| is(planned(*position))).count();
        assert_eq!(count(|planned| planned == Planned::Live), 94);
        assert_eq!(count(|planned| planned == Planned::NeverIssued), 2);
        assert_eq!(count(|planned| planned == Planned::WrongSecret), 2);
        assert_eq!(count(|planned| matches!(planned, Planned::Victim(_))), 2);
    }

    #[test]
    fn a_lie_is_noticed() {
        let (none, some) = (Revokes::default(), Revokes { acknowledged: 3, asked: 5 });
        assert!(!is_right(Planned::Live, Verdict::Revoked, none, none));
        assert!(!is_right(Planned::NeverIssued, Verdict::Valid, none, none));
        assert!(!is_right(Planned::WrongSecret, Verdict::Valid, none, none));
        assert!(
            !is_right(Planned::Victim(2), Verdict::Valid, some, some),
            "acknowledged as revoked, still valid"
        );
        assert!(!is_right(Planned::Victim(5), Verdict::Revoked, none, some), "nobody has asked for it yet");
        for verdict in [Verdict::Valid, Verdict::Revoked] {
            assert!(is_right(Planned::Victim(3), verdict, some, some), "on its way");
            assert!(
                is_right(Planned::Victim(2), verdict, none, some),
                "acknowledged while the request was under way"
            );
        }
    }

    proptest! {
        #[test]
        fn victims_are_where_their_numbers_say(n in 0..1_000_000_u32, tokens in 0..100_000_u32) {
            prop_assert_eq!(planned(victim(n)), Planned::Victim(n));
            let found = (0..tokens).filter(|position| matches!(planned(*position), Planned::Victim(_))).count();
            prop_assert_eq!(victims(tokens) as usize, found);
        }
    }
}
