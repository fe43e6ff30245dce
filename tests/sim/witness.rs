//! What clients can see from outside: the promises that do not need to know how the server works.

use std::collections::{BTreeMap, BTreeSet};

use jeton_core::command::{Command, RevokeTarget};
use jeton_core::numbers::Sequence;
use jeton_core::outcome::{Outcome, Reply};
use jeton_core::token::TokenId;
use jeton_core::verdict::{Answer, Verdict};
use jeton_wire::response::Response;

use super::client::Heard;
use super::model::Model;
use super::oracle::is_of_kind;
use super::seen::Seen;
use super::workload::Ask;

/// Everything clients were told, as far as it binds the server.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// Tokens whose revoke was acknowledged, and the step in which a client heard of it.
    killed: BTreeMap<TokenId, u64>,
    /// What a revoke kills, by connection and request, until its acknowledgement arrives.
    on_their_way: BTreeMap<(u64, u64), BTreeSet<TokenId>>,
    /// Uses that were granted, by key; one without a key counts by its request.
    spent: BTreeMap<TokenId, BTreeSet<[u8; 16]>>,
    /// The last event that any answer named as published.
    published: Sequence,
    /// The last event that an acknowledged write rests on.
    acknowledged: Sequence,
    pub(super) writes: u64,
    pub(super) seen: Seen,
}

impl Witness {
    /// The acknowledgement of a revoke leaves the server.
    pub(super) fn send_kills(&mut self, connection: u64, request: u64, kills: BTreeSet<TokenId>) {
        if !kills.is_empty() {
            self.on_their_way.insert((connection, request), kills);
        }
    }

    /// How far the log is published, by all that clients have heard.
    pub(super) fn published(&self) -> Sequence {
        self.published.max(self.acknowledged)
    }

    /// A client hears an answer.
    pub(super) fn hear(
        &mut self,
        connection: u64,
        heard: &Heard,
        published: &Model,
        step: u64,
    ) -> Result<(), String> {
        match (&heard.response, &heard.sent.ask) {
            (Response::Answers { published, answers }, Ask::Validate { tokens, .. }) => {
                if *published < heard.sent.floor {
                    return Err(format!(
                        "an answer rests on {published}, and {} was published before",
                        heard.sent.floor
                    ));
                }
                self.published = self.published.max(*published);
                if *published < heard.sent.min_sequence {
                    return Err("an answer rests on less than was asked for".to_owned());
                }
                if answers.len() != tokens.len() {
                    return Err("not one answer for each token".to_owned());
                }
                tokens.iter().zip(answers).try_for_each(|(token, answer)| self.verdict(token, answer, heard))
            }
            (Response::Written { reply, .. }, Ask::Write(key, command)) => {
                if reply.result.as_ref().is_ok_and(|outcome| !is_of_kind(command, outcome)) {
                    return Err("an outcome of another kind of command".to_owned());
                }
                self.written(reply, command, (connection, heard.request), step);
                self.consumed(reply, command, *key, (connection, heard), published)
            }
            (Response::Answers { .. } | Response::Written { .. }, _) => {
                Err("an answer to another question".to_owned())
            }
            (other, _) => {
                self.note(other);
                Ok(())
            }
        }
    }

    fn note(&mut self, response: &Response) {
        match response {
            Response::Busy { .. } => self.seen.note("busy"),
            Response::Behind { .. } => self.seen.note("behind"),
            Response::NotAllowed => self.seen.note("not allowed"),
            Response::Clients(_) => self.seen.note("clients listed"),
            Response::Claims(Some(_)) => self.seen.note("claims shown"),
            Response::Subject(Some(_)) => self.seen.note("subject shown"),
            Response::Inspection(Some(_)) => self.seen.note("token inspected"),
            _ => {}
        }
    }

    /// The cardinal sin: to call a token live, to a question that was sent after its revoke had been acknowledged.
    fn verdict(&self, token: &[u8; 32], answer: &Answer, heard: &Heard) -> Result<(), String> {
        let id = TokenId(*token.first_chunk().expect("32 bytes begin with 16"));
        let is_live =
            matches!(answer.verdict, Verdict::Valid | Verdict::ConsumeRequired | Verdict::Forbidden);
        if is_live { self.may_live(id, heard) } else { Ok(()) }
    }

    fn may_live(&self, id: TokenId, heard: &Heard) -> Result<(), String> {
        match self.killed.get(&id) {
            Some(at) if *at < heard.sent.step => Err(format!(
                "token {id} is live to a question of step {}, its revoke was acknowledged in step {at}",
                heard.sent.step
            )),
            _ => Ok(()),
        }
    }

    fn written(&mut self, reply: &Reply, command: &Command, request: (u64, u64), step: u64) {
        let mut kills = self.on_their_way.remove(&request).unwrap_or_default();
        if reply.result.is_err() {
            return;
        }
        self.writes += 1;
        self.acknowledged = self.acknowledged.max(reply.sequence);
        if let Command::Revoke(target) = command {
            kills.extend(named(target));
        }
        for id in kills {
            self.killed.entry(id).or_insert(step);
        }
    }

    fn consumed(
        &mut self,
        reply: &Reply,
        command: &Command,
        key: Option<[u8; 16]>,
        (connection, heard): (u64, &Heard),
        published: &Model,
    ) -> Result<(), String> {
        let (Ok(Outcome::Consumed { answer, .. }), Command::ConsumeToken(consume)) = (&reply.result, command)
        else {
            return Ok(());
        };
        if answer.verdict != Verdict::Valid {
            return Ok(());
        }
        let id = consume.token.id;
        // With a key it may be what was granted before.
        if key.is_none() {
            self.may_live(id, heard)?;
        }
        let token = published.tokens.get(&id).ok_or("a use of a token was granted that the log has not")?;
        let spent = self.spent.entry(id).or_default();
        spent.insert(key.unwrap_or(unique(connection, heard.request)));
        if token.uses_max > 0 && spent.len() > token.uses_max as usize {
            return Err(format!("token {id} was used {} times, of {}", spent.len(), token.uses_max));
        }
        Ok(())
    }

    /// After a recovery the log has to hold everything that was acknowledged.
    pub(super) fn recovered(&self, head: Sequence) -> Result<(), String> {
        if head < self.acknowledged {
            return Err(format!(
                "the log ends at {head} after a recovery, and {} was acknowledged",
                self.acknowledged
            ));
        }
        Ok(())
    }
}

/// The token that a revoke names by itself: dead once that is acknowledged, whatever the model says.
fn named(target: &RevokeTarget) -> Option<TokenId> {
    match target {
        RevokeTarget::Token(token) => Some(token.id),
        RevokeTarget::Id(id) | RevokeTarget::Family(id) => Some(*id),
        _ => None,
    }
}

/// Stands for the key of a request that has none.
fn unique(connection: u64, request: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&connection.to_le_bytes());
    key[8..].copy_from_slice(&request.to_le_bytes());
    key
}
