//! What is kept of a connection, and how its end is told.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use quinn_proto::{Connection, ConnectionError, ConnectionHandle};

use super::io::{ConnId, DriverEvent, Transmit};

/// How much more than a host has sent it is sent before it has proven that it is there (RFC 9000, section 8.1).
const AMPLIFICATION_MAX: usize = 3;
/// The largest datagram that quinn-proto counts before a new host has proven itself: what QUIC asks every path to carry.
const DATAGRAM_COUNTED_MAX: usize = 1_200;

/// The host that a peer is at. A peer that moves to another one may have somebody else's address in its datagrams, so
/// quinn-proto has the new host prove itself; but it looks at once for how large datagrams may be there, and those it does
/// not count. They wait until the host has sent a third of their size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    ip: IpAddr,
    /// Bytes that came from there since the peer moved to it; of no interest for the first.
    heard: usize,
}

impl Host {
    /// The host that a connection begins with: the handshake proves it.
    pub(super) fn first(ip: IpAddr) -> Self {
        Self { ip, heard: usize::MAX }
    }

    /// Takes note of a datagram, given where the connection takes its peer to be since.
    pub(super) fn handle_datagram(&mut self, origin: IpAddr, bytes: usize, peer: IpAddr) {
        if self.ip != peer {
            *self = Self { ip: peer, heard: 0 };
        }
        if origin == peer {
            self.heard = self.heard.saturating_add(bytes);
        }
    }

    /// Whether a datagram may go there already.
    pub(super) fn may_be_sent(&self, transmit: &Transmit) -> bool {
        let largest = transmit.segment_size.unwrap_or(transmit.size);
        transmit.destination.ip() != self.ip
            || largest <= DATAGRAM_COUNTED_MAX
            || largest <= self.heard.saturating_mul(AMPLIFICATION_MAX)
    }
}

/// One connection, with what is kept of it beside quinn-proto.
pub(super) struct Conn {
    pub(super) inner: Connection,
    pub(super) host: Host,
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn transmit(host: IpAddr, size: usize, segment_size: Option<usize>) -> Transmit {
        Transmit { destination: (host, 1).into(), size, segment_size, ecn: None, src_ip: None }
    }

    #[test]
    fn large_datagrams_wait_until_a_new_host_has_sent_a_third_of_them() {
        let [here, there] = [1, 2].map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
        let mut host = Host::first(here);
        assert!(host.may_be_sent(&transmit(here, 8_900, None)), "the handshake has proven it");
        host.handle_datagram(there, 100, here);
        assert!(host.may_be_sent(&transmit(here, 8_900, None)), "it has not moved");
        host.handle_datagram(there, 1_000, there);
        assert!(host.may_be_sent(&transmit(there, 12_000, Some(1_200))), "these are counted");
        assert!(!host.may_be_sent(&transmit(there, 8_900, None)));
        assert!(host.may_be_sent(&transmit(there, 3_000, None)));
        host.handle_datagram(there, 2_000, there);
        assert!(host.may_be_sent(&transmit(there, 8_900, None)));
        host.handle_datagram(here, 100, here);
        assert!(!host.may_be_sent(&transmit(here, 8_900, None)), "it has to prove itself anew");
    }
}
