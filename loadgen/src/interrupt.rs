//! Ctrl-C and SIGTERM: whoever goes on for long asks now and then whether they have come, and ends in good order.
//!
//! The wish is remembered: what begins after it ends at once. Asked a second time, the process ends where it stands.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use anyhow::ensure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What a run or a measurement says that was ended so.
pub(crate) const WITH_FIGURES: &str = "interrupted: these are the figures until then";
/// What filling a key space says.
pub(crate) const WHILE_FILLING: &str = "interrupted while the key space was filled: nothing was measured";

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on the two signals no longer end the process where it stands. Called again, it changes nothing.
pub(crate) fn listen() -> anyhow::Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    if INTERRUPTED.set(Arc::clone(&interrupted)).is_ok() {
        for signal in [SIGINT, SIGTERM] {
            // In this order: a flag that is set already lets the process end.
            flag::register_conditional_shutdown(signal, 2, Arc::clone(&interrupted))?;
            flag::register(signal, Arc::clone(&interrupted))?;
        }
    }
    Ok(())
}

/// Whether somebody has asked this process to end.
pub(crate) fn is_wanted() -> bool {
    INTERRUPTED.get().is_some_and(|interrupted| interrupted.load(Relaxed))
}

/// An error in these words if somebody has.
pub(crate) fn check(words: &'static str) -> anyhow::Result<()> {
    ensure!(!is_wanted(), words);
    Ok(())
}
