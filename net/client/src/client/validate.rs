//! Validates: by themselves through frames that calls share, batches in frames of their own.

use std::sync::atomic::{AtomicU64, Ordering};

use jeton_core::numbers::Sequence;
use jeton_core::token::Token;
use jeton_core::verdict::Answer;
use jeton_wire::request::encode_validate;
use jeton_wire::response::Response;
use tokio::time::Instant;

use super::{Client, unexpected};
use crate::config::Coalesce;
use crate::gather::{Frame, Question, Reply, Wire};
use crate::{Check, Error};

/// What the answers of a validate must rest on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// On what the server has published, which is everything it has acknowledged.
    #[default]
    Latest,
    /// On this event at least.
    AtLeast(Sequence),
    /// On everything that this client was told of, by whatever server.
    ReadYourWrites,
}

/// How much a client has asked so far. More tokens than frames is what gathering is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValidateCounts {
    /// Tokens asked about, in whatever frame.
    pub tokens: u64,
    /// Frames they went in; one that is sent anew on another connection counts once.
    pub frames: u64,
}

/// As [`ValidateCounts`], while it grows.
#[derive(Debug, Default)]
pub(super) struct Asked {
    tokens: AtomicU64,
    frames: AtomicU64,
}

/// Calls reach the server as frames of the client's own connections.
impl Wire for Client {
    async fn ask_frame(&self, frame: &Frame) -> Result<Reply, Error> {
        let Frame { tokens, checks, indexes, min_sequence } = frame;
        // Statistics only: nothing is ordered by them.
        self.0.asked.tokens.fetch_add(tokens.len() as u64, Ordering::Relaxed);
        self.0.asked.frames.fetch_add(1, Ordering::Relaxed);
        let checks: Vec<_> = checks.iter().map(Check::on_wire).collect();
        let mut bytes = Vec::with_capacity(frame.bytes_max());
        encode_validate(0, tokens, &checks, indexes.as_deref(), *min_sequence, true, &mut bytes);
        match self.ask(&bytes).await? {
            (Response::Answers { published, answers }, log) => {
                self.saw(log, published);
                Ok(Reply::Answers(answers))
            }
            (Response::Behind { published }, _) => Ok(Reply::Behind(published)),
            _ => Err(unexpected()),
        }
    }

    async fn turn(&self) {
        tokio::task::yield_now().await;
    }
}

impl Client {
    /// Asks whether one token is good.
    ///
    /// Calls of many tasks at a time share frames, see [`Coalesce`]; each has its own answer, error and deadline, and can
    /// be given up without a trace.
    ///
    /// # Errors
    /// [`Error`]; a denial is an answer, not an error. [`Error::Busy`] without asking the server if too many calls wait.
    pub async fn validate(&self, token: &Token, check: &Check) -> Result<Answer, Error> {
        self.validate_at(token, check, Consistency::Latest).await
    }

    /// As [`Self::validate`], with what the answer must rest on.
    ///
    /// A call that asks for an event shares frames only with others that do; one for an event that this client has not
    /// heard of yet has a frame of its own, for the server may take its time to answer.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Behind`] if the server has not reached what `consistency` asks for.
    pub async fn validate_at(
        &self,
        token: &Token,
        check: &Check,
        consistency: Consistency,
    ) -> Result<Answer, Error> {
        check.check_bounds()?;
        let began = Instant::now();
        let asking = async {
            let min_sequence = self.min_sequence(consistency).await?;
            let lane = match &self.0.lanes {
                Some(lanes) if min_sequence.0 == 0 => &lanes.anything,
                Some(lanes) if min_sequence <= self.seen().1 => &lanes.published,
                _ => {
                    let answers = self.validate_frame(&[token.to_bytes()], check, min_sequence).await?;
                    return answers.first().copied().ok_or_else(unexpected);
                }
            };
            let question = Question { token: token.to_bytes(), check: check.clone(), min_sequence };
            let answer = lane.ask(self, question)?;
            // Only the end of the runtime drops a question without an answer.
            answer.await.map_err(|_| Error::Closed("the client has ended".to_owned()))?
        };
        let answered = tokio::time::timeout(self.0.config.deadline, asking).await;
        answered.unwrap_or_else(|_| Err(self.too_late(began)))
    }

    /// Asks about many tokens at once; the answers come in their order.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Behind`] if the server has not reached what `consistency` asks for.
    pub async fn validate_batch(
        &self,
        tokens: &[Token],
        check: &Check,
        consistency: Consistency,
    ) -> Result<Vec<Answer>, Error> {
        check.check_bounds()?;
        let bytes: Vec<[u8; 32]> = tokens.iter().map(Token::to_bytes).collect();
        let min_sequence = self.min_sequence(consistency).await?;
        let mut answers = Vec::with_capacity(tokens.len());
        for tokens in bytes.chunks(Coalesce::DEFAULT.frame_tokens_max) {
            answers.extend(self.validate_frame(tokens, check, min_sequence).await?);
        }
        Ok(answers)
    }

    /// Asks about these tokens in a frame of their own.
    async fn validate_frame(
        &self,
        tokens: &[[u8; 32]],
        check: &Check,
        min_sequence: Sequence,
    ) -> Result<Vec<Answer>, Error> {
        let checks = vec![check.clone()];
        let frame = Frame { tokens: tokens.to_vec(), checks, indexes: None, min_sequence };
        match self.ask_frame(&frame).await? {
            Reply::Answers(answers) if answers.len() == tokens.len() => Ok(answers),
            Reply::Answers(_) => Err(unexpected()),
            Reply::Behind(published) => Err(Error::Behind { published: published.0 }),
        }
    }

    async fn min_sequence(&self, consistency: Consistency) -> Result<Sequence, Error> {
        Ok(match consistency {
            Consistency::Latest => Sequence(0),
            Consistency::AtLeast(sequence) => sequence,
            Consistency::ReadYourWrites => {
                let log = self.linked().await?.ack.log;
                let (of, sequence) = *self.seen();
                if of == log { sequence } else { Sequence(0) }
            }
        })
    }

    /// How much this client and its clones have asked so far.
    #[must_use]
    pub fn validate_counts(&self) -> ValidateCounts {
        let Asked { tokens, frames } = &self.0.asked;
        ValidateCounts { tokens: tokens.load(Ordering::Relaxed), frames: frames.load(Ordering::Relaxed) }
    }
}
