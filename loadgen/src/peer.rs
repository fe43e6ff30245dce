//! The one trait behind which every server that can be asked stands.
//!
//! Schedule, plan, checker and recorder know servers by it alone. An adapter turns a [`Question`] into bytes and bytes into
//! a [`Reply`]; it keeps no time, draws nothing by chance and judges nothing. One adapter belongs to one worker.

pub(crate) mod introspection;
pub(crate) mod jeton;
pub(crate) mod redis;
pub(crate) mod remote;

use std::time::Instant;

use jeton_core::verdict::Verdict;

use crate::layout::Role;
use crate::workload::kind::Kind;

/// A token as it is on the wire: id 16, secret 16.
pub(crate) type TokenBytes = [u8; 32];

/// What is checked beside life, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum CheckNo {
    Nothing = 0,
    /// What every token of the generator may do.
    Granted = 1,
    /// What none may do.
    Forbidden = 2,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question<'a> {
    /// Are these good? With `checks`, each for its own purpose.
    Validate { tokens: &'a [TokenBytes], checks: Option<&'a [u16]> },
    /// Make tokens. Those of a peer that has no tokens of its own are `fresh`.
    Issue { role: Role, subjects: &'a [String], fresh: &'a [TokenBytes] },
    /// End this one.
    Revoke(&'a TokenBytes),
    /// End all of a subject.
    RevokeSubject(&'a str),
    /// Spend a use.
    Consume(&'a TokenBytes),
    /// Live longer.
    Renew(&'a TokenBytes),
}

/// What a peer answered.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    Verdicts(&'a [Verdict]),
    Issued(&'a [TokenBytes]),
    /// So many died.
    Revoked(u64),
    Consumed {
        verdict: Verdict,
        uses_left: u32,
    },
    Renewed {
        expires_s: u32,
    },
    /// Nothing was done, for there is too much to do.
    Refused,
    /// Nothing that an answer to this may be.
    Failed(String),
}

/// A server and the connections of one worker to it.
pub(crate) trait Peer {
    /// Names the server that tokens are good at, and no other.
    fn identity(&self) -> String;

    /// How many connections there are.
    fn connections(&self) -> usize;

    /// Whether a connection takes requests.
    fn is_ready(&self, connection: usize) -> bool;

    /// Puts a request on its way; its answer will carry `id`.
    fn ask(&mut self, connection: usize, id: u64, question: &Question<'_>) -> anyhow::Result<()>;

    /// One round: sends what waits, receives what is there, hands each answer on with when it came. Returns whether
    /// there was anything.
    fn turn(&mut self, take: &mut dyn FnMut(Instant, u64, Reply<'_>)) -> anyhow::Result<bool>;

    /// Waits for something to receive, until then at the latest.
    fn wait(&mut self, until: Instant) -> anyhow::Result<()>;

    /// Closes a connection on which nothing is under way, and opens another in its place.
    fn reconnect(&mut self, connection: usize) -> anyhow::Result<()>;

    /// What this peer has no counterpart of.
    fn lacks(&self, kind: Kind) -> bool;

    /// Whether tokens are made by the generator and not by the peer.
    fn takes_tokens(&self) -> bool {
        false
    }

    /// Whether it can check resources, and tell a wrong secret from an unknown token.
    fn has_checks(&self) -> bool;
}

/// Waits until there is something to receive, until then at the latest.
pub(crate) fn wait_for(socket: std::os::fd::BorrowedFd<'_>, until: Instant) -> anyhow::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs().try_into()?, tv_nsec: left.subsec_nanos().into() };
    match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
