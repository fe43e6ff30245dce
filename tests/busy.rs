//! Servers on cores that others use as well.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jeton_client::{Check, Client, Config, Identity, RevokeTarget, Verdict};
use jeton_tests::{Server, issue_for};

/// Rounds of starting, asking and stopping.
const ROUNDS: usize = 10;
const CLIENTS: usize = 8;

/// Threads that want every core for themselves, until this is dropped.
struct Burners(Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Burners {
    fn new() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let burn = |is_over: Arc<AtomicBool>| move || while !is_over.load(Ordering::Relaxed) {};
        let threads = (0..4).map(|_| std::thread::spawn(burn(Arc::clone(&is_over)))).collect();
        Self(is_over, threads)
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

async fn use_it(config: Config) {
    let admin = Client::connect(config).await.unwrap();
    for _ in 0..15 {
        let token = admin.issue(issue_for(&["alice"]), None).await.unwrap().tokens.remove(0);
        assert_eq!(admin.validate(&token, &Check::live()).await.unwrap().verdict, Verdict::Valid);
        admin.revoke(RevokeTarget::Id(token.id)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await; // long enough for a shard to park
    }
}

#[test]
fn shards_answer_and_stop_while_others_burn_the_cores() {
    jeton_tests::jeton(); // built before there is no core left to build it on
    let _burners = Burners::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for _ in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start_as(dir.path(), &["--listen", "127.0.0.1:0"], &[]); // a shard on every core
        runtime.block_on(async {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let identity = Identity::from_dir(dir.path().join("identities/admin")).unwrap();
                    tokio::spawn(use_it(Config::new(server.address, identity)))
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
        });
        server.terminate();
    }
}
