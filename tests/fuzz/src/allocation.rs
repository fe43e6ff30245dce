//! What a decoder may allocate.

/// Runs `decode` and checks that it never held more than `bytes_max` bytes of memory at once.
///
/// # Panics
/// If it did.
pub(crate) fn bounded<T>(bytes_max: usize, decode: impl FnOnce() -> T) -> T {
    let mut result = None;
    let measured = allocation_counter::measure(|| result = Some(decode()));
    assert!(
        measured.bytes_max <= bytes_max as u64,
        "a decoder held {} bytes, {bytes_max} are enough for what it was given",
        measured.bytes_max
    );
    result.expect("it was run")
}
