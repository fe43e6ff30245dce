//! `jeton-load` as its users drive it: against the real server, against peers that are not what they should be, and with
//! flags and files that make no sense. Nothing here depends on how fast the machine is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "load/bad_input.rs"]
mod bad_input;
#[path = "load/peers.rs"]
mod peers;
#[path = "load/rig.rs"]
mod rig;
#[path = "load/runs.rs"]
mod runs;
