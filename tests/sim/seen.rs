//! Which situations a run came through: a promise that was never put to the test was not kept.

use std::collections::BTreeMap;

use jeton_core::outcome::{Outcome, Rejection};

/// Situations by name, and how often each came up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    pub(super) fn note(&mut self, situation: &'static str) {
        *self.0.entry(situation).or_default() += 1;
    }

    /// Adds what another run, or another part of this one, has seen.
    pub fn add(&mut self, other: &Self) {
        for (situation, times) in &other.0 {
            *self.0.entry(situation).or_default() += times;
        }
    }

    /// How often a situation came up.
    #[must_use]
    pub fn times(&self, situation: &str) -> u64 {
        self.0.get(situation).copied().unwrap_or(0)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(situation, times)| (*situation, *times))
    }
}

/// The situation of a client that is told this.
pub(super) fn outcome(result: &Result<Outcome, Rejection>) -> &'static str {
    match result {
        Ok(Outcome::Issued { .. }) => "issued",
        Ok(Outcome::Renewed { .. }) => "renewed",
        Ok(Outcome::Consumed { .. }) => "consumed or denied",
        Ok(Outcome::Revoked(_)) => "revoked",
        Ok(Outcome::RightsChanged { .. }) => "rights changed",
        Ok(Outcome::TenantCreated { .. }) => "tenant created",
        Err(rejection) => match rejection {
            Rejection::NotAllowed => "rejected: not allowed",
            Rejection::Token(_) => "rejected: token",
            Rejection::NotRenewable => "rejected: not renewable",
            Rejection::ParentNotLive => "rejected: parent not live",
            Rejection::NotFound => "rejected: not found",
            Rejection::TenantExists => "rejected: tenant exists",
            Rejection::LastAdmin => "rejected: last admin",
            Rejection::KeyReused => "rejected: key reused",
            Rejection::Busy { .. } => "rejected: busy",
            Rejection::Limit(_) => "rejected: limit",
            Rejection::OutOfRange(_) => "rejected: out of range",
            Rejection::ClockInDoubt => "rejected: clock in doubt",
            Rejection::DiskFull => "rejected: disk full",
            Rejection::LogFailed => "rejected: log failed",
            Rejection::Indeterminate => "rejected: indeterminate",
            Rejection::Stopping => "rejected: stopping",
        },
    }
}
