//! The server's side of the world: the sequencer's turns, the disk's answers, and the checks after each.

use jeton_core::numbers::{ClientNo, TenantNo};
use jeton_core::outcome::Outcome;
use jeton_core::rights::{Caller, Rights};
use jeton_core::sequencer::Restrictions;
use jeton_wire::Session;
use jeton_wire::doors::{DoorReply, Validate as _};

use super::super::Mistake;
use super::super::client::Route;
use super::super::node::replay;
use super::super::workload::{ADMIN, Asking, OTHER_SERVICE, SERVICE};
use super::{Event, TO_CLIENT, World};

const HOUSEKEEPING_MS: u64 = 40;
const ANCHOR_MS: u64 = 1_000;
const FULL_RETRY_MS: u64 = 100;
/// Tokens that are looked at after each turn, beside those that clients ask about.
const LOOKED_AT: usize = 4;

/// Somebody who may see everything.
fn everybody() -> Caller {
    let mut caller = Caller::new(ClientNo(u32::MAX));
    caller.set(TenantNo::EVERY, Rights::ALL);
    caller
}

impl World {
    pub(super) fn server_hears(&mut self, on: Route, bytes: &[u8]) -> Result<(), String> {
        let connection = on.connection;
        let now = self.engine_now();
        let link = &self.links[&connection];
        if link.is_closed_at_server {
            return Ok(());
        }
        let identity = self.clients[link.client].identity;
        let Some(node) = &mut self.node else {
            self.close_at_server(connection);
            self.soon(200, Event::CutSeenByClient(connection));
            return Ok(());
        };
        node.sessions.entry(connection).or_insert_with(|| Session::new(identity.to_owned()));
        node.doors.now.set(now);
        let mut out = Vec::new();
        if !node.receive(on, bytes, self.now, &mut out) {
            return Err("the server refuses what a client says in order".to_owned());
        }
        let asked = node.take_asked();
        node.check_taking_in()?;
        let has_commands = node.has_commands();
        self.oracle.check_asked(&asked, now.0, node.has_failed)?;
        self.send(TO_CLIENT, on, &out);
        if has_commands {
            self.plan_turn();
        }
        Ok(())
    }

    fn plan_turn(&mut self) {
        let Some(node) = &mut self.node else { return };
        if !std::mem::replace(&mut node.turn_is_due, true) {
            self.soon(self.faults.turn_ms, Event::Turn(self.incarnation));
        }
    }

    /// The sequencer decides on what is in its queue, or a part of it.
    pub(super) fn turn(&mut self) -> Result<(), String> {
        let now = self.engine_now();
        let Some(node) = &mut self.node else { return Ok(()) };
        node.turn_is_due = false;
        let mut is_all_decided = false;
        for _ in 0..1 + self.rng.below(6) {
            if node.clients_waiting() > 2 {
                self.report.seen.note("three clients waited for their turns");
            }
            let is_ahead = node.sequencer.is_ahead();
            let Some(((connection, ticket), submission)) = node.next_command()? else {
                is_all_decided = true;
                break;
            };
            if is_ahead {
                self.report.seen.note("decided ahead of a full commit");
            }
            let plan = self.oracle.plan(submission.clone(), now.0, node.standing());
            let rng = &mut self.rng;
            let mut entropy = |bytes: &mut [u8]| rng.fill(bytes);
            node.sequencer.handle_submission((connection, ticket), submission, now, &mut entropy);
            self.oracle.decided_on((connection, ticket), plan, &node.sequencer)?;
        }
        // What may not be decided yet is tried again once a commit has left.
        if node.has_commands() && !is_all_decided {
            self.plan_turn();
        }
        self.after_input()
    }

    /// Revokes by subject are carried on.
    pub(super) fn work(&mut self) -> Result<(), String> {
        let now = self.engine_now();
        let Some(node) = &mut self.node else { return Ok(()) };
        node.work_is_due = false;
        node.sequencer.handle_work(now);
        self.oracle.worked(&node.sequencer)?;
        self.after_input()
    }

    /// What follows on any input: more work, a commit, answers; and a look at what readers see now.
    pub(super) fn after_input(&mut self) -> Result<(), String> {
        self.commit();
        self.maybe_snapshot();
        let Some(node) = &mut self.node else { return Ok(()) };
        if node.sequencer.state().is_growing() {
            self.report.seen.note("a table on its way to the next");
        }
        if node.sequencer.has_work() && !std::mem::replace(&mut node.work_is_due, true) {
            let slow = if self.rng.one_in(4) { self.faults.slow_work } else { 1 };
            self.soon(self.faults.work_ms * slow, Event::Work(self.incarnation));
        }
        self.reply()?;
        self.look()
    }

    fn commit(&mut self) {
        let Some(node) = &mut self.node else { return };
        if node.committing.is_some() {
            let unsealed = node.sequencer.unsealed().count();
            node.sequencer.seal_ahead();
            if node.sequencer.unsealed().count() < unsealed {
                self.report.seen.note("sealed ahead of a commit");
            }
            return;
        }
        let Some(commit) = node.sequencer.poll_commit() else { return };
        node.committing = Some(commit.batches.iter().map(|batch| batch.last).collect());
        node.committed();
        let has_commands = node.has_commands();
        self.disk.write(&commit);
        let slow = if self.rng.one_in(12) { 30 } else { 1 };
        let at =
            if self.mistake == Some(Mistake::DurableBeforeSync) { 0 } else { self.faults.disk_ms * slow };
        self.soon(at, Event::Synced(self.incarnation));
        if has_commands {
            self.plan_turn();
        }
    }

    /// The disk answers.
    pub(super) fn synced(&mut self) -> Result<(), String> {
        let now = self.engine_now();
        if self.now < self.full_until {
            self.report.seen.note("a commit waited for space");
            self.schedule(self.now + FULL_RETRY_MS, Event::Synced(self.incarnation));
            return Ok(());
        }
        let fails = self.rng.below(1_000) < self.faults.fail_per_mille;
        let lies = self.rng.percent(self.faults.lie_percent);
        let Some(node) = &mut self.node else { return Ok(()) };
        let Some(ends) = node.committing.take() else { return Ok(()) };
        node.doors.now.set(now);
        if fails {
            self.report.seen.note("the log failed");
            node.sequencer.handle_failure();
            node.has_failed = true;
            self.oracle.failed();
            let has_commands = node.has_commands();
            let wait = self.rng.within(50..1_200);
            self.schedule(self.now + wait, Event::Fault(super::Fault::Crash));
            if has_commands {
                self.plan_turn();
            }
            return self.after_input();
        }
        match self.mistake {
            Some(Mistake::DurableBeforeSync) => {}
            _ if lies => self.disk.lie(),
            _ => self.disk.sync(),
        }
        // A store may say so batch by batch, or once for all of them.
        let said = if self.rng.one_in(2) { &ends[ends.len() - 1..] } else { &ends[..] };
        for end in said {
            node.sequencer.handle_durable(*end);
            self.oracle.publish(*end);
        }
        let mut outputs = Vec::new();
        for (connection, session) in &mut node.sessions {
            let connection = *connection;
            session.handle_published(&node.doors, |stream, bytes| {
                outputs.push((Route { connection, stream }, bytes.to_vec()));
            });
        }
        let asked = node.take_asked();
        self.oracle.check_asked(&asked, now.0, node.has_failed)?;
        for (on, bytes) in outputs {
            self.send(TO_CLIENT, on, &bytes);
        }
        self.after_input()
    }

    fn reply(&mut self) -> Result<(), String> {
        let mut outputs = Vec::new();
        let now = self.engine_now();
        let Some(node) = &mut self.node else { return Ok(()) };
        node.doors.now.set(now);
        while let Some(((connection, ticket), reply)) = node.sequencer.poll_reply() {
            if reply.sequence > self.disk.reported() {
                return Err(format!(
                    "an answer rests on {}, and the disk has less: {reply:?}",
                    reply.sequence
                ));
            }
            let kills = self.oracle.replied((connection, ticket), &reply)?;
            // What is acknowledged as revoked is denied by now: looked at before anything else happens.
            kills.iter().for_each(|id| drop(node.doors.inspect(&everybody(), id)));
            if let Ok(Outcome::Issued { tokens, .. }) = &reply.result {
                self.tokens.extend(tokens.iter().map(|token| (token.id, token.to_bytes())));
            }
            let Some(session) = node.sessions.get_mut(&connection) else { continue };
            let mut out = Vec::new();
            let reply = DoorReply::Command(reply);
            let Some(stream) = session.handle_reply(ticket, reply, &node.doors, &mut out) else { continue };
            let number = out.get(8..16).and_then(|bytes| bytes.first_chunk()).copied();
            let request = u64::from_le_bytes(number.ok_or("an answer has no header")?);
            self.witness.send_kills(connection, request, kills);
            let is_forgotten = self.mistake == Some(Mistake::AnswerForgotten) && request.is_multiple_of(16);
            if !is_forgotten {
                outputs.push((Route { connection, stream }, out));
            }
        }
        for (on, out) in outputs {
            self.send(TO_CLIENT, on, &out);
        }
        Ok(())
    }

    /// What readers see of what has just changed, and of some other tokens.
    fn look(&mut self) -> Result<(), String> {
        let now = self.engine_now();
        let Some(node) = &mut self.node else { return Ok(()) };
        node.doors.now.set(now);
        let everybody = everybody();
        for identity in [ADMIN, SERVICE, OTHER_SERVICE] {
            node.doors.caller(identity);
        }
        for id in self.oracle.latest_tokens(LOOKED_AT) {
            node.doors.inspect(&everybody, &id);
            let Some(bytes) = self.tokens.get(&id) else { continue };
            let asking = Asking::default();
            let told = node.look(&everybody, &[*bytes], &asking);
            self.oracle.check_answer(&everybody, bytes, &asking, &told[0], now.0, node.has_failed)?;
        }
        let asked = node.take_asked();
        self.oracle.check_asked(&asked, now.0, node.has_failed)
    }

    /// Every token that was ever shown, compared with the model.
    pub(super) fn look_at_all(&mut self) -> Result<(), String> {
        let now = self.engine_now();
        let Some(node) = &mut self.node else { return Ok(()) };
        node.doors.now.set(now);
        let tokens: Vec<_> = self.tokens.values().copied().collect();
        let asking = Asking::default();
        let told = node.look(&everybody(), &tokens, &asking);
        for (bytes, told) in tokens.iter().zip(&told) {
            self.oracle.check_answer(&everybody(), bytes, &asking, told, now.0, node.has_failed)?;
        }
        Ok(())
    }

    pub(super) fn check_watermarks(&self) -> Result<(), String> {
        let Some(node) = &self.node else { return Ok(()) };
        let marks = node.sequencer.watermarks();
        let order = [marks.replied, marks.published, marks.durable, marks.appended, marks.assigned];
        if !order.is_sorted() || marks.published > self.disk.reported() {
            return Err(format!("watermarks out of order: {marks:?}, disk {}", self.disk.reported()));
        }
        Ok(())
    }

    /// Time passes: the clock is compared, slow clients are told so, the anchor is made safe.
    pub(super) fn housekeeping(&mut self) -> Result<(), String> {
        self.schedule(self.now + HOUSEKEEPING_MS, Event::Housekeeping(self.incarnation));
        if !self.clock.is_in_doubt {
            self.clock.adjust();
        }
        let now = self.now;
        if now >= self.anchored_at + ANCHOR_MS {
            self.anchored_at = now;
            self.disk.sync_anchor();
        }
        let Some(node) = &mut self.node else { return Ok(()) };
        node.restrict(Restrictions {
            clock_in_doubt: self.clock.is_in_doubt,
            disk_low: now < self.full_until,
            stopping: node.is_stopping,
        });
        let (mut outputs, mut slow) = (Vec::new(), Vec::new());
        let published = node.doors.published();
        for (connection, session) in &mut node.sessions {
            if session.next_timeout_ms().is_none_or(|due| due > now) {
                continue;
            }
            let connection = *connection;
            let send = |stream, bytes: &[u8]| outputs.push((Route { connection, stream }, bytes.to_vec()));
            if session.handle_timeout(now, published, send).is_err() {
                slow.push(connection);
            }
        }
        for (on, bytes) in outputs {
            self.send(TO_CLIENT, on, &bytes);
        }
        for connection in slow {
            self.report.seen.note("too slow");
            self.close_at_server(connection);
            self.soon(self.faults.delay_ms, Event::CutSeenByClient(connection));
        }
        if self.rng.one_in(60) {
            self.check_digest()?;
        }
        self.stop_if_asked();
        Ok(())
    }

    /// At rest, a replay of the log ends in the state that is running.
    pub(super) fn check_digest(&mut self) -> Result<(), String> {
        let Some(node) = &self.node else { return Ok(()) };
        let marks = node.sequencer.watermarks();
        let is_at_rest = node.is_idle() && !node.sequencer.has_work() && !node.has_failed;
        if !is_at_rest || self.disk.head() != marks.assigned {
            return Ok(());
        }
        let (state, ..) = replay(&self.disk, self.tokens_max, None)
            .map_err(|error| format!("the log of a server at rest: {error}"))?;
        if state.digest() != node.sequencer.state().digest() {
            return Err("a replay ends in another state than the one that is running".to_owned());
        }
        self.report.seen.note("a digest compared");
        self.look_at_all()
    }
}
