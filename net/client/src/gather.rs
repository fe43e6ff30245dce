//! Gathering: validates that many tasks ask at a time go out together, in frames.
//!
//! With nothing under way a call goes out at once. While frames are under way, calls gather until an answer is back, the
//! frame is full, or the linger is over and there may be one more frame under way. So a frame holds what came while the
//! ones before it travelled: the busier the process, the larger its frames, and nothing is set by hand.
//!
//! A call joins a frame only before it leaves, so an answer never rests on less than what was acknowledged to its caller.
//! Whoever stops waiting takes nothing with them: what was not sent yet is left out, what was is answered to nobody.
//!
//! Knows nothing of connections or retries, those are [`Wire`]'s, and nothing of deadlines, which every caller keeps.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jeton_core::numbers::Sequence;
use jeton_core::verdict::Answer;
use jeton_wire::frame::REQUEST_BYTES_MAX;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::Coalesce;
use crate::{Check, Error};

/// What a frame has beside its tokens and checks.
const FRAME_BYTES: usize = 32;
/// A token and the index of its check.
const TOKEN_BYTES: usize = 34;

/// Where frames go.
pub(crate) trait Wire: Clone + Send + Sync + 'static {
    /// Asks until there is an answer or none is to be had.
    fn ask_frame(&self, frame: &Frame) -> impl Future<Output = Result<Reply, Error>> + Send;

    /// Lets every other task that could run do so, and takes far less than a linger.
    fn turn(&self) -> impl Future<Output = ()> + Send;
}

/// Tokens that are asked about together.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) tokens: Vec<[u8; 32]>,
    /// Each of them once.
    pub(crate) checks: Vec<Check>,
    /// The check of each token; `None` if they have one in common.
    pub(crate) indexes: Option<Vec<u16>>,
    pub(crate) min_sequence: Sequence,
}

/// What comes back for a frame.
#[derive(Debug)]
pub(crate) enum Reply {
    /// An answer for each token, in order.
    Answers(Vec<Answer>),
    /// The server has not got further than here.
    Behind(Sequence),
}

/// What one caller asks.
pub(crate) struct Question {
    pub(crate) token: [u8; 32],
    pub(crate) check: Check,
    pub(crate) min_sequence: Sequence,
}

struct Member {
    question: Question,
    answer: oneshot::Sender<Result<Answer, Error>>,
}

/// The calls that may share frames.
pub(crate) struct Gather {
    limits: Coalesce,
    state: Mutex<State>,
}

/// Invariant: with a call in the queue there is a worker, one that gathers or one that takes what is there when its
/// answer is back.
#[derive(Default)]
struct State {
    queue: VecDeque<Member>,
    /// Tasks that carry frames; each at most one at a time.
    workers: usize,
    /// Frames under way.
    flying: usize,
    /// One of the workers is about to take what is in the queue.
    gathering: bool,
}

/// Tokens are in here: only numbers are shown.
impl fmt::Debug for Gather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let State { workers, flying, gathering, .. } = *state;
        let queued = state.queue.len();
        drop(state);
        write!(
            f,
            "Gather {{ queued: {queued}, workers: {workers}, flying: {flying}, gathering: {gathering} }}"
        )
    }
}

impl Gather {
    pub(crate) fn new(limits: Coalesce) -> Arc<Self> {
        Arc::new(Self { limits: limits.within_bounds(), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the question asked with the next frame; the answer comes through what this returns.
    pub(crate) fn ask<W: Wire>(
        self: &Arc<Self>,
        wire: &W,
        question: Question,
    ) -> Result<oneshot::Receiver<Result<Answer, Error>>, Error> {
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.queue.len() >= self.limits.gathering_max {
            return Err(Error::Busy);
        }
        state.queue.push_back(Member { question, answer });
        self.call_worker(&mut state, wire);
        Ok(receiver)
    }

    /// Has the queue seen to, if nobody is about to and one more frame may be under way.
    fn call_worker<W: Wire>(self: &Arc<Self>, state: &mut State, wire: &W) {
        if state.queue.is_empty() || state.gathering || state.workers >= self.limits.frames_in_flight_max {
            return;
        }
        state.gathering = true;
        state.workers += 1;
        tokio::spawn(Arc::clone(self).work(wire.clone()));
    }

    /// Carries frames for as long as there is something to ask.
    async fn work<W: Wire>(self: Arc<Self>, wire: W) {
        self.linger(&wire).await;
        let mut next = self.take(&wire, |state| state.gathering = false);
        while let Some(members) = next {
            carry(&wire, members).await;
            // The answer is back: whatever has gathered meanwhile goes at once.
            next = self.take(&wire, |state| state.flying -= 1);
        }
    }

    /// Waits for company, if there is reason to expect some.
    async fn linger<W: Wire>(&self, wire: &W) {
        let began = Instant::now();
        let waits = || {
            let state = self.state();
            state.flying > 0 && (1..self.limits.frame_tokens_max).contains(&state.queue.len())
        };
        while waits() && began.elapsed() < self.limits.linger {
            wire.turn().await;
        }
    }

    /// The members of the next frame; `None` if nobody waits: the worker is done then.
    fn take<W: Wire>(self: &Arc<Self>, wire: &W, note: impl FnOnce(&mut State)) -> Option<Vec<Member>> {
        let mut state = self.state();
        note(&mut state);
        let mut members = Vec::with_capacity(state.queue.len().min(self.limits.frame_tokens_max));
        let mut bytes = FRAME_BYTES;
        while let Some(member) = state.queue.pop_front() {
            if member.answer.is_closed() {
                continue;
            }
            bytes += TOKEN_BYTES + member.question.check.wire_bytes();
            // One that is too large by itself goes by itself, and is told so.
            if bytes > REQUEST_BYTES_MAX && !members.is_empty() {
                state.queue.push_front(member);
                break;
            }
            members.push(member);
            if members.len() == self.limits.frame_tokens_max {
                break;
            }
        }
        if members.is_empty() {
            state.workers -= 1;
            return None;
        }
        state.flying += 1;
        self.call_worker(&mut state, wire);
        Some(members)
    }
}

/// Asks for all members and tells each its answer.
async fn carry<W: Wire>(wire: &W, mut members: Vec<Member>) {
    // Each round but the last answers somebody, so there are no more rounds than members.
    while !members.is_empty() {
        let count = members.len();
        let error = match wire.ask_frame(&Frame::of(&members)).await {
            Ok(Reply::Answers(answers)) if answers.len() == count => {
                for (member, answer) in members.into_iter().zip(answers) {
                    let _ = member.answer.send(Ok(answer)); // or they no longer wait
                }
                return;
            }
            Ok(Reply::Answers(_)) => Error::Protocol("the answer is to another question".to_owned()),
            Ok(Reply::Behind(published)) => {
                // Who asked for no more than that is not to suffer from the others.
                let is_reached = |member: &Member| member.question.min_sequence <= published;
                let (reached, ahead): (Vec<_>, Vec<_>) = members.into_iter().partition(is_reached);
                tell_all(ahead, &Error::Behind { published: published.0 });
                members = reached;
                if members.len() < count {
                    continue;
                }
                Error::Protocol("the server is behind what it has published".to_owned())
            }
            Err(error) => error,
        };
        return tell_all(members, &error);
    }
}

fn tell_all(members: Vec<Member>, error: &Error) {
    for member in members {
        let _ = member.answer.send(Err(error.clone())); // or they no longer wait
    }
}

impl Frame {
    /// It takes no more than this on the wire.
    pub(crate) fn bytes_max(&self) -> usize {
        FRAME_BYTES
            + TOKEN_BYTES * self.tokens.len()
            + self.checks.iter().map(Check::wire_bytes).sum::<usize>()
    }

    fn of(members: &[Member]) -> Self {
        let mut checks: Vec<Check> = Vec::new();
        let mut known: HashMap<&Check, u16> = HashMap::new();
        let mut indexes = Vec::with_capacity(members.len());
        for Member { question: Question { check, .. }, .. } in members {
            // The usual case is that the neighbour asks the same.
            let last = indexes.last().filter(|last| checks.get(usize::from(**last)) == Some(check)).copied();
            indexes.push(last.unwrap_or_else(|| {
                *known.entry(check).or_insert_with(|| {
                    checks.push(check.clone());
                    u16::try_from(checks.len() - 1).expect("a frame has far fewer tokens than that")
                })
            }));
        }
        let tokens = members.iter().map(|member| member.question.token).collect();
        let min_sequence =
            members.iter().map(|member| member.question.min_sequence).max().unwrap_or_default();
        let indexes = if checks.len() > 1 { Some(indexes) } else { None };
        Self { tokens, checks, indexes, min_sequence }
    }
}
