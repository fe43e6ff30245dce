//! Tokens, claims, commands, events and the pure state machine of Jeton.
//!
//! The map, in the order of the data: a [`command`] comes from a client with certain [`rights`] and waits for that
//! client's turn in the [`fair_queue`]; [`state`] decides it
//! into [`event`]s and folds those back into itself; [`sequencer`] numbers them, seals them into [`batch`]es for the
//! log and holds every answer ([`outcome`]) until what it rests on is durable; [`view`] is what readers ask for
//! [`verdict`]s, without a lock; [`recovery`] does the same folding from a log, or from a [`snapshot`] on.
//!
//! This crate has no clock, randomness, thread, file or socket: all of them are arguments.

pub mod batch;
pub mod check;
pub mod claims;
pub mod command;
pub mod event;
mod extra;
pub mod fair_queue;
#[cfg(test)]
mod formats;
pub mod inspection;
mod judge;
pub mod mutation;
pub mod numbers;
pub mod outcome;
pub mod pacing;
pub mod recovery;
pub mod registry;
pub mod rights;
pub mod sequencer;
pub mod snapshot;
pub mod state;
#[cfg(test)]
mod testing;
pub mod time;
pub mod token;
pub mod verdict;
pub mod view;

pub use jeton_index::{IndexError, IndexFull};

/// The first 16 bytes of a blake3 hash: to compare by eye what two machines hold.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    short
}

/// A key for one purpose, derived from key material (blake3's key derivation); `context` names the purpose.
#[must_use]
pub fn derived_key(context: &str, material: &[u8]) -> [u8; 32] {
    blake3::derive_key(context, material)
}
