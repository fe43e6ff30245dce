//! What becomes of a command: an outcome, or a rejection. Both are values, and both are told to the client only once
//! everything they rest on is durable.

use crate::numbers::{ClaimsNo, Sequence, TenantNo};
use crate::rights::Rights;
use crate::time::Seconds;
use crate::token::Token;
use crate::verdict::{Answer, Verdict};

/// The sequencer's answer to one [`crate::command::Submission`].
#[derive(Clone, Debug)]
pub struct Reply {
    /// The last event that this answer rests on: the consistency token of the write.
    pub sequence: Sequence,
    /// What was done, or why nothing was.
    pub result: Result<Outcome, Rejection>,
}

/// What was done.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Tokens were issued, in the order of the subjects.
    Issued {
        /// The tokens; nobody can show them again.
        tokens: Vec<Token>,
        /// When all of them expire.
        expires: Seconds,
        /// Their claim set.
        claims: ClaimsNo,
    },
    /// The token was renewed.
    Renewed {
        /// When it expires now.
        expires: Seconds,
    },
    /// The verdict on a consume; a use was spent only if it is `Valid`.
    Consumed {
        /// The verdict and what goes with it.
        answer: Answer,
        /// Uses left after this one; 0 unless the verdict is `Valid`.
        uses_left: u32,
    },
    /// Everything the target names is dead.
    Revoked(RevokeReport),
    /// Rights were changed.
    RightsChanged {
        /// The client's rights in that tenant now.
        rights: Rights,
    },
    /// The tenant exists.
    TenantCreated {
        /// Its number.
        tenant: TenantNo,
    },
}

/// What a revoke did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevokeReport {
    /// Tokens that died of it. For revokes by client, tenant and resource: claim sets.
    pub revoked: u64,
    /// After a revoke by resource: live claim sets whose broader grants still reach into it.
    pub broader: u64,
}

/// Why nothing was done. The numbers are those of the wire and of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// The client lacks the right this needs in this tenant, or the tenant does not exist: one answer for both.
    #[error("this client may not do that in this tenant, or there is no such tenant")]
    NotAllowed,
    /// The token is not good for it.
    #[error("the token is {}", .0.word())]
    Token(Verdict),
    /// The token was issued without a renewable lifetime.
    #[error("the token cannot be renewed")]
    NotRenewable,
    /// The parent of a token to be issued is not live in the same tenant.
    #[error("the parent token is not live in this tenant")]
    ParentNotLive,
    /// There is no such subject, client or token to revoke.
    #[error("nothing by that name exists")]
    NotFound,
    /// The tenant exists already, or its name is reserved.
    #[error("the tenant exists already")]
    TenantExists,
    /// The last administrator of the tenant `*` cannot be withdrawn.
    #[error("the last administrator of tenant * cannot be withdrawn")]
    LastAdmin,
    /// The idempotency key came with another command before.
    #[error("this idempotency key was used for another command")]
    KeyReused,
    /// A queue or a memory is full for the moment. Nothing was done.
    #[error("busy, try again in {retry_ms} ms")]
    Busy {
        /// When to try again.
        retry_ms: u32,
    },
    /// A configured or structural maximum is reached.
    #[error("limit reached: {0}")]
    Limit(LimitName),
    /// A number of the command is out of range.
    #[error("out of range: {0}")]
    OutOfRange(FieldName),
    /// The wall clock is in doubt; only denials go on.
    #[error("the server's clock is in doubt: it issues and renews nothing until started with --accept-clock")]
    ClockInDoubt,
    /// The disk is nearly full; only revokes go on.
    #[error("the server's disk is nearly full: it only takes revokes")]
    DiskFull,
    /// The log failed; nothing is written until the server is restarted. Nothing was done.
    #[error("the server's log failed: it writes nothing until it is restarted")]
    LogFailed,
    /// The log failed while this command was on its way: it may or may not have been carried out.
    #[error("indeterminate: the log failed before the command was known to be durable")]
    Indeterminate,
    /// The server is stopping. Nothing was done.
    #[error("the server is stopping")]
    Stopping,
}

/// Which maximum was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LimitName {
    /// Live and remembered tokens.
    Tokens = 0,
    /// Subjects of all tenants.
    Subjects = 1,
    /// Claim sets.
    ClaimSets = 2,
    /// Tenants.
    Tenants = 3,
    /// Clients.
    Clients = 4,
    /// Members of one family.
    Family = 5,
}

/// Which number of a command is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FieldName {
    /// The lifetime.
    Ttl = 0,
    /// The delay before validity.
    NotBefore = 1,
    /// The renewable lifetime.
    Renewable = 2,
    /// The subjects of a batch.
    Subjects = 3,
    /// The rights to grant or withdraw.
    Rights = 4,
}

impl LimitName {
    /// The limit with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Tokens, Self::Subjects, Self::ClaimSets, Self::Tenants, Self::Clients, Self::Family]
            .get(usize::from(code))
            .copied()
    }
}

impl FieldName {
    /// The field with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Ttl, Self::NotBefore, Self::Renewable, Self::Subjects, Self::Rights]
            .get(usize::from(code))
            .copied()
    }
}

impl std::fmt::Display for LimitName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tokens => "tokens",
            Self::Subjects => "subjects",
            Self::ClaimSets => "claim sets",
            Self::Tenants => "tenants",
            Self::Clients => "clients",
            Self::Family => "members of a family",
        })
    }
}

impl std::fmt::Display for FieldName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ttl => "the lifetime must be 1 second to 10 years",
            Self::NotBefore => "the delay before validity must be shorter than the lifetime",
            Self::Renewable => "the renewable lifetime must be at least the lifetime, and at most 10 years",
            Self::Subjects => "a command names 1 to 256 subjects",
            Self::Rights => "a command must name at least one right",
        })
    }
}
