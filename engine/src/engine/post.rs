//! Queues to a thread that waits for any of several.
//!
//! Selecting over channels does that too, but whoever sends then wakes the receiver with a lock in hand that the receiver
//! takes first. Where both have one core, each message costs two switches between threads more than it has to
//! (docs/decisions/0011-small-commits.md).

use crossbeam_channel::{Receiver, SendError, Sender, TrySendError, bounded, unbounded};
use crossbeam_utils::sync::Unparker;

/// The sending end of a queue. The thread at the other end is woken by what is sent, and when the last of these is dropped.
pub(super) struct Post<T> {
    /// There until it is dropped, which has to happen before the thread looks.
    sender: Option<Sender<T>>,
    receiver: Unparker,
}

impl<T> Clone for Post<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), receiver: self.receiver.clone() }
    }
}

impl<T> Drop for Post<T> {
    fn drop(&mut self) {
        self.sender = None;
        self.receiver.unpark();
    }
}

impl<T> Post<T> {
    /// A queue of at most so many to the thread that parks with this.
    pub(super) fn bounded(capacity: usize, receiver: &Unparker) -> (Self, Receiver<T>) {
        let (sender, end) = bounded(capacity);
        (Self { sender: Some(sender), receiver: receiver.clone() }, end)
    }

    /// A queue without a bound: for what another bound limits.
    pub(super) fn unbounded(receiver: &Unparker) -> (Self, Receiver<T>) {
        let (sender, end) = unbounded();
        (Self { sender: Some(sender), receiver: receiver.clone() }, end)
    }

    fn sender(&self) -> &Sender<T> {
        self.sender.as_ref().expect("it is there until this is dropped")
    }

    /// Sends if there is room, and lets the other end sleep on until [`Self::ring`].
    pub(super) fn try_send_quietly(&self, message: T) -> Result<(), TrySendError<T>> {
        self.sender().try_send(message)
    }

    /// Wakes the other end.
    pub(super) fn ring(&self) {
        self.receiver.unpark();
    }

    /// Sends if there is room.
    pub(super) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.try_send_quietly(message)?;
        self.ring();
        Ok(())
    }

    /// Sends, and waits for room.
    pub(super) fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.sender().send(message)?;
        self.ring();
        Ok(())
    }

    /// How many wait at the other end.
    pub(super) fn len(&self) -> usize {
        self.sender().len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::TryRecvError;
    use crossbeam_utils::sync::Parker;

    use super::*;

    /// Far longer than anything here takes, and the end of a test that hangs.
    const LONG: Duration = Duration::from_secs(60);
    const MESSAGES: u32 = 20_000;

    #[test]
    fn nothing_that_is_sent_to_a_parked_thread_is_slept_over() {
        let parker = Parker::new();
        let (numbers, number_end) = Post::bounded(64, parker.unparker());
        let (words, word_end) = Post::unbounded(parker.unparker());
        let receiving = std::thread::spawn(move || {
            let (mut sum, mut counted, mut open) = (0, 0, 2);
            let (mut number_end, mut word_end) = (number_end, word_end);
            while open > 0 {
                match (number_end.try_recv(), word_end.try_recv()) {
                    (Ok(number), word) => {
                        sum += u64::from(number);
                        counted += u32::from(word.is_ok());
                    }
                    (_, Ok(())) => counted += 1,
                    (Err(TryRecvError::Disconnected), _) => {
                        number_end = crossbeam_channel::never();
                        open -= 1;
                    }
                    (_, Err(TryRecvError::Disconnected)) => {
                        word_end = crossbeam_channel::never();
                        open -= 1;
                    }
                    (Err(TryRecvError::Empty), Err(TryRecvError::Empty)) => {
                        let parked = std::time::Instant::now();
                        parker.park_timeout(LONG);
                        assert!(parked.elapsed() < LONG, "it slept through a message or an end");
                    }
                }
            }
            (sum, counted)
        });
        std::thread::scope(|scope| {
            scope.spawn(move || (0..MESSAGES).for_each(|n| numbers.send(n).expect("received")));
            scope.spawn(move || {
                (0..MESSAGES).for_each(|_| words.clone().send(()).expect("received"));
            });
        });
        let n = u64::from(MESSAGES);
        assert_eq!(receiving.join().expect("it ends"), (n * (n - 1) / 2, MESSAGES));
    }

    #[test]
    fn a_full_queue_gives_back_what_it_does_not_take() {
        let parker = Parker::new();
        let (numbers, end) = Post::bounded(1, parker.unparker());
        assert!(numbers.try_send(1).is_ok());
        assert_eq!(numbers.len(), 1);
        assert!(matches!(numbers.try_send(2), Err(TrySendError::Full(2))));
        drop(end);
        assert!(matches!(numbers.try_send(3), Err(TrySendError::Disconnected(3))));
    }
}
