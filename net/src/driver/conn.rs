//! What is kept of a connection, and how its end is told.

use std::collections::VecDeque;
use std::time::Instant;

use quinn_proto::{Connection, ConnectionError, ConnectionHandle};

use super::io::{ConnId, DriverEvent};

/// One connection, with what is kept of it beside quinn-proto.
pub(super) struct Conn {
    pub(super) inner: Connection,
    /// The entry in the timer set: as early as it has to be or earlier (`Driver::settle`).
    pub(super) deadline: Option<Instant>,
    /// When the handshake has to be done; `None` once it is.
    pub(super) handshake_until: Option<Instant>,
    pub(super) is_dirty: bool,
    pub(super) is_lost: bool,
}

impl Conn {
    /// When something has to be done at the latest.
    pub(super) fn wants_to_be_woken(&mut self) -> Option<Instant> {
        self.inner.poll_timeout().into_iter().chain(self.handshake_until).min()
    }
}

/// Says once that a connection is gone.
pub(super) fn lose(
    events: &mut VecDeque<DriverEvent>,
    conn: &mut Conn,
    handle: ConnectionHandle,
    reason: String,
) {
    if !std::mem::replace(&mut conn.is_lost, true) {
        events.push_back(DriverEvent::Lost(ConnId::of(handle), reason));
    }
}

pub(super) fn words_for(reason: &ConnectionError) -> String {
    match reason {
        ConnectionError::ApplicationClosed(close) => {
            format!(
                "closed by the peer with code {}: {}",
                close.error_code,
                String::from_utf8_lossy(&close.reason)
            )
        }
        other => other.to_string(),
    }
}
