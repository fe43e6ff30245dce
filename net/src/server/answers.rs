//! Answers that came back to a shard: a line for each identity, delivered by turns.
//!
//! One commit brings thousands of answers of who writes most, and one of who asked for one thing. The order within an
//! identity is that in which they came.

use std::collections::VecDeque;
use std::rc::Rc;

use jeton_wire::doors::{DoorReply, Ticket};

use super::shares::Share;
use crate::driver::ConnId;

/// Answers of one identity delivered before it is the next one's turn.
const ANSWERS_PER_IDENTITY: usize = 16;
/// Of the room for answers that are sent in one piece, so much is kept, in bytes: pages of the log make it megabytes.
const PIECE_KEPT: usize = 1 << 18;

/// Room for answers that are sent in one piece. It is taken for each, and no more than what is usual is kept in between.
#[derive(Debug, Default)]
pub(super) struct Room(Vec<u8>);

impl Room {
    /// The room, empty.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    /// Gives it back once the piece was sent.
    pub(super) fn give_back(&mut self, mut piece: Vec<u8>) {
        piece.clear();
        piece.shrink_to(PIECE_KEPT);
        self.0 = piece;
    }
}

/// An answer, and the connection that waits for it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) conn: ConnId,
    pub(super) ticket: Ticket,
    pub(super) reply: DoorReply,
}

/// The lines. Bounded by the tickets that are out.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Each identity of which something is there once; its line is in its share.
    turns: VecDeque<Rc<Share>>,
    waiting: usize,
}

impl Answers {
    /// Answers that wait to be delivered.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// One came.
    pub(super) fn add(&mut self, share: Rc<Share>, answer: Answer) {
        self.waiting += 1;
        if share.add_answer(answer) {
            self.turns.push_back(share);
        }
    }

    /// The answers of the next turn, and whose they are.
    pub(super) fn next_turn(&mut self) -> Option<(Rc<Share>, Vec<Answer>)> {
        let share = self.turns.pop_front()?;
        let (answers, has_more) = share.take_answers(ANSWERS_PER_IDENTITY);
        self.waiting -= answers.len();
        if has_more {
            self.turns.push_back(Rc::clone(&share));
        }
        Some((share, answers))
    }
}

#[cfg(test)]
mod tests {
    use super::super::shares::Shares;
    use super::*;

    fn answer(ticket: Ticket) -> Answer {
        Answer { conn: ConnId::of_nobody(), ticket, reply: DoorReply::Log(Err(String::new())) }
    }

    #[test]
    fn room_for_pages_of_the_log_is_given_back_and_room_for_answers_is_kept() {
        let mut room = Room::default();
        room.give_back(vec![1; 16 << 20]);
        assert!(room.0.capacity() <= 2 * PIECE_KEPT);
        room.give_back(vec![1; 4_096]);
        let small = room.take();
        assert!(small.is_empty() && small.capacity() >= 4_096);
    }

    #[test]
    fn one_answer_of_one_identity_does_not_wait_behind_thousands_of_another() {
        let mut shares = Shares::new(1);
        let (many, one) = (shares.join("many").unwrap(), shares.join("one").unwrap());
        let mut answers = Answers::default();
        (0..5_000).for_each(|ticket| answers.add(Rc::clone(&many), answer(ticket)));
        answers.add(Rc::clone(&one), answer(5_000));
        answers.next_turn().unwrap();
        let (share, turn) = answers.next_turn().unwrap();
        assert!(Rc::ptr_eq(&share, &one));
        assert_eq!(turn.iter().map(|answer| answer.ticket).collect::<Vec<_>>(), [5_000]);
        let rest = std::iter::from_fn(|| answers.next_turn()).flat_map(|(_, turn)| turn);
        let rest: Vec<_> = rest.map(|answer| answer.ticket).collect();
        let first = ANSWERS_PER_IDENTITY as u64;
        assert_eq!(rest, (first..5_000).collect::<Vec<_>>(), "in the order in which they came");
        assert_eq!(answers.len(), 0);
    }
}
