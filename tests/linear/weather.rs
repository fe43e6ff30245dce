//! A bad network between clients and a server: a relay that loses, repeats and exchanges datagrams, in both directions.
//!
//! It knows nothing of what it carries. A client is whoever sends from an address that was not seen before, and has a
//! socket of its own towards the server from then on, so that the server sees as many addresses as there are clients.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::sim::rng::Rng;

/// Of a hundred datagrams.
const LOST_PERCENT: u64 = 2;
const REPEATED_PERCENT: u64 = 4;
/// Those that others overtake, and by how much.
const LATE_PERCENT: u64 = 10;
const LATE_US: std::ops::Range<u64> = 200..4_000;
/// How long it waits at a time before it looks whether it is to end.
const LOOK_AROUND: Duration = Duration::from_millis(5);
/// More than any datagram has.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Datagrams that are late at a time; one more is lost.
const LATE_MAX: usize = 16_384;

/// What became of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// All that came.
    pub came: u64,
    /// Those that went no further.
    pub lost: u64,
    /// Those that went on twice.
    pub repeated: u64,
    /// Those that went on later than others that had come behind them.
    pub late: u64,
}

/// A relay in front of a server, on a thread of its own.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Passed>,
}

impl Relay {
    /// Begins to carry what comes to its address on to `server`, and back.
    ///
    /// # Panics
    /// If it cannot have a socket.
    pub(super) fn start(server: SocketAddr, seed: u64) -> Self {
        let front = socket().expect("a socket on loopback");
        let address = front.local_addr().expect("its address");
        let is_over = Arc::new(AtomicBool::new(false));
        let mut carrier = Carrier {
            front,
            server,
            clients: Vec::new(),
            late: BinaryHeap::new(),
            serial: 0,
            rng: Rng::new(seed),
            passed: Passed::default(),
        };
        let stop = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            while !stop.load(Relaxed) {
                carrier.turn().expect("loopback carries datagrams");
            }
            carrier.passed
        });
        Self { address, is_over, thread }
    }

    /// Ends it.
    pub(super) fn stop(self) -> Passed {
        self.is_over.store(true, Relaxed);
        self.thread.join().expect("the relay ran to its end")
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Where a datagram goes: from the client with this number to the server, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Out(usize),
    Back(usize),
}

/// When a datagram is to go on, after how many others that were late, which way, and what it is.
type Late = (Instant, u64, Way, Vec<u8>);

struct Carrier {
    front: UdpSocket,
    server: SocketAddr,
    /// Each client's address, and its socket towards the server.
    clients: Vec<(SocketAddr, UdpSocket)>,
    late: BinaryHeap<Reverse<Late>>,
    serial: u64,
    rng: Rng,
    passed: Passed,
}

impl Carrier {
    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while let Some((length, from)) = received(self.front.recv_from(&mut buffer)) {
            let known = self.clients.iter().position(|(address, _)| *address == from);
            let client = match known {
                Some(client) => client,
                None => {
                    self.clients.push((from, socket()?));
                    self.clients.len() - 1
                }
            };
            self.pass(Way::Out(client), &buffer[..length]);
        }
        for client in 0..self.clients.len() {
            while let Some((length, _)) = received(self.clients[client].1.recv_from(&mut buffer)) {
                self.pass(Way::Back(client), &buffer[..length]);
            }
        }
        let now = Instant::now();
        while self.late.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            if let Some(Reverse((_, _, way, datagram))) = self.late.pop() {
                self.send(way, &datagram);
            }
        }
        Ok(())
    }

    /// Waits until something comes or is due.
    fn wait(&self) -> io::Result<()> {
        let due = self.late.peek().map(|Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
        let patience = due.map_or(LOOK_AROUND, |due| due.min(LOOK_AROUND));
        let patience = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
        let sockets = std::iter::once(&self.front).chain(self.clients.iter().map(|(_, socket)| socket));
        let mut fds: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn pass(&mut self, way: Way, datagram: &[u8]) {
        self.passed.came += 1;
        if self.rng.percent(LOST_PERCENT) || self.late.len() >= LATE_MAX {
            self.passed.lost += 1;
            return;
        }
        if self.rng.percent(REPEATED_PERCENT) {
            self.passed.repeated += 1;
            self.delay(way, datagram);
        }
        if self.rng.percent(LATE_PERCENT) {
            self.passed.late += 1;
            self.delay(way, datagram);
        } else {
            self.send(way, datagram);
        }
    }

    fn delay(&mut self, way: Way, datagram: &[u8]) {
        let due = Instant::now() + Duration::from_micros(self.rng.within(LATE_US));
        self.serial += 1;
        self.late.push(Reverse((due, self.serial, way, datagram.to_vec())));
    }

    /// What is not taken, by a server that is dead or a buffer that is full, is lost.
    fn send(&self, way: Way, datagram: &[u8]) {
        let _ = match way {
            Way::Out(client) => self.clients[client].1.send_to(datagram, self.server),
            Way::Back(client) => self.front.send_to(datagram, self.clients[client].0),
        };
    }
}

/// A datagram, if there is one: that one sent earlier met a closed port is no fault of this socket.
fn received(result: io::Result<(usize, SocketAddr)>) -> Option<(usize, SocketAddr)> {
    result.ok()
}
