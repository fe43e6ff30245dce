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
//! One [`Client`] holds one connection, which is made anew when it is lost; requests of any number of tasks are
//! pipelined on it. Requests are repeated on a new connection within their deadline; those that issue or consume carry an
//! idempotency key, so that repeating them is harmless. Clones share everything.
//!
//! `cargo run -p jeton-client --example protect -- <identity folder>` runs the example in `examples/protect.rs` against a
//! server on this machine: it issues a token, uses it, revokes it, and is denied.
//!
//! Knows nothing of the server's inside.

mod cache;
mod client;
mod config;
mod error;
mod link;

pub use client::{Client, Consistency, Issued, LogPage, Revoked};
pub use config::{Config, Identity};
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

use jeton_core::claims::ResourceQuery;

/// What a validate asks of a token beside being live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    access: Option<(String, String)>,
    audience: Option<String>,
    binding: Option<Binding>,
}

impl Check {
    /// Asks for a live token and no more.
    #[must_use]
    pub fn live() -> Self {
        Self::default()
    }

    /// Asks for a grant of `action` on `resource`.
    ///
    /// # Errors
    /// [`Error::Check`] if either is not one concrete thing.
    pub fn access(action: &str, resource: &str) -> Result<Self, Error> {
        ResourceQuery::new(action, resource)?;
        Ok(Self { access: Some((action.to_owned(), resource.to_owned())), ..Self::default() })
    }

    /// Names the audience that the asking service answers to.
    #[must_use]
    pub fn for_audience(self, audience: &str) -> Self {
        Self { audience: Some(audience.to_owned()), ..self }
    }

    /// Presents what the holder proved to have.
    #[must_use]
    pub fn with_binding(self, binding: Binding) -> Self {
        Self { binding: Some(binding), ..self }
    }

    /// Whether the wire can carry it.
    fn check_bounds(&self) -> Result<(), Error> {
        let bytes = self.audience.as_ref().map_or(0, String::len);
        let max = jeton_core::claims::NAME_BYTES_MAX;
        if bytes > max { Err(Error::Audience { bytes, max }) } else { Ok(()) }
    }

    fn on_wire(&self) -> WireCheck<'_> {
        let access =
            self.access.as_ref().and_then(|(action, resource)| ResourceQuery::new(action, resource).ok());
        WireCheck { access, audience: self.audience.as_deref(), binding: self.binding }
    }
}

/// Reads a token's text.
///
/// # Errors
/// [`Error::BadToken`], without asking the server.
pub fn parse_token(text: &str) -> Result<Token, Error> {
    Ok(Token::parse(text)?)
}
