//! Linearizability of revocation: histories of real clients of the real server, which is killed under them, and two checks.
//!
//! Clients with identities of their own ask over QUIC, each operation is written down with the moments before it was sent
//! and after its answer had come ([`history`]), and the server is killed with SIGKILL and started again while they go on
//! ([`record`]). An operation whose answer never came stays open: it may have happened at any later time, or never.
//!
//! The network between them may be a bad one ([`weather`]).
//!
//! [`quick`] checks any length in linear time, rule by rule. [`full`] searches for an order that explains every answer, on
//! short histories. Each stands for itself: what the quick one rejects the full one rejects too, as far as it is about one
//! token, and a test says so on thousands of made-up histories.

pub mod full;
pub mod history;
pub mod quick;
pub mod record;
pub mod weather;
