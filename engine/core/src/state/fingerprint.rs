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
