//! The event log's storage: sequence numbers and bytes, made durable.
//!
//! [`LogStore`] is the contract; [`conformance`] is the suite that every implementation passes; [`SledStore`] keeps the
//! log on disk, [`MemoryStore`] in memory, and [`FaultStore`] makes another one fail on demand.
//!
//! Knows nothing of tokens and events. What is in a batch, and whether it follows on the one before, is for the engine
//! to say: a store keeps what it was given, in order, and says so only once it is durable.

pub mod conformance;
mod fault;
mod memory;
mod sled_store;
mod store;

pub use fault::{Fault, FaultScript, FaultStore};
pub use memory::MemoryStore;
pub use sled_store::{DataLock, OpenError, Options, SledStore};
pub use store::{
    Anchor, AppendError, AppendKind, Archive, Damage, Durability, LogId, LogStore, Position, ReadError,
    Space, StoredBatch,
};
