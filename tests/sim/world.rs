//! The world of one run: virtual time, what happens next, the network, the clock and the clients. The server's side of
//! it is in [`server`], what goes wrong in [`faults`].

use std::collections::BTreeMap;

use jeton_core::batch::SealedBatch;
use jeton_core::fair_queue::QUANTUM;
use jeton_core::mutation::SmallLimits;
use jeton_core::time::Millis;
use jeton_core::token::{Token, TokenId};
use jeton_wire::response::Response;

use super::client::{Client, Route, STREAMS, issued};
use super::disk::Disk;
use super::node::Node;
use super::oracle::{Bounds, Oracle};
use super::parts::Parts;
use super::rng::Rng;
use super::witness::Witness;
use super::workload::{self, ADMIN, Ask, OTHER_SERVICE, Pool, SERVICE};
use super::{Mistake, Report};

mod clock;
mod faults;
mod network;
mod server;
mod snapshots;

use clock::Clock;
use faults::{Fault, Faults};
use network::{Datagram, Flow, Network, TO_CLIENT, TO_SERVER};
pub(super) use snapshots::Writing;

/// How long clients have to be answered in once all faults are healed.
const HEALED_WITHIN_MS: u64 = 60_000;
/// How long clients go on beginning things after that: longer than the server is away.
const BEGINS_AFTER_HEALING_MS: u64 = 1_500;
/// Set the chance of snapshots, and of what a crash tears, apart from all other, so that one does not change the other.
const SNAPSHOT_SEEDS: u64 = 0x5a5a_0000_5a5a_0000;
const WRECK_SEEDS: u64 = 0xa5a5_0000_a5a5_0000;

/// Something that happens at a certain time. What concerns an incarnation of the server names it: after a crash it
/// happens to nobody.
#[derive(Debug)]
enum Event {
    Act(usize),
    GiveUp { client: usize, connection: u64, request: u64 },
    Arrives(Datagram),
    SendAgain(Datagram),
    CutSeenByClient(u64),
    CutSeenByServer(u64),
    Turn(u64),
    Work(u64),
    Synced(u64),
    Housekeeping(u64),
    Restart,
    Fault(Fault),
    Snapshot(u64),
}

/// A connection.
#[derive(Debug)]
struct Link {
    client: usize,
    /// Either way over each stream.
    flows: [[Flow; 2]; STREAMS],
    is_closed_at_server: bool,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Working,
    Healing,
}

/// Everything there is.
pub(super) struct World {
    rng: Rng,
    mistake: Option<Mistake>,
    faults: Faults,
    network: Network,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    phase: Phase,
    works_until: u64,
    clock: Clock,
    /// The most tokens that the server holds: in some runs so few that it has to refuse more.
    tokens_max: u32,
    /// Whether it remembers so few keys that it has to let commands wait until some are forgotten.
    keys_are_few: bool,
    /// What a client is credited with for each turn.
    quantum: u64,
    disk: Disk,
    /// Until when the disk takes nothing; what it lied about before a crash; and what lies behind the end since then,
    /// torn, or written before what belongs in front of it.
    full_until: u64,
    lied_about: Vec<SealedBatch>,
    wreck: Vec<SealedBatch>,
    anchored_at: u64,
    node: Option<Node>,
    incarnation: u64,
    /// The step at which it was started after all faults had ended.
    served_since: Option<u64>,
    clients: Vec<Client>,
    links: BTreeMap<u64, Link>,
    pool: Pool,
    /// Every token that was ever shown.
    tokens: BTreeMap<TokenId, [u8; 32]>,
    oracle: Oracle,
    witness: Witness,
    trace: blake3::Hasher,
    report: Report,
    parts: Parts,
    /// The last snapshot of this incarnation's index.
    snapshot_before: Option<jeton_core::snapshot::Manifest>,
    snapshot_rng: Rng,
    wreck_rng: Rng,
}

impl World {
    pub(super) fn new(mut rng: Rng, seed: u64, mistake: Option<Mistake>, limits: &SmallLimits) -> Self {
        let faults = Faults::draw(&mut rng);
        let clock = Clock::new(&mut rng);
        let tokens_max = *rng.pick(&[80, 300, 20_000, 20_000, 20_000]);
        let works_until = rng.within(4_000..14_000);
        Self {
            rng,
            mistake,
            faults,
            network: Network::draw(seed),
            now: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            phase: Phase::Working,
            works_until,
            clock,
            tokens_max,
            keys_are_few: limits.keys.is_some(),
            quantum: limits.queue_quantum.unwrap_or(QUANTUM),
            disk: Disk::default(),
            full_until: 0,
            lied_about: Vec::new(),
            wreck: Vec::new(),
            anchored_at: 0,
            node: None,
            incarnation: 0,
            served_since: None,
            clients: [ADMIN, SERVICE, ADMIN, SERVICE, OTHER_SERVICE].map(Client::new).into(),
            links: BTreeMap::new(),
            pool: Pool::new(seed),
            tokens: BTreeMap::new(),
            oracle: Oracle::new(Bounds::new(limits, tokens_max)),
            witness: Witness::default(),
            trace: blake3::Hasher::new(),
            report: Report::default(),
            parts: Parts::default(),
            snapshot_before: None,
            snapshot_rng: Rng::new(seed ^ SNAPSHOT_SEEDS),
            wreck_rng: Rng::new(seed ^ WRECK_SEEDS),
        }
    }

    /// What the run came to.
    pub(super) fn report(&self) -> Report {
        let mut seen = self.report.seen.clone();
        seen.add(&self.oracle.seen);
        seen.add(&self.witness.seen);
        Report {
            seen,
            trace: *self.trace.finalize().as_bytes(),
            verdicts: self.oracle.verdicts,
            acknowledged: self.witness.writes,
            ..self.report.clone()
        }
    }

    pub(super) fn steps(&self) -> u64 {
        self.report.steps
    }

    /// Lets everything happen until all is healed and everybody answered.
    pub(super) fn run(&mut self) -> Result<(), String> {
        self.start()?;
        for service in [SERVICE, OTHER_SERVICE] {
            self.clients[0].begin_with(workload::first_grant(service));
        }
        for client in 0..self.clients.len() {
            self.schedule(1 + client as u64, Event::Act(client));
        }
        for (fault, at) in self.faults.first(&mut self.rng) {
            self.schedule(at, Event::Fault(fault));
        }
        loop {
            let Some(((at, _), event)) = self.events.pop_first() else {
                return Err("nothing happens any more".to_owned());
            };
            self.now = at;
            self.report.steps += 1;
            self.note(&event);
            self.handle(event)?;
            self.check_watermarks()?;
            match self.phase {
                Phase::Working if self.now >= self.works_until => self.heal()?,
                Phase::Healing if self.is_quiet() => return self.finish(),
                Phase::Healing if self.now >= self.works_until + HEALED_WITHIN_MS => {
                    let waiting: Vec<_> = self.clients.iter().map(Client::waits_for).collect();
                    return Err(format!("faults are healed, and somebody is not answered: {waiting:?}"));
                }
                _ => {}
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.now >= self.works_until + BEGINS_AFTER_HEALING_MS
            && self.clients.iter().all(Client::is_quiet)
            && self.node.as_ref().is_some_and(|node| node.is_idle() && !node.sequencer.has_work())
    }

    /// A line of the trace.
    fn note(&mut self, event: &Event) {
        self.trace.update(&self.now.to_le_bytes());
        let (kind, number, bytes): (u8, u64, &[u8]) = match event {
            Event::Act(client) => (1, *client as u64, &[]),
            Event::GiveUp { connection, request, .. } => (2, connection << 32 | request, &[]),
            Event::Arrives(datagram) => (3, datagram.number(), datagram.bytes()),
            Event::SendAgain(datagram) => (4, datagram.number(), datagram.bytes()),
            Event::CutSeenByClient(connection) => (5, *connection, &[]),
            Event::CutSeenByServer(connection) => (6, *connection, &[]),
            Event::Turn(incarnation) => (7, *incarnation, &[]),
            Event::Work(incarnation) => (8, *incarnation, &[]),
            Event::Synced(incarnation) => (9, *incarnation, &[]),
            Event::Housekeeping(incarnation) => (10, *incarnation, &[]),
            Event::Restart => (11, 0, &[]),
            Event::Fault(fault) => (12, *fault as u64, &[]),
            Event::Snapshot(incarnation) => (13, *incarnation, &[]),
        };
        self.trace.update(&[kind]).update(&number.to_le_bytes()).update(bytes);
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    fn soon(&mut self, within_ms: u64, event: Event) {
        let at = self.now + self.rng.below(within_ms + 1);
        self.schedule(at, event);
    }

    fn engine_now(&self) -> Millis {
        self.clock.engine(self.now)
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Act(client) => self.act(client),
            Event::GiveUp { client, connection, request } => self.give_up(client, connection, request),
            Event::Arrives(datagram) => return self.arrives(datagram),
            Event::SendAgain(datagram) => self.send_again(datagram),
            Event::CutSeenByClient(connection) => self.cut_seen_by_client(connection),
            Event::CutSeenByServer(connection) => self.close_at_server(connection),
            Event::Turn(incarnation) if incarnation == self.incarnation => return self.turn(),
            Event::Work(incarnation) if incarnation == self.incarnation => return self.work(),
            Event::Synced(incarnation) if incarnation == self.incarnation => return self.synced(),
            Event::Housekeeping(incarnation) if incarnation == self.incarnation => {
                return self.housekeeping();
            }
            Event::Snapshot(incarnation) if incarnation == self.incarnation => return self.snapshot_step(),
            Event::Restart if self.node.is_none() => return self.start(),
            Event::Fault(fault) => return self.fault(fault),
            _ => {} // of an incarnation that is no more
        }
        Ok(())
    }

    // ---- clients and their connections ----

    fn act(&mut self, client: usize) {
        let pause = 2 + self.rng.below(2 * self.faults.pause_ms);
        self.schedule(self.now + pause, Event::Act(client));
        if self.phase == Phase::Working {
            self.clients[client].lose_interest();
        }
        // Once healed a little is begun: with nothing in its way each has to be answered the first time.
        let until = if self.keys_are_few { 0 } else { BEGINS_AFTER_HEALING_MS };
        let may_begin = self.now < self.works_until + until;
        let now_known = (self.report.steps, self.witness.published());
        if self.clients[client].connection.is_none() {
            let connection = self.links.len() as u64 + 1;
            self.links
                .insert(connection, Link { client, flows: Default::default(), is_closed_at_server: false });
            let hello = self.clients[client].connect(connection);
            self.send(TO_SERVER, Route { connection, stream: 0 }, &hello);
        }
        let Some((request, stream, bytes)) =
            self.clients[client].ask(&self.pool, may_begin, now_known, &mut self.rng)
        else {
            return;
        };
        let connection = self.clients[client].connection.expect("it has connected just now");
        self.send(TO_SERVER, Route { connection, stream }, &bytes);
        let patience = self.rng.within(1_000..3_000);
        self.schedule(self.now + patience, Event::GiveUp { client, connection, request });
    }

    fn give_up(&mut self, client: usize, connection: u64, request: u64) {
        if self.clients[client].connection != Some(connection) {
            return;
        }
        // Nothing fails any more: it has to be answered, however long that takes, and not when it is asked again.
        let has_to_be_answered = |asked| self.served_since.is_some_and(|since| asked > since);
        if self.clients[client].asked_at(request).is_some_and(has_to_be_answered)
            || !self.clients[client].give_up(request)
        {
            return;
        }
        if self.rng.one_in(2) {
            self.soon(self.faults.delay_ms, Event::CutSeenByServer(connection));
            self.clients[client].disconnect();
        }
    }

    fn client_hears(&mut self, on: Route, bytes: &[u8]) -> Result<(), String> {
        let connection = on.connection;
        let client = self.links[&connection].client;
        if self.clients[client].connection != Some(connection) {
            return Ok(());
        }
        let heard = self.clients[client].receive(on.stream, bytes)?;
        let step = self.report.steps;
        for heard in heard {
            self.witness.hear(connection, &heard, &self.oracle.published, step)?;
            for token in issued(&heard.response) {
                self.pool.learn(token, &mut self.rng);
            }
            if let (Response::Answers { answers, .. }, Ask::Validate { tokens, .. }) =
                (&heard.response, &heard.sent.ask)
            {
                for (token, answer) in tokens.iter().zip(answers) {
                    self.pool.heard(Token::from_bytes(*token).id, answer.verdict, &mut self.rng);
                }
            }
        }
        Ok(())
    }

    fn cut_seen_by_client(&mut self, connection: u64) {
        let client = self.links[&connection].client;
        if self.clients[client].connection == Some(connection) {
            self.clients[client].disconnect();
        }
    }

    fn close_at_server(&mut self, connection: u64) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.is_closed_at_server = true;
        }
        if let Some(node) = &mut self.node {
            node.sessions.remove(&connection);
        }
    }
}
