//! One connection: its streams, what waits to be sent on them, and the answers cut out of what came.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jeton_core::outcome::{Outcome, Rejection};
use jeton_core::verdict::Verdict;
use jeton_net::driver::{ConnId, Driver};
use jeton_wire::company::Company;
use jeton_wire::frame::{Frame, RESPONSE_BYTES_MAX, split};
use jeton_wire::request::{Hello, Request};
use jeton_wire::response::{Response, answers_in};

use crate::peer::{Reply, TokenBytes};

/// A connection and its streams.
#[derive(Default)]
pub(super) struct Link {
    pub(super) conn: Option<ConnId>,
    streams: Vec<Stream>,
    pub(super) is_ready: bool,
    pub(super) is_dirty: bool,
    /// Requests without an answer, those that were not sent yet too.
    unanswered: usize,
    /// Since when the oldest frame waits that was not handed to the driver.
    waits_since: Option<Instant>,
    company: Company,
}

#[derive(Default)]
struct Stream {
    id: u64,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

/// Room for what answers hold, kept from one to the next.
pub(super) struct Taken<'a> {
    pub(super) verdicts: &'a mut Vec<Verdict>,
    pub(super) issued: &'a mut Vec<TokenBytes>,
}

impl Link {
    pub(super) fn opening(conn: ConnId) -> Self {
        Self { conn: Some(conn), ..Self::default() }
    }

    /// Opens the streams and says hello on the first.
    pub(super) fn greet(&mut self, driver: &mut Driver, streams: usize) -> anyhow::Result<()> {
        let conn = self.conn.context("a connection")?;
        for _ in 0..streams {
            let id = driver.open(conn).context("the server allows no such number of streams")?;
            self.streams.push(Stream { id, ..Stream::default() });
        }
        let version = jeton_wire::VERSION;
        let hello = Hello { version_min: version, version_max: version, features: 0 };
        Request::Hello(hello).encode(0, &mut self.streams[0].outgoing);
        Ok(())
    }

    /// Where to put the frame of one more request on a stream.
    pub(super) fn outgoing(&mut self, stream: usize, id: u64, is_validate: bool) -> &mut Vec<u8> {
        self.unanswered += 1;
        if is_validate {
            self.company.asked(id, Instant::now);
        }
        if self.waits_since.is_none() {
            self.waits_since = Some(Instant::now());
        }
        &mut self.streams[stream].outgoing
    }

    /// Until when waiting frames wait on for others to share their datagram; `None` if they are to go. Of the path it is told
    /// the round trip and the size of a datagram.
    pub(super) fn waits_until(&mut self, path: (Duration, u16), now: Instant) -> Option<Instant> {
        let (round_trip, datagram_bytes) = path;
        let wait = self.company.wait(round_trip, self.unanswered, now);
        let until = self.waits_since.map(|since| since + wait).filter(|until| *until > now)?;
        let waiting: usize = self.streams.iter().map(|stream| stream.outgoing.len()).sum();
        (waiting < usize::from(datagram_bytes)).then_some(until)
    }

    /// Hands waiting frames to the driver; returns whether some still wait.
    pub(super) fn flush(&mut self, driver: &mut Driver) -> bool {
        let Some(conn) = self.conn else { return false };
        let mut is_waiting = false;
        self.waits_since = None;
        for stream in &mut self.streams {
            let mut sent = 0;
            while sent < stream.outgoing.len() {
                match driver.write(conn, stream.id, &stream.outgoing[sent..]) {
                    None | Some(0) => break,
                    Some(taken) => sent += taken,
                }
            }
            stream.outgoing.drain(..sent);
            is_waiting |= !stream.outgoing.is_empty();
        }
        is_waiting
    }

    /// Takes bytes of a stream.
    pub(super) fn receive(&mut self, stream: u64, data: &[u8]) {
        if let Some(stream) = self.streams.iter_mut().find(|it| it.id == stream) {
            stream.incoming.extend_from_slice(data);
        }
    }

    /// Cuts answers out of what came on a stream and hands them on; returns the log's id if the hello was answered.
    pub(super) fn take(
        &mut self,
        stream: u64,
        at: Instant,
        mut room: Taken<'_>,
        take: &mut dyn FnMut(Instant, u64, Reply<'_>),
    ) -> anyhow::Result<Option<String>> {
        let Some(stream) = self.streams.iter_mut().find(|it| it.id == stream) else { return Ok(None) };
        let (mut consumed, mut log) = (0, None);
        let garbage = "the server's answer is not jeton/1";
        while let Some((frame, length)) =
            split(&stream.incoming[consumed..], RESPONSE_BYTES_MAX).context(garbage)?
        {
            consumed += length;
            self.company.answered(frame.request, self.unanswered, at);
            self.unanswered = self.unanswered.saturating_sub(1); // but for the hello
            match hand_on(&frame, at, &mut room, take).context(garbage)? {
                None => {}
                Some(said) => {
                    (self.is_ready, log) = (true, Some(said));
                }
            }
        }
        stream.incoming.drain(..consumed);
        Ok(log)
    }
}

/// Hands one answer on; returns the log's id if it is a hello's.
fn hand_on(
    frame: &Frame<'_>,
    at: Instant,
    room: &mut Taken<'_>,
    take: &mut dyn FnMut(Instant, u64, Reply<'_>),
) -> anyhow::Result<Option<String>> {
    if let Some(answers) = answers_in(frame)? {
        room.verdicts.clear();
        for answer in answers {
            room.verdicts.push(answer?.verdict);
        }
        take(at, frame.request, Reply::Verdicts(room.verdicts));
        return Ok(None);
    }
    let reply = match Response::decode(frame)? {
        Response::HelloAck(ack) => {
            if ack.version != jeton_wire::VERSION {
                bail!("the server speaks version {}", ack.version);
            }
            return Ok(Some(ack.log.0.iter().map(|byte| format!("{byte:02x}")).collect()));
        }
        Response::Busy { .. } => Reply::Refused,
        Response::Written { reply, .. } => match reply.result {
            Ok(Outcome::Issued { tokens, .. }) => {
                room.issued.clear();
                room.issued.extend(tokens.iter().map(|token| token.to_bytes()));
                Reply::Issued(room.issued)
            }
            Ok(Outcome::Revoked(report)) => Reply::Revoked(report.revoked),
            Ok(Outcome::Renewed { expires }) => Reply::Renewed { expires_s: expires.0 },
            Ok(Outcome::Consumed { answer, uses_left }) => {
                Reply::Consumed { verdict: answer.verdict, uses_left }
            }
            Ok(other) => Reply::Failed(format!("{other:?}")),
            Err(Rejection::DiskFull | Rejection::ClockInDoubt | Rejection::Busy { .. }) => Reply::Refused,
            // A consume of a token that is used up is answered; one that cannot be consumed at all is rejected.
            Err(Rejection::Token(verdict)) => Reply::Consumed { verdict, uses_left: 0 },
            Err(rejection) => Reply::Failed(rejection.to_string()),
        },
        Response::NotAllowed => Reply::Failed("this identity may not do that".to_owned()),
        Response::Failed(words) => Reply::Failed(words),
        other => Reply::Failed(format!("{other:?}")),
    };
    take(at, frame.request, reply);
    Ok(None)
}

/// Why a connection was lost, in words that say what to do.
pub(super) fn words_for_loss(reason: &str, was_ready: bool, address: SocketAddr) -> String {
    // rustls names TLS alerts and verification failures in Debug's words; QUIC's codes are those of docs/PROTOCOL.md.
    let has = |part: &str| reason.contains(part);
    if has("code 3:") {
        return format!(
            "the server at {address} speaks no version of the protocol that jeton-load does (jeton/1)"
        );
    }
    // An alert, or a verifier's complaint that came back in a close frame.
    let is_ours = has("aborted by peer") || has("closed by the peer");
    if is_ours && (has("ertificate") || has("code 9:")) {
        return format!("the server at {address} refused our certificate: {reason}");
    }
    if has("ertificate") {
        return format!("the certificate of the server at {address} is not one we trust: {reason}");
    }
    if has("application protocol") || has("ALPN") {
        return format!("who listens at {address} does not speak jeton/1: {reason}");
    }
    if !was_ready && (has("timed out") || has("handshake took too long")) {
        return format!("nobody answers at {address}");
    }
    if was_ready && has("timed out") {
        return format!("the server at {address} fell silent");
    }
    format!("the connection to {address} was lost: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: (Duration, u16) = (Duration::from_micros(30), 1_000);
    const SLOW: (Duration, u16) = (Duration::from_micros(4_030), 1_000);

    /// A link with so many requests of ten bytes that were not sent, on a path that is known.
    fn link(requests: usize) -> Link {
        let mut link = Link { streams: vec![Stream::default(), Stream::default()], ..Link::default() };
        assert_eq!(link.waits_until(FAST, Instant::now()), None);
        for request in 0..requests {
            link.outgoing(request % 2, request as u64, false).extend_from_slice(&[0; 10]);
        }
        link
    }

    #[test]
    fn frames_of_a_busy_link_wait_for_an_eighth_of_the_queue_and_no_longer() {
        let mut busy = link(20);
        let now = busy.waits_since.unwrap();
        let until = now + Duration::from_micros(500);
        assert_eq!(busy.waits_until(SLOW, now), Some(until));
        assert_eq!(busy.waits_until(SLOW, until - Duration::from_nanos(1)), Some(until));
        assert_eq!(busy.waits_until(SLOW, until), None, "time is over");
        assert_eq!(busy.waits_until(FAST, now), None, "nothing is in a queue");
    }

    #[test]
    fn a_link_that_is_answered_all_at_once_is_busy_all_the_same() {
        let mut link = link(20);
        let mut answers = Vec::new();
        (0..20).for_each(|id| Response::Busy { retry_ms: 0 }.encode(id, &mut answers));
        link.receive(0, &answers);
        let room = Taken { verdicts: &mut Vec::new(), issued: &mut Vec::new() };
        link.take(0, Instant::now(), room, &mut |_, _, _| {}).unwrap();
        assert_eq!(link.unanswered, 0);
        link.outgoing(0, 20, false).extend_from_slice(&[0; 10]);
        let now = link.waits_since.unwrap();
        assert_eq!(link.waits_until(SLOW, now), Some(now + Duration::from_micros(500)));
    }

    #[test]
    fn frames_wait_for_a_server_whose_answers_take_long_on_a_path_that_does_not() {
        let mut link = link(20);
        for (id, took) in (100..130).zip(std::iter::once(0).chain(std::iter::repeat(80_000))) {
            link.outgoing(0, id, true);
            let mut answer = Vec::new();
            Response::Busy { retry_ms: 0 }.encode(id, &mut answer);
            link.receive(0, &answer);
            let at = Instant::now() + Duration::from_micros(took);
            let room = Taken { verdicts: &mut Vec::new(), issued: &mut Vec::new() };
            link.take(0, at, room, &mut |_, _, _| {}).unwrap();
        }
        let now = link.waits_since.unwrap();
        assert_eq!(link.waits_until(FAST, now), Some(now + Duration::from_millis(1)));
    }

    #[test]
    fn frames_go_at_once_if_there_is_a_datagram_of_them_or_little_under_way() {
        let mut full = link(100);
        assert_eq!(full.waits_until(SLOW, full.waits_since.unwrap()), None);
        let mut idle = link(15);
        assert_eq!(idle.waits_until(SLOW, idle.waits_since.unwrap()), None);
    }
}
