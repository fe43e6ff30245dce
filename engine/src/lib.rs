//! The Jeton engine, composed: a log, a sequencer, a view, and QUIC in front of them.
//!
//! As a library it embeds in a process without any network ([`Engine`]); with [`server`] in front it is what the
//! `jeton` binary serves. [`clock`] is the only file that asks what time it is, [`credentials`] makes and reads the
//! certificates, [`config`] and [`cli`] are what people see.
//!
//! Knows nothing of what a token is: that is `jeton-core`'s.

pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
mod engine;
pub mod memory;
pub mod server;
pub mod snapshots;

pub use engine::{DoorMaker, Doors, Engine, EngineConfig, OpenError, ReplyTo, SnapshotSchedule, StopError};
