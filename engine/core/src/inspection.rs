//! What those who hold the right to inspect are told about tokens, claim sets, subjects and clients.

use crate::numbers::{ClaimsNo, ClientNo, SubjectNo};
use crate::rights::Rights;
use crate::time::{Millis, Seconds};
use crate::token::TokenId;
use crate::verdict::Verdict;

/// Everything that is known of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its public id.
    pub id: TokenId,
    /// How it would be answered now, no action, resource, audience or scope asked and its binding presented.
    pub verdict: Verdict,
    /// The name of its tenant.
    pub tenant: String,
    /// The name of its subject; `None` once erased.
    pub subject: Option<String>,
    /// The number of its subject.
    pub subject_no: SubjectNo,
    /// The identity that asked for it.
    pub client: String,
    /// Its claim set.
    pub claims: ClaimsNo,
    /// When it was issued; renewals do not change it.
    pub issued: Seconds,
    /// When it becomes valid.
    pub not_before: Millis,
    /// When it expires.
    pub expires: Seconds,
    /// The end of its renewable life; `None` if it cannot be renewed.
    pub renewable_until: Option<Seconds>,
    /// Uses at issue and uses left; `None` if it has no limit.
    pub uses: Option<(u32, u32)>,
    /// The root of its family, if it was issued under another token.
    pub family: Option<TokenId>,
    /// Whether its holder must prove to have something.
    pub bound: bool,
}

/// A claim set and whom it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimsInfo {
    /// Its number.
    pub claims: ClaimsNo,
    /// The name of the tenant.
    pub tenant: String,
    /// The identity that asked for it.
    pub client: String,
    /// Whether a wide revoke killed it, and every token with it; `false` for callers who may not inspect.
    pub revoked: bool,
    /// The claims in their canonical bytes ([`crate::claims::Claims::decode`]).
    pub bytes: Vec<u8>,
}

/// A subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectInfo {
    /// Its number.
    pub subject: SubjectNo,
    /// The name of the tenant.
    pub tenant: String,
    /// Its name; `None` once erased.
    pub name: Option<String>,
}

/// A client and its rights, tenant by tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its number.
    pub client: ClientNo,
    /// Its identity: the URI SAN of its certificate.
    pub name: String,
    /// The names of tenants with the rights there.
    pub rights: Vec<(String, Rights)>,
}
