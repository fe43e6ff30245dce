//! Attacks on a real server: what a stranger, a client gone bad or a broken network can do to it.
//!
//! One file for each kind of attack. [`kinds`] names them all and runs one until it is told to stop; [`witness`] is the
//! client that should not notice; [`rig`] has the certificates and connections that both are made of. The gate
//! (`tests/attacks.rs`) asserts what an attacker is told; the `attack` binary measures what the witness feels.

pub mod certificates;
pub mod connections;
pub mod datagrams;
pub mod frames;
pub mod initials;
pub mod kinds;
pub mod migration;
pub mod readers;
pub mod rig;
pub mod stalled;
pub mod streams;
pub mod withdrawals;
pub mod witness;
pub mod writes;
