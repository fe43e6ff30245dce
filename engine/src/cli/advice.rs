//! What to type after an error that does not say so itself.

use jeton_core::recovery::ReplayError;
use jeton_log_store::{OpenError as StoreError, ReadError};

use crate::engine::OpenError;
use crate::server::ServeError;

const REPAIR: &str = "; `jeton log repair` shows what can be verified, and changes nothing";

/// The end of the line that tells of `error`: which command helps, or nothing.
pub(super) fn on(error: &anyhow::Error) -> &'static str {
    let store = match error.downcast_ref::<ServeError>() {
        Some(ServeError::Store(store)) => Some(store),
        _ => error.downcast_ref::<StoreError>(),
    };
    let read = match error.downcast_ref::<ServeError>() {
        Some(ServeError::Open(OpenError::Read(read))) => Some(read),
        _ => error.downcast_ref::<ReadError>(),
    };
    let is_replay = matches!(
        error.downcast_ref::<ServeError>(),
        Some(ServeError::Open(OpenError::Replay(_) | OpenError::End(_)))
    ) || error.downcast_ref::<ReplayError>().is_some();
    let is_store = matches!(store, Some(StoreError::Damaged(_) | StoreError::Stalled(_)));
    let is_read = matches!(read, Some(ReadError::Damaged(_) | ReadError::Trimmed { .. }));
    if is_store || is_read || is_replay { REPAIR } else { "" }
}
