//! The wire format `jeton/1` and the pure per-connection session.
//!
//! docs/PROTOCOL.md has the layouts to the byte. [`frame`] cuts streams into frames; [`request`] and [`response`] are
//! what is in them, both ways; [`Session`] is the server's side of one connection, which answers through the two
//! traits of [`doors`]. [`company`] is when a client's frames share a datagram.
//! No sockets, no runtime, no clock; every decoder is total.

pub mod company;
pub mod cursor;
pub mod doors;
mod error;
pub mod frame;
pub mod request;
pub mod response;
mod session;

pub use error::{CloseCode, WireError};
pub use session::{Refusing, Session, Tally, WRITES_IN_FLIGHT_MAX};

/// The ALPN protocol name (RFC 7301).
pub const ALPN: &[u8] = b"jeton/1";
/// The version spoken.
pub const VERSION: u16 = 1;
