//! The driver on virtual time, over a simulated network: no socket, no clock, the same run each time.

use std::collections::BinaryHeap;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::PrivateKeyDer;

use super::*;
use crate::identity::Identity;
use crate::tls::{Credentials, client_config, server_config};

const LATENCY: Duration = Duration::from_millis(5);
/// Steps of a simulation; more would be a hang.
const STEPS_MAX: usize = 2_000_000;

fn authority() -> (Issuer<'static, KeyPair>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = params.self_signed(&key).unwrap().der().to_vec();
    (Issuer::new(params, key), der)
}

fn credentials(issuer: &Issuer<'_, KeyPair>, authority: &[u8], uri: Option<&str>) -> Credentials {
    let mut params = CertificateParams::new(vec!["jeton".to_owned()]).unwrap();
    params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    Credentials {
        chain: vec![certificate.der().clone()],
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        authorities: vec![authority.to_vec().into()],
    }
}

/// A datagram under way; the earliest comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    arrives: std::cmp::Reverse<(Instant, u64)>,
    to_server: bool,
    bytes: Vec<u8>,
}

/// What the network does, in percent.
#[derive(Clone, Copy, Default)]
struct Weather {
    loss: u64,
    duplication: u64,
    reordering: u64,
    /// Nothing gets through at all.
    is_cut: bool,
    /// The largest datagram that gets through; `None` for any.
    carries: Option<usize>,
}

struct Net {
    now: Instant,
    server: Driver,
    client: Driver,
    crypto: Arc<ClientCrypto>,
    flying: BinaryHeap<Flying>,
    client_address: SocketAddr,
    weather: Weather,
    random: u64,
    count: u64,
    server_events: Vec<DriverEvent>,
    client_events: Vec<DriverEvent>,
    server_sent_bytes: usize,
    /// The largest datagram that got through, and the most bytes of one transmit.
    largest: (usize, usize),
}

/// A driver asks to be woken when the first of its connections has to be, or earlier, and never forgets one.
fn wakes_in_time(driver: &mut Driver) {
    let wake_at = driver.poll_timeout();
    for conn in driver.conns.values_mut() {
        let Some(wanted) = conn.wants_to_be_woken() else { continue };
        assert!(conn.deadline.is_some_and(|entry| entry <= wanted), "{:?}, {wanted:?}", conn.deadline);
        assert!(wake_at.is_some_and(|at| at <= wanted), "{wake_at:?}, {wanted:?}");
    }
    let entries = driver.conns.values().filter(|conn| conn.deadline.is_some()).count();
    assert_eq!(driver.timers.len(), entries, "one entry for each connection at most");
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

impl Net {
    fn new(weather: Weather) -> Self {
        Self::with(weather, Limits::default(), true)
    }

    /// `is_known`: whether the client's certificate is of the authority that the server trusts.
    fn with(weather: Weather, limits: Limits, is_known: bool) -> Self {
        let (issuer, ca) = authority();
        let (stranger, _) = authority();
        let tls = Arc::new(server_config(credentials(&issuer, &ca, None)).unwrap());
        let client_issuer = if is_known { &issuer } else { &stranger };
        let client_tls = client_config(credentials(client_issuer, &ca, Some("test:client"))).unwrap();
        let seeded = |seed| Some([seed; 32]);
        Self {
            now: Instant::now(),
            server: Driver::new(DriverConfig {
                limits,
                seed: seeded(1),
                reset_key: Some([3; 32]),
                ..DriverConfig::server(tls)
            })
            .unwrap(),
            client: Driver::new(DriverConfig { seed: seeded(2), ..DriverConfig::client() }).unwrap(),
            crypto: Driver::client_crypto(Arc::new(client_tls)).unwrap(),
            flying: BinaryHeap::new(),
            client_address: address(2),
            weather,
            random: 0x2545_f491_4f6c_dd1d,
            count: 0,
            server_events: Vec::new(),
            client_events: Vec::new(),
            server_sent_bytes: 0,
            largest: (0, 0),
        }
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100 < percent
    }

    fn connect(&mut self) -> ConnId {
        self.client.connect(self.now, Arc::clone(&self.crypto), address(1), "jeton").unwrap()
    }

    fn launch(&mut self, to_server: bool, datagram: &[u8]) {
        let is_too_large = self.weather.carries.is_some_and(|carries| datagram.len() > carries);
        if self.weather.is_cut || is_too_large || self.chance(self.weather.loss) {
            return;
        }
        self.largest.0 = self.largest.0.max(datagram.len());
        let copies = if self.chance(self.weather.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = if self.chance(self.weather.reordering) { LATENCY * 3 } else { LATENCY };
            self.count += 1;
            let arrives = std::cmp::Reverse((self.now + delay, self.count));
            self.flying.push(Flying { arrives, to_server, bytes: datagram.to_vec() });
        }
    }

    /// Sends what both have to send.
    fn transmit(&mut self) {
        for to_server in [true, false] {
            let mut buffer = Vec::new();
            loop {
                buffer.clear();
                let driver = if to_server { &mut self.client } else { &mut self.server };
                let Some(transmit) = driver.poll_transmit(self.now, &mut buffer) else { break };
                let datagrams: Vec<Vec<u8>> = buffer[..transmit.size]
                    .chunks(transmit.segment_size.unwrap_or(transmit.size))
                    .map(<[u8]>::to_vec)
                    .collect();
                self.largest.1 = self.largest.1.max(transmit.size);
                self.server_sent_bytes += if to_server { 0 } else { transmit.size };
                datagrams.iter().for_each(|datagram| self.launch(to_server, datagram));
            }
            wakes_in_time(if to_server { &mut self.client } else { &mut self.server });
        }
    }

    /// One step: to the next arrival or deadline. Returns whether there was one before `until`.
    fn step(&mut self, until: Instant) -> bool {
        self.server_events.extend(std::iter::from_fn(|| self.server.poll_event()));
        self.client_events.extend(std::iter::from_fn(|| self.client.poll_event()));
        self.transmit();
        let arrival = self.flying.peek().map(|flying| flying.arrives.0.0);
        let next =
            [arrival, self.server.poll_timeout(), self.client.poll_timeout()].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        while self.flying.peek().is_some_and(|flying| flying.arrives.0.0 <= self.now) {
            let flying = self.flying.pop().unwrap();
            let (driver, from) = if flying.to_server {
                (&mut self.server, self.client_address)
            } else {
                (&mut self.client, address(1))
            };
            let origin = Origin { remote: from, local_ip: None, ecn: None };
            driver.handle_datagram(self.now, origin, BytesMut::from(&flying.bytes[..]));
        }
        while self.server.handle_handshake(self.now) {}
        self.server.handle_timeout(self.now);
        self.client.handle_timeout(self.now);
        true
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..STEPS_MAX {
            if !self.step(until) {
                return;
            }
        }
        panic!("the simulation does not come to rest");
    }

    fn connected(&self) -> Option<ConnId> {
        self.server_events.iter().find_map(|event| match event {
            DriverEvent::Connected(conn) => Some(*conn),
            _ => None,
        })
    }

    fn client_loss(&self) -> Option<&str> {
        self.client_events.iter().find_map(|event| match event {
            DriverEvent::Lost(_, reason) => Some(reason.as_str()),
            _ => None,
        })
    }

    /// The client sends `bytes` on a new stream, the server sends everything back; returns what comes back.
    fn echo(&mut self, conn: ConnId, bytes: &[u8]) -> Vec<u8> {
        let stream = self.client.open(conn).unwrap();
        let (mut sent, mut back, mut owed) = (0, Vec::new(), Vec::new());
        for _ in 0..200_000 {
            sent += self.client.write(conn, stream, &bytes[sent..]).unwrap();
            let until = self.now + Duration::from_secs(1);
            self.step(until);
            for event in std::mem::take(&mut self.server_events) {
                if let DriverEvent::Readable(peer, of) = event {
                    while let Read::Data(data) = self.server.read(peer, of) {
                        owed.extend_from_slice(&data);
                    }
                }
                if let DriverEvent::Readable(peer, of) | DriverEvent::Writable(peer, of) = event {
                    let taken = self.server.write(peer, of, &owed).unwrap();
                    owed.drain(..taken);
                }
            }
            while let Read::Data(data) = self.client.read(conn, stream) {
                back.extend_from_slice(&data);
            }
            if back.len() == bytes.len() {
                return back;
            }
        }
        panic!("{} of {} bytes came back", back.len(), bytes.len());
    }
}

fn echoes(weather: Weather) {
    let mut net = Net::new(weather);
    let conn = net.connect();
    net.run(Duration::from_secs(3));
    assert!(net.connected().is_some(), "{:?}", net.client_events);
    let bytes: Vec<u8> = (0..300_000_u32).map(|at| at as u8).collect();
    assert!(net.echo(conn, &bytes) == bytes, "what comes back is what was sent");
}

#[test]
fn a_handshake_shows_who_the_client_is() {
    let mut net = Net::new(Weather::default());
    net.connect();
    net.run(Duration::from_secs(1));
    let conn = net.connected().expect("connected");
    let certificates = net.server.peer_certificates(conn);
    assert_eq!(Identity::from_certificate(&certificates[0]).unwrap().name, "test:client");
}

#[test]
fn streams_carry_bytes_in_order() {
    echoes(Weather::default());
}

#[test]
fn streams_survive_loss() {
    echoes(Weather { loss: 10, ..Weather::default() });
}

#[test]
fn streams_survive_reordering_and_duplication() {
    echoes(Weather { reordering: 30, duplication: 20, ..Weather::default() });
}

#[test]
fn datagrams_grow_to_what_the_path_carries_and_shrink_when_it_carries_less() {
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|at| at as u8).collect();
    for (carries, expected) in [(None, 8_900), (Some(1_472), 1_440), (Some(1_252), 1_200)] {
        let mut net = Net::new(Weather { carries, ..Weather::default() });
        let conn = net.connect();
        net.run(Duration::from_secs(1));
        let began = net.now;
        assert!(net.echo(conn, &bytes) == bytes, "what comes back is what was sent");
        assert!(net.now - began < Duration::from_secs(3), "{carries:?}: {:?}", net.now - began);
        let (datagram, transmit) = net.largest;
        assert!(datagram >= expected, "{carries:?}: {datagram} bytes are the most that got through");
        assert!(transmit <= TRANSMIT_BYTES_MAX, "{transmit} bytes at a time are refused by the kernel");
        assert!(transmit > 5 * datagram, "{carries:?}: {transmit} bytes at most of one transmit");
        // A route that changes.
        net.weather.carries = Some(1_300);
        assert!(net.echo(conn, &bytes) == bytes, "what comes back is what was sent");
        assert_eq!(net.client_loss(), None);
    }
}

#[test]
fn to_a_client_that_moved_probes_are_few_until_it_has_sent_something_and_then_find_what_the_path_carries() {
    let mut net = Net::new(Weather::default());
    let conn = net.connect();
    net.run(Duration::from_secs(1));
    assert_eq!(net.echo(conn, b"from here"), b"from here");
    net.client_address = ([127, 0, 0, 2], 2).into();
    let stream = net.client.open(conn).unwrap();
    net.client.write(conn, stream, b"and from there");
    net.transmit();
    // As if somebody else were there: nothing that the server sends is heard.
    (net.weather.is_cut, net.server_sent_bytes) = (true, 0);
    net.run(Duration::from_millis(100));
    let sent = net.server_sent_bytes;
    assert!(
        (1_200..4 * 1_200).contains(&sent),
        "{sent} bytes, challenges of 1,200 among them, without a probe"
    );
    net.weather.is_cut = false;
    net.run(Duration::from_secs(130));
    net.largest = (0, 0);
    let bytes = vec![7; 1_000_000];
    assert!(net.echo(conn, &bytes) == bytes, "what comes back is what was sent");
    assert_eq!(net.client_loss(), None);
    assert!(net.largest.0 >= 8_900, "{} bytes are the most that got through", net.largest.0);
}

#[test]
fn a_silent_connection_ends_after_ten_seconds_and_leaves_nothing_behind() {
    let mut net = Net::new(Weather::default());
    net.connect();
    net.run(Duration::from_secs(1));
    net.weather.is_cut = true;
    net.run(Duration::from_secs(9));
    assert!(!net.server_events.iter().any(|event| matches!(event, DriverEvent::Lost(..))));
    net.run(Duration::from_secs(5));
    let lost = net
        .server_events
        .iter()
        .any(|event| matches!(event, DriverEvent::Lost(_, reason) if reason == "timed out"));
    assert!(lost, "{:?}", net.server_events);
    net.run(Duration::from_secs(20));
    assert_eq!((net.server.connections(), net.server.poll_timeout()), (0, None));
}

#[test]
fn clients_keep_their_connections_alive() {
    let mut net = Net::new(Weather::default());
    net.connect();
    net.run(Duration::from_secs(60));
    assert_eq!(net.server.connections(), 1);
}

#[test]
fn a_handshake_that_stalls_ends_after_three_seconds() {
    let mut net = Net::new(Weather::default());
    net.connect();
    // The first flight gets through, and nothing after it.
    let until = net.now + LATENCY;
    while net.step(until) {}
    assert_eq!(net.server.connections(), 1);
    net.weather.is_cut = true;
    net.flying.clear();
    net.run(HANDSHAKE + Duration::from_secs(1));
    assert!(net.connected().is_none());
    assert!(net.server_events.iter().any(|event| matches!(event, DriverEvent::Lost(..))));
    net.run(Duration::from_secs(30));
    assert_eq!(net.server.connections(), 0);
}

#[test]
fn a_certificate_of_another_authority_does_not_get_in() {
    let mut net = Net::with(Weather::default(), Limits::default(), false);
    net.connect();
    net.run(Duration::from_secs(2));
    assert!(net.connected().is_none());
    assert!(
        net.client_loss().is_some_and(|reason| reason.contains("certificate") || reason.contains("unknown")),
        "{:?}",
        net.client_loss()
    );
}

#[test]
fn one_connection_too_many_is_refused() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let mut net = Net::with(Weather::default(), limits, true);
    net.connect();
    net.run(Duration::from_secs(1));
    net.connect();
    net.run(Duration::from_secs(1));
    assert_eq!(net.server.connections(), 1);
    assert!(net.client_loss().is_some(), "{:?}", net.client_events);
}

#[test]
fn a_server_that_stops_accepting_keeps_whom_it_has() {
    let mut net = Net::new(Weather::default());
    let conn = net.connect();
    net.run(Duration::from_secs(1));
    net.server.stop_accepting();
    net.connect();
    net.run(Duration::from_secs(1));
    assert_eq!(net.server.connections(), 1);
    assert_eq!(net.echo(conn, b"still here"), b"still here");
}

#[test]
fn under_pressure_a_client_proves_its_address_first_and_gets_in_all_the_same() {
    let limits = Limits { handshakes_unproven_max: 0, ..Limits::default() };
    let mut net = Net::with(Weather::default(), limits, true);
    net.connect();
    let until = net.now + LATENCY;
    while net.step(until) {}
    assert_eq!(net.server.connections(), 0, "nothing is kept for an address that is not proven");
    net.run(Duration::from_secs(2));
    assert!(net.connected().is_some());
}

#[test]
fn a_crowd_at_the_door_does_not_hold_up_who_is_inside() {
    const CROWD: usize = 200;
    let mut net = Net::new(Weather::default());
    let inside = net.connect();
    net.run(Duration::from_secs(1));
    net.server_events.clear();
    (0..CROWD).for_each(|_| {
        net.connect();
    });
    let stream = net.client.open(inside).unwrap();
    net.client.write(inside, stream, b"a request").unwrap();
    net.transmit();
    while let Some(flying) = net.flying.pop() {
        let origin = Origin { remote: address(2), local_ip: None, ecn: None };
        net.server.handle_datagram(net.now, origin, BytesMut::from(&flying.bytes[..]));
    }
    // Before a single step of the crowd's handshakes was taken.
    assert_eq!(net.server.connections(), 1);
    let event = net.server.poll_event();
    assert!(matches!(event, Some(DriverEvent::Readable(..))), "{event:?}");
    for taken in 1..=CROWD {
        assert!(net.server.handle_handshake(net.now));
        assert_eq!(net.server.connections(), 1 + taken, "one step at a time");
    }
    assert!(!net.server.handle_handshake(net.now));
}

/// The first flights of twenty clients have come to a server with these limits; after each something was done with it.
fn twenty_first_flights(limits: Limits, after_each: impl Fn(&mut Driver, Instant)) -> Net {
    let mut net = Net::with(Weather::default(), limits, true);
    (0..20).for_each(|_| {
        net.connect();
    });
    net.transmit();
    while let Some(flying) = net.flying.pop() {
        let origin = Origin { remote: address(2), local_ip: None, ecn: None };
        net.server.handle_datagram(net.now, origin, BytesMut::from(&flying.bytes[..]));
        after_each(&mut net.server, net.now);
    }
    net
}

#[test]
fn handshakes_that_wait_for_their_turn_are_bounded() {
    let limits = Limits { handshake_steps_max: 8, ..Limits::default() };
    let mut net = twenty_first_flights(limits, |_, _| {});
    let taken = (0..100).take_while(|_| net.server.handle_handshake(net.now)).count();
    assert_eq!((taken, net.server.connections()), (8, 8));
    net.run(Duration::from_secs(1));
    assert!(net.client_loss().is_some(), "the others were refused: {:?}", net.client_events);
}

#[test]
fn handshakes_that_do_not_go_on_are_bounded() {
    let limits = Limits { handshakes_max: 8, ..Limits::default() };
    let net = twenty_first_flights(limits, |server, now| while server.handle_handshake(now) {});
    assert_eq!(net.server.connections(), 8);
}

#[test]
fn a_peer_opens_no_more_streams_than_it_may() {
    let mut net = Net::new(Weather::default());
    let conn = net.connect();
    net.run(Duration::from_secs(1));
    let opened = (0..1_000).take_while(|_| net.client.open(conn).is_some()).count();
    assert_eq!(opened, 64);
}

#[test]
fn a_connection_that_is_reset_when_its_time_has_come_is_said_to_be_lost() {
    let mut net = Net::new(Weather::default());
    let conn = net.connect();
    net.run(Duration::from_secs(1));
    assert!(net.connected().is_some());
    // The server starts anew: it knows no connection, and says so (RFC 9000, section 10.3).
    net.server = Net::new(Weather::default()).server;
    let stream = net.client.open(conn).unwrap();
    assert_eq!(net.client.write(conn, stream, &[7; 500]), Some(500));
    net.transmit();
    let arrives = net.now + LATENCY;
    assert!(net.step(arrives), "the client's bytes arrive");
    net.transmit();
    // Both at once: the reset is there, and whatever the client wanted to be woken for is due.
    net.now += Duration::from_secs(60);
    let now = net.now;
    assert!(net.step(now));
    net.run(Duration::from_secs(1));
    assert!(net.client_loss().is_some_and(|why| why.contains("reset")), "{:?}", net.client_events);
    assert_eq!(net.client.connections(), 0);
}

#[test]
fn a_close_reaches_the_peer_with_its_code_and_reason() {
    let mut net = Net::new(Weather::default());
    net.connect();
    net.run(Duration::from_secs(1));
    let conn = net.connected().unwrap();
    net.server.close(net.now, conn, 8, "answers are not read");
    net.run(Duration::from_secs(5));
    let reason = net.client_loss().unwrap();
    assert!(reason.contains("code 8") && reason.contains("answers are not read"), "{reason}");
    assert_eq!((net.server.connections(), net.client.connections()), (0, 0));
}

#[test]
fn garbage_is_answered_with_less_than_it_brought_and_kept_nowhere() {
    let mut net = Net::new(Weather::default());
    let mut brought = 0;
    for seed in 0..500_usize {
        let bytes: Vec<u8> = (0..seed % 1_400).map(|at| ((at * seed) >> 3) as u8).collect();
        brought += bytes.len();
        let origin = Origin { remote: address(9), local_ip: None, ecn: None };
        net.server.handle_datagram(net.now, origin, BytesMut::from(&bytes[..]));
        net.transmit();
    }
    net.run(Duration::from_secs(5));
    assert_eq!(net.server.connections(), 0);
    assert!(net.server_sent_bytes <= brought, "{} for {brought}", net.server_sent_bytes);
}
