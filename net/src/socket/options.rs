//! The one file of this crate with `unsafe`: socket options that no library sets.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Has the kernel hand each datagram to the socket that its connection id names, among those bound to the same address in
/// the order of the shards: the id's first byte modulo their number (`driver/cid.rs`).
///
/// The filter is classic BPF over the UDP payload (`SO_ATTACH_REUSEPORT_CBPF`, socket(7)). A long header (RFC 9000, section
/// 17.2: the highest bit of the first byte) has the id behind version and length, at 6; a short one (17.3) at 1. What is too
/// short for either ends the filter, and is handed out by the kernel's own hash.
///
/// # Errors
/// What the system says; the kernel's hash then does it alone.
pub(crate) fn steer_by_connection_id(socket: BorrowedFd<'_>, shards: u32) -> io::Result<()> {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
    const MODULO: u16 = (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16;
    const RETURN_IT: u16 = (libc::BPF_RET | libc::BPF_A) as u16;
    assert!(shards > 0, "a modulo by zero is no filter");
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD_BYTE, 0, 0, 0),
        step(JUMP_IF_SET, 0, 2, 0x80),
        step(LOAD_BYTE, 0, 0, 6),
        step(JUMP, 0, 0, 1),
        step(LOAD_BYTE, 0, 0, 1),
        step(MODULO, 0, 0, shards),
        step(RETURN_IT, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the descriptor is open for as long as it is borrowed; the option takes a `sock_fprog` of the size given, whose
    // filter is an array that lives until the call returns: the kernel copies it, and keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel tell no more about a datagram than is used. quinn-udp asks for the time at which each arrived, and for the
/// address that it was sent to, which of a socket with an address of its own (`has_address`) is always that. Each costs on every
/// datagram, the latter on sent ones too.
pub(crate) fn ask_for_less(socket: BorrowedFd<'_>, has_address: bool) {
    turn_off(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS);
    if has_address {
        turn_off(socket, libc::IPPROTO_IP, libc::IP_PKTINFO);
        turn_off(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO);
    }
}

/// Sets an option that is a number to 0. Where the kernel does not take that it goes on as before.
fn turn_off(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) {
    let off: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed; the option takes a `c_int`, which lives until the call returns.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const off).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
}
