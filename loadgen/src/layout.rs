//! What a token is for, by its position in the key space: nothing has to be remembered for each.
//!
//! The key space is cut into a region for each role. Roles that a workload has no use for have no tokens; the rest of the
//! key space is live tokens.

use serde::{Deserialize, Serialize};

use crate::workload::Workload;

/// Tokens of a subject that is revoked as a whole.
pub(crate) const GROUP_TOKENS: u32 = 8;
/// Percent of the key space for consumes, for renewals, and for what expires at once.
const LIMITED: u32 = 5;
const RENEWABLE: u32 = 5;
const EXPIRED: u32 = 1;
/// How often a limited token can be consumed.
pub(crate) const USES: u32 = 1_000;

/// What becomes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Left alone.
    Live,
    /// Revoked, one after another.
    Victim,
    /// Revoked with its group, by their subject.
    Member,
    /// Consumed.
    Limited,
    /// Renewed.
    Renewable,
    /// Dead before the load begins.
    Expired,
}

/// Every role, in the order of the regions.
pub(crate) const ROLES: [Role; 6] =
    [Role::Live, Role::Victim, Role::Member, Role::Limited, Role::Renewable, Role::Expired];

/// Where each region ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    ends: [u32; ROLES.len()],
}

impl Layout {
    /// The regions that a workload needs.
    pub(crate) fn new(workload: &Workload) -> Self {
        let (mix, asks, tokens) = (&workload.mix, &workload.validate, workload.keys.tokens);
        let percent = |is_needed: bool, percent: u32| {
            if is_needed { (u64::from(tokens) * u64::from(percent) / 100) as u32 } else { 0 }
        };
        let revocable = workload.keys.revocable;
        let has_both = mix.revoke > 0.0 && mix.revoke_subject > 0.0;
        let each = if has_both { revocable.div_ceil(2) } else { revocable };
        let sizes = [
            percent(mix.revoke > 0.0 || asks.revoked > 0.0, each),
            percent(mix.revoke_subject > 0.0, each) / GROUP_TOKENS * GROUP_TOKENS,
            // Of a mix without validates there is nothing to leave alone.
            percent(mix.consume > 0.0, LIMITED),
            percent(mix.renew > 0.0, RENEWABLE),
            percent(asks.expired > 0.0 && mix.validate > 0.0, EXPIRED),
        ];
        let mut end = tokens - sizes.iter().sum::<u32>();
        let mut ends = [end; ROLES.len()];
        for (at, size) in ends[1..].iter_mut().zip(sizes) {
            end += size;
            *at = end;
        }
        Self { ends }
    }

    /// All tokens.
    pub(crate) fn tokens(&self) -> u32 {
        self.ends[ROLES.len() - 1]
    }

    /// The positions of a role.
    pub(crate) fn region(&self, role: Role) -> std::ops::Range<u32> {
        let number = role as usize;
        let begin = if number == 0 { 0 } else { self.ends[number - 1] };
        begin..self.ends[number]
    }

    /// How many tokens have a role.
    pub(crate) fn count(&self, role: Role) -> u32 {
        self.region(role).len() as u32
    }

    /// The role at a position, and the number of the token within it.
    pub(crate) fn role(&self, position: u32) -> (Role, u32) {
        let number = self.ends.partition_point(|end| *end <= position).min(ROLES.len() - 1);
        let begin = if number == 0 { 0 } else { self.ends[number - 1] };
        (ROLES[number], position - begin)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::workload::{Mix, library};

    #[test]
    fn a_plain_workload_has_live_tokens_and_those_to_be_revoked() {
        let layout = Layout::new(&Workload::default());
        assert_eq!(ROLES.map(|role| layout.count(role)), [980_000, 20_000, 0, 0, 0, 0]);
        let all = Mix {
            validate: 50.0,
            issue: 10.0,
            revoke: 10.0,
            revoke_subject: 10.0,
            consume: 10.0,
            renew: 10.0,
        };
        let layout = Layout::new(&Workload { mix: all, ..Workload::default() });
        assert_eq!(ROLES.map(|role| layout.count(role)), [880_000, 10_000, 10_000, 50_000, 50_000, 0]);
    }

    proptest! {
        #[test]
        fn every_position_is_in_the_region_of_its_role(tokens in 1_000..200_000_u32, at in any::<prop::sample::Index>()) {
            for (_, mut workload, _) in library::all() {
                workload.keys.tokens = tokens;
                let layout = Layout::new(&workload);
                prop_assert_eq!(layout.tokens(), tokens);
                let position = at.index(tokens as usize) as u32;
                let (role, number) = layout.role(position);
                prop_assert!(layout.region(role).contains(&position));
                prop_assert_eq!(layout.region(role).start + number, position);
            }
        }
    }
}
