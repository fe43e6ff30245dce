//! The engine's two doors, as a shard sees them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::Sender;
use jeton_core::check::Checks;
use jeton_core::command::Submission;
use jeton_core::inspection::{ClaimsInfo, ClientInfo, Inspection, SubjectInfo};
use jeton_core::numbers::{ClaimsNo, LogId, Partition, Sequence, SubjectNo, TenantNo};
use jeton_core::rights::{Caller, Rights};
use jeton_core::time::Millis;
use jeton_core::token::TokenId;
use jeton_core::verdict::Answer;
use jeton_core::view::View;
use jeton_net::doors::{QueueFull, Submit, Ticket, Validate};
use jeton_net::server::{CounterValues, ReplyQueue, ShardCounters};

use super::post::Post;
use super::reader_thread::LogRead;
use super::{Command, Figures, ReplyTo};
use crate::clock::Clock;

/// Makes the doors of each shard.
#[derive(Clone)]
pub struct DoorMaker {
    pub(super) view: View,
    pub(super) clock: Clock,
    pub(super) commands: Post<Command>,
    pub(super) reads: Sender<LogRead>,
    pub(super) snapshots: Post<ReplyTo>,
    pub(super) figures: Arc<Figures>,
}

/// Both doors for one shard.
pub struct Doors {
    engine: DoorMaker,
    replies: ReplyQueue,
    /// The counters of all shards, for whoever asks one of them.
    shards: Vec<Arc<ShardCounters>>,
}

impl DoorMaker {
    /// Doors whose answers come back through `replies`, and that tell of `shards`.
    #[must_use]
    pub fn make(&self, replies: ReplyQueue, shards: Vec<Arc<ShardCounters>>) -> Doors {
        Doors { engine: self.clone(), replies, shards }
    }
}

impl std::fmt::Debug for DoorMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DoorMaker")
    }
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Doors")
    }
}

impl Validate for Doors {
    fn log(&self) -> (LogId, Partition) {
        self.engine.view.registry().log()
    }

    fn now(&self) -> Millis {
        self.engine.clock.now()
    }

    fn published(&self) -> Sequence {
        self.engine.view.registry().published()
    }

    fn caller(&self, identity: &str) -> Arc<Caller> {
        self.engine.view.registry().caller(identity)
    }

    fn validate(&self, caller: &Caller, tokens: &[[u8; 32]], checks: Checks<'_>, answers: &mut Vec<Answer>) {
        self.engine.view.validate(caller, self.engine.clock.now(), tokens, checks, answers);
    }

    fn claims(&self, caller: &Caller, claims: ClaimsNo) -> Option<ClaimsInfo> {
        self.engine.view.registry().claims(caller, claims)
    }

    fn subject(&self, caller: &Caller, subject: SubjectNo) -> Option<SubjectInfo> {
        self.engine.view.registry().subject(caller, subject)
    }

    fn inspect(&self, caller: &Caller, id: &TokenId) -> Option<Inspection> {
        self.engine.view.inspect(caller, self.engine.clock.now(), id)
    }

    fn clients(&self, caller: &Caller) -> Option<Vec<ClientInfo>> {
        self.engine.view.registry().clients(caller)
    }

    fn stats(&self, caller: &Caller) -> Option<String> {
        if !caller.may(Rights::AUDIT, TenantNo::EVERY) {
            return None;
        }
        let figures = &self.engine.figures;
        let (commits, commit_ns) = (figures.commits.load(Relaxed), figures.commit_ns.load(Relaxed));
        let stats = serde_json::json!({
            "log": self.log().0.to_string(),
            "published": self.published().0,
            "assigned": figures.assigned.load(Relaxed),
            "durable": figures.durable.load(Relaxed),
            "tokens": figures.tokens.load(Relaxed),
            "subjects": figures.subjects.load(Relaxed),
            "memory_bytes": figures.memory_bytes.load(Relaxed),
            "commits": commits,
            "commit_us_mean": commit_ns.checked_div(commits).unwrap_or(0) / 1_000,
            "log_bytes_written": figures.log_bytes.load(Relaxed),
            "snapshot_event": figures.snapshot_event.load(Relaxed),
            "snapshots": figures.snapshots.load(Relaxed),
            "snapshots_failed": figures.snapshots_failed.load(Relaxed),
            "log_failed": self.engine.view.registry().log_failed(),
            "clock_in_doubt": self.engine.clock.is_in_doubt(),
            "shards": self.shards.iter().map(|counters| shard_json(&counters.values())).collect::<Vec<_>>(),
        });
        Some(stats.to_string())
    }
}

fn shard_json(values: &CounterValues) -> serde_json::Value {
    // Only as far as there is anything: bucket n counts times below 2^n ns.
    let used = values.times.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
    serde_json::json!({
        "connections": values.connections,
        "requests": values.requests,
        "tokens": values.tokens,
        "valid": values.valid,
        "writes": values.writes,
        "busy": values.busy,
        "not_allowed": values.not_allowed,
        "protocol_errors": values.protocol_errors,
        "service_time_below_2n_ns": values.times[..used],
    })
}

impl Submit for Doors {
    fn submit(&self, ticket: Ticket, submission: Submission) -> Result<(), QueueFull> {
        let command = Command { reply_to: ReplyTo::Shard(self.replies.clone(), ticket), submission };
        self.engine.commands.submit(command)
    }

    fn ring(&self) {
        self.engine.commands.ring();
    }

    fn read_log(&self, ticket: Ticket, from: Sequence, bytes_max: u32) -> Result<(), QueueFull> {
        let reply_to = ReplyTo::Shard(self.replies.clone(), ticket);
        let read = LogRead { reply_to, from, bytes_max: bytes_max as usize };
        self.engine.reads.try_send(read).map_err(|_| QueueFull)
    }

    fn take_snapshot(&self, ticket: Ticket) -> Result<(), QueueFull> {
        let reply_to = ReplyTo::Shard(self.replies.clone(), ticket);
        self.engine.snapshots.try_send(reply_to).map_err(|_| QueueFull)
    }
}
