//! Validates that come together are looked up together.
//!
//! A lookup waits for memory, several for little longer than one, if all of them are asked for first. A client that sends a
//! frame for each token, with hundreds in flight, is served at nearly the price of one that sends few frames with many.

use std::cell::Cell;

use jeton_core::check::{Check, Checks};
use jeton_core::rights::Rights;
use jeton_core::verdict::Verdict;

use super::Session;
use crate::doors::Validate;
use crate::request::{ChecksBuffer, ValidateRequest};
use crate::response::encode_answers;

/// Tokens that are gathered at most: some times what the view looks up together.
const TOKENS_MAX: usize = 64;

/// Room for validates of one read, kept for its memory; empty.
pub(super) type Room = Vec<(u64, ValidateRequest<'static>)>;

/// Validates of one read of a stream, in order, of which none was answered yet.
pub(super) struct Gathered<'d> {
    frames: Vec<(u64, ValidateRequest<'d>)>,
    tokens: usize,
}

impl<'d> Gathered<'d> {
    /// None yet.
    pub(super) fn new(room: Room) -> Self {
        Self { frames: emptied(room), tokens: 0 }
    }

    /// The room for the next read.
    pub(super) fn into_room(self) -> Room {
        emptied(self.frames)
    }

    /// Whether this one has room beside the others. One that asks for more than there may be has it alone.
    pub(super) fn has_room(&self, request: &ValidateRequest<'_>) -> bool {
        self.tokens + request.tokens.len() <= TOKENS_MAX || self.frames.is_empty()
    }

    pub(super) fn add(&mut self, id: u64, request: ValidateRequest<'d>) {
        self.tokens += request.tokens.len();
        self.frames.push((id, request));
    }
}

/// A vector of the same memory without what was in it, for the same items of another lifetime: the standard library collects
/// a vector's own items where they are.
fn emptied<One, Other>(mut items: Vec<One>) -> Vec<Other> {
    items.clear();
    items.into_iter().map(|_| unreachable!("it is empty")).collect()
}

thread_local! {
    /// A check is large, and a frame may have a thousand: one room for all sessions of a thread, which serve one after the other.
    static CHECKS: Cell<ChecksBuffer<'static>> = const { Cell::new(Vec::new()) };
}

/// Lends empty room for checks, whose memory stays for the next.
pub(super) fn with_room_for_checks<'c, R>(use_it: impl FnOnce(&mut ChecksBuffer<'c>) -> R) -> R {
    let mut checks = emptied(CHECKS.take());
    let result = use_it(&mut checks);
    CHECKS.set(emptied(checks));
    result
}

impl Session {
    /// Answers what was gathered, in order.
    pub(super) fn validate_gathered<D: Validate>(
        &mut self,
        gathered: &mut Gathered<'_>,
        doors: &D,
        out: &mut Vec<u8>,
    ) {
        match gathered.frames.as_slice() {
            [] => return,
            [(id, request)] => self.validate(request, *id, doors, out),
            frames => self.validate_frames(frames, doors, out),
        }
        gathered.frames.clear();
        gathered.tokens = 0;
    }

    fn validate_frames<D: Validate>(
        &mut self,
        frames: &[(u64, ValidateRequest<'_>)],
        doors: &D,
        out: &mut Vec<u8>,
    ) {
        let caller = doors.caller(&self.identity);
        if !caller.may_somewhere(Rights::VALIDATE) {
            frames.iter().for_each(|(id, _)| self.refuse(*id, out));
            return;
        }
        // Before the answers: they rest on at least this.
        let published = doors.published();
        self.tokens.clear();
        frames.iter().for_each(|(_, request)| self.tokens.extend_from_slice(request.tokens));
        self.answers.clear();
        if frames.iter().all(|(_, request)| request.asks_for_nothing_else()) {
            let live = Check::default();
            doors.validate(&caller, &self.tokens, Checks::Same(&live), &mut self.answers);
        } else {
            with_room_for_checks(|checks| {
                frames.iter().for_each(|(_, request)| request.add_checks(checks));
                doors.validate(&caller, &self.tokens, Checks::Each(checks), &mut self.answers);
            });
        }
        self.tally.tokens += self.tokens.len() as u64;
        self.tally.valid +=
            self.answers.iter().filter(|answer| answer.verdict == Verdict::Valid).count() as u64;
        let mut rest = self.answers.as_slice();
        for (id, request) in frames {
            let (answers, behind) = rest.split_at(request.tokens.len());
            encode_answers(*id, published, answers, request.with_subjects, out);
            rest = behind;
        }
    }
}
