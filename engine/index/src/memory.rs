//! Zeroed memory of atomics, from huge pages where the system gives them.

use std::io;

use crate::sync::AtomicU64;

/// Memory that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes of memory for the token index cannot be had: {source}")]
pub struct MemoryError {
    /// How much was asked for.
    pub bytes: usize,
    /// What the system said.
    pub source: io::Error,
}

/// A fixed number of atomics, all zero at first, the first of them at the start of a cache line.
#[cfg(not(loom))]
pub(crate) struct Words {
    /// Keeps the mapping; only reached through `words`.
    _map: memmap2::MmapMut,
    words: std::ptr::NonNull<[AtomicU64]>,
}

// SAFETY: the slice behind the pointer is memory of `_map`, which is owned and unmapped with this value; atomics may be
// used from any thread.
#[cfg(not(loom))]
unsafe impl Send for Words {}
// SAFETY: as above; a shared reference only gives shared references to atomics.
#[cfg(not(loom))]
unsafe impl Sync for Words {}

#[cfg(not(loom))]
impl Words {
    pub(crate) fn new(count: usize, huge_pages: bool) -> Result<Self, MemoryError> {
        let bytes = count.checked_mul(8).expect("no table of atomics comes near the address space");
        let failed = |source| MemoryError { bytes, source };
        let mut map = memmap2::MmapMut::map_anon(bytes.max(8)).map_err(failed)?;
        if huge_pages {
            // Advice: without huge pages lookups are slower, never wrong.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let start = std::ptr::NonNull::new(map.as_mut_ptr().cast::<AtomicU64>())
            .expect("a mapping never begins at address 0");
        Ok(Self { _map: map, words: std::ptr::NonNull::slice_from_raw_parts(start, count) })
    }

    /// The memory as bytes, in the order of this machine, which is little-endian.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        const { assert!(cfg!(target_endian = "little"), "copies are little-endian, and read as they are") };
        let count = self.words.len() * 8;
        // SAFETY: as in `deref`, the pointer comes from a live mapping of at least `count` bytes, all of them initialised;
        // `&mut self` keeps every other reference away for as long as this one lives; any bytes are valid atomics.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_ptr().cast::<u8>(), count) }
    }
}

#[cfg(not(loom))]
impl std::ops::Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the pointer comes from a live mapping of at least `count * 8` bytes, page-aligned and zeroed, which is
        // a valid value of that many atomics; nothing else refers to that memory; the mapping is not moved or changed
        // in size until `self` is dropped.
        unsafe { self.words.as_ref() }
    }
}

/// Loom's atomics live on the heap.
#[cfg(loom)]
pub(crate) struct Words(Vec<AtomicU64>);

#[cfg(loom)]
impl Words {
    pub(crate) fn new(count: usize, _huge_pages: bool) -> Result<Self, MemoryError> {
        Ok(Self((0..count).map(|_| AtomicU64::new(0)).collect()))
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        unreachable!("no model restores a copy")
    }
}

#[cfg(loom)]
impl std::ops::Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.0
    }
}
