//! What has to be refused and what may be, by what the world knows of the server when it decides a command: so that no
//! refusal is for nothing, and none is forgotten.

use std::mem::discriminant;

use jeton_core::command::{ChangeRights, Command, IssueTokens, Submission};
use jeton_core::event::{Fact, Recorded};
use jeton_core::mutation::SmallLimits;
use jeton_core::outcome::{LimitName, Rejection};
use jeton_core::rights::Rights;
use jeton_core::sequencer::{EVENTS_IN_FLIGHT_MAX, Restrictions};
use jeton_core::token::TokenId;

use super::super::plan::{self, Plan};
use super::Oracle;
use super::decisions::fail;

/// Of what may be in flight, the part kept for commands that take something from somebody, as documented.
const KEPT_SHARE: usize = 8;
/// A client may have so many keys remembered for each that is free, as documented.
const KEYS_PER_FREE_KEY: usize = 4;
/// The key of an issue counts as one more for so many tokens, as documented.
const TOKENS_PER_KEY: usize = 8;
/// Records that a token or its renewal takes at most, and once more for one that moves to a denser segment.
const RECORDS_EACH: usize = 4;
/// Records of the segments that are being filled or moved.
const RECORDS_SPARE: usize = 64;

/// How things stand with the server when it takes a command.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Standing {
    pub(in crate::sim) restrictions: Restrictions,
    pub(in crate::sim) has_failed: bool,
}

/// The limits of a run, as far as they say when a command is refused.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::sim) struct Bounds {
    events_in_flight: usize,
    keys: Option<usize>,
    family_tokens: Option<usize>,
    tokens: usize,
}

impl Bounds {
    pub(in crate::sim) fn new(limits: &SmallLimits, tokens_max: u32) -> Self {
        Self {
            events_in_flight: limits.events_in_flight.unwrap_or(EVENTS_IN_FLIGHT_MAX),
            keys: limits.keys,
            family_tokens: limits.family_tokens,
            tokens: tokens_max as usize,
        }
    }
}

/// Whether all that a command can do is to take something from somebody.
fn takes(command: &Command) -> bool {
    matches!(command, Command::Revoke(_) | Command::WithdrawRights(_))
}

impl Oracle {
    /// What a command has to be refused with before anything of it is decided; `None` if it has to be decided.
    pub(super) fn refusal(&self, submission: &Submission, standing: Standing) -> Option<Rejection> {
        let Standing { restrictions, has_failed } = standing;
        let gives_time = matches!(submission.command, Command::IssueTokens(_) | Command::RenewToken { .. });
        let takes = takes(&submission.command);
        let max = self.bounds.events_in_flight;
        let room = if takes { max } else { max - max / KEPT_SHARE };
        let is_full = self.journal.len() - self.published_to >= room;
        let rules = [
            (has_failed, Rejection::LogFailed),
            (restrictions.stopping, Rejection::Stopping),
            (restrictions.clock_in_doubt && gives_time, Rejection::ClockInDoubt),
            (restrictions.disk_low && !takes, Rejection::DiskFull),
            (is_full, Rejection::Busy { retry_ms: 0 }),
        ];
        rules.into_iter().find(|(holds, _)| *holds).map(|(_, rejection)| rejection)
    }

    /// Whether this key came with a revoke by subject that is not answered, so that it may still be carried out.
    pub(super) fn may_be_marked(&self, submission: &Submission) -> bool {
        let is_same = |other: &Submission| (other.actor, other.key) == (submission.actor, submission.key);
        let mut marking = self.decisions.values().filter(|decision| decision.is_marking());
        submission.key.is_some() && marking.any(|decision| is_same(&decision.plan.submission))
    }

    /// A rejection that comes before anything is decided, where there had to be one, and that one.
    pub(super) fn check_refusal(&self, plan: &Plan, rejection: Rejection) -> Result<(), String> {
        match (plan.refusal, rejection) {
            (Some(due), told) if discriminant(&due) == discriminant(&told) => Ok(()),
            (Some(due), _) => Err(format!("it has to be refused as {due:?}")),
            (None, Rejection::Indeterminate) if self.has_failed => Ok(()),
            (None, Rejection::Indeterminate) => {
                fail("the log has not failed, and nobody knows what was done")
            }
            (None, Rejection::Busy { .. }) if plan.may_be_busy || self.may_lack_room_for_key(plan) => Ok(()),
            (
                None,
                Rejection::Busy { .. }
                | Rejection::LogFailed
                | Rejection::Stopping
                | Rejection::DiskFull
                | Rejection::ClockInDoubt,
            ) => fail("it is refused for what is not so"),
            (None, Rejection::Limit(name)) if !self.may_be_reached(plan, name) => {
                fail("it is refused for a limit that is far away")
            }
            (None, Rejection::LastAdmin) if !self.takes_the_last_admin(plan) => {
                fail("somebody else administers everything, or that is not what is withdrawn")
            }
            (None, Rejection::TenantExists) if !self.names_a_tenant_that_exists(plan) => {
                fail("there is no such tenant yet")
            }
            (None, Rejection::OutOfRange(_)) if !is_out_of_range(&plan.submission.command) => {
                fail("nothing of it is out of range")
            }
            _ => Ok(()),
        }
    }

    /// Keys that were remembered at any time are at least as many as are remembered now.
    fn may_lack_room_for_key(&self, plan: &Plan) -> bool {
        let submission = &plan.submission;
        let Some(keys_max) = self.bounds.keys.filter(|_| submission.key.is_some()) else { return false };
        let counted = |is_meant: &dyn Fn(u32) -> bool| -> usize {
            let events = self.journal.iter().map(|(_, entry)| &entry.event);
            let events = events.filter(|event| is_meant(event.actor));
            events
                .map(|event| match &event.fact {
                    Fact::CommandCompleted { outcome: Recorded::Issued { ids }, .. } => {
                        1 + ids.len() / TOKENS_PER_KEY
                    }
                    Fact::CommandCompleted { .. } => 1,
                    _ => 0,
                })
                .sum()
        };
        let own = counted(&|actor| actor == submission.actor.0);
        let free = keys_max.saturating_sub(counted(&|_| true));
        !takes(&submission.command) && own >= free * KEYS_PER_FREE_KEY
    }

    fn may_be_reached(&self, plan: &Plan, name: LimitName) -> bool {
        let (asked, parent) = match &plan.submission.command {
            Command::IssueTokens(issue) => (issue.subjects.len(), issue.parent),
            Command::RenewToken { .. } => (1, None),
            _ => return false,
        };
        match name {
            LimitName::Tokens => {
                let makes_records =
                    |fact: &Fact| matches!(fact, Fact::TokenIssued { .. } | Fact::TokenRenewed { .. });
                let made = self.journal.iter().filter(|(_, entry)| makes_records(&entry.event.fact)).count();
                (made + asked) * RECORDS_EACH + RECORDS_SPARE > self.bounds.tokens
            }
            LimitName::Family => {
                let root = parent.map(|parent| self.decided.tokens[&parent].root.unwrap_or(parent));
                let members = self.decided.tokens.values().filter(|token| token.root == root).count();
                root.is_some() && self.bounds.family_tokens.is_some_and(|max| members + 1 + asked > max)
            }
            _ => false,
        }
    }

    /// Whether a family has more members than it may, of those that are certainly there.
    pub(super) fn has_too_many(&self, root: Option<TokenId>) -> bool {
        let tokens = self.decided.tokens.iter().filter(|(_, token)| token.root == root);
        let members = tokens.filter(|(id, _)| !self.decided.may_be_gone(id)).count();
        self.bounds.family_tokens.is_some_and(|max| members > max)
    }

    fn takes_the_last_admin(&self, plan: &Plan) -> bool {
        let Command::WithdrawRights(ChangeRights { client, tenant, rights }) = &plan.submission.command
        else {
            return false;
        };
        let administers = |client: &u32| self.decided.granted(*client, 0).contains(Rights::ADMIN);
        let mut administrators = self.decided.clients.keys().filter(|client| administers(client));
        let only = administrators.next().filter(|_| administrators.next().is_none());
        tenant.as_str() == "*"
            && rights.contains(Rights::ADMIN)
            && self.decided.client(client.as_str()).as_ref() == only
    }

    fn names_a_tenant_that_exists(&self, plan: &Plan) -> bool {
        match &plan.submission.command {
            Command::CreateTenant { name } => plan::tenant(&self.decided, name.as_str()).is_some(),
            _ => false,
        }
    }
}

fn is_out_of_range(command: &Command) -> bool {
    match command {
        Command::IssueTokens(IssueTokens { subjects, ttl_s, not_before_s, renewable_s, .. }) => {
            subjects.is_empty()
                || *ttl_s == 0
                || not_before_s >= ttl_s
                || (*renewable_s > 0 && renewable_s < ttl_s)
        }
        Command::RenewToken { ttl_s, .. } => *ttl_s == 0,
        Command::GrantRights(change) | Command::WithdrawRights(change) => change.rights.is_empty(),
        _ => false,
    }
}
