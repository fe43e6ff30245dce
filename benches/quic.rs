//! One request after the other over QUIC and mutual TLS on loopback, beside what a bare UDP datagram there and back takes.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use jeton::config::ServerConfig;
use jeton::server::RunningServer;
use jeton_client::{Check, Claims, Client, Config, Consistency, Identity, IssueTokens};

/// Bytes of a datagram that goes there and back, and of one that goes one way: the least that QUIC needs to get through.
const SMALL_BYTES: usize = 48;
const DATAGRAM_BYTES: usize = 1_200;
/// How many go there and back for the figure that is printed, and how long others go one way.
const ROUND_TRIPS: u32 = 10_000;
const BURST: Duration = Duration::from_secs(1);
/// How many are under way one way: few enough for a socket's buffer as Linux makes it, so that none is lost.
const UNDER_WAY_MAX: u32 = 64;

fn round_trips(criterion: &mut Criterion) {
    let data = tempfile::tempdir().expect("a directory");
    let config = ServerConfig {
        listen: "127.0.0.1:0".parse().expect("an address"),
        data: data.path().to_owned(),
        cores: NonZeroUsize::new(1),
        ..ServerConfig::default()
    };
    let server = RunningServer::start(&config, false).expect("it starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let identity = Identity::from_dir(data.path().join("identities/admin")).expect("an identity");
    let client =
        runtime.block_on(Client::connect(Config::new(server.address(), identity))).expect("it connects");
    let issue = IssueTokens {
        tenant: "default".parse().expect("a name"),
        subjects: vec!["bench".parse().expect("a name"); 64],
        claims: Claims::default(),
        ttl_s: 3_600,
        not_before_s: 0,
        renewable_s: 0,
        uses_max: 0,
        parent: None,
        binding: None,
    };
    let issued = runtime.block_on(client.issue(issue, None)).expect("they are issued").tokens;
    let check = Check::live();
    let mut group = criterion.benchmark_group("round trip");
    group.bench_function("ping", |bencher| {
        bencher.iter(|| runtime.block_on(client.ping()).expect("it answers"))
    });
    for count in [1, 64] {
        group.bench_function(format!("validate {count}"), |bencher| {
            let tokens = &issued[..count];
            bencher.iter(|| {
                let answers = client.validate_batch(tokens, &check, Consistency::Latest);
                runtime.block_on(answers).expect("it answers")
            });
        });
    }
    datagrams(&mut group);
    group.finish();
    runtime.block_on(client.close());
    server.stop().expect("it stops");
}

/// What the machine does without QUIC: prints datagrams a second, and adds the time of one to the group.
fn datagrams(group: &mut BenchmarkGroup<'_, WallTime>) {
    let echo = Echo::start();
    let began = Instant::now();
    for _ in 0..ROUND_TRIPS {
        echo.there_and_back();
    }
    let round_trips_per_s = f64::from(ROUND_TRIPS) / began.elapsed().as_secs_f64();
    println!(
        "the machine's limit: {:.0} UDP datagrams of {DATAGRAM_BYTES} bytes a second one way; {round_trips_per_s:.0} of \
         {SMALL_BYTES} there and back, one after the other",
        one_way_per_s()
    );
    group.bench_function(
        "a bare UDP datagram, there and back through a thread that waits for it",
        |bencher| bencher.iter(|| echo.there_and_back()),
    );
    echo.stop();
}

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("a socket")
}

/// A socket, and a thread that sends back what comes from it.
struct Echo {
    here: UdpSocket,
    there: SocketAddr,
    thread: JoinHandle<()>,
}

impl Echo {
    fn start() -> Self {
        let (here, other) = (socket(), socket());
        let there = other.local_addr().expect("an address");
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 64];
            while let Ok((length, from)) = other.recv_from(&mut bytes) {
                if length == 0 || other.send_to(&bytes[..length], from).is_err() {
                    break;
                }
            }
        });
        Self { here, there, thread }
    }

    fn there_and_back(&self) -> (usize, SocketAddr) {
        let mut bytes = [0; 64];
        self.here.send_to(&[7; SMALL_BYTES], self.there).expect("it is sent");
        self.here.recv_from(&mut bytes).expect("it comes back")
    }

    fn stop(self) {
        self.here.send_to(&[], self.there).expect("it is sent");
        self.thread.join().expect("it ends");
    }
}

/// Datagrams a second that arrive at a thread which does nothing else, from one that only sends, with a system call for each;
/// QUIC's own go several to a call.
fn one_way_per_s() -> f64 {
    let (here, there, arrived) = (socket(), socket(), AtomicU32::new(0));
    let address = there.local_addr().expect("an address");
    there.set_read_timeout(Some(BURST)).expect("a timeout"); // it ends even if one is lost
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            let (began, mut bytes) = (Instant::now(), [0; DATAGRAM_BYTES]);
            while began.elapsed() < BURST {
                arrived.fetch_add(u32::from(there.recv(&mut bytes).is_ok()), Relaxed);
            }
            f64::from(arrived.load(Relaxed)) / began.elapsed().as_secs_f64()
        });
        let mut sent = 0_u32;
        while !receiving.is_finished() {
            if sent - arrived.load(Relaxed) < UNDER_WAY_MAX {
                here.send_to(&[7; DATAGRAM_BYTES], address).expect("it is sent");
                sent += 1;
            } else {
                std::thread::yield_now();
            }
        }
        receiving.join().expect("it ends")
    })
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
