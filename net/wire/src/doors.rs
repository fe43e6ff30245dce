//! The two doors into the engine, and the queue its answers come back through.
//!
//! This crate knows the engine only by these traits: whatever validates answers at once, on the shard's own thread;
//! whatever writes is handed over a bounded queue and answered later, by ticket.

use std::sync::Arc;

use jeton_core::check::Checks;
use jeton_core::command::Submission;
use jeton_core::inspection::{ClaimsInfo, ClientInfo, Inspection, SubjectInfo};
use jeton_core::numbers::{ClaimsNo, LogId, Partition, Sequence, SubjectNo};
use jeton_core::outcome::Reply;
use jeton_core::rights::Caller;
use jeton_core::time::Millis;
use jeton_core::token::TokenId;
use jeton_core::verdict::Answer;

/// The reading door: no lock, no queue, no write. One clone lives on each shard.
pub trait Validate: 'static {
    /// The log that answers come from.
    fn log(&self) -> (LogId, Partition);

    /// The engine's time.
    fn now(&self) -> Millis;

    /// The last event that answers given now rest on.
    fn published(&self) -> Sequence;

    /// The client of this identity with its rights of this moment; a stranger has none.
    fn caller(&self, identity: &str) -> Arc<Caller>;

    /// Answers for `tokens` (16 bytes id, 16 bytes secret), in order, appended to `answers`.
    fn validate(&self, caller: &Caller, tokens: &[[u8; 32]], checks: Checks<'_>, answers: &mut Vec<Answer>);

    /// A claim set of a tenant in which the caller may validate or inspect.
    fn claims(&self, caller: &Caller, claims: ClaimsNo) -> Option<ClaimsInfo>;

    /// A subject of a tenant in which the caller may validate or inspect.
    fn subject(&self, caller: &Caller, subject: SubjectNo) -> Option<SubjectInfo>;

    /// A token of a tenant in which the caller may inspect.
    fn inspect(&self, caller: &Caller, id: &TokenId) -> Option<Inspection>;

    /// The clients of the tenants that the caller administers; `None` if it administers none.
    fn clients(&self, caller: &Caller) -> Option<Vec<ClientInfo>>;

    /// Counters and histograms of the whole server as JSON, for callers with the audit right everywhere; `None`
    /// without it.
    fn stats(&self, caller: &Caller) -> Option<String>;
}

/// Identifies a request within one shard until its answer has come.
pub type Ticket = u64;

/// The queue is full; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// The writing door, bounded. One clone lives on each shard and answers come back to that shard's queue.
pub trait Submit: 'static {
    /// Hands a command over. Whoever takes it may sleep on until [`Self::ring`].
    ///
    /// # Errors
    /// [`QueueFull`]: nothing was taken, the client is told to come back.
    fn submit(&self, ticket: Ticket, submission: Submission) -> Result<(), QueueFull>;

    /// Wakes whoever takes commands, once for all that were submitted since the last time.
    fn ring(&self);

    /// Asks for sealed batches from the one that holds event `from`, about `bytes_max` bytes of them.
    ///
    /// # Errors
    /// [`QueueFull`].
    fn read_log(&self, ticket: Ticket, from: Sequence, bytes_max: u32) -> Result<(), QueueFull>;

    /// Asks for a snapshot; it is answered once that is there.
    ///
    /// # Errors
    /// [`QueueFull`].
    fn take_snapshot(&self, ticket: Ticket) -> Result<(), QueueFull>;
}

/// An answer on its way back to a shard.
#[derive(Debug)]
pub enum DoorReply {
    /// To a command.
    Command(Reply),
    /// To a read of the log.
    Log(Result<LogPage, String>),
    /// To an order for a snapshot.
    Snapshot(Result<SnapshotTaken, String>),
}

/// A snapshot that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotTaken {
    /// The event it is of.
    pub sequence: Sequence,
    /// Tokens in it, dead ones that were not reclaimed yet among them.
    pub tokens: u64,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Of these, bytes that had to be written; the rest was there from an earlier one.
    pub bytes_written: u64,
}

/// A stretch of the log, as stored.
#[derive(Debug)]
pub struct LogPage {
    /// The first event still in the log.
    pub first: Sequence,
    /// The last durable event.
    pub head: Sequence,
    /// Sealed batches in order; empty past the head.
    pub batches: Vec<Vec<u8>>,
}
