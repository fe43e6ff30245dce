//! The lock-free token index and slab.
//!
//! One [`Writer`] (the sequencer's), any number of [`Reader`]s (one per shard). A token is a 64-byte [`Record`], with a
//! [`Tail`] behind it if it has more terms than that, written once into the slab, and an 8-byte word in a bucket of the
//! index, which holds the token's [`State`] bits and names the record. Readers take no lock and write nothing; a lookup is one cache line of the index and one of the
//! slab.
//!
//! Knows no events, logs, sockets or clocks: expiry, claims and secrets are the caller's to judge. Together with one
//! file of socket options this crate is the only place in the workspace with `unsafe`: in `memory.rs` and
//! `prefetch.rs`.
//!
//! The memory orderings are argued where they stand, and checked by the models in `tests/loom.rs`:
//! `CARGO_TARGET_DIR=target/loom RUSTFLAGS="--cfg loom" cargo test -p jeton-index --release --test loom`

mod memory;
mod prefetch;
mod reader;
mod slab;
mod sync;
mod table;
mod word;
mod writer;

pub use memory::MemoryError;
pub use reader::{Candidate, Found, Pin, Reader};
pub use slab::{Record, SEGMENT_RECORDS, Tail};
pub use sync::Watermark;
#[cfg(loom)]
pub use sync::mutation;
pub use word::State;
pub use writer::{
    Buffer, Copied, CountersCopy, IndexCut, IndexImage, RestoreError, SegmentCut, SegmentImage, WordsCopy,
    restore,
};
pub use writer::{Entry, IndexConfig, IndexError, IndexFull, Memory, SegmentUse, Walk, Writer, new};
