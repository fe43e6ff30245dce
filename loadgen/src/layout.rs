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
    /// The regions that a workload needs: one that [`Workload::check`] has passed.
    pub(crate) fn new(workload: &Workload) -> Self {
        let mut end = Self::live(workload);
        let mut ends = [end; ROLES.len()];
        for (at, size) in ends[1..].iter_mut().zip(Self::sizes(workload)) {
            end += size;
            *at = end;
        }
        assert_eq!(end, workload.keys.tokens, "no more tokens are set aside than there are");
        Self { ends }
    }

    /// How many tokens are left alone once all others are set aside; 0 if not even those have room.
    pub(crate) fn live(workload: &Workload) -> u32 {
        workload.keys.tokens.saturating_sub(Self::sizes(workload).iter().sum())
    }

    /// The sizes of all regions but the first.
    fn sizes(workload: &Workload) -> [u32; ROLES.len() - 1] {
        let (mix, asks, tokens) = (&workload.mix, &workload.validate, workload.keys.tokens);
        let percent = |is_needed: bool, percent: u32| {
            if is_needed { (u64::from(tokens) * u64::from(percent) / 100) as u32 } else { 0 }
        };
        let revocable = workload.keys.revocable;
        let has_victims = mix.revoke > 0.0 || asks.revoked > 0.0;
        let has_both = has_victims && mix.revoke_subject > 0.0;
        let each = if has_both { revocable.div_ceil(2) } else { revocable };
        [
            percent(has_victims, each),
            percent(mix.revoke_subject > 0.0, each) / GROUP_TOKENS * GROUP_TOKENS,
            // Of a mix without validates there is nothing to leave alone.
            percent(mix.consume > 0.0, LIMITED),
            percent(mix.renew > 0.0, RENEWABLE),
            percent(asks.expired > 0.0 && mix.validate > 0.0, EXPIRED),
        ]
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
    use crate::workload::{Asks, Keys, Mix};

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

    /// Every set of kinds and asks that regions depend on: a bit each.
    fn needing(bits: u32) -> (Mix, Asks) {
        let share = |bit: u32, percent: f64| if bits & 1 << bit == 0 { 0.0 } else { percent };
        let mut mix = Mix {
            revoke: share(0, 10.0),
            revoke_subject: share(1, 10.0),
            consume: share(2, 10.0),
            renew: share(3, 10.0),
            ..Mix::none()
        };
        mix.validate = 100.0 - mix.shares().iter().sum::<f64>();
        let mut asks = Asks { revoked: share(4, 10.0), expired: share(5, 10.0), ..Asks::none() };
        asks.live = 100.0 - asks.shares().iter().sum::<f64>();
        (mix, asks)
    }

    #[test]
    fn a_workload_that_leaves_no_token_alone_is_refused() {
        let (mix, validate) = needing(0b10_1101);
        let mut workload = Workload { mix, validate, ..Workload::default() };
        // 5 % are consumed, 5 % renewed, 1 % expires.
        for (revocable, live) in [(88, 1_000), (89, 0), (90, 0)] {
            workload.keys = Keys { tokens: 100_000, revocable, ..workload.keys };
            assert_eq!(Layout::live(&workload), live, "{revocable}");
            assert_eq!(workload.check().is_ok(), live > 0, "{revocable}");
        }
        let said = workload.check().unwrap_err().to_string();
        assert!(said.starts_with("keys.revocable is 90: ") && said.lines().count() == 1, "{said}");
    }

    proptest! {
        #[test]
        fn every_position_is_in_the_region_of_its_role(
            tokens in 1_000..200_000_u32,
            revocable in 1..=90_u32,
            at in any::<prop::sample::Index>(),
        ) {
            for bits in 0..64 {
                let (mix, validate) = needing(bits);
                let mut workload = Workload { mix, validate, ..Workload::default() };
                workload.keys = Keys { tokens, revocable, ..workload.keys };
                prop_assert_eq!(workload.check().is_ok(), Layout::live(&workload) > 0);
                if workload.check().is_err() {
                    continue;
                }
                let layout = Layout::new(&workload);
                prop_assert_eq!(layout.tokens(), tokens);
                prop_assert!(layout.count(Role::Live) > 0);
                let set_aside = layout.count(Role::Victim) + layout.count(Role::Member);
                prop_assert!(u64::from(set_aside) * 100 <= u64::from(tokens) * u64::from(revocable + 1));
                let position = at.index(tokens as usize) as u32;
                let (role, number) = layout.role(position);
                prop_assert!(layout.region(role).contains(&position));
                prop_assert_eq!(layout.region(role).start + number, position);
            }
        }
    }
}
