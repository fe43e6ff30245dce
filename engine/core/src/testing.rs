//! What the tests of state and sequencer share: a whole engine without threads, clock or disk.

use crate::batch::{ChainEnd, SealedBatch};
use crate::check::{Check, Checks};
use crate::claims::{Claims, Name};
use crate::command::{Command, IssueTokens, RevokeTarget, Submission};
use crate::numbers::{ClientNo, IdempotencyKey, LogId, Partition};
use crate::outcome::{Outcome, Rejection, RevokeReport};
use crate::recovery::Replay;
use crate::sequencer::{FIRST_TENANT, Sequencer};
use crate::state::{State, StateConfig};
use crate::time::Millis;
use crate::token::Token;
use crate::verdict::{Answer, Verdict};
use crate::view::View;

pub(crate) const ADMIN: &str = "spiffe://test/admin";
pub(crate) const START: Millis = Millis(1_700_000_000_000);
pub(crate) const LOG: LogId = LogId([9; 16]);
pub(crate) const SMALL: StateConfig =
    StateConfig { tokens_initial: 16, tokens_max: 10_000, segment_records: 8, huge_pages: false };

pub(crate) struct Engine {
    pub(crate) sequencer: Sequencer<u32>,
    pub(crate) view: View,
    pub(crate) now: Millis,
    /// What the log has, durable or not.
    pub(crate) log: Vec<SealedBatch>,
    seed: u64,
    tickets: u32,
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl Engine {
    pub(crate) fn new() -> Self {
        let (state, reader) = State::new(LOG, Partition(0), SMALL).unwrap();
        let view = View::new(reader, state.registry().clone());
        let sequencer = Sequencer::new(state, ChainEnd::genesis(LOG, Partition(0)));
        let mut engine = Self { sequencer, view, now: START, log: Vec::new(), seed: 1, tickets: 0 };
        engine.sequencer.handle_creation(ADMIN, START);
        engine.settle();
        engine
    }

    /// Hands a command over and returns its ticket; nothing becomes durable.
    pub(crate) fn submit_as(&mut self, actor: u32, key: Option<u16>, command: Command) -> u32 {
        self.tickets += 1;
        let seed = &mut self.seed;
        let mut entropy = |bytes: &mut [u8]| {
            *seed += 1;
            let hash = blake3::hash(&seed.to_le_bytes());
            bytes.iter_mut().zip(hash.as_bytes().iter().cycle()).for_each(|(to, from)| *to = *from);
        };
        let key = key.map(|number| IdempotencyKey(std::array::from_fn(|at| number.to_le_bytes()[at % 2])));
        let submission = Submission { actor: ClientNo(actor), key, command };
        self.sequencer.handle_submission(self.tickets, submission, self.now, &mut entropy);
        self.tickets
    }

    /// Carries everything on, makes it durable and returns the answers.
    pub(crate) fn settle(&mut self) -> Vec<(u32, Result<Outcome, Rejection>)> {
        loop {
            while self.sequencer.has_work() {
                self.sequencer.handle_work(self.now);
            }
            let Some(commit) = self.sequencer.poll_commit() else { break };
            let last = commit.last();
            self.log.extend(commit.batches);
            self.sequencer.handle_durable(last);
        }
        std::iter::from_fn(|| self.sequencer.poll_reply())
            .map(|(ticket, reply)| (ticket, reply.result))
            .collect()
    }

    pub(crate) fn run_as(
        &mut self,
        actor: u32,
        key: Option<u16>,
        command: Command,
    ) -> Result<Outcome, Rejection> {
        let ticket = self.submit_as(actor, key, command);
        self.settle().into_iter().find(|(of, _)| *of == ticket).unwrap().1
    }

    pub(crate) fn run(&mut self, command: Command) -> Result<Outcome, Rejection> {
        self.run_as(1, None, command)
    }

    pub(crate) fn issue(&mut self, change: impl FnOnce(&mut IssueTokens)) -> Token {
        let command = issue_command(change);
        match self.run(command) {
            Ok(Outcome::Issued { mut tokens, .. }) => tokens.remove(0),
            other => panic!("not issued: {other:?}"),
        }
    }

    pub(crate) fn revoke(&mut self, target: RevokeTarget) -> RevokeReport {
        match self.run(Command::Revoke(target)) {
            Ok(Outcome::Revoked(report)) => report,
            other => panic!("not revoked: {other:?}"),
        }
    }

    /// The token of the last issue, whose answer is still held: as only a test can get at it.
    pub(crate) fn undelivered(&self) -> Token {
        match self.sequencer.last_held() {
            Some(Ok(Outcome::Issued { tokens, .. })) => tokens[0].clone(),
            other => panic!("no issue is held: {other:?}"),
        }
    }

    pub(crate) fn ask(&self, token: &Token, check: &Check<'_>) -> Answer {
        let caller = self.view.registry().caller(ADMIN);
        let mut answers = Vec::new();
        self.view.validate(&caller, self.now, &[token.to_bytes()], Checks::Same(check), &mut answers);
        answers[0]
    }

    pub(crate) fn verdict(&self, token: &Token) -> Verdict {
        self.ask(token, &Check::default()).verdict
    }

    pub(crate) fn pass_s(&mut self, seconds: u64) {
        self.now = Millis(self.now.0 + seconds * 1_000);
    }

    /// The digest of the state after a replay of the whole log.
    pub(crate) fn digest_replayed(&self) -> [u8; 32] {
        let mut replay = Replay::new(LOG, Partition(0), SMALL, None).unwrap();
        for batch in &self.log {
            replay.apply(&batch.bytes).unwrap();
        }
        replay.state().digest()
    }

    pub(crate) fn assert_replays(&self) {
        assert_eq!(
            self.sequencer.state().digest(),
            self.digest_replayed(),
            "a replay ends in the same state"
        );
    }
}

/// An ordinary issue for alice, an hour long, with what the test wants otherwise.
pub(crate) fn issue_command(change: impl FnOnce(&mut IssueTokens)) -> Command {
    let grants = ["read,comment on journal/42".parse().unwrap()];
    let mut issue = IssueTokens {
        tenant: name(FIRST_TENANT),
        subjects: vec![name("alice")],
        claims: Claims::new([], [], grants, std::collections::BTreeMap::new()).unwrap(),
        ttl_s: 3_600,
        not_before_s: 0,
        renewable_s: 0,
        uses_max: 0,
        parent: None,
        binding: None,
    };
    change(&mut issue);
    Command::IssueTokens(issue)
}
