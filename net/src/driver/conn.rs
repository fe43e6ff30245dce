//! What is kept of a connection, and how its end is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use quinn_proto::{Connection, ConnectionError, ConnectionEvent, ConnectionHandle};

use super::io::{ConnId, DriverEvent, Transmit};

/// How much more than an address has sent it is sent before it has proven to be the peer's (RFC 9000, section 8.1).
const AMPLIFICATION_MAX: u64 = 3;
/// The largest datagram that is no probe for a larger one behind a move: what QUIC asks every path to carry.
const DATAGRAM_BEHIND_MOVE_MAX: usize = 1_200;

/// The address that a peer is at. One that moves may have somebody else's address in its datagrams, so quinn-proto has the
/// new one prove itself, and sends it little before; but it looks at once for how large datagrams may be there, and does not
/// hold back those probes. They are dropped, as if the path did not carry them, beyond three times what came from there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whereabouts {
    address: SocketAddr,
    /// What came from there since the peer moved to it; `None` for where it began, which the handshake proves.
    heard: Option<u64>,
    /// Bytes of the probes that went there since.
    probed: u64,
    /// The probes that the connection had made when it was looked at last, in the move if not since.
    probes: u64,
}

impl Whereabouts {
    /// Where a connection begins.
    pub(super) fn first(address: SocketAddr) -> Self {
        Self { address, heard: None, probed: 0, probes: 0 }
    }

    /// Takes note of a datagram, given where the connection takes its peer to be since, and how many probes it has made.
    fn handle_datagram(
        &mut self,
        origin: SocketAddr,
        bytes: usize,
        peer: SocketAddr,
        probes: impl FnOnce() -> u64,
    ) {
        if self.address != peer {
            *self = Self { address: peer, heard: Some(0), probed: 0, probes: probes() };
        }
        if let Some(heard) = &mut self.heard
            && origin == peer
        {
            *heard += bytes as u64;
        }
    }

    /// Whether a datagram is a probe that may not go yet, given how many the connection has made by now.
    fn holds_back(&mut self, transmit: &Transmit, probes: impl FnOnce() -> u64) -> bool {
        let Some(heard) = self.heard else { return false };
        if transmit.size <= DATAGRAM_BEHIND_MOVE_MAX || transmit.segment_size.is_some() {
            return false;
        }
        let (probes, bytes) = (probes(), transmit.size as u64);
        if std::mem::replace(&mut self.probes, probes) == probes {
            return false;
        }
        let is_held_back = self.probed + bytes > AMPLIFICATION_MAX * heard;
        self.probed += if is_held_back { 0 } else { bytes };
        is_held_back
    }
}

/// One connection, with what is kept of it beside quinn-proto.
pub(super) struct Conn {
    pub(super) inner: Connection,
    pub(super) whereabouts: Whereabouts,
    /// The entry in the timer set: as early as it has to be or earlier (`Driver::settle`).
    pub(super) deadline: Option<Instant>,
    /// When the handshake has to be done; `None` once it is.
    pub(super) handshake_until: Option<Instant>,
    pub(super) is_dirty: bool,
    pub(super) is_lost: bool,
}

impl Conn {
    /// Takes a datagram that belongs to it.
    pub(super) fn handle_datagram(&mut self, event: ConnectionEvent, origin: SocketAddr, bytes: usize) {
        self.inner.handle_event(event);
        let (peer, probes) = (self.inner.remote_address(), || sent_probes(&self.inner));
        self.whereabouts.handle_datagram(origin, bytes, peer, probes);
    }

    /// Whether a datagram of its own may not leave ([`Whereabouts`]).
    pub(super) fn holds_back(&mut self, transmit: &Transmit) -> bool {
        self.whereabouts.holds_back(transmit, || sent_probes(&self.inner))
    }

    /// When something has to be done at the latest.
    pub(super) fn wants_to_be_woken(&mut self) -> Option<Instant> {
        self.inner.poll_timeout().into_iter().chain(self.handshake_until).min()
    }
}

fn sent_probes(inner: &Connection) -> u64 {
    inner.stats().path.sent_plpmtud_probes
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

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    /// Whether the probe that the connection makes as its so-manieth is held back.
    fn probe(whereabouts: &mut Whereabouts, size: usize, number: u64) -> bool {
        let destination = whereabouts.address;
        let transmit = Transmit { destination, size, segment_size: None, ecn: None, src_ip: None };
        whereabouts.holds_back(&transmit, || number)
    }

    #[test]
    fn probes_go_to_a_new_address_up_to_three_times_what_came_from_there() {
        let (here, there) = (address(1), address(2));
        let mut peer = Whereabouts::first(here);
        assert!(!probe(&mut peer, 8_900, 1), "the handshake has proven it");
        peer.handle_datagram(there, 100, here, || 2);
        assert!(!probe(&mut peer, 8_900, 2), "it has not moved");
        peer.handle_datagram(there, 1_000, there, || 2);
        assert!(!probe(&mut peer, 8_900, 2), "none was made since it moved: it is data");
        assert!(probe(&mut peer, 3_001, 3));
        assert!(!probe(&mut peer, 3_001, 3), "no probe was made: it is data");
        assert!(!probe(&mut peer, 1_200, 4));
        assert!(!probe(&mut peer, 2_000, 5));
        assert!(probe(&mut peer, 1_500, 6), "of all together");
        peer.handle_datagram(here, 9_000, there, || 6);
        assert!(probe(&mut peer, 1_500, 7), "it came from elsewhere");
        peer.handle_datagram(there, 1_000, there, || 7);
        assert!(!probe(&mut peer, 1_500, 8));
        peer.handle_datagram(here, 100, here, || 8);
        assert!(probe(&mut peer, 1_500, 9), "back where it was it has to prove itself anew");
    }
}
