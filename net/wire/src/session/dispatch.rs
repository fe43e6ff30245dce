//! From a request to the door that answers it.

use jeton_core::check::Checks;
use jeton_core::command::Submission;
use jeton_core::numbers::TenantNo;
use jeton_core::rights::{Caller, Rights};
use jeton_core::verdict::Verdict;

use super::gather::with_room_for_checks;
use super::{OWED_BYTES_MAX, Refusing, Session, WRITES_IN_FLIGHT_MAX, Waiting};
use crate::VERSION;
use crate::doors::{QueueFull, Submit, Ticket, Validate};
use crate::error::WireError;
use crate::request::{Request, ValidateRequest};
use crate::response::{HelloAck, Response, encode_answers};

impl Session {
    pub(super) fn greet<D: Validate>(
        &mut self,
        request: &Request<'_>,
        id: u64,
        doors: &D,
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let Request::Hello(hello) = request else { return Err(WireError::NotJeton) };
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            return Err(WireError::Version(hello.version_max));
        }
        self.has_greeted = true;
        self.acknowledge(id, doors, out);
        Ok(())
    }

    fn acknowledge<D: Validate>(&self, id: u64, doors: &D, out: &mut Vec<u8>) {
        let (log, partition) = doors.log();
        let ack = HelloAck { version: VERSION, features: 0, log, partition, published: doors.published() };
        Response::HelloAck(ack).encode(id, out);
    }

    pub(super) fn validate<D: Validate>(
        &mut self,
        request: &ValidateRequest<'_>,
        id: u64,
        doors: &D,
        out: &mut Vec<u8>,
    ) {
        let caller = doors.caller(&self.identity);
        if !caller.may_somewhere(Rights::VALIDATE) {
            self.refuse(id, out); // not a denial: every token would look dead
            return;
        }
        // Before the answers: they rest on at least this.
        let published = doors.published();
        self.answers.clear();
        match request.check_for_all() {
            Some(check) => doors.validate(&caller, request.tokens, Checks::Same(&check), &mut self.answers),
            None => {
                with_room_for_checks(|checks| {
                    request.checks_of_each(checks);
                    doors.validate(&caller, request.tokens, Checks::Each(checks), &mut self.answers);
                });
            }
        }
        self.tally.tokens += request.tokens.len() as u64;
        self.tally.valid +=
            self.answers.iter().filter(|answer| answer.verdict == Verdict::Valid).count() as u64;
        encode_answers(id, published, &self.answers, request.with_subjects, out);
    }

    pub(super) fn dispatch<D: Validate + Submit>(
        &mut self,
        from: Waiting,
        request: Request<'_>,
        doors: &D,
        next_ticket: &mut Ticket,
        out: &mut Vec<u8>,
    ) {
        let caller = doors.caller(&self.identity);
        let response = match request {
            Request::Write { key, command } => {
                if caller.grants().next().is_none() {
                    self.refuse(from.request, out);
                    return;
                }
                let least = if command.takes() { Refusing::All } else { Refusing::AllButTaking };
                let submission = Submission { actor: caller.client, key, command };
                self.tally.writes += 1;
                self.hand_over(from, least, next_ticket, out, |ticket| doors.submit(ticket, submission));
                return;
            }
            Request::ReadLog { from: sequence, bytes_max } => {
                if !may_audit(&caller) {
                    self.refuse(from.request, out);
                    return;
                }
                let read = |ticket| doors.read_log(ticket, sequence, bytes_max);
                self.hand_over(from, Refusing::AllButTaking, next_ticket, out, read);
                return;
            }
            Request::TakeSnapshot => {
                if !caller.may(Rights::ADMIN, TenantNo::EVERY) {
                    self.refuse(from.request, out);
                    return;
                }
                let take = |ticket| doors.take_snapshot(ticket);
                self.hand_over(from, Refusing::AllButTaking, next_ticket, out, take);
                return;
            }
            Request::Hello(_) => {
                self.acknowledge(from.request, doors, out);
                return;
            }
            Request::Claims(number) => Response::Claims(doors.claims(&caller, number)),
            Request::Subject(number) => Response::Subject(doors.subject(&caller, number)),
            Request::Inspect(id) => Response::Inspection(doors.inspect(&caller, &id)),
            Request::Clients => doors.clients(&caller).map_or(Response::NotAllowed, Response::Clients),
            Request::Stats => doors.stats(&caller).map_or(Response::NotAllowed, Response::Stats),
            Request::Ping | Request::Validate(_) => Response::Pong, // validates went their own way before
        };
        if matches!(response, Response::NotAllowed) {
            self.tally.not_allowed += 1;
        }
        response.encode(from.request, out);
    }

    pub(super) fn refuse(&mut self, request: u64, out: &mut Vec<u8>) {
        self.tally.not_allowed += 1;
        Response::NotAllowed.encode(request, out);
    }

    /// Hands a request to a door, unless as much as `least` is being refused.
    fn hand_over(
        &mut self,
        from: Waiting,
        least: Refusing,
        next_ticket: &mut Ticket,
        out: &mut Vec<u8>,
        submit: impl FnOnce(Ticket) -> Result<(), QueueFull>,
    ) {
        let ticket = *next_ticket;
        let is_full = self.refusing >= least
            || self.waiting.len() >= WRITES_IN_FLIGHT_MAX
            || (self.owed_bytes > 0 && self.owed_bytes + from.owed_bytes > OWED_BYTES_MAX);
        if is_full || submit(ticket).is_err() {
            self.busy(from.request, out);
            return;
        }
        *next_ticket += 1;
        self.owed_bytes += from.owed_bytes;
        if let Some(stream) = from.stream {
            self.streams.entry(stream).or_default().owed += 1;
        }
        self.waiting.insert(ticket, from);
    }
}

/// The log holds every tenant's events: only who may audit everywhere reads it.
fn may_audit(caller: &Caller) -> bool {
    caller.may(Rights::AUDIT, TenantNo::EVERY)
}
