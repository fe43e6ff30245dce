//! Several shards behind one address: a connection stays with its shard wherever its client sends from.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use jeton_tests::Server;
use jeton_tests::attack::migration::wander;
use jeton_tests::attack::rig::{Stop, Target};

/// Clients, and addresses of each: by the kernel's own hash of addresses hardly one of them would keep its connection.
const CLIENTS: usize = 16;
const ADDRESSES: usize = 12;

/// They send pings all the time: a connection that is only not given up yet has had no answer for longer.
const UNANSWERED_MAX: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_is_lost_to_another_shard_when_clients_change_their_address() {
    let dir = tempfile::tempdir().unwrap();
    let shards = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let server =
        Server::start_as(dir.path(), &["--listen", "127.0.0.1:0", "--cores", &shards.to_string()], &[]);
    let target = Target { address: server.address, data: dir.path().to_owned() };
    let papers = target.papers_of("admin").unwrap();
    let stop = Stop::default();
    let wanderers: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (target, papers, stop) = (target.clone(), papers.clone(), stop.clone());
            tokio::task::spawn_blocking(move || wander(&target, &papers, ADDRESSES, &stop).unwrap())
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.stop();
    for wanderer in wanderers {
        let seen = wanderer.await.unwrap();
        assert!(seen.is_connected && seen.addresses == ADDRESSES as u64, "{seen:?}\n{}", server.log());
        assert!(
            seen.answers > ADDRESSES as u64 && seen.unanswered < UNANSWERED_MAX,
            "{seen:?}\n{}",
            server.log()
        );
    }
    let stats: serde_json::Value =
        serde_json::from_str(&server.admin().await.stats().await.unwrap()).unwrap();
    let asked: Vec<_> =
        stats["shards"].as_array().unwrap().iter().map(|s| s["requests"].as_u64().unwrap()).collect();
    assert_eq!(asked.len(), shards);
    // Which shard a connection belongs to is chance; that one of two gets none of sixteen is less likely than one in 30,000.
    assert!(shards > 2 || asked.iter().all(|requests| *requests > 0), "{asked:?}");
    server.terminate();
}
