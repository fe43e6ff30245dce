//! Kinds of requests, their shares, and what validates ask about.

use std::str::FromStr;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Validate,
    Issue,
    Revoke,
    RevokeSubject,
    Consume,
    Renew,
}

/// Every kind, in the order of their numbers.
pub(crate) const KINDS: [Kind; 6] =
    [Kind::Validate, Kind::Issue, Kind::Revoke, Kind::RevokeSubject, Kind::Consume, Kind::Renew];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Issue => "issue",
            Self::Revoke => "revoke",
            Self::RevokeSubject => "revoke-subject",
            Self::Consume => "consume",
            Self::Renew => "renew",
        }
    }
}

/// Percent of requests of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Mix {
    #[serde(default)]
    pub(crate) validate: f64,
    #[serde(default)]
    pub(crate) issue: f64,
    #[serde(default)]
    pub(crate) revoke: f64,
    #[serde(default)]
    pub(crate) revoke_subject: f64,
    #[serde(default)]
    pub(crate) consume: f64,
    #[serde(default)]
    pub(crate) renew: f64,
}

/// What a validate asks of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ask {
    /// A token that is good, without a check.
    Live,
    /// An id that was never issued.
    Unknown,
    /// An id that was, with another secret.
    WrongSecret,
    /// A token that was, is being or will be revoked.
    Revoked,
    /// One whose time is over.
    Expired,
    /// A good token, for what it may do.
    Granted,
    /// A good token, for what it may not do.
    Forbidden,
}

/// Every ask, in the order of their numbers.
pub(crate) const ASKS: [Ask; 7] =
    [Ask::Live, Ask::Unknown, Ask::WrongSecret, Ask::Revoked, Ask::Expired, Ask::Granted, Ask::Forbidden];

/// Percent of the tokens of validates that are asked about in each way.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Asks {
    #[serde(default)]
    pub(crate) live: f64,
    #[serde(default)]
    pub(crate) unknown: f64,
    #[serde(default)]
    pub(crate) wrong_secret: f64,
    #[serde(default)]
    pub(crate) revoked: f64,
    #[serde(default)]
    pub(crate) expired: f64,
    #[serde(default)]
    pub(crate) granted: f64,
    #[serde(default)]
    pub(crate) forbidden: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { validate: 97.0, issue: 2.0, revoke: 1.0, ..Self::none() }
    }
}

impl Default for Asks {
    fn default() -> Self {
        Self { live: 94.0, unknown: 2.0, wrong_secret: 2.0, revoked: 2.0, ..Self::none() }
    }
}

impl Mix {
    pub(crate) fn none() -> Self {
        Self { validate: 0.0, issue: 0.0, revoke: 0.0, revoke_subject: 0.0, consume: 0.0, renew: 0.0 }
    }

    /// By the number of the kind.
    pub(crate) fn shares(&self) -> [f64; KINDS.len()] {
        [self.validate, self.issue, self.revoke, self.revoke_subject, self.consume, self.renew]
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        check_shares("the mix", &self.shares())
    }
}

impl Asks {
    pub(crate) fn none() -> Self {
        Self {
            live: 0.0,
            unknown: 0.0,
            wrong_secret: 0.0,
            revoked: 0.0,
            expired: 0.0,
            granted: 0.0,
            forbidden: 0.0,
        }
    }

    /// By the number of the ask.
    pub(crate) fn shares(&self) -> [f64; ASKS.len()] {
        [self.live, self.unknown, self.wrong_secret, self.revoked, self.expired, self.granted, self.forbidden]
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        check_shares("what validates ask", &self.shares())
    }
}

fn check_shares(name: &str, shares: &[f64]) -> anyhow::Result<()> {
    ensure!(shares.iter().all(|share| (0.0..=100.0).contains(share)), "{name}: a share is 0 to 100 percent");
    let sum: f64 = shares.iter().sum();
    ensure!((sum - 100.0).abs() < 1e-6, "{name} adds up to {sum} percent, not 100");
    Ok(())
}

/// Reads `name=percent` pairs: what is not named has no share.
fn read_shares(text: &str, example: &str, mut set: impl FnMut(&str, f64) -> bool) -> Result<(), String> {
    let mut known = Vec::new();
    for part in text.split(',') {
        let (name, percent) = part.split_once('=').ok_or_else(|| format!("this is written {example}"))?;
        if known.contains(&name) {
            return Err(format!("'{name}' is named twice"));
        }
        known.push(name);
        let percent: f64 = percent.parse().map_err(|_| format!("'{percent}' is no percentage"))?;
        if !set(name, percent) {
            return Err(format!("'{name}' is none that there is: this is written {example}"));
        }
    }
    Ok(())
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut mix = Self::none();
        read_shares(text, "validate=97,issue=2,revoke=1", |name, percent| {
            let field = match name {
                "validate" => &mut mix.validate,
                "issue" => &mut mix.issue,
                "revoke" => &mut mix.revoke,
                "revoke-subject" => &mut mix.revoke_subject,
                "consume" => &mut mix.consume,
                "renew" => &mut mix.renew,
                _ => return false,
            };
            *field = percent;
            true
        })?;
        mix.check().map_err(|error| error.to_string())?;
        Ok(mix)
    }
}

impl FromStr for Asks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut asks = Self::none();
        read_shares(text, "live=96,unknown=4", |name, percent| {
            let field = match name {
                "live" => &mut asks.live,
                "unknown" => &mut asks.unknown,
                "wrong-secret" => &mut asks.wrong_secret,
                "revoked" => &mut asks.revoked,
                "expired" => &mut asks.expired,
                "granted" => &mut asks.granted,
                "forbidden" => &mut asks.forbidden,
                _ => return false,
            };
            *field = percent;
            true
        })?;
        asks.check().map_err(|error| error.to_string())?;
        Ok(asks)
    }
}
