//! UDP sockets with segmentation offload.

pub(crate) mod options;

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};

use crate::driver::{Origin, Transmit};

/// What one receive can bring: 64 datagrams of a GRO batch.
const RECEIVE_BYTES: usize = 64 * 1024;
/// The kernel's buffers, as far as it allows.
const KERNEL_BUFFER_BYTES: usize = 4 << 20;

/// How often, and how long apart, an address in use is tried again.
const BIND_TRIES: usize = 20;
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// Why a socket cannot be bound, with what helps.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error("port {} of {} is in use: stop what uses it, or choose another with --listen", .0.port(), .0.ip())]
    InUse(SocketAddr),
    /// A privileged port.
    #[error("binding {0} is not permitted: ports below 1024 need the capability CAP_NET_BIND_SERVICE")]
    NotPermitted(SocketAddr),
    /// No interface has the address.
    #[error("no interface has the address {}", .0.ip())]
    NoSuchAddress(SocketAddr),
    /// Anything else.
    #[error("{address} cannot be bound: {cause}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

/// A UDP socket that never blocks.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// What one receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing is there.
    Nothing,
    /// All that was there.
    All,
    /// As much as there was room for: there may be more.
    Part,
}

/// Room to receive into, kept from one receive to the next.
#[derive(Debug)]
pub struct ReceiveBuffer {
    bytes: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
}

impl Default for ReceiveBuffer {
    fn default() -> Self {
        Self { bytes: vec![0; RECEIVE_BYTES * BATCH_SIZE], metas: [RecvMeta::default(); BATCH_SIZE] }
    }
}

/// Binds one socket for each shard to the same address, in the order of the shards, and has the kernel steer datagrams to
/// them by connection id. The first binding is exclusive, so that a second server on the same port is noticed.
///
/// # Errors
/// [`BindError`].
pub fn bind_shards(address: SocketAddr, shards: usize) -> Result<Vec<Socket>, BindError> {
    let describe = |cause: io::Error| match cause.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        io::ErrorKind::PermissionDenied => BindError::NotPermitted(address),
        io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(address),
        _ => BindError::Other { address, cause },
    };
    // SO_REUSEPORT lets any process of the same user join: ask without it first.
    let probe = bind_patiently(address).map_err(describe)?;
    let bound = probe.local_addr().map_err(describe)?;
    drop(probe);
    let sockets: Vec<_> =
        (0..shards).map(|_| Socket::bind(bound, true).map_err(describe)).collect::<Result<_, _>>()?;
    if let Some(first) = sockets.first().filter(|_| shards > 1)
        && let Err(error) = options::steer_by_connection_id(first.socket.as_fd(), shards as u32)
    {
        tracing::warn!(%error, "no steering by connection id: clients that change their address lose their connection");
    }
    Ok(sockets)
}

/// Binds an address that a process killed a moment ago may still hold: the kernel takes its rings apart only after it
/// is gone, and its sockets with them.
fn bind_patiently(address: SocketAddr) -> io::Result<UdpSocket> {
    for _ in 0..BIND_TRIES {
        match UdpSocket::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(BIND_PAUSE),
            bound => return bound,
        }
    }
    UdpSocket::bind(address)
}

impl Socket {
    /// Binds a socket; `shared` ones can be bound to the same address again.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(address: SocketAddr, shared: bool) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        // Best effort: the system's own maximum is as good.
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER_BYTES);
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        options::ask_for_less(socket.as_fd(), !address.ip().is_unspecified());
        Ok(Self { socket, state })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) fn inner(&self) -> &UdpSocket {
        &self.socket
    }

    /// Receives what is there, as far as there is room for it, and hands each datagram on.
    ///
    /// # Errors
    /// What the system says, but for "nothing there".
    pub fn receive(
        &self,
        buffer: &mut ReceiveBuffer,
        mut take: impl FnMut(Origin, BytesMut),
    ) -> io::Result<Received> {
        let mut chunks = buffer.bytes.chunks_mut(RECEIVE_BYTES);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let received = match self.state.recv((&self.socket).into(), &mut slices, &mut buffer.metas) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
            // An earlier datagram of ours met a closed port or a dead route, or the system is short of something:
            // nothing is wrong with this socket.
            Err(error) if is_passing(&error) => {
                tracing::debug!(%error, "a receive failed");
                return Ok(Received::Nothing);
            }
            Err(error) => return Err(error),
        };
        for (meta, bytes) in buffer.metas.iter().zip(buffer.bytes.chunks(RECEIVE_BYTES)).take(received) {
            let origin =
                Origin { remote: meta.addr, local_ip: meta.dst_ip, ecn: meta.ecn.map(|ecn| ecn as u8) };
            let filled = bytes.get(..meta.len).unwrap_or_default();
            for datagram in filled.chunks(meta.stride.max(1)) {
                take(origin, BytesMut::from(datagram));
            }
        }
        Ok(if received < BATCH_SIZE { Received::All } else { Received::Part })
    }

    /// How many datagrams one send may carry; fewer once the network device has refused to cut them.
    #[must_use]
    pub fn segments_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends datagrams; `false` if the socket takes none for now.
    ///
    /// # Errors
    /// What the system says, but for "not now". A lost datagram is no error: QUIC sends it again.
    pub fn send(&self, transmit: &Transmit, contents: &[u8]) -> io::Result<bool> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(quinn_udp::EcnCodepoint::from_bits),
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match self.state.try_send((&self.socket).into(), &transmit) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if quinn_udp::is_msg_size_err(&error) => Ok(true), // a probe for a larger MTU
            // No offload on this route (IPsec, devices without checksums): quinn-udp notes it for the next time.
            Err(error) if transmit.segment_size.is_some() && is_no_offload(&error) => {
                self.send_singly(&transmit)
            }
            Err(error) => Err(error),
        }
    }

    fn send_singly(&self, transmit: &quinn_udp::Transmit<'_>) -> io::Result<bool> {
        for contents in transmit.contents.chunks(transmit.segment_size.unwrap_or(usize::MAX).max(1)) {
            let one = quinn_udp::Transmit { contents, segment_size: None, ..transmit.clone() };
            match self.state.try_send((&self.socket).into(), &one) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true), // QUIC sends the rest again
                result => result?,
            }
        }
        Ok(true)
    }
}

/// For whoever waits until there is something to receive without an executor of its own.
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What quinn-udp takes for a device that cannot cut datagrams (EIO and EINVAL).
fn is_no_offload(error: &io::Error) -> bool {
    let codes = [rustix::io::Errno::IO, rustix::io::Errno::INVAL].map(rustix::io::Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::Interrupted
            | Kind::OutOfMemory
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_is_received_is_said_once_and_nothing_more_of_it_than_is_used() {
        let socket = Socket::bind(([127, 0, 0, 1], 0).into(), false).unwrap();
        let peer = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let (mut buffer, mut seen) = (ReceiveBuffer::default(), Vec::new());
        assert_eq!(socket.receive(&mut buffer, |_, _| unreachable!()).unwrap(), Received::Nothing);
        for number in 0..BATCH_SIZE + 1 {
            peer.send_to(&[number as u8], socket.local_addr().unwrap()).unwrap();
        }
        let until = Instant::now() + Duration::from_secs(10);
        let mut answers = Vec::new();
        while seen.len() <= BATCH_SIZE && Instant::now() < until {
            let received = socket.receive(&mut buffer, |origin, data| {
                assert_eq!((origin.remote, origin.local_ip), (peer.local_addr().unwrap(), None));
                seen.push(data[0]);
            });
            answers.push(received.unwrap());
        }
        assert!(seen.iter().copied().eq(0..=BATCH_SIZE as u8), "{seen:?}");
        assert_eq!(answers, [Received::Part, Received::All]);
    }
}
