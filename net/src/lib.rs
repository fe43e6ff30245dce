//! Jeton's QUIC server, and the driver that its load generator uses from the other side.
//!
//! [`driver`] is QUIC without IO (quinn-proto is named there alone); [`socket`] is UDP with segmentation offload, and
//! holds this crate's only `unsafe`; [`shard`] is one thread on one core that moves datagrams between the two
//! (glommio is named there alone); [`server`] answers requests on it through the doors of `jeton-wire`; [`tls`] and
//! [`identity`] say who may speak at all.
//!
//! Knows neither the log nor the sequencer: it sees two traits, `Validate` and `Submit`.

pub mod driver;
pub mod identity;
pub mod server;
pub mod shard;
pub mod socket;
pub mod tls;

pub use jeton_wire::doors;
