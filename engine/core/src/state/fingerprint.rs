//! The fingerprint of a command: tells a repetition from another command under the same idempotency key.

use crate::command::{ChangeRights, Command, ConsumeToken, IssueTokens, RevokeTarget};
use crate::token::{Token, digest};

/// A hash under construction; every field goes in with its length, so that no two commands run together.
struct Fields(blake3::Hasher);

impl Fields {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        self
    }

    fn number(&mut self, number: u32) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    fn optional(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            Some(bytes) => self.number(1).bytes(bytes),
            None => self.number(0),
        }
    }

    /// The digest stands for the token: a secret goes nowhere else.
    fn token(&mut self, token: &Token) -> &mut Self {
        self.bytes(&token.id.0).bytes(&digest(&token.id, &token.secret).0)
    }
}

/// The first 16 bytes of the blake3 hash over the command's fields.
pub(super) fn fingerprint(command: &Command) -> [u8; 16] {
    let mut fields = Fields(blake3::Hasher::new());
    match command {
        Command::IssueTokens(issue) => add_issue(fields.number(1), issue),
        Command::RenewToken { token, ttl_s, binding } => {
            fields.number(2).token(token).number(*ttl_s);
            fields.optional(binding.as_ref().map(|binding| &binding.0[..]));
        }
        Command::ConsumeToken(consume) => add_consume(fields.number(3), consume),
        Command::Revoke(target) => add_target(fields.number(4), target),
        Command::GrantRights(change) => add_change(fields.number(5), change),
        Command::WithdrawRights(change) => add_change(fields.number(6), change),
        Command::CreateTenant { name } => {
            fields.number(7).bytes(name.as_str().as_bytes());
        }
    }
    let mut short = [0; 16];
    short.copy_from_slice(&fields.0.finalize().as_bytes()[..16]);
    short
}

fn add_issue(fields: &mut Fields, issue: &IssueTokens) {
    fields.bytes(issue.tenant.as_str().as_bytes()).bytes(issue.claims.bytes());
    fields.number(issue.subjects.len() as u32);
    for subject in &issue.subjects {
        fields.bytes(subject.as_str().as_bytes());
    }
    fields.number(issue.ttl_s).number(issue.not_before_s).number(issue.renewable_s).number(issue.uses_max);
    fields.optional(issue.parent.as_ref().map(|parent| &parent.0[..]));
    fields.optional(issue.binding.as_ref().map(|binding| &binding.0[..]));
}

fn add_consume(fields: &mut Fields, consume: &ConsumeToken) {
    fields.token(&consume.token);
    fields.optional(consume.access.as_ref().map(|access| access.action.as_bytes()));
    fields.optional(consume.access.as_ref().map(|access| access.resource.as_bytes()));
    fields.optional(consume.audience.as_ref().map(String::as_bytes));
    fields.optional(consume.binding.as_ref().map(|binding| &binding.0[..]));
    // Behind everything else, and only if there: fingerprints of commands that ask for none are what they always were.
    if let Some(scopes) = &consume.scopes {
        fields.bytes(scopes.as_bytes());
    }
}

fn add_target(fields: &mut Fields, target: &RevokeTarget) {
    match target {
        RevokeTarget::Token(token) => {
            fields.number(1).token(token);
        }
        RevokeTarget::Id(id) => {
            fields.number(2).bytes(&id.0);
        }
        RevokeTarget::Subject { tenant, subject } => {
            fields.number(3).bytes(tenant.as_str().as_bytes()).bytes(subject.as_str().as_bytes());
        }
        RevokeTarget::Client { tenant, client } => {
            fields.number(4).bytes(tenant.as_str().as_bytes()).bytes(client.as_str().as_bytes());
        }
        RevokeTarget::Family(id) => {
            fields.number(5).bytes(&id.0);
        }
        RevokeTarget::Tenant { tenant } => {
            fields.number(6).bytes(tenant.as_str().as_bytes());
        }
        RevokeTarget::Resource { tenant, pattern } => {
            fields.number(7).bytes(tenant.as_str().as_bytes()).bytes(pattern.to_string().as_bytes());
        }
    }
}

fn add_change(fields: &mut Fields, change: &ChangeRights) {
    fields.bytes(change.client.as_str().as_bytes()).bytes(change.tenant.as_str().as_bytes());
    fields.number(u32::from(change.rights.bits()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{Claims, Name};
    use crate::command::Access;
    use crate::numbers::Binding;
    use crate::rights::Rights;
    use crate::token::{Secret, TokenId};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// Bytes with their length before them, as in docs/FORMATS.md.
    fn long(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
    }

    fn some(bytes: &[u8]) -> Vec<u8> {
        [number(1), long(bytes)].concat()
    }

    fn number(number: u32) -> Vec<u8> {
        number.to_le_bytes().to_vec()
    }

    #[track_caller]
    fn assert_hashed(command: Command, fields: &[Vec<u8>]) {
        assert_eq!(fingerprint(&command), blake3::hash(&fields.concat()).as_bytes()[..16], "{command:?}");
    }

    const TOKEN: Token = Token { id: TokenId([3; 16]), secret: Secret([4; 16]) };

    fn token() -> Vec<u8> {
        [long(&TOKEN.id.0), long(&digest(&TOKEN.id, &TOKEN.secret).0)].concat()
    }

    #[test]
    fn issues_are_hashed_as_the_document_says() {
        let claims = Claims::new([], [], ["read on a/b".parse().unwrap()], Default::default()).unwrap();
        let canonical = claims.bytes().to_vec();
        let issue = IssueTokens {
            tenant: name("acme"),
            subjects: vec![name("ann"), name("bob")],
            claims,
            ttl_s: 9,
            not_before_s: 1,
            renewable_s: 10,
            uses_max: 7,
            parent: Some(TokenId([5; 16])),
            binding: None,
        };
        let subjects = [number(2), long(b"ann"), long(b"bob")].concat();
        let terms = [9, 1, 10, 7].map(number).concat();
        let fields = [number(1), long(b"acme"), long(&canonical), subjects, terms, some(&[5; 16]), number(0)];
        assert_hashed(Command::IssueTokens(issue), &fields);
    }

    #[test]
    fn renewals_and_uses_are_hashed_as_the_document_says() {
        let binding = Some(Binding([6; 32]));
        let renew = Command::RenewToken { token: TOKEN, ttl_s: 8, binding };
        assert_hashed(renew, &[number(2), token(), number(8), some(&[6; 32])]);
        let use_of = |scopes: Option<&str>| {
            let access = Some(Access { action: "read".to_owned(), resource: "a/b".to_owned() });
            let scopes = scopes.map(str::to_owned);
            Command::ConsumeToken(ConsumeToken {
                token: TOKEN,
                access,
                audience: None,
                scopes,
                binding: None,
            })
        };
        let fields = [number(3), token(), some(b"read"), some(b"a/b"), number(0), number(0)];
        assert_hashed(use_of(None), &fields);
        assert_hashed(use_of(Some("x y")), &[fields.concat(), long(b"x y")]);
    }

    #[test]
    fn every_revoke_and_what_administrators_do_is_hashed_as_the_document_says() {
        let (tenant, client) = (name("acme"), name("spiffe://acme/web"));
        let (acme, web) = (long(b"acme"), long(b"spiffe://acme/web"));
        let pattern = "a/**".parse().unwrap();
        let targets = [
            (RevokeTarget::Token(TOKEN), vec![number(1), token()]),
            (RevokeTarget::Id(TokenId([5; 16])), vec![number(2), long(&[5; 16])]),
            (
                RevokeTarget::Subject { tenant: tenant.clone(), subject: name("ann") },
                vec![number(3), acme.clone(), long(b"ann")],
            ),
            (
                RevokeTarget::Client { tenant: tenant.clone(), client: client.clone() },
                vec![number(4), acme.clone(), web.clone()],
            ),
            (RevokeTarget::Family(TokenId([5; 16])), vec![number(5), long(&[5; 16])]),
            (RevokeTarget::Tenant { tenant: tenant.clone() }, vec![number(6), acme.clone()]),
            (
                RevokeTarget::Resource { tenant: tenant.clone(), pattern },
                vec![number(7), acme.clone(), long(b"a/**")],
            ),
        ];
        for (target, fields) in targets {
            assert_hashed(Command::Revoke(target), &[number(4), fields.concat()]);
        }
        let rights = Rights::ISSUE.with(Rights::AUDIT);
        let change = ChangeRights { client, tenant: tenant.clone(), rights };
        let fields = [web, acme.clone(), number(17)].concat();
        assert_hashed(Command::GrantRights(change.clone()), &[number(5), fields.clone()]);
        assert_hashed(Command::WithdrawRights(change), &[number(6), fields]);
        assert_hashed(Command::CreateTenant { name: tenant }, &[number(7), acme]);
    }
}
