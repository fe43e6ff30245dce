//! Events: what happened, in the past tense, as the log keeps it for ever.
//!
//! Variants are append-only: a changed field is a new variant at the end, and golden files pin the encoding of each
//! (docs/FORMATS.md). A new variant is no larger than the largest there is, for events lie at one distance in every log. Every
//! event applies idempotently: consume and renew carry results, not differences, so a replay
//! that starts a little early ends in the same state.
//!
//! Whatever may have to be erased one day (subject names, claims, resource patterns) is not in the event: the event
//! holds a commitment, and the bytes lie with their salt in the detached part of the batch ([`Detached`]).

#![allow(
    missing_docs,
    reason = "the derived archive types repeat, without words, the fields documented here"
)]

use rkyv::{Archive, Deserialize, Serialize};

use crate::numbers::{Binding, ClaimsNo, ClientNo, IdempotencyKey, SubjectNo, TenantNo};
use crate::outcome::{Outcome, RevokeReport};
use crate::rights::Rights;
use crate::time::{Millis, Seconds};

/// The largest event, encoded and with its detached bytes.
pub const EVENT_BYTES_MAX: usize = 6 * 1024;

/// How many claim sets one [`Fact::ResourceRevoked`] names; more are told in further events.
pub const REVOKED_CLAIM_SETS_MAX: usize = 1_000;

/// One event: who did it, and what is so since. When it happened stands in its batch.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The client at whose command it happened; 0 for the engine itself.
    pub actor: u32,
    /// What happened.
    pub fact: Fact,
}

/// What happened.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A tenant came to be.
    TenantCreated {
        /// Its number.
        tenant: u32,
        /// Its name.
        name: String,
    },
    /// A client was named for the first time.
    ClientNamed {
        /// Its number.
        client: u32,
        /// The URI SAN of its certificate.
        name: String,
    },
    /// A subject was named for the first time; the name is detached.
    SubjectNamed {
        /// Its number.
        subject: u32,
        /// Its tenant.
        tenant: u32,
        /// [`commitment`] to the name.
        name: [u8; 32],
    },
    /// A claim set was seen for the first time; its canonical bytes are detached.
    ClaimsInterned {
        /// Its number.
        claims: u32,
        /// The tenant it belongs to.
        tenant: u32,
        /// The client that asked for it.
        client: u32,
        /// [`commitment`] to the canonical bytes.
        content: [u8; 32],
    },
    /// A token was issued.
    TokenIssued {
        /// Its public id.
        id: [u8; 16],
        /// The keyed hash of the whole token.
        digest: [u8; 32],
        /// Its claim set, which also says tenant and client.
        claims: u32,
        /// Its subject.
        subject: u32,
        /// When, in seconds.
        issued_s: u32,
        /// First second at which it is no longer valid.
        expires_s: u32,
        /// Terms that most tokens do not have.
        terms: Option<Box<Terms>>,
    },
    /// A token was renewed.
    TokenRenewed {
        /// Its public id.
        id: [u8; 16],
        /// When, in seconds.
        renewed_s: u32,
        /// Its new expiry.
        expires_s: u32,
    },
    /// A use of a token was spent.
    TokenConsumed {
        /// Its public id.
        id: [u8; 16],
        /// Uses left after this one.
        uses_left: u32,
    },
    /// A token was revoked.
    TokenRevoked {
        /// Its public id.
        id: [u8; 16],
    },
    /// Every token that the subject had was revoked.
    SubjectRevoked {
        /// The subject.
        subject: u32,
    },
    /// Every token of a family was revoked.
    FamilyRevoked {
        /// The id of the family's root token.
        root: [u8; 16],
    },
    /// Every claim set that the client had in the tenant was revoked, and every token with them.
    ClientRevoked {
        /// The tenant.
        tenant: u32,
        /// The client.
        client: u32,
    },
    /// Every claim set of the tenant was revoked, and every token with them.
    TenantRevoked {
        /// The tenant.
        tenant: u32,
    },
    /// The claim sets that held a grant within a resource pattern were revoked, and every token with them.
    ResourceRevoked {
        /// The tenant.
        tenant: u32,
        /// [`commitment`] to the text of the pattern.
        pattern: [u8; 32],
        /// The claim sets, at most [`REVOKED_CLAIM_SETS_MAX`]: named, so that a replay needs no pattern.
        claims: Vec<u32>,
    },
    /// A client's rights in a tenant became these.
    RightsChanged {
        /// The client.
        client: u32,
        /// The tenant; 0 for everywhere.
        tenant: u32,
        /// All rights it has there now.
        rights: u8,
    },
    /// A command that carried an idempotency key was carried out.
    CommandCompleted {
        /// The key, scoped to the actor.
        key: [u8; 16],
        /// The first 16 bytes of the blake3 hash of the command, to notice a key used twice for different things.
        payload: [u8; 16],
        /// What to answer when the same command comes again.
        outcome: Recorded,
    },
    /// Nothing but that time has passed: tokens count as dead by the time of the last event, and there was no room for
    /// another one until some do.
    TimePassed,
}

/// Terms that most tokens do not have.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// First millisecond at which the token is valid; 0 for at once.
    pub not_before_ms: u64,
    /// Uses at issue; 0 for no limit.
    pub uses_max: u32,
    /// The latest expiry that a renewal can give; 0 if it cannot be renewed.
    pub renewable_until_s: u32,
    /// The root of the family it was issued into.
    pub family: Option<[u8; 16]>,
    /// What its holder must prove to have.
    pub binding: Option<[u8; 32]>,
}

/// The outcome of a command, as far as a repetition of it has to know.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// These tokens were issued; a repetition revokes them first.
    Issued {
        /// Their ids, in order.
        ids: Vec<[u8; 16]>,
    },
    /// A token was renewed.
    Renewed {
        /// Its expiry.
        expires_s: u32,
    },
    /// A use was spent.
    Consumed {
        /// First second at which the token is no longer valid.
        expires_s: u32,
        /// Its claim set.
        claims: u32,
        /// Its subject.
        subject: u32,
        /// The flags of the answer.
        flags: u8,
        /// Uses left after this one.
        uses_left: u32,
    },
    /// Tokens or claim sets were revoked.
    Revoked {
        /// How many.
        revoked: u64,
        /// How many broader claim sets still reach the resource.
        broader: u64,
    },
    /// Rights changed.
    RightsChanged {
        /// All of them now.
        rights: u8,
    },
    /// A tenant was created.
    TenantCreated {
        /// Its number.
        tenant: u32,
    },
}

/// Bytes that belong to an event and can be removed later without breaking the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    /// 32 random bytes, so that a commitment to a short name cannot be guessed.
    pub salt: [u8; 32],
    /// The name, claims or pattern.
    pub bytes: Vec<u8>,
}

/// What an event holds in place of detached bytes: blake3 of the bytes, keyed with the salt.
#[must_use]
pub fn commitment(salt: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(salt, bytes).as_bytes()
}

impl Detached {
    /// The [`commitment`] to these bytes.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        commitment(&self.salt, &self.bytes)
    }
}

/// An event with what belongs to it, as decided and as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The event.
    pub event: Event,
    /// Its detached bytes; `None` if it has none, or if they were erased.
    pub detached: Option<Detached>,
}

impl Fact {
    /// The commitment this event makes to detached bytes, if it is of a kind that has them.
    #[must_use]
    pub fn commitment(&self) -> Option<&[u8; 32]> {
        match self {
            Self::SubjectNamed { name, .. } => Some(name),
            Self::ClaimsInterned { content, .. } => Some(content),
            Self::ResourceRevoked { pattern, .. } => Some(pattern),
            _ => None,
        }
    }

    /// The name of the variant, for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TenantCreated { .. } => "TenantCreated",
            Self::ClientNamed { .. } => "ClientNamed",
            Self::SubjectNamed { .. } => "SubjectNamed",
            Self::ClaimsInterned { .. } => "ClaimsInterned",
            Self::TokenIssued { .. } => "TokenIssued",
            Self::TokenRenewed { .. } => "TokenRenewed",
            Self::TokenConsumed { .. } => "TokenConsumed",
            Self::TokenRevoked { .. } => "TokenRevoked",
            Self::SubjectRevoked { .. } => "SubjectRevoked",
            Self::FamilyRevoked { .. } => "FamilyRevoked",
            Self::ClientRevoked { .. } => "ClientRevoked",
            Self::TenantRevoked { .. } => "TenantRevoked",
            Self::ResourceRevoked { .. } => "ResourceRevoked",
            Self::RightsChanged { .. } => "RightsChanged",
            Self::CommandCompleted { .. } => "CommandCompleted",
            Self::TimePassed => "TimePassed",
        }
    }

    /// Whether this takes something from somebody: a token, a use or a right.
    #[must_use]
    pub fn denies(&self) -> bool {
        matches!(
            self,
            Self::TokenRevoked { .. }
                | Self::SubjectRevoked { .. }
                | Self::FamilyRevoked { .. }
                | Self::ClientRevoked { .. }
                | Self::TenantRevoked { .. }
                | Self::ResourceRevoked { .. }
                | Self::RightsChanged { .. }
        )
    }

    /// Bytes this fact takes beyond the fixed size of an event: an upper bound, padding included.
    #[must_use]
    pub fn out_of_line_bytes(&self) -> usize {
        const PADDING: usize = 16;
        match self {
            Self::TenantCreated { name, .. } | Self::ClientNamed { name, .. } => name.len() + PADDING,
            Self::TokenIssued { terms: Some(_), .. } => size_of::<ArchivedTerms>() + PADDING,
            Self::ResourceRevoked { claims, .. } => claims.len() * 4 + PADDING,
            Self::CommandCompleted { outcome: Recorded::Issued { ids }, .. } => ids.len() * 16 + PADDING,
            _ => 0,
        }
    }
}

impl Recorded {
    /// What to answer when the same command comes again at `now`; `None` for an issue, which is done anew.
    #[must_use]
    pub fn replayed(&self, now: Millis) -> Option<Outcome> {
        Some(match *self {
            Self::Issued { .. } => return None,
            Self::Renewed { expires_s } => Outcome::Renewed { expires: Seconds(expires_s) },
            Self::Consumed { expires_s, claims, subject, flags, uses_left } => Outcome::Consumed {
                answer: crate::verdict::Answer {
                    verdict: crate::verdict::Verdict::Valid,
                    flags: crate::verdict::AnswerFlags(flags),
                    seconds_left: Seconds(expires_s).left_after(now),
                    claims: ClaimsNo(claims),
                    subject: SubjectNo(subject),
                },
                uses_left,
            },
            Self::Revoked { revoked, broader } => Outcome::Revoked(RevokeReport { revoked, broader }),
            Self::RightsChanged { rights } => {
                Outcome::RightsChanged { rights: Rights::from_bits(rights).unwrap_or_default() }
            }
            Self::TenantCreated { tenant } => Outcome::TenantCreated { tenant: TenantNo(tenant) },
        })
    }
}

/// The key memory's index: idempotency keys are scoped to the client that used them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopedKey {
    /// Who used it.
    pub client: ClientNo,
    /// The key.
    pub key: IdempotencyKey,
}

impl Terms {
    /// What the holder must prove to have.
    #[must_use]
    pub fn binding(&self) -> Option<Binding> {
        self.binding.map(Binding)
    }
}

#[cfg(test)]
mod tests;
