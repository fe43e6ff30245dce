//! What goes wrong, how often in this run, and how it is put right again.

use jeton_core::batch::{SealedBatch, open, seal};
use jeton_core::numbers::{LogId, Sequence};
use jeton_core::recovery::ReplayError;
use jeton_core::state::KEY_MEMORY_MS;
use jeton_core::time::Millis;

use super::super::Mistake;
use super::super::disk::Crash;
use super::super::node::{Node, replay};
use super::super::rng::Rng;
use super::super::workload::ADMIN;
use super::snapshots::Started;
use super::{Event, Phase, World};

/// Something that goes wrong by itself, now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The power is cut.
    Crash = 1,
    /// A connection breaks.
    Cut = 2,
    /// The disk is full for a while.
    Full = 3,
    /// The wall clock is set.
    ClockStep = 4,
    /// The server is stopped in order, and started again.
    Stop = 5,
}

/// How much of what goes wrong in this run; intervals are means, and 0 means never.
#[derive(Debug)]
pub(super) struct Faults {
    every_ms: [(Fault, u64); 5],
    pub(super) pause_ms: u64,
    pub(super) delay_ms: u64,
    pub(super) pieces_percent: u64,
    pub(super) stall_per_mille: u64,
    pub(super) turn_ms: u64,
    pub(super) work_ms: u64,
    /// How many times slower the work is, now and then.
    pub(super) slow_work: u64,
    pub(super) disk_ms: u64,
    pub(super) fail_per_mille: u64,
    pub(super) lie_percent: u64,
    tamper_percent: u64,
}

impl Faults {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut every =
            |fault, least: u64, most: u64| (fault, if rng.one_in(3) { 0 } else { rng.within(least..most) });
        let every_ms = [
            every(Fault::Crash, 600, 4_000),
            every(Fault::Cut, 100, 3_000),
            every(Fault::Full, 1_500, 8_000),
            every(Fault::ClockStep, 500, 5_000),
            every(Fault::Stop, 2_000, 9_000),
        ];
        Self {
            every_ms,
            pause_ms: rng.within(4..50),
            delay_ms: *rng.pick(&[2, 5, 20, 80]),
            pieces_percent: *rng.pick(&[0, 10, 60]),
            stall_per_mille: *rng.pick(&[0, 0, 2]),
            turn_ms: *rng.pick(&[1, 3, 15]),
            work_ms: *rng.pick(&[1, 3, 10]),
            slow_work: 20,
            disk_ms: *rng.pick(&[1, 5, 20, 60]),
            fail_per_mille: *rng.pick(&[0, 3, 10]),
            lie_percent: *rng.pick(&[0, 0, 0, 10]),
            tamper_percent: *rng.pick(&[0, 30, 60]),
        }
    }

    fn next(&self, fault: Fault, rng: &mut Rng) -> Option<u64> {
        let (_, mean) = self.every_ms.iter().find(|(kind, _)| *kind == fault)?;
        (*mean > 0).then(|| 1 + rng.below(2 * mean))
    }

    /// When each of them happens for the first time.
    pub(super) fn first(&self, rng: &mut Rng) -> Vec<(Fault, u64)> {
        let kinds = self.every_ms.iter().map(|(fault, _)| *fault);
        kinds.filter_map(|fault| Some((fault, self.next(fault, rng)?))).collect()
    }

    /// Nothing goes wrong any more.
    fn heal(&mut self) {
        self.every_ms.iter_mut().for_each(|(_, mean)| *mean = 0);
        (self.stall_per_mille, self.fail_per_mille, self.lie_percent, self.tamper_percent) = (0, 0, 0, 0);
        // One token at a time, many times over: it must not be the steps that take the minute.
        (self.work_ms, self.slow_work) = (1, 1);
    }
}

/// What was done to the disk while nobody looked.
enum Tampering {
    None,
    Rot(std::ops::RangeInclusive<Sequence>, super::super::disk::BitFlip),
    LostTail(Vec<SealedBatch>),
    /// The last batch is another one, of the same events, in a chain that is whole.
    AnotherTail(SealedBatch),
    /// A batch from the middle is gone.
    Gap(usize, SealedBatch),
}

impl Tampering {
    fn name(&self) -> &'static str {
        match self {
            Self::None => "an untouched log",
            Self::Rot(..) => "a rotten bit",
            Self::LostTail(_) => "a lost tail",
            Self::AnotherTail(_) => "another tail",
            Self::Gap(..) => "a gap",
        }
    }
}

impl World {
    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), String> {
        if self.phase == Phase::Healing {
            return Ok(());
        }
        if let Some(after) = self.faults.next(fault, &mut self.rng) {
            self.schedule(self.now + after, Event::Fault(fault));
        }
        match fault {
            Fault::Crash => self.crash(),
            Fault::Cut => self.cut(),
            Fault::Full => {
                self.full_until = self.now + self.rng.within(50..800);
            }
            Fault::ClockStep => self.clock.step(&mut self.rng),
            Fault::Stop => {
                if let Some(node) = &mut self.node {
                    node.is_stopping = true;
                }
            }
        }
        Ok(())
    }

    /// The power is cut, and comes back.
    fn crash(&mut self) {
        if self.node.take().is_none() {
            return;
        }
        self.report.crashes += 1;
        Crash { lied_about: self.lied_about, wreck: self.wreck } =
            self.disk.crash(&mut self.rng, &mut self.wreck_rng);
        if self.parts.crash(&mut self.snapshot_rng, &mut self.wreck_rng) {
            self.report.seen.note("a torn file of snapshots");
        }
        self.hang_up();
        let pause = self.rng.within(1..600);
        self.schedule(self.now + pause, Event::Restart);
    }

    fn hang_up(&mut self) {
        let open: Vec<_> =
            self.links.iter().filter(|(_, link)| !link.is_closed_at_server).map(|(at, _)| *at).collect();
        for connection in open {
            self.close_at_server(connection);
            self.soon(300, Event::CutSeenByClient(connection));
        }
    }

    /// A server that was asked to stop does so once all is answered; then it is started again.
    pub(super) fn stop_if_asked(&mut self) {
        let is_done = |node: &Node| node.is_stopping && node.is_idle() && !node.sequencer.has_work();
        if self.node.as_ref().is_some_and(is_done) {
            self.disk.sync_anchor();
            self.crash();
        }
    }

    /// A connection breaks: either side learns of it when it does, and what is under way may still arrive.
    fn cut(&mut self) {
        let connected: Vec<_> = self.clients.iter().filter_map(|client| client.connection).collect();
        if connected.is_empty() {
            return;
        }
        let connection = *self.rng.pick(&connected);
        if self.rng.one_in(2) {
            self.close_at_server(connection);
        } else {
            self.soon(400, Event::CutSeenByServer(connection));
        }
        self.soon(200, Event::CutSeenByClient(connection));
    }

    /// All faults end; the server is started once more, with its clock accepted.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.phase = Phase::Healing;
        self.faults.heal();
        self.network.heal();
        self.full_until = 0;
        // Who waits for room for a key waits until the oldest is forgotten.
        self.clock.heal(if self.keys_are_few { KEY_MEMORY_MS } else { 0 });
        self.crash();
        Ok(())
    }

    /// Starts the server: what was tampered with must be refused, is put right, and the start is repeated.
    pub(super) fn start(&mut self) -> Result<(), String> {
        self.start_on_a_wreck()?;
        self.start_after_lies()?;
        self.start_after_tampering()?;
        let anchor = self.anchor();
        let (mut state, mut reader, end, batches) = replay(&self.disk, self.tokens_max, anchor)
            .map_err(|error| format!("a whole log is refused: {error}"))?;
        if let Started::From(other, its_reader) = self.start_from_snapshot(anchor)? {
            if other.digest() != state.digest() {
                return Err("a start from a snapshot ends in another state than a replay".to_owned());
            }
            (state, reader) = (*other, its_reader);
        }
        self.witness.recovered(end.sequence)?;
        self.oracle.recovered(&batches)?;
        let accept = self.phase == Phase::Healing || self.rng.one_in(2);
        self.clock.start(self.now, state.last_time(), accept);
        let now = self.engine_now();
        assert!(now >= state.last_time(), "the clock goes on after the last event");
        assert_eq!(end.log, LogId([7; 16]), "there is one log");
        self.incarnation += 1;
        let mut node = Node::new(state, reader, end, now, self.quantum);
        if end.sequence == Sequence(0) {
            node.sequencer.handle_creation(ADMIN, now);
            self.oracle.created(&node.sequencer);
        }
        self.node = Some(node);
        if self.phase == Phase::Healing {
            self.served_since = Some(self.report.steps);
        }
        self.schedule(self.now + 1, Event::Housekeeping(self.incarnation));
        self.look_at_all()?;
        self.after_input()
    }

    fn anchor(&self) -> Option<jeton_core::recovery::ReplayAnchor> {
        self.disk.anchor().filter(|_| self.mistake != Some(Mistake::AnchorIgnored))
    }

    /// What was written and not synced is torn, or has come to the disk before what belongs in front of it. The store cuts
    /// it off, as sled does; should one hand it on, it must not be taken for a log.
    fn start_on_a_wreck(&mut self) -> Result<(), String> {
        let wreck = std::mem::take(&mut self.wreck);
        let Some(last) = wreck.last().map(|batch| batch.last) else { return Ok(()) };
        let head = self.disk.head();
        let is_torn = wreck.iter().any(|batch| open(&batch.bytes).is_err());
        let is_early = wreck.iter().any(|batch| open(&batch.bytes).is_ok());
        for (is_so, situation) in
            [(is_torn, "a torn write"), (is_early, "a write that was there before an earlier one")]
        {
            if is_so {
                self.report.seen.note(situation);
            }
        }
        let pieces = wreck.len();
        self.disk.restore(wreck);
        self.must_refuse(
            "a log with what was being written at a crash",
            |error| matches!(error, ReplayError::Broken { at, .. } if *at > head && *at <= last),
        )?;
        (0..pieces).for_each(|_| drop(self.disk.lose_tail()));
        Ok(())
    }

    /// A disk that said it had what it had not: noticed if the anchor was safe by then. Nobody else could notice, so in
    /// either case the rest of the run goes on as if the disk had been honest.
    fn start_after_lies(&mut self) -> Result<(), String> {
        let lost = std::mem::take(&mut self.lied_about);
        if lost.is_empty() {
            return Ok(());
        }
        if self.disk.anchor().is_some_and(|anchor| anchor.sequence > self.disk.head()) {
            self.must_refuse("a log that the disk lied about", |error| {
                matches!(error, ReplayError::LostTail { .. })
            })?;
            self.report.seen.note("a lie of the disk, noticed");
        } else {
            self.report.seen.note("a lie of the disk, too young to be noticed");
        }
        self.disk.restore(lost);
        Ok(())
    }

    fn start_after_tampering(&mut self) -> Result<(), String> {
        let tampering = self.tamper();
        self.report.seen.note(tampering.name());
        match tampering {
            Tampering::None => Ok(()),
            Tampering::Rot(events, flip) => {
                self.must_refuse(
                    "a log with a rotten bit",
                    |error| matches!(error, ReplayError::Broken { at, .. } if events.contains(at)),
                )?;
                self.disk.flip(&flip);
                Ok(())
            }
            Tampering::LostTail(lost) => {
                let missing = lost[0].first;
                self.must_refuse(
                    "a log without its end",
                    |error| matches!(error, ReplayError::LostTail { at, .. } if *at == missing),
                )?;
                self.disk.restore(lost);
                Ok(())
            }
            Tampering::AnotherTail(real) => {
                let anchored = real.last;
                self.must_refuse(
                    "a log of another history",
                    |error| matches!(error, ReplayError::AnotherChain { at } if *at == anchored),
                )?;
                self.disk.lose_tail();
                self.disk.restore([real]);
                Ok(())
            }
            Tampering::Gap(at, missing) => {
                let first = missing.first;
                self.must_refuse(
                    "a log with a gap",
                    |error| matches!(error, ReplayError::Broken { at, .. } if *at == first),
                )?;
                self.disk.put_back(at, missing);
                Ok(())
            }
        }
    }

    fn tamper(&mut self) -> Tampering {
        if !self.rng.percent(self.faults.tamper_percent) {
            return Tampering::None;
        }
        let is_anchored = self.disk.anchor().is_some_and(|anchor| anchor.sequence == self.disk.head());
        match self.rng.below(4) {
            0 | 1 if is_anchored => return Tampering::LostTail(self.disk.lose_tail().into_iter().collect()),
            2 if is_anchored => return self.another_tail(),
            3 => {
                if let Some((at, missing)) = self.disk.tear_out(&mut self.rng) {
                    return Tampering::Gap(at, missing);
                }
            }
            _ => {}
        }
        match self.disk.rot(&mut self.rng) {
            Some((events, flip)) => Tampering::Rot(events, flip),
            None => Tampering::None,
        }
    }

    /// Replaces the last batch by one that says the same of another time: as a server would that was started from an
    /// older copy of the disk and went on from there.
    fn another_tail(&mut self) -> Tampering {
        let Some(real) = self.disk.lose_tail() else { return Tampering::None };
        let Ok((_, _, mut end, _)) = replay(&self.disk, self.tokens_max, None) else {
            self.disk.restore([real]);
            return Tampering::None;
        };
        let open = open(&real.bytes).expect("the disk's own batch opens");
        let other = seal(&mut end, Millis(open.time.0 + 1), open.entries.into_iter());
        self.disk.restore([other]);
        Tampering::AnotherTail(real)
    }

    fn must_refuse(&mut self, what: &str, is_right: impl Fn(&ReplayError) -> bool) -> Result<(), String> {
        match replay(&self.disk, self.tokens_max, self.anchor()) {
            Err(error) if is_right(&error) => {
                self.report.refused += 1;
                Ok(())
            }
            Err(error) => Err(format!("{what} is refused for another reason: {error}")),
            Ok(_) => Err(format!("{what} is not refused")),
        }
    }

    /// The end of a run: everything is where it belongs.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.check_digest()?;
        self.look_at_all()
    }
}
