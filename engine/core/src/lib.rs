//! Tokens, claims, commands, events and the pure state machine of Jeton.

pub mod claims;
pub mod token;
