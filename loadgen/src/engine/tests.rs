//! Whole runs in a time that the test makes, against a peer that answers from memory: as it should, late, or with lies.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use jeton_core::verdict::Verdict;

use super::*;
use crate::keyspace::Mapping;
use crate::layout::{GROUP_TOKENS, Layout, USES};
use crate::peer::Reply;
use crate::schedule::{Pace, Profile};
use crate::workload::{Arrivals, Asks, Mix, Schedule, Span};

const MS: Duration = Duration::from_millis(1);

/// What to answer instead of the truth.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    None,
    EverythingIsValid,
    NothingIsValid,
    OneVerdictTooFew,
    ADeadTokenLives,
    ATokenTwice,
    ARevokeOfNothing,
    AUseForNothing,
    AShorterLife,
    AnAnswerTwice,
    AnIssuedTokenIsUnknown,
}

/// A server in this very thread: one request after another, each taking `service`, none while it stalls.
struct Fake {
    clock: Rc<Cell<Instant>>,
    shared: Arc<Shared>,
    lie: Lie,
    service: Duration,
    stall: Option<(Instant, Instant)>,
    busy_until: Instant,
    waiting: VecDeque<(Instant, u64, Said)>,
    asked: u64,
    connections: usize,
    reconnected: usize,
    /// Groups are revoked one after another.
    groups_revoked: u32,
}

enum Said {
    Verdicts(Vec<Verdict>),
    Issued(Vec<TokenBytes>),
    Revoked(u64),
    Consumed(u32),
    Renewed(u32),
}

impl Fake {
    /// What a server that does as it is told would say: it knows the tokens by the generator's own notes.
    fn answer(&mut self, question: &Question<'_>) -> Said {
        self.asked += 1;
        match question {
            Question::Validate { tokens, checks } => {
                let keys = &self.shared.keys;
                let verdict = |at: usize| {
                    let position = u32::from_le_bytes(tokens[at][1..5].try_into().unwrap());
                    if self.lie == Lie::NothingIsValid {
                        return Verdict::Denied;
                    }
                    if self.lie == Lie::EverythingIsValid {
                        return Verdict::Valid;
                    }
                    if tokens[at][1..] == [9; 31] {
                        let is_unknown = self.lie == Lie::AnIssuedTokenIsUnknown;
                        return if is_unknown { Verdict::Unknown } else { Verdict::Valid };
                    }
                    if tokens[at][..16] != keys.at(position)[..16] {
                        return Verdict::Unknown;
                    }
                    if tokens[at] != keys.at(position) {
                        return Verdict::WrongSecret;
                    }
                    if checks.is_some_and(|checks| checks[at] == CheckNo::Forbidden as u16) {
                        return Verdict::Forbidden;
                    }
                    let (role, number) = self.shared.truth.layout.role(position);
                    match role {
                        Role::Victim if number < self.shared.truth.victims_taken() => {
                            if self.lie == Lie::ADeadTokenLives { Verdict::Valid } else { Verdict::Revoked }
                        }
                        Role::Member if number / GROUP_TOKENS < self.groups_revoked => Verdict::Revoked,
                        Role::Limited => Verdict::ConsumeRequired,
                        Role::Expired => Verdict::Expired,
                        _ => Verdict::Valid,
                    }
                };
                let few = usize::from(self.lie == Lie::OneVerdictTooFew);
                Said::Verdicts((0..tokens.len() - few).map(verdict).collect())
            }
            Question::Issue { subjects, .. } => {
                let token = |at: usize| {
                    let mut token = [9; 32];
                    token[0] = if self.lie == Lie::ATokenTwice { 0 } else { at as u8 };
                    token
                };
                Said::Issued((0..subjects.len()).map(token).collect())
            }
            Question::Revoke(_) => Said::Revoked(u64::from(self.lie != Lie::ARevokeOfNothing)),
            Question::RevokeSubject(_) => {
                self.groups_revoked += 1;
                Said::Revoked(u64::from(GROUP_TOKENS))
            }
            // As if each token were consumed for the first time: true of a run with few of them.
            Question::Consume(_) => Said::Consumed(USES - u32::from(self.lie != Lie::AUseForNothing)),
            Question::Renew(_) => {
                let shorter = if self.lie == Lie::AShorterLife { self.asked as u32 * 10 } else { 0 };
                Said::Renewed(1_000_000 - shorter)
            }
        }
    }
}

impl Peer for Fake {
    fn identity(&self) -> String {
        "fake".to_owned()
    }

    fn connections(&self) -> usize {
        self.connections
    }

    fn is_ready(&self, _connection: usize) -> bool {
        true
    }

    fn ask(&mut self, _connection: usize, id: u64, question: &Question<'_>) -> anyhow::Result<()> {
        let now = self.clock.get();
        let mut at = self.busy_until.max(now) + self.service;
        if let Some((from, to)) = self.stall.filter(|(from, to)| at > *from && at <= *to + self.service) {
            assert!(from < to, "a stall has a length");
            at = at.max(to + self.service);
        }
        self.busy_until = at;
        let said = self.answer(question);
        self.waiting.push_back((at, id, said));
        Ok(())
    }

    fn turn(&mut self, take: &mut dyn FnMut(Instant, u64, Reply<'_>)) -> anyhow::Result<bool> {
        let mut is_moved = false;
        while self.waiting.front().is_some_and(|(at, ..)| *at <= self.clock.get()) {
            let Some((at, id, said)) = self.waiting.pop_front() else { break };
            for _ in 0..if self.lie == Lie::AnAnswerTwice { 2 } else { 1 } {
                match &said {
                    Said::Verdicts(verdicts) => take(at, id, Reply::Verdicts(verdicts)),
                    Said::Issued(tokens) => take(at, id, Reply::Issued(tokens)),
                    Said::Revoked(count) => take(at, id, Reply::Revoked(*count)),
                    Said::Consumed(left) => {
                        take(at, id, Reply::Consumed { verdict: Verdict::Valid, uses_left: *left });
                    }
                    Said::Renewed(expires_s) => take(at, id, Reply::Renewed { expires_s: *expires_s }),
                }
            }
            is_moved = true;
        }
        Ok(is_moved)
    }

    fn wait(&mut self, _until: Instant) -> anyhow::Result<()> {
        Ok(())
    }

    fn reconnect(&mut self, _connection: usize) -> anyhow::Result<()> {
        self.reconnected += 1;
        Ok(())
    }

    fn lacks(&self, _kind: Kind) -> bool {
        false
    }

    fn has_checks(&self) -> bool {
        true
    }
}

fn workload(mix: Mix, rate: u32) -> Workload {
    let mut workload =
        Workload { mix, schedule: Schedule::Fixed(rate), batch: 8, issue_batch: 4, ..Workload::default() };
    workload.keys.tokens = 20_000;
    workload.duration = Span::from_secs(2);
    workload
}

/// What a run needs, with a key space whose tokens say where they are and a server that knows them.
fn rig(workload: &Workload, clock: &Rc<Cell<Instant>>) -> (Arc<Shared>, Fake) {
    let layout = Layout::new(workload);
    let mut keys = KeySpace::new(
        Mapping::anonymous(layout.tokens()).unwrap(),
        workload.keys.subjects,
        "test".to_owned(),
    );
    for position in 0..layout.tokens() {
        let mut token = [1; 32];
        token[1..5].copy_from_slice(&position.to_le_bytes());
        keys.put(position, &token);
    }
    let shared =
        Arc::new(Shared { workload: workload.clone(), keys, truth: Truth::new(layout), trace: None });
    let fake = Fake {
        clock: Rc::clone(clock),
        shared: Arc::clone(&shared),
        lie: Lie::None,
        service: Duration::from_micros(100),
        stall: None,
        busy_until: clock.get(),
        waiting: VecDeque::new(),
        asked: 0,
        connections: usize::from(workload.connections),
        reconnected: 0,
        groups_revoked: 0,
    };
    (shared, fake)
}

/// A run of two seconds; `change` makes the server another than the best.
fn run(workload: &Workload, change: impl FnOnce(&mut Fake, Instant)) -> (Sample, Fake) {
    let (rows, fake) = run_in(workload, change, 1);
    let mut whole = Sample::default();
    rows.iter().for_each(|row| whole.add(row));
    (whole, fake)
}

/// The same in so many intervals, and what came after them.
fn run_in(
    workload: &Workload,
    change: impl FnOnce(&mut Fake, Instant),
    intervals: u32,
) -> (Vec<Sample>, Fake) {
    let began = Instant::now();
    let clock = Rc::new(Cell::new(began));
    let (shared, mut fake) = rig(workload, &clock);
    change(&mut fake, began);
    let now = || clock.get();
    let mut engine = Engine::new(shared, 0, fake.connections, &now);
    let until = began + workload.duration.0;
    let due = Profile::new(&workload.schedule, workload.duration.0)
        .map(|profile| DueTimes::new(Pace::Profile(profile), began, (0, 1), Arrivals::Constant, 1));
    engine.begin(due, began, until);
    let mut rows = Vec::new();
    let mut end = began + workload.duration.0 / intervals;
    while clock.get() < until + Duration::from_secs(5) {
        engine.turn(&mut fake).unwrap();
        if clock.get() == end && clock.get() <= until {
            if end == until {
                engine.note_unsent();
            } else {
                engine.note_offered(end);
            }
            rows.push(*std::mem::take(&mut engine.sample));
            end += workload.duration.0 / intervals;
        }
        clock.set(clock.get() + Duration::from_micros(50));
    }
    engine.note_unanswered();
    rows.push(*std::mem::take(&mut engine.sample));
    (rows, fake)
}

fn everything() -> (Mix, Asks) {
    let mix = Mix { validate: 70.0, issue: 5.0, revoke: 10.0, revoke_subject: 5.0, consume: 5.0, renew: 5.0 };
    let asks = Asks {
        live: 40.0,
        unknown: 10.0,
        wrong_secret: 10.0,
        revoked: 10.0,
        expired: 10.0,
        granted: 10.0,
        forbidden: 10.0,
    };
    (mix, asks)
}

#[test]
fn a_server_that_says_the_truth_is_believed_whatever_it_is_asked() {
    let (mix, validate) = everything();
    // A token is consumed once at most, as the fake takes it: a second of 200 requests over 1,000 limited tokens.
    let workload = Workload { validate, ..workload(mix, 50) };
    let (sample, _) = run(&workload, |_, _| {});
    assert!(sample.described.is_empty(), "{:?}", sample.described);
    assert_eq!((sample.counts.wrong_replies, sample.counts.errors, sample.counts.achieved), (0, 0, 100));
}

#[test]
fn every_lie_is_noticed() {
    let table = [
        (Lie::EverythingIsValid, "asked about as"),
        (Lie::NothingIsValid, "was denied"),
        (Lie::ADeadTokenLives, "Victim, asked about as Revoked, was valid"),
        (Lie::ATokenTwice, "or two of them are one"),
        (Lie::ARevokeOfNothing, "a revoke of one token revoked 0"),
        (Lie::AUseForNothing, "a consume of limited token"),
        (Lie::AShorterLife, "a renewal shortened the life"),
        (Lie::AnIssuedTokenIsUnknown, "a token that this run issued was unknown"),
        (Lie::AnAnswerTwice, "which nobody waits for"),
    ];
    let (mix, validate) = everything();
    let mut workload = Workload { validate, ..workload(mix, 1_000) };
    workload.keys.tokens = 1_000;
    for (lie, words) in table {
        let (sample, _) = run(&workload, |fake, _| fake.lie = lie);
        assert!(sample.counts.wrong_replies > 0, "{words}");
        let is_named = sample.described.iter().any(|(line, _)| line.contains(words));
        assert!(is_named || sample.described.len() == 5, "{words}: {:?}", sample.described);
    }
    let (sample, _) = run(&workload, |fake, _| fake.lie = Lie::OneVerdictTooFew);
    assert!(
        sample.counts.errors > 0 && sample.described[0].0.contains("7 verdicts"),
        "{:?}",
        sample.described
    );
}

#[test]
fn a_server_that_stalls_is_told_of_by_latency_and_hidden_by_service_time() {
    // 1,000 a second, 0.1 ms each; it stalls for half a second of the two. What was due in the stall waited for its rest.
    let mut workload = workload(Mix { validate: 100.0, ..Mix::none() }, 1_000);
    (workload.connections, workload.in_flight) = (1, 4);
    let stall = |fake: &mut Fake, began| {
        fake.stall = Some((began + 500 * MS, began + 1_000 * MS));
    };
    let (sample, _) = run(&workload, stall);
    let (latency, service) = (sample.all_latency(), sample.all_service());
    assert_eq!((sample.counts.offered, sample.counts.not_sent, latency.len()), (2_000, 0, 2_000));
    // A quarter of the requests was due in the stall: evenly from 500 ms down. So 10 % waited 300 ms and longer.
    let p90 = latency.value_at_quantile(0.9);
    assert!((280_000..=340_000).contains(&p90), "{p90}");
    assert!((480_000..=520_000).contains(&latency.max()), "{}", latency.max());
    // Four were under way when it began; all others were sent only after it, and by their own time never noticed.
    assert!(service.value_at_quantile(0.99) < 2_000, "{}", service.value_at_quantile(0.99));
    workload.schedule = Schedule::Closed;
    let (sample, _) = run(&workload, stall);
    let p99 = sample.all_latency().value_at_quantile(0.99);
    assert!(p99 < 2_000, "a closed loop asks nothing while it waits: {p99}");
}

#[test]
fn what_waits_at_the_end_is_offered_not_achieved_and_has_waited() {
    // 10,000 a second are served, 20,000 asked for.
    let workload = workload(Mix { validate: 100.0, ..Mix::none() }, 20_000);
    let (sample, _) = run(&workload, |_, _| {});
    assert_eq!(sample.counts.offered, 40_000);
    assert!(sample.counts.achieved.abs_diff(20_000) < 200, "{}", sample.counts.achieved);
    assert!(sample.counts.not_sent.abs_diff(20_000) < 200, "{}", sample.counts.not_sent);
    assert!(sample.counts.no_room > 39_000, "all but the first found no place: {}", sample.counts.no_room);
    assert_eq!(sample.all_latency().len(), 40_000);
    // Whether sent or not, the longest wait is about half the run.
    assert!(sample.all_latency().max().abs_diff(1_000_000) < 50_000, "{}", sample.all_latency().max());
    let drop = Workload { when_full: WhenFull::Drop, ..workload };
    let (sample, _) = run(&drop, |_, _| {});
    assert_eq!(sample.counts.offered, 40_000);
    assert!(sample.counts.not_sent.abs_diff(20_000) < 200, "{}", sample.counts.not_sent);
    assert!(sample.all_latency().max() < 10_000, "what is sent waits for no more than 64 others");
}

#[test]
fn what_finds_no_place_is_given_up_at_once_however_much_and_however_seldom_that_is_looked_after() {
    // 10,000 a second are served, twenty times that is due, and a generator that waits for answers wakes up every 5 ms.
    let mut workload = workload(Mix { validate: 100.0, ..Mix::none() }, 200_000);
    workload.when_full = WhenFull::Drop;
    let began = Instant::now();
    let clock = Rc::new(Cell::new(began));
    let (shared, mut fake) = rig(&workload, &clock);
    let now = || clock.get();
    let mut engine = Engine::new(shared, 0, fake.connections, &now);
    let until = began + 2_000 * MS;
    let profile = Profile::new(&workload.schedule, workload.duration.0).unwrap();
    let due = DueTimes::new(Pace::Profile(profile), began, (0, 1), Arrivals::Constant, 1);
    engine.begin(Some(due), began, until);
    while clock.get() < until {
        engine.turn(&mut fake).unwrap();
        clock.set(clock.get() + 5 * MS);
    }
    engine.note_unsent();
    let (latency, service) = (engine.sample.all_latency().max(), engine.sample.all_service().max());
    assert!(service < 20_000, "64 before it, and until that is looked after: {service}");
    assert!(latency < service + 6_000, "what is sent was due since the last look: {latency}, {service}");
    assert_eq!(engine.sample.counts.offered, 400_000);
}

#[test]
fn what_gets_done_is_what_is_answered_in_the_time_also_to_what_was_asked_before() {
    // 10,000 a second are served, 5,000 may be under way: whoever is answered has waited for half a second.
    let mut workload = workload(Mix { validate: 100.0, ..Mix::none() }, 20_000);
    (workload.when_full, workload.connections, workload.in_flight) = (WhenFull::Drop, 1, 5_000);
    let began = Instant::now();
    let clock = Rc::new(Cell::new(began));
    let (shared, mut fake) = rig(&workload, &clock);
    let now = || clock.get();
    let mut engine = Engine::new(shared, 0, fake.connections, &now);
    let (from, until) = (began + 1_000 * MS, began + 3_000 * MS);
    let times = |began| {
        let profile = Profile::new(&workload.schedule, workload.duration.0).unwrap();
        Some(DueTimes::new(Pace::Profile(profile), began, (0, 1), Arrivals::Constant, 1))
    };
    engine.begin(times(began), from, from);
    while clock.get() < until + 1_000 * MS {
        if clock.get() == from {
            assert_eq!(engine.sample.counts.achieved, 0, "that was the warm-up");
            engine.begin(times(from), from, until);
        }
        engine.turn(&mut fake).unwrap();
        clock.set(clock.get() + Duration::from_micros(50));
    }
    assert!(engine.sample.counts.achieved.abs_diff(20_000) < 200, "{}", engine.sample.counts.achieved);
}

#[test]
fn each_interval_was_offered_what_was_due_in_it_however_late_it_is_sent() {
    // Half of what is due can be answered in time; then less is asked for than can be done, and the rest is caught up with.
    let mut workload = workload(Mix { validate: 100.0, ..Mix::none() }, 1);
    workload.schedule = Schedule::Steps(vec![20_000, 1_000]);
    for when_full in [WhenFull::Wait, WhenFull::Drop] {
        workload.when_full = when_full;
        let (rows, _) = run_in(&workload, |_, _| {}, 8);
        let offered: Vec<u64> = rows[..8].iter().map(|row| row.counts.offered).collect();
        // What is due at the very end of an interval may be in either.
        for (offered, due) in offered.iter().zip([5_000, 5_000, 5_000, 5_000, 250, 250, 250, 250_u64]) {
            assert!(offered.abs_diff(due) <= 1, "{when_full:?}: {offered} of {due}");
        }
        assert_eq!(offered.iter().sum::<u64>(), 21_000);
        let achieved: u64 = rows[..8].iter().map(|row| row.counts.achieved).sum();
        let not_sent: u64 = rows[..8].iter().map(|row| row.counts.not_sent).sum();
        assert!((achieved + not_sent).abs_diff(21_000) <= 64, "{achieved}, {not_sent}");
    }
    (workload.schedule, workload.arrivals) = (Schedule::Closed, Arrivals::Constant);
    let (rows, _) = run_in(&workload, |_, _| {}, 8);
    for row in &rows[..8] {
        assert!(row.counts.offered.abs_diff(2_500) <= 70, "{}", row.counts.offered);
    }
}

#[test]
fn nobody_is_silent_who_was_asked_nothing() {
    let mut workload = workload(Mix { validate: 100.0, ..Mix::none() }, 1);
    (workload.schedule, workload.think) = (Schedule::Closed, Span::from_secs(11));
    (workload.connections, workload.in_flight) = (1, 1);
    workload.duration = Span::from_secs(30);
    let (began, clock) = (Instant::now(), Rc::new(Cell::new(Instant::now())));
    let (shared, mut fake) = rig(&workload, &clock);
    fake.stall = Some((began + 20_000 * MS, began + 60_000 * MS));
    let now = || clock.get();
    let mut engine = Engine::new(shared, 0, 1, &now);
    engine.begin(None, began, began + workload.duration.0);
    let mut longest = Duration::ZERO;
    while clock.get() < began + 20_000 * MS {
        engine.turn(&mut fake).unwrap();
        longest = longest.max(engine.silence());
        clock.set(clock.get() + MS);
    }
    assert_eq!(engine.sample.counts.achieved, 2);
    assert!(longest <= 5 * MS, "two requests, eleven seconds apart: {longest:?}");
    while clock.get() < began + 40_000 * MS {
        engine.turn(&mut fake).unwrap();
        clock.set(clock.get() + MS);
    }
    // The third was sent after 22 s, and has no answer.
    assert!(engine.silence().abs_diff(18_000 * MS) < 20 * MS, "{:?}", engine.silence());
}

#[test]
fn connections_are_replaced_after_their_number_of_requests() {
    let mut workload = workload(Mix { validate: 100.0, ..Mix::none() }, 1_000);
    (workload.connections, workload.churn) = (4, 50);
    let (sample, fake) = run(&workload, |_, _| {});
    assert_eq!((sample.counts.achieved, sample.counts.errors), (2_000, 0));
    assert_eq!(sample.counts.reconnects, fake.reconnected as u64);
    assert!((36..=40).contains(&fake.reconnected), "{}", fake.reconnected);
}

#[test]
fn who_thinks_asks_less() {
    let mut workload = workload(Mix { validate: 100.0, ..Mix::none() }, 1);
    (workload.schedule, workload.think) = (Schedule::Closed, Span::from_millis(10));
    (workload.connections, workload.in_flight) = (2, 1);
    let (sample, _) = run(&workload, |_, _| {});
    // Two that think for 10 ms after each answer of a tenth of a millisecond or two.
    assert!(sample.counts.achieved.abs_diff(394) < 8, "{}", sample.counts.achieved);
}

#[test]
fn a_run_that_ends_early_was_offered_what_was_due_by_then() {
    let workload = workload(Mix { validate: 100.0, ..Mix::none() }, 1_000);
    let (clock, began) = (Rc::new(Cell::new(Instant::now())), Instant::now());
    clock.set(began);
    let now = || clock.get();
    let layout = Layout::new(&workload);
    let keys = KeySpace::new(
        Mapping::anonymous(layout.tokens()).unwrap(),
        workload.keys.subjects,
        "test".to_owned(),
    );
    let shared = Arc::new(Shared { workload, keys, truth: Truth::new(layout), trace: None });
    let mut engine = Engine::new(shared, 0, 1, &now);
    let profile = Profile::new(&Schedule::Fixed(1_000), Duration::from_secs(60)).unwrap();
    let due = DueTimes::new(Pace::Profile(profile), began, (0, 1), Arrivals::Constant, 1);
    engine.begin(Some(due), began, began + Duration::from_secs(60));
    clock.set(began + 500 * MS);
    engine.note_unsent();
    assert_eq!((engine.sample.counts.offered, engine.sample.counts.not_sent), (500, 500));
    assert!(engine.sample.all_latency().max().abs_diff(500_000) < 1_000);
}

/// Answers everything with as many `valid` as were asked for, without memory.
struct Quiet {
    waiting: VecDeque<(u64, usize)>,
    verdicts: Vec<Verdict>,
}

impl Peer for Quiet {
    fn identity(&self) -> String {
        String::new()
    }

    fn connections(&self) -> usize {
        1
    }

    fn is_ready(&self, _connection: usize) -> bool {
        true
    }

    fn ask(&mut self, _connection: usize, id: u64, question: &Question<'_>) -> anyhow::Result<()> {
        let Question::Validate { tokens, .. } = question else { anyhow::bail!("only validates") };
        self.waiting.push_back((id, tokens.len()));
        Ok(())
    }

    fn turn(&mut self, take: &mut dyn FnMut(Instant, u64, Reply<'_>)) -> anyhow::Result<bool> {
        while let Some((id, count)) = self.waiting.pop_front() {
            take(Instant::now(), id, Reply::Verdicts(&self.verdicts[..count]));
        }
        Ok(true)
    }

    fn wait(&mut self, _until: Instant) -> anyhow::Result<()> {
        Ok(())
    }

    fn reconnect(&mut self, _connection: usize) -> anyhow::Result<()> {
        Ok(())
    }

    fn lacks(&self, _kind: Kind) -> bool {
        false
    }

    fn has_checks(&self) -> bool {
        true
    }
}

#[test]
fn a_request_takes_no_memory() {
    let mut workload = workload(Mix { validate: 100.0, ..Mix::none() }, 1);
    (workload.schedule, workload.validate) = (Schedule::Closed, Asks { live: 100.0, ..Asks::none() });
    (workload.connections, workload.in_flight) = (1, 16);
    let layout = Layout::new(&workload);
    let keys = KeySpace::new(
        Mapping::anonymous(layout.tokens()).unwrap(),
        workload.keys.subjects,
        "test".to_owned(),
    );
    let shared = Arc::new(Shared { workload, keys, truth: Truth::new(layout), trace: None });
    let mut peer = Quiet { waiting: VecDeque::with_capacity(16), verdicts: vec![Verdict::Valid; 8] };
    let clock = Instant::now;
    let mut engine = Engine::new(shared, 0, 1, &clock);
    engine.begin(None, Instant::now(), Instant::now() + Duration::from_secs(3_600));
    engine.turn(&mut peer).unwrap();
    let measured = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            engine.turn(&mut peer).unwrap();
        }
    });
    assert_eq!(measured.count_total, 0, "{} bytes", measured.bytes_total);
    // As many as fit into a turn while answers come at once.
    assert!(engine.sample.counts.achieved > 10_000, "{}", engine.sample.counts.achieved);
    assert_eq!(engine.sample.counts.wrong_replies, 0);
}
