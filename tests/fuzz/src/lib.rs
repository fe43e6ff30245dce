//! Fuzz targets: each module is one, with one function that takes any bytes and panics if a promise is broken.
//!
//! The same functions are driven in two ways: by libFuzzer, guided by coverage (`bin/`, `cargo +nightly fuzz`,
//! `tests/fuzz/long`), and by the gate on the stable toolchain, which replays the kept corpus and every regression and
//! then tries seeded mutations of them (`replay.rs`). docs/TESTING.md says how to run both.
//!
//! A target checks properties against an oracle of its own where there is one; that nothing panics is the least of it.

mod allocation;
pub mod batch_open;
pub mod config;
pub mod grants;
pub mod identity;
pub mod log_replay;
pub mod session;
pub mod snapshot_open;
pub mod token_text;
mod wire;
pub mod wire_request;
pub mod wire_response;

/// A target: takes any bytes, panics if a promise is broken.
pub type Target = fn(&[u8]);

/// Every target, by the name of its binary and of its folder in `corpus` and `regressions`.
pub const TARGETS: &[(&str, Target)] = &[
    ("batch_open", batch_open::run),
    ("config", config::run),
    ("grants", grants::run),
    ("identity", identity::run),
    ("log_replay", log_replay::run),
    ("session", session::run),
    ("snapshot_open", snapshot_open::run),
    ("token_text", token_text::run),
    ("wire_request", wire_request::run),
    ("wire_response", wire_response::run),
];
