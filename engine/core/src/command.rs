//! Commands: what a client asks the sequencer to do, in the imperative.
//!
//! A command is already well formed when it gets here (names, claims and grants were parsed at the edge); whether it
//! may be carried out is for `decide` to say.

use crate::claims::{Claims, Name, ResourcePattern};
use crate::numbers::{Binding, ClientNo, IdempotencyKey};
use crate::rights::Rights;
use crate::token::{Token, TokenId};

/// How many tokens one [`IssueTokens`] may ask for. Their ids must fit into one `CommandCompleted` event
/// (256 x 16 bytes, below `EVENT_BYTES_MAX`).
pub const ISSUE_TOKENS_MAX: usize = 256;

/// One command of one client.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Who asks.
    pub actor: ClientNo,
    /// Makes a repetition of the same command by the same client harmless.
    pub key: Option<IdempotencyKey>,
    /// What is asked.
    pub command: Command,
}

/// What the sequencer can be asked to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Issue tokens, one for each subject named.
    IssueTokens(IssueTokens),
    /// Extend the life of a renewable token, never past its hard maximum and never to less than it has.
    RenewToken {
        /// The token itself: who cannot present it cannot renew it.
        token: Token,
        /// Seconds from now.
        ttl_s: u32,
        /// What the holder proved to have; a bound token is not renewed without it.
        binding: Option<Binding>,
    },
    /// Spend one use of a limited-use token, if every other check passes.
    ConsumeToken(ConsumeToken),
    /// Revoke the tokens that the target names.
    Revoke(RevokeTarget),
    /// Give a client rights in a tenant, beside those it has.
    GrantRights(ChangeRights),
    /// Take rights in a tenant from a client.
    WithdrawRights(ChangeRights),
    /// Create a tenant.
    CreateTenant {
        /// Its name; `*` is taken.
        name: Name,
    },
}

impl Command {
    /// Whether all it can do is to take something from somebody: it goes on where others have to wait.
    #[must_use]
    pub fn takes(&self) -> bool {
        matches!(self, Self::Revoke(_) | Self::WithdrawRights(_))
    }
}

/// Issue one token for each subject, all under the same terms.
#[derive(Clone, Debug)]
pub struct IssueTokens {
    /// The tenant the tokens belong to.
    pub tenant: Name,
    /// 1 to [`ISSUE_TOKENS_MAX`] subjects; one may be named more than once.
    pub subjects: Vec<Name>,
    /// What the tokens allow.
    pub claims: Claims,
    /// Lifetime in seconds, at least 1.
    pub ttl_s: u32,
    /// Seconds until a token becomes valid; 0 for at once. Less than `ttl_s`.
    pub not_before_s: u32,
    /// Lifetime that renewals can reach at most, in seconds from now; 0 if the tokens cannot be renewed.
    /// At least `ttl_s` otherwise.
    pub renewable_s: u32,
    /// How many times a token can be consumed; 0 for tokens that are validated without being spent.
    pub uses_max: u32,
    /// The token these descend from: it must be live, and they die with its family.
    pub parent: Option<TokenId>,
    /// What the holder must prove to have on every use.
    pub binding: Option<Binding>,
}

/// Spend one use of a token.
#[derive(Clone, Debug)]
pub struct ConsumeToken {
    /// The token itself.
    pub token: Token,
    /// The action and the resource that the use is for, checked against the grants.
    pub access: Option<Access>,
    /// The audience that the caller answers to.
    pub audience: Option<String>,
    /// Scopes that the token must all have, separated by single spaces.
    pub scopes: Option<String>,
    /// What the holder proved to have.
    pub binding: Option<Binding>,
}

/// An action on a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The action, as in a grant.
    pub action: String,
    /// A concrete resource path, without wildcards.
    pub resource: String,
}

/// Which tokens a revoke is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeTarget {
    /// The token presented.
    Token(Token),
    /// The token with this id: what an administrator has, who never sees the secret.
    Id(TokenId),
    /// Every token of a subject.
    Subject {
        /// The tenant of the subject.
        tenant: Name,
        /// Its name.
        subject: Name,
    },
    /// Every token that a client asked for.
    Client {
        /// The tenant of the tokens.
        tenant: Name,
        /// The client's identity.
        client: Name,
    },
    /// A token, the one it descends from and all that descend from that.
    Family(TokenId),
    /// Every token of a tenant.
    Tenant {
        /// Its name.
        tenant: Name,
    },
    /// Every token holding a grant whose pattern is contained in the given one.
    Resource {
        /// The tenant of the tokens.
        tenant: Name,
        /// The pattern.
        pattern: ResourcePattern,
    },
}

/// Rights to give or to take.
#[derive(Clone, Debug)]
pub struct ChangeRights {
    /// The identity whose rights change.
    pub client: Name,
    /// Where; `*` for everywhere.
    pub tenant: Name,
    /// Which.
    pub rights: Rights,
}
