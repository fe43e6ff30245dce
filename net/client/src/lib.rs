//! Async Rust client of Jeton.
