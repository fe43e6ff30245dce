//! Sequences of everything that can happen to a session: bytes of several streams in pieces, answers of the doors in
//! any order, streams given up and sent on, clocks, full queues, rights that change.
//!
//! A model that keeps every byte and every request says what each step must bring.

mod doors;
mod model;
mod traffic;

use std::collections::BTreeSet;

use arbitrary::{Result, Unstructured};
use jeton_core::rights::Rights;
use jeton_wire::frame::{RESPONSE_BYTES_MAX, split};
use jeton_wire::response::Response;
use jeton_wire::{Refusing, Session};

use doors::Doors;
use model::{Expected, Model};

/// Streams of the connection.
const STREAMS: u64 = 4;
/// Steps of one run, at most.
const STEPS_MAX: usize = 200;

/// Why a run ends before its input does: the connection is closed.
struct Closed;

/// The session, its model, and bytes that are still on their way to it.
struct Run {
    session: Session,
    model: Model,
    doors: Doors,
    under_way: Vec<Vec<u8>>,
    next_ticket: u64,
    next_request: u64,
}

/// Reads the bytes as steps and carries them out.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut run = Run {
        session: Session::new(doors::IDENTITY.to_owned()),
        model: Model::default(),
        doors: Doors::default(),
        under_way: vec![Vec::new(); STREAMS as usize],
        next_ticket: 100,
        next_request: 1,
    };
    // Most of what there is to find lies behind the hello.
    if data.first().is_none_or(|first| first % 16 != 0) {
        run.under_way[0] = traffic::hello(1);
    }
    for _ in 0..STEPS_MAX {
        if input.is_empty() || !matches!(run.step(&mut input), Ok(Ok(()))) {
            break;
        }
        run.check_at_rest();
    }
}

/// The frames of answers in `bytes`.
fn responses(mut bytes: &[u8]) -> Vec<(u64, Response)> {
    let mut all = Vec::new();
    while let Some((frame, length)) = split(bytes, RESPONSE_BYTES_MAX).expect("answers are frames") {
        all.push((frame.request, Response::decode(&frame).expect("answers decode")));
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty(), "answers are whole");
    all
}

/// Whether the answers are those that were due, in order.
fn check_answers(given: &[(u64, Response)], expected: &[Expected]) {
    assert_eq!(given.len(), expected.len(), "{given:?} and not {expected:?}");
    for ((id, response), expected) in given.iter().zip(expected) {
        assert!(*id == expected.request && expected.fits(response), "{id} {response:?} and not {expected:?}");
    }
}

impl Run {
    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<std::result::Result<(), Closed>> {
        let stream = input.int_in_range(0..=STREAMS - 1)?;
        match input.int_in_range(0..=15_u8)? {
            0 => self.under_way[stream as usize].extend(traffic::raw(input)?),
            1..=5 => {
                let request = traffic::request(input, self.next_request)?;
                self.next_request += 1;
                self.under_way[stream as usize].extend(request);
            }
            6 => return Ok(self.deliver(stream, usize::MAX)),
            7 => return Ok(self.deliver(stream, input.int_in_range(1..=40)?)),
            8 => self.answer(input)?,
            9 => {
                self.session.forget_stream(stream);
                self.model.forget_stream(stream);
                self.under_way[stream as usize].clear();
            }
            10 => return Ok(self.end(stream, input.ratio(1, 2)?)),
            11 => {
                self.doors.published.set(self.doors.published.get() + input.int_in_range(0..=3)?);
                let mut given = Vec::new();
                self.session
                    .handle_published(&self.doors, |stream, bytes| given.push((stream, bytes.to_vec())));
                let expected = self.model.publish(&self.doors);
                check_sent(&given, &expected);
            }
            12 => return Ok(self.pass_time(input.int_in_range(0..=2_500)?)),
            13 => {
                let refusing = match input.int_in_range(0..=7_u8)? {
                    0 => Refusing::All,
                    1 => Refusing::AllButTaking,
                    _ => Refusing::Nothing,
                };
                self.session.set_refusing(refusing);
                self.model.refusing = refusing;
                self.doors.is_full.set(input.ratio(1, 4)?);
            }
            14 => self
                .doors
                .rights
                .set(Rights::from_bits(input.int_in_range(0..=0b11_1111)?).unwrap_or_default()),
            _ => self.turn_clock(stream, input.ratio(1, 2)?),
        }
        Ok(Ok(()))
    }

    /// Hands the session bytes of a stream, up to `bytes_max`, and compares what comes of them.
    fn deliver(&mut self, stream: u64, bytes_max: usize) -> std::result::Result<(), Closed> {
        let under_way = &mut self.under_way[stream as usize];
        let data: Vec<u8> = under_way.drain(..bytes_max.min(under_way.len())).collect();
        let mut out = Vec::new();
        let (now_ms, first_ticket) = (self.model.now_ms, self.next_ticket);
        let handled =
            self.session.handle_data(stream, &data, now_ms, &self.doors, &mut self.next_ticket, &mut out);
        let submitted = self.doors.submitted.take();
        assert_eq!(submitted, (first_ticket..self.next_ticket).collect::<Vec<_>>(), "each ticket goes once");
        let given = responses(&out);
        let (expected, outcome) = self.model.receive(stream, &data, &self.doors, &given, &submitted);
        check_answers(&given, &expected);
        assert_eq!(handled, outcome, "the connection goes on or is closed for the right reason");
        handled.map_err(|_| Closed)
    }

    /// A door answers one of the requests it has, in any order.
    fn answer(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let tickets: Vec<u64> = self.model.waiting.keys().copied().collect();
        let Some(ticket) = input.choose_iter(tickets.iter()).ok().copied() else {
            // A ticket that nobody has is nobody's answer.
            let mut out = Vec::new();
            let reply = traffic::reply(input, false)?;
            assert_eq!(self.session.handle_reply(9, reply, &self.doors, &mut out), None);
            assert!(out.is_empty());
            return Ok(());
        };
        let waiting = self.model.answer(ticket);
        let reply = traffic::reply(input, waiting.is_read)?;
        let mut out = Vec::new();
        let to = self.session.handle_reply(ticket, reply, &self.doors, &mut out);
        assert_eq!(to, waiting.stream, "an answer goes to its own stream, and to none that was given up");
        let given = responses(&out);
        match waiting.stream {
            None => assert!(given.is_empty(), "nothing is written for nobody"),
            Some(_) => check_answers(&given, &[Expected::written(waiting.request)]),
        }
        let mut out = Vec::new();
        let again = traffic::reply(input, waiting.is_read)?;
        assert_eq!(self.session.handle_reply(ticket, again, &self.doors, &mut out), None, "one answer each");
        Ok(())
    }

    /// The client says no more on a stream: in order, or by a reset.
    fn end(&mut self, stream: u64, is_reset: bool) -> std::result::Result<(), Closed> {
        if is_reset {
            self.session.forget_partial(stream);
            self.model.forget_partial(stream);
            self.under_way[stream as usize].clear();
            return Ok(());
        }
        let ended = self.session.handle_end(stream);
        assert_eq!(ended.is_err(), self.model.is_partial(stream), "a request that is cut off ends all");
        ended.map_err(|_| Closed)
    }

    fn pass_time(&mut self, by_ms: u64) -> std::result::Result<(), Closed> {
        self.model.now_ms += by_ms;
        let published = jeton_core::numbers::Sequence(self.doors.published.get());
        let mut given = Vec::new();
        let handled = self.session.handle_timeout(self.model.now_ms, published, |stream, bytes| {
            given.push((stream, bytes.to_vec()));
        });
        match self.model.time_out() {
            Some(expected) => {
                assert_eq!(handled, Ok(()), "nobody was too slow");
                check_sent(&given, &expected);
            }
            None => assert_eq!(handled, Err(jeton_wire::CloseCode::TooSlow), "a request took too long"),
        }
        handled.map_err(|_| Closed)
    }

    fn turn_clock(&mut self, stream: u64, on: bool) {
        if on {
            self.session.start_clock(stream, self.model.now_ms);
        } else {
            self.session.stop_clock(stream);
        }
        self.model.turn_clock(stream, on);
    }

    /// What holds between any two steps.
    fn check_at_rest(&self) {
        for stream in 0..STREAMS {
            assert_eq!(self.session.is_settled(stream), self.model.is_settled(stream), "stream {stream}");
        }
        let tickets: BTreeSet<u64> = self.session.tickets().collect();
        assert!(
            tickets.iter().eq(self.model.waiting.keys()),
            "each request under way is known by its ticket"
        );
        assert_eq!(self.session.waits_for_event(), self.model.waits_for_event());
        assert_eq!(self.session.next_timeout_ms(), self.model.next_timeout_ms(), "the next thing to look at");
        self.model.check_bounds();
    }
}

/// Whether what was sent on streams is what was due, in order.
fn check_sent(given: &[(u64, Vec<u8>)], expected: &[(u64, Expected)]) {
    let streams: Vec<u64> = expected.iter().map(|(stream, _)| *stream).collect();
    assert_eq!(given.iter().map(|(stream, _)| *stream).collect::<Vec<_>>(), streams, "each to its stream");
    let bytes: Vec<u8> = given.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    check_answers(
        &responses(&bytes),
        &expected.iter().map(|(_, expected)| expected.clone()).collect::<Vec<_>>(),
    );
}
