//! The async client of Jeton: what a service embeds to issue, validate and revoke tokens over QUIC.
//!
//! ```no_run
//! use jeton_client::{Check, Client, Config, Identity};
//!
//! # async fn example() -> Result<(), jeton_client::Error> {
//! let identity = Identity::from_dir("/etc/jeton/identity")?;
//! let client = Client::connect(Config::new("127.0.0.1:7878".parse().expect("an address"), identity)).await?;
//!
//! let token = jeton_client::parse_token("jtn_...")?;
//! let check = Check::access("read", "journal/42")?;
//! let answer = client.validate(&token, &check).await?;
//! if answer.verdict == jeton_client::Verdict::Valid {
//!     println!("good for {} more seconds", answer.seconds_left);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! One [`Client`] holds a few connections, which are made anew when they are lost; requests of any number of tasks are
//! pipelined on them, and single validates of tasks that ask at a time share frames ([`Coalesce`]). Requests are repeated
//! on a new connection within their deadline; those that issue or consume carry an idempotency key, so that repeating
//! them is harmless. Clones share everything.
//!
//! `cargo run -p jeton-client --example protect -- <identity folder>` runs the example in `examples/protect.rs` against a
//! server on this machine: it issues a token, uses it, revokes it, and is denied. `examples/axum.rs` is a web service whose
//! routes Jeton protects.
//!
//! Knows nothing of the server's inside.

mod cache;
mod check;
mod client;
mod config;
mod error;
mod gather;
mod link;
mod pool;

pub use check::Check;
pub use client::{Client, Consistency, Issued, LogPage, Revoked, ValidateCounts};
pub use config::{Coalesce, Config, Identity};
pub use error::Error;
pub use jeton_core::check::Check as WireCheck;
pub use jeton_core::claims::{Claims, Grant, Name, ResourcePattern};
pub use jeton_core::command::{IssueTokens, RevokeTarget};
pub use jeton_core::inspection::{ClaimsInfo, ClientInfo, Inspection, SubjectInfo};
pub use jeton_core::numbers::{Binding, ClaimsNo, IdempotencyKey, LogId, Partition, Sequence, SubjectNo};
pub use jeton_core::outcome::{Rejection, RevokeReport};
pub use jeton_core::rights::Rights;
pub use jeton_core::time::Seconds;
pub use jeton_core::token::{Token, TokenError, TokenId};
pub use jeton_core::verdict::{Answer, AnswerFlags, Verdict};
pub use jeton_wire::doors::SnapshotTaken;

/// Reads a token's text.
///
/// # Errors
/// [`Error::BadToken`], without asking the server.
pub fn parse_token(text: &str) -> Result<Token, Error> {
    Ok(Token::parse(text)?)
}
