//! One incarnation of the server: sequencer, view and sessions, between one start and the crash that ends it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use jeton_core::batch::{ChainEnd, OpenBatch};
use jeton_core::check::Checks;
use jeton_core::command::Submission;
use jeton_core::fair_queue::{FairQueue, QueueLimits, Serving};
use jeton_core::inspection::{ClaimsInfo, ClientInfo, Inspection, SubjectInfo};
use jeton_core::numbers::{ClaimsNo, LogId, Partition, Sequence, SubjectNo};
use jeton_core::recovery::{Replay, ReplayAnchor, ReplayError};
use jeton_core::rights::Caller;
use jeton_core::sequencer::{Restrictions, Sequencer};
use jeton_core::state::{State, StateConfig};
use jeton_core::time::Millis;
use jeton_core::token::TokenId;
use jeton_core::verdict::Answer;
use jeton_core::view::{Reader, View};
use jeton_wire::Session;
use jeton_wire::doors::{QueueFull, Submit, Ticket, Validate};

use super::client::Route;
use super::disk::Disk;
use super::oracle::Standing;
use super::turns::Turns;
use super::workload::Asking;
use super::world::Writing;

pub(super) const LOG: LogId = LogId([7; 16]);
pub(super) const PARTITION: Partition = Partition(0);
/// Commands that wait for the sequencer; small, so that it is full now and then.
const QUEUE: QueueLimits = QueueLimits { commands_max: 16, per_client_max: 10 };

/// A command that waits for the sequencer: the connection and ticket that it came with, and what it is.
pub(super) type Waiting = ((u64, Ticket), Submission);

/// Something that a session asked of the reading door, and what it was told.
pub(super) enum Asked {
    /// Who is the client of this identity?
    Caller(String, Arc<Caller>),
    /// Tokens with the check of each.
    Tokens { caller: Caller, tokens: Vec<([u8; 32], Asking)>, answers: Vec<Answer> },
    /// Whether this claim set is there.
    Claims(Caller, ClaimsNo, bool),
    /// The name of a subject.
    Subject(Caller, SubjectNo, Option<String>),
    /// Who may do what?
    Clients(Caller, Option<Vec<ClientInfo>>),
    /// A token.
    Token(Caller, TokenId, Option<Inspection>),
}

/// The two doors, as a shard would have them.
pub(super) struct Doors {
    view: View,
    pub(super) now: Cell<Millis>,
    asked: RefCell<Vec<Asked>>,
    queue: RefCell<FairQueue<(u64, Ticket)>>,
    /// What that has to come to.
    turns: RefCell<Turns>,
    /// The connection that is being served.
    serving: Cell<u64>,
}

impl Validate for Doors {
    fn log(&self) -> (LogId, Partition) {
        self.view.registry().log()
    }

    fn now(&self) -> Millis {
        self.now.get()
    }

    fn published(&self) -> Sequence {
        self.view.registry().published()
    }

    fn caller(&self, identity: &str) -> Arc<Caller> {
        let caller = self.view.registry().caller(identity);
        self.asked.borrow_mut().push(Asked::Caller(identity.to_owned(), Arc::clone(&caller)));
        caller
    }

    fn validate(&self, caller: &Caller, tokens: &[[u8; 32]], checks: Checks<'_>, answers: &mut Vec<Answer>) {
        let before = answers.len();
        self.view.validate(caller, self.now(), tokens, checks, answers);
        let asking = |at| checks.at(at).map(Asking::of).expect("each token has its check");
        self.asked.borrow_mut().push(Asked::Tokens {
            caller: caller.clone(),
            tokens: tokens.iter().enumerate().map(|(at, token)| (*token, asking(at))).collect(),
            answers: answers[before..].to_vec(),
        });
    }

    fn claims(&self, caller: &Caller, claims: ClaimsNo) -> Option<ClaimsInfo> {
        let info = self.view.registry().claims(caller, claims);
        self.asked.borrow_mut().push(Asked::Claims(caller.clone(), claims, info.is_some()));
        info
    }

    fn subject(&self, caller: &Caller, subject: SubjectNo) -> Option<SubjectInfo> {
        let info = self.view.registry().subject(caller, subject);
        let name = info.as_ref().and_then(|info| info.name.clone());
        self.asked.borrow_mut().push(Asked::Subject(caller.clone(), subject, name));
        info
    }

    fn inspect(&self, caller: &Caller, id: &TokenId) -> Option<Inspection> {
        let seen = self.view.inspect(caller, self.now(), id);
        self.asked.borrow_mut().push(Asked::Token(caller.clone(), *id, seen.clone()));
        seen
    }

    fn clients(&self, caller: &Caller) -> Option<Vec<ClientInfo>> {
        let clients = self.view.registry().clients(caller);
        self.asked.borrow_mut().push(Asked::Clients(caller.clone(), clients.clone()));
        clients
    }

    fn stats(&self, _: &Caller) -> Option<String> {
        None
    }
}

impl Submit for Doors {
    fn submit(&self, ticket: Ticket, submission: Submission) -> Result<(), QueueFull> {
        let kept = submission.clone();
        let taken = self.queue.borrow_mut().handle_submission((self.serving.get(), ticket), submission);
        let mut turns = self.turns.borrow_mut();
        match taken {
            Ok(()) => turns.taken_in(ticket, &kept),
            Err(_) => turns.turned_away(&kept),
        }
        taken.map_err(|_| QueueFull)
    }

    fn ring(&self) {}

    fn read_log(&self, _: Ticket, _: Sequence, _: u32) -> Result<(), QueueFull> {
        Err(QueueFull)
    }

    fn take_snapshot(&self, _: Ticket) -> Result<(), QueueFull> {
        Err(QueueFull)
    }
}

/// A server between a start and a crash.
pub(super) struct Node {
    pub(super) sequencer: Sequencer<(u64, Ticket)>,
    pub(super) doors: Doors,
    pub(super) sessions: BTreeMap<u64, Session>,
    pub(super) next_ticket: Ticket,
    /// The last events of the batches that are with the disk.
    pub(super) committing: Option<Vec<Sequence>>,
    pub(super) has_failed: bool,
    pub(super) is_stopping: bool,
    /// What it was last told to refuse.
    pub(super) restrictions: Restrictions,
    pub(super) turn_is_due: bool,
    pub(super) work_is_due: bool,
    /// A snapshot under way.
    pub(super) writing: Option<Writing>,
}

/// Small, so that the index has to grow, and segments fill up and are given up.
pub(super) fn config(tokens_max: u32) -> StateConfig {
    StateConfig { tokens_initial: 16, tokens_max, segment_records: 8, huge_pages: false }
}

/// Replays what a disk holds; the batches come back for the oracle.
pub(super) fn replay(
    disk: &Disk,
    tokens_max: u32,
    anchor: Option<ReplayAnchor>,
) -> Result<(State, Reader, ChainEnd, Vec<OpenBatch>), ReplayError> {
    let mut replay =
        Replay::new(LOG, PARTITION, config(tokens_max), anchor).expect("there is memory for 16 tokens");
    let batches = disk.batches().iter().map(|batch| replay.apply(&batch.bytes));
    let batches = batches.collect::<Result<Vec<_>, _>>()?;
    let (state, reader, end) = replay.finish()?;
    Ok((state, reader, end, batches))
}

impl Node {
    pub(super) fn new(state: State, reader: Reader, end: ChainEnd, now: Millis, quantum: u64) -> Self {
        let doors = Doors {
            view: View::new(reader, Arc::clone(state.registry())),
            now: Cell::new(now),
            asked: RefCell::default(),
            queue: RefCell::new(FairQueue::new(QUEUE)),
            turns: RefCell::new(Turns::new(quantum, QUEUE)),
            serving: Cell::new(0),
        };
        Self {
            sequencer: Sequencer::new(state, end),
            doors,
            sessions: BTreeMap::new(),
            next_ticket: 1,
            committing: None,
            has_failed: false,
            is_stopping: false,
            restrictions: Restrictions::default(),
            turn_is_due: false,
            work_is_due: false,
            writing: None,
        }
    }

    /// Gives a session bytes; what it has to say is appended to `out`. `false` closes the connection.
    pub(super) fn receive(&mut self, from: Route, data: &[u8], now_ms: u64, out: &mut Vec<u8>) -> bool {
        let Some(session) = self.sessions.get_mut(&from.connection) else { return true };
        self.doors.serving.set(from.connection);
        session.handle_data(from.stream, data, now_ms, &self.doors, &mut self.next_ticket, out).is_ok()
    }

    /// The next command for the sequencer, if it may decide one.
    pub(super) fn next_command(&self) -> Result<Option<Waiting>, String> {
        let serving = if self.sequencer.is_ahead() { Serving::Taking } else { Serving::Everything };
        let next = self.doors.queue.borrow_mut().poll_submission(serving);
        if let Some(((_, ticket), submission)) = &next {
            self.doors.turns.borrow_mut().served(*ticket, submission, serving)?;
        }
        Ok(next)
    }

    /// Tells it what to refuse.
    pub(super) fn restrict(&mut self, restrictions: Restrictions) {
        self.restrictions = restrictions;
        self.sequencer.set_restrictions(restrictions);
    }

    /// How things stand with it, for whoever decides what it has to refuse.
    pub(super) fn standing(&self) -> Standing {
        Standing { restrictions: self.restrictions, has_failed: self.has_failed }
    }

    /// Whether everybody was taken in for whom there was room, and nobody else.
    pub(super) fn check_taking_in(&self) -> Result<(), String> {
        self.doors.turns.borrow_mut().check()
    }

    /// A commit has left.
    pub(super) fn committed(&self) {
        self.doors.queue.borrow_mut().handle_commit();
    }

    /// How many clients wait for the sequencer.
    pub(super) fn clients_waiting(&self) -> usize {
        self.doors.turns.borrow().clients()
    }

    pub(super) fn has_commands(&self) -> bool {
        !self.doors.queue.borrow().is_empty()
    }

    pub(super) fn take_asked(&self) -> Vec<Asked> {
        self.doors.asked.take()
    }

    /// What the view says of tokens to somebody with every right, for checks that no client asked for.
    pub(super) fn look(&self, caller: &Caller, tokens: &[[u8; 32]], asking: &Asking) -> Vec<Answer> {
        let mut answers = Vec::new();
        let check = asking.check();
        self.doors.view.validate(caller, self.doors.now(), tokens, Checks::Same(&check), &mut answers);
        answers
    }

    /// Whether all is answered and handed to the disk.
    pub(super) fn is_idle(&self) -> bool {
        self.sequencer.is_idle() && self.committing.is_none() && !self.has_commands()
    }
}
