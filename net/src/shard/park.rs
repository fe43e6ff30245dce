//! Parking a shard until a datagram, a bell or a deadline.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use futures_lite::future::{or, poll_fn};
use glommio::net::TcpStream;
use glommio::timer::sleep;

use crate::socket::Socket;
use crate::socket::options::adopt;

/// The longest that a shard parks without looking around.
const PARK_MAX: Duration = Duration::from_secs(1);

/// Wakes a shard from another thread.
#[derive(Debug, Default)]
pub struct Bell {
    has_rung: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    /// Wakes the shard, now or as soon as it parks.
    pub fn ring(&self) {
        // Release: what was put into the shard's queues before is seen by whoever sees the bell.
        self.has_rung.store(true, Ordering::Release);
        self.waker.wake();
    }

    async fn heard(&self) {
        poll_fn(|context| {
            self.waker.register(context.waker());
            // After registering, so that a ring in between is not missed.
            if self.has_rung.swap(false, Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Knows when the socket has something to read.
///
/// glommio tells nobody when a descriptor is ready. Peeking at one byte through its TCP stream does: the operation
/// completes when there is something, and takes nothing.
pub(super) struct Readiness {
    stream: Rc<TcpStream>,
    /// Kept from one park to the next: cancelling and submitting it anew would cost two system calls each time.
    peek: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Readiness {
    pub(super) fn new(socket: &Socket) -> io::Result<Self> {
        let duplicate = OwnedFd::from(socket.inner().try_clone()?);
        Ok(Self { stream: Rc::new(adopt(duplicate)), peek: None })
    }

    /// Returns once there may be something to do.
    pub(super) async fn park(&mut self, bell: &Bell, deadline: Option<Duration>) {
        let stream = &self.stream;
        let peek = self.peek.get_or_insert_with(|| {
            let stream = Rc::clone(stream);
            Box::pin(async move {
                let mut byte = [0; 1];
                let _ = stream.peek(&mut byte).await;
            })
        });
        let mut has_data = false;
        let readable = async {
            peek.as_mut().await;
            has_data = true;
        };
        let wake = deadline.unwrap_or(PARK_MAX).min(PARK_MAX);
        or(or(readable, bell.heard()), async {
            sleep(wake).await;
        })
        .await;
        if has_data {
            self.peek = None;
        }
    }
}
