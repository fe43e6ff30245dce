//! What goes into a driver and comes out of it: datagrams and events, without anything of quinn-proto's.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use quinn_proto::ConnectionHandle;

/// Names a connection of a driver, until [`DriverEvent::Lost`] was taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(usize);

impl ConnId {
    /// The id of a connection that is not there, for tests of what only hands ids on.
    #[cfg(test)]
    pub(crate) fn of_nobody() -> Self {
        Self(usize::MAX)
    }

    pub(super) fn of(handle: ConnectionHandle) -> Self {
        Self(handle.0)
    }

    pub(super) fn handle(self) -> ConnectionHandle {
        ConnectionHandle(self.0)
    }
}

/// Where a datagram came from, and how.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The sender.
    pub remote: SocketAddr,
    /// The address it was sent to, if the socket says so.
    pub local_ip: Option<IpAddr>,
    /// Its ECN bits.
    pub ecn: Option<u8>,
}

/// Datagrams to send: the buffer's bytes, cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The receiver.
    pub destination: SocketAddr,
    /// How many bytes of the buffer.
    pub size: usize,
    /// The size of each datagram but the last; `None` for a single one.
    pub segment_size: Option<usize>,
    /// ECN bits to set.
    pub ecn: Option<u8>,
    /// The address to send from.
    pub src_ip: Option<IpAddr>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverEvent {
    /// A handshake is done.
    Connected(ConnId),
    /// A stream has bytes, or its end, to read.
    Readable(ConnId, u64),
    /// A stream that was full takes bytes again.
    Writable(ConnId, u64),
    /// The peer wants nothing more of a stream.
    Stopped(ConnId, u64),
    /// The connection is gone, with why.
    Lost(ConnId, String),
}

/// What a read brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes; there may be more.
    Data(Bytes),
    /// Nothing for now.
    Blocked,
    /// The peer has said all it will.
    Finished,
    /// The stream was reset, or never was.
    Gone,
}

impl Transmit {
    pub(super) fn of(transmit: &quinn_proto::Transmit) -> Self {
        Self {
            destination: transmit.destination,
            size: transmit.size,
            segment_size: transmit.segment_size,
            ecn: transmit.ecn.map(|ecn| ecn as u8),
            src_ip: transmit.src_ip,
        }
    }
}
