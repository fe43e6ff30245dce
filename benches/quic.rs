//! One request after the other over QUIC and mutual TLS on loopback, beside what a bare UDP datagram there and back takes.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::net::UdpSocket;
use std::num::NonZeroUsize;

use criterion::{Criterion, criterion_group, criterion_main};
use jeton::config::ServerConfig;
use jeton::server::RunningServer;
use jeton_client::{Check, Claims, Client, Config, Consistency, Identity, IssueTokens};

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
    group.bench_function(
        "a bare UDP datagram, there and back through a thread that waits for it",
        |bencher| {
            let there = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let address = there.local_addr().expect("an address");
            let echo = std::thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok((length, from)) = there.recv_from(&mut bytes) {
                    if length == 0 || there.send_to(&bytes[..length], from).is_err() {
                        break;
                    }
                }
            });
            let here = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let mut bytes = [0; 64];
            bencher.iter(|| {
                here.send_to(&[7; 48], address).expect("it is sent");
                here.recv_from(&mut bytes).expect("it comes back")
            });
            here.send_to(&[], address).expect("it is sent");
            echo.join().expect("it ends");
        },
    );
    group.finish();
    runtime.block_on(client.close());
    server.stop().expect("it stops");
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
