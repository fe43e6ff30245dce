//! What can go wrong, by what the caller can do about it.

use jeton_core::claims::{ResourceError, ScopesError};
use jeton_core::outcome::Rejection;
use jeton_core::token::TokenError;
use jeton_wire::WireError;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The credentials cannot be read or used: mend them.
    #[error("the identity is unusable: {0}")]
    Identity(String),
    /// Nobody answers there, or nobody that could be trusted: mend the address, or wait.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        reason: String,
    },
    /// The connection was lost before the answer came. For a write with a key: repeat it with the same key.
    #[error("the connection was lost: {0}")]
    Closed(String),
    /// The answer did not come in time. Whether a write was carried out is not known; repeat it with the same key.
    #[error("no answer within the deadline")]
    Deadline,
    /// The server is busy, and was on every try.
    #[error("the server is busy")]
    Busy,
    /// The command was rejected: repeating it changes nothing.
    #[error(transparent)]
    Rejected(Rejection),
    /// The server's log failed while a write was on its way: nobody knows whether it was carried out.
    #[error("indeterminate: the server's log failed before the write was known to be durable")]
    Indeterminate,
    /// The identity lacks the right for this request.
    #[error("this identity may not do that")]
    NotAllowed,
    /// The server has not reached the event that the answer should rest on.
    #[error("the server is behind: it has published event {published} only")]
    Behind {
        /// How far it is.
        published: u64,
    },
    /// The request is larger than a server takes: send it in parts.
    #[error("the request has {bytes} bytes, and a server takes {max} at most")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
    /// No list of scopes.
    #[error(transparent)]
    Scopes(#[from] ScopesError),
    /// An audience that no token could name.
    #[error("an audience has at most {max} bytes, not {bytes}")]
    Audience {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// The server could not answer, with its words.
    #[error("the server failed to answer: {0}")]
    Failed(String),
    /// The server speaks otherwise than agreed, or has ended the conversation over what was sent: repeating it would
    /// only end the next one.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// Text that is no token: no need to ask the server.
    #[error(transparent)]
    BadToken(#[from] TokenError),
    /// An action or resource that is not one concrete thing.
    #[error(transparent)]
    Check(#[from] ResourceError),
    /// Claims beyond their bounds.
    #[error(transparent)]
    Claims(#[from] jeton_core::claims::ClaimsError),
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl Error {
    /// Whether the request may be repeated on a new connection: its answer may have been lost.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Connect { .. })
    }
}
