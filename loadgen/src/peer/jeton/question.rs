//! Questions as frames. What is the same each time is encoded once.

use std::fmt::Write as _;

use jeton_core::check::Check;
use jeton_core::claims::{Claims, Name, ResourceQuery};
use jeton_core::command::{Command, ConsumeToken, IssueTokens, RevokeTarget};
use jeton_core::numbers::Sequence;
use jeton_core::sequencer::FIRST_TENANT;
use jeton_core::token::{Token, TokenId};
use jeton_wire::request::{Request, encode_validate};

use crate::fill::{EXPIRED_TTL_S, TTL_S};
use crate::layout::{Role, USES};
use crate::peer::Question;

/// What every token of the generator may do, and on what.
const GRANT: &str = "read on load/*";
const GRANTED: (&str, &str) = ("read", "load/report");
const FORBIDDEN: (&str, &str) = ("write", "load/report");

/// What questions are made of.
pub(super) struct Templates {
    tenant: Name,
    claims: Claims,
    checks: [Check<'static>; 3],
    text: String,
}

impl Templates {
    pub(super) fn new() -> anyhow::Result<Self> {
        let access = |(action, resource)| ResourceQuery::new(action, resource).map(Some);
        Ok(Self {
            tenant: FIRST_TENANT.parse()?,
            claims: Claims::new([], [], [GRANT.parse()?], Default::default())?,
            checks: [
                Check::default(),
                Check { access: access(GRANTED)?, ..Check::default() },
                Check { access: access(FORBIDDEN)?, ..Check::default() },
            ],
            text: String::new(),
        })
    }

    /// Appends a question as a frame. A validate, which is what there is most of, takes no memory for that.
    pub(super) fn encode(
        &mut self,
        id: u64,
        question: &Question<'_>,
        into: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        let command = match question {
            Question::Validate { tokens, checks } => {
                let table = if checks.is_some() { &self.checks[..tokens.len().min(3)] } else { &[] };
                // A frame holds no more checks than tokens: a short one carries the check of its tokens alone.
                match checks {
                    Some(indexes) if tokens.len() < self.checks.len() => {
                        return self.encode_short(id, tokens, indexes, into);
                    }
                    _ => encode_validate(id, tokens, table, *checks, Sequence(0), false, into),
                }
                return Ok(());
            }
            Question::Issue { role, subjects, fresh } => {
                assert!(fresh.is_empty(), "a Jeton server makes its tokens itself");
                Command::IssueTokens(self.issue(*role, subjects)?)
            }
            Question::Revoke(token) => {
                let token = Token::from_bytes(**token);
                Command::Revoke(RevokeTarget::Id(TokenId(token.id.0)))
            }
            Question::RevokeSubject(subject) => {
                self.text.clear();
                self.text.write_str(subject)?;
                let subject = self.text.parse()?;
                Command::Revoke(RevokeTarget::Subject { tenant: self.tenant.clone(), subject })
            }
            Question::Consume(token) => Command::ConsumeToken(ConsumeToken {
                token: Token::from_bytes(**token),
                access: None,
                audience: None,
                scopes: None,
                binding: None,
            }),
            Question::Renew(token) => {
                Command::RenewToken { token: Token::from_bytes(**token), ttl_s: TTL_S, binding: None }
            }
        };
        Request::Write { key: None, command }.encode(id, into);
        Ok(())
    }

    /// A validate of one or two tokens, each with its check.
    fn encode_short(
        &self,
        id: u64,
        tokens: &[[u8; 32]],
        indexes: &[u16],
        into: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        let check = |at: usize| self.checks[usize::from(indexes[at])];
        if tokens.len() == 1 {
            encode_validate(id, tokens, &[check(0)], None, Sequence(0), false, into);
        } else {
            encode_validate(id, tokens, &[check(0), check(1)], Some(&[0, 1]), Sequence(0), false, into);
        }
        Ok(())
    }

    fn issue(&self, role: Role, subjects: &[String]) -> anyhow::Result<IssueTokens> {
        let subjects = subjects.iter().map(|subject| subject.parse()).collect::<Result<_, _>>()?;
        Ok(IssueTokens {
            tenant: self.tenant.clone(),
            subjects,
            claims: self.claims.clone(),
            ttl_s: if role == Role::Expired { EXPIRED_TTL_S } else { TTL_S },
            not_before_s: 0,
            renewable_s: if role == Role::Renewable { 10 * TTL_S } else { 0 },
            uses_max: if role == Role::Limited { USES } else { 0 },
            parent: None,
            binding: None,
        })
    }
}
