//! The commands of write requests. docs/PROTOCOL.md has their fields.

use jeton_core::check::Check;
use jeton_core::claims::{Claims, Name, ResourceQuery, ScopesQuery};
use jeton_core::command::{
    Access, ChangeRights, Command, ConsumeToken, ISSUE_TOKENS_MAX, IssueTokens, RevokeTarget,
};
use jeton_core::numbers::Binding;
use jeton_core::rights::Rights;
use jeton_core::token::{Token, TokenId};

use super::validate::{decode_check, encode_check};
use crate::cursor::{Cursor, Put};
use crate::error::WireError;

pub(super) fn name(cursor: &mut Cursor<'_>) -> Result<Name, WireError> {
    Name::new(cursor.text()?).map_err(|_| WireError::Invalid("a name"))
}

fn token(cursor: &mut Cursor<'_>) -> Result<Token, WireError> {
    cursor.array().map(Token::from_bytes)
}

pub(super) fn consume(cursor: &mut Cursor<'_>) -> Result<Command, WireError> {
    let token = token(cursor)?;
    let check = decode_check(cursor)?;
    let access = check
        .access
        .map(|query| Access { action: query.action().to_owned(), resource: query.resource().to_owned() });
    let audience = check.audience.map(str::to_owned);
    let scopes = check.scopes.map(|scopes| scopes.as_str().to_owned());
    Ok(Command::ConsumeToken(ConsumeToken { token, access, audience, scopes, binding: check.binding }))
}

/// Claim sets that were decoded before: who issues much has few of them, and the same bytes are the same claims.
#[derive(Debug, Default)]
pub(crate) struct KnownClaims {
    sets: Vec<Claims>,
    /// Which of them goes next.
    oldest: usize,
}

impl KnownClaims {
    const SETS_MAX: usize = 4;
    /// Larger ones are not kept. Decoded, a set of many short actions takes some eight times that: 16 KiB a connection at most.
    const BYTES_MAX: usize = 512;

    fn decode(&mut self, bytes: &[u8]) -> Result<Claims, WireError> {
        if let Some(known) = self.sets.iter().find(|known| known.bytes() == bytes) {
            return Ok(known.clone());
        }
        let claims = Claims::decode(bytes).map_err(|_| WireError::Invalid("claims"))?;
        if bytes.len() > Self::BYTES_MAX {
            return Ok(claims);
        }
        if self.sets.len() < Self::SETS_MAX {
            self.sets.push(claims.clone());
        } else {
            self.sets[self.oldest] = claims.clone();
            self.oldest = (self.oldest + 1) % Self::SETS_MAX;
        }
        Ok(claims)
    }
}

pub(super) fn issue(cursor: &mut Cursor<'_>, known: &mut KnownClaims) -> Result<Command, WireError> {
    let tenant = name(cursor)?;
    let claims = known.decode(cursor.bytes()?)?;
    let [ttl_s, not_before_s, renewable_s, uses_max] =
        [cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?];
    let parent = cursor.optional(Cursor::array)?.map(TokenId);
    let binding = cursor.optional(Cursor::array)?.map(Binding);
    let count = usize::from(cursor.u16()?);
    if count > ISSUE_TOKENS_MAX {
        return Err(WireError::Invalid("the number of subjects"));
    }
    let subjects = (0..count).map(|_| name(cursor)).collect::<Result<_, _>>()?;
    let issue =
        IssueTokens { tenant, subjects, claims, ttl_s, not_before_s, renewable_s, uses_max, parent, binding };
    Ok(Command::IssueTokens(issue))
}

pub(super) fn renew(cursor: &mut Cursor<'_>) -> Result<Command, WireError> {
    let (token, ttl_s) = (token(cursor)?, cursor.u32()?);
    Ok(Command::RenewToken { token, ttl_s, binding: cursor.optional(Cursor::array)?.map(Binding) })
}

pub(super) fn revoke(cursor: &mut Cursor<'_>) -> Result<Command, WireError> {
    Ok(Command::Revoke(match cursor.u8()? {
        1 => RevokeTarget::Token(token(cursor)?),
        2 => RevokeTarget::Id(TokenId(cursor.array()?)),
        3 => RevokeTarget::Subject { tenant: name(cursor)?, subject: name(cursor)? },
        4 => RevokeTarget::Client { tenant: name(cursor)?, client: name(cursor)? },
        5 => RevokeTarget::Family(TokenId(cursor.array()?)),
        6 => RevokeTarget::Tenant { tenant: name(cursor)? },
        7 => {
            let tenant = name(cursor)?;
            let pattern = cursor.text()?.parse().map_err(|_| WireError::Invalid("a resource pattern"))?;
            RevokeTarget::Resource { tenant, pattern }
        }
        _ => return Err(WireError::Invalid("what to revoke")),
    }))
}

pub(super) fn change_rights(cursor: &mut Cursor<'_>) -> Result<ChangeRights, WireError> {
    let (client, tenant) = (name(cursor)?, name(cursor)?);
    let rights = Rights::from_bits(cursor.u8()?).ok_or(WireError::Invalid("rights"))?;
    Ok(ChangeRights { client, tenant, rights })
}

pub(super) fn encode(command: &Command, into: &mut Vec<u8>) {
    match command {
        Command::IssueTokens(issue) => encode_issue(issue, into),
        Command::RenewToken { token, ttl_s, binding } => {
            into.extend_from_slice(&token.to_bytes());
            into.extend_from_slice(&ttl_s.to_le_bytes());
            into.put_optional(*binding, |into, binding| into.extend_from_slice(&binding.0));
        }
        Command::ConsumeToken(consume) => encode_consume(consume, into),
        Command::Revoke(target) => encode_target(target, into),
        Command::GrantRights(change) | Command::WithdrawRights(change) => {
            into.put_text(change.client.as_str());
            into.put_text(change.tenant.as_str());
            into.push(change.rights.bits());
        }
        Command::CreateTenant { name } => into.put_text(name.as_str()),
    }
}

fn encode_issue(issue: &IssueTokens, into: &mut Vec<u8>) {
    into.put_text(issue.tenant.as_str());
    into.put_bytes(issue.claims.bytes());
    for number in [issue.ttl_s, issue.not_before_s, issue.renewable_s, issue.uses_max] {
        into.extend_from_slice(&number.to_le_bytes());
    }
    into.put_optional(issue.parent, |into, parent| into.extend_from_slice(&parent.0));
    into.put_optional(issue.binding, |into, binding| into.extend_from_slice(&binding.0));
    into.extend_from_slice(&(issue.subjects.len() as u16).to_le_bytes());
    issue.subjects.iter().for_each(|subject| into.put_text(subject.as_str()));
}

/// Access is one action on a concrete resource and scopes are a list of them: what is not cannot be written down, and callers
/// are told before ([`ResourceQuery::new`], [`ScopesQuery::new`]).
///
/// # Panics
/// Otherwise.
fn encode_consume(consume: &ConsumeToken, into: &mut Vec<u8>) {
    into.extend_from_slice(&consume.token.to_bytes());
    let access = consume.access.as_ref().map(|access| {
        ResourceQuery::new(&access.action, &access.resource).expect("an access is one action on one resource")
    });
    let scopes =
        consume.scopes.as_deref().map(|scopes| ScopesQuery::new(scopes).expect("scopes are a list of them"));
    let audience = consume.audience.as_deref();
    encode_check(&Check { access, audience, scopes, binding: consume.binding }, into);
}

fn encode_target(target: &RevokeTarget, into: &mut Vec<u8>) {
    let put = |into: &mut Vec<u8>, kind, texts: &[&str]| {
        into.push(kind);
        texts.iter().for_each(|text| into.put_text(text));
    };
    match target {
        RevokeTarget::Token(token) => {
            into.push(1);
            into.extend_from_slice(&token.to_bytes());
        }
        RevokeTarget::Id(id) => {
            into.push(2);
            into.extend_from_slice(&id.0);
        }
        RevokeTarget::Subject { tenant, subject } => put(into, 3, &[tenant.as_str(), subject.as_str()]),
        RevokeTarget::Client { tenant, client } => put(into, 4, &[tenant.as_str(), client.as_str()]),
        RevokeTarget::Family(id) => {
            into.push(5);
            into.extend_from_slice(&id.0);
        }
        RevokeTarget::Tenant { tenant } => put(into, 6, &[tenant.as_str()]),
        RevokeTarget::Resource { tenant, pattern } => put(into, 7, &[tenant.as_str(), &pattern.to_string()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_claims_are_the_same_and_four_small_sets_of_them_at_most_are_kept() {
        let sets: Vec<Claims> = (0..2 * KnownClaims::SETS_MAX)
            .map(|at| {
                let grant = format!("read on journal/{at}").parse().unwrap();
                Claims::new([], [], [grant], Default::default()).unwrap()
            })
            .collect();
        let mut known = KnownClaims::default();
        for claims in sets.iter().chain(&sets).flat_map(|claims| [claims, claims]) {
            assert_eq!(known.decode(claims.bytes()).as_ref(), Ok(claims));
            assert!(known.sets.len() <= KnownClaims::SETS_MAX);
        }
        let large =
            ["read on ".to_owned() + &"x".repeat(KnownClaims::BYTES_MAX)].map(|grant| grant.parse().unwrap());
        let large = Claims::new([], [], large, Default::default()).unwrap();
        assert_eq!(known.decode(large.bytes()).as_ref(), Ok(&large));
        assert!(!known.sets.contains(&large), "it would take too much");
        assert_eq!(known.decode(b"none"), Err(WireError::Invalid("claims")));
        assert_eq!(
            known.decode(sets[0].bytes()).as_ref(),
            Ok(&sets[0]),
            "what is wrong takes nobody's place"
        );
    }
}
