//! Parking a shard until a datagram, a bell or a deadline.
//!
//! The thread waits in ppoll(2), not in its executor: glommio's way to sleep and back takes some ten system calls and a
//! barrier over all cores, which cost more than what a shard is woken for (docs/decisions/0014-parking-in-ppoll.md).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};

/// The longest that a shard parks without looking around.
const PARK_MAX: Duration = Duration::from_secs(1);

/// Wakes a shard from another thread.
#[derive(Debug)]
pub struct Bell {
    has_rung: AtomicBool,
    /// Whether the shard is about to sleep, or does: then somebody has to write to `event`, and one is enough.
    is_parked: AtomicBool,
    event: OwnedFd,
}

impl Bell {
    /// A bell that has not rung.
    ///
    /// # Errors
    /// What the system says: there are no more descriptors.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { has_rung: AtomicBool::new(false), is_parked: AtomicBool::new(false), event })
    }

    /// Wakes the shard, now or as soon as it parks.
    pub fn ring(&self) {
        // What was put into the shard's queues before is seen by whoever sees this. Sequentially consistent, like the other
        // side: either this sees that the shard parks, or the shard sees that it has rung.
        self.has_rung.store(true, SeqCst);
        if self.is_parked.load(SeqCst) && self.is_parked.swap(false, SeqCst) {
            // It cannot be full: the shard takes out what is in it before it parks again.
            let _ = write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Returns once there may be something to do: something to read, a ring since the last time, or the time is over.
    ///
    /// # Errors
    /// What the system says; a signal is none.
    pub(super) fn park(&self, socket: impl AsFd, deadline: Option<Duration>) -> io::Result<()> {
        self.is_parked.store(true, SeqCst);
        if !self.has_rung.load(SeqCst) {
            let wait = deadline.unwrap_or(PARK_MAX).min(PARK_MAX);
            let wait = Timespec::try_from(wait).expect("a second is little");
            let mut descriptors =
                [PollFd::new(&socket, PollFlags::IN), PollFd::new(&self.event, PollFlags::IN)];
            match poll(&mut descriptors, Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !self.is_parked.swap(false, SeqCst) {
            // Who took it away has written, or is about to: in that case the next time ends at once.
            let _ = read(&self.event, &mut [0; 8]);
        }
        // Before the shard looks into its queues: who rings later is heard the next time.
        self.has_rung.store(false, SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    /// Shorter than [`PARK_MAX`], so that a ring that was not heard is told from one that was late.
    const WAIT: Duration = Duration::from_millis(900);

    #[test]
    fn no_ring_is_missed_however_it_falls_together_with_a_park() {
        const RINGS: u64 = 20_000;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let bell = Arc::new(Bell::new().unwrap());
        let (sender, receiver) = channel();
        let (answer, answers) = channel();
        let ringer = std::thread::spawn({
            let bell = Arc::clone(&bell);
            move || {
                for number in 0..RINGS {
                    sender.send(number).unwrap();
                    bell.ring();
                    // Every other time at once again, so that rings fall into all moments of a park.
                    if number % 2 == 0 {
                        answers.recv().unwrap();
                    }
                }
            }
        });
        let mut heard = 0;
        while heard < RINGS {
            let began = Instant::now();
            bell.park(&socket, Some(WAIT)).unwrap();
            let has_slept_out = began.elapsed() >= WAIT;
            let mut is_first = true;
            while let Ok(number) = receiver.try_recv() {
                assert!(!(has_slept_out && is_first), "ring {number} did not wake anybody");
                is_first = false;
                heard += 1;
                if number % 2 == 0 {
                    answer.send(()).unwrap();
                }
            }
        }
        ringer.join().unwrap();
    }

    #[test]
    fn a_datagram_and_a_deadline_end_a_park() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let bell = Bell::new().unwrap();
        let began = Instant::now();
        bell.park(&socket, Some(Duration::from_millis(20))).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(20));
        socket.send_to(b"datagram", socket.local_addr().unwrap()).unwrap();
        bell.ring();
        bell.park(&socket, None).unwrap(); // heard
        bell.park(&socket, None).unwrap(); // there is something to read
        assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 8);
    }
}
