//! What asking Jeton adds to a request of a web service: `cargo run --release -p jeton-benches --example middleware`.
//!
//! A real server, an axum service with the guard of the client's example, and its callers on keep-alive connections; the
//! same route without a guard, with it, and with each validate in a frame of its own, in turn. Then single validates
//! without a web service around them. The server has core 0; give the rest another: `taskset -c 1`.

#[allow(dead_code, reason = "a service of its own needs more of it")]
#[path = "../../net/client/examples/axum/guard.rs"]
mod guard;
mod sample;
mod server;
mod singles;
mod web;

use std::error::Error;

use jeton_client::{Claims, Client, IssueTokens, Name, Token};

use server::Server;

/// Callers at a time, at most; each has a token of its own.
const CALLERS_MAX: usize = 1_000;
/// How often each of the ways to do it is measured, in turn with the others.
const ALTERNATIONS: usize = 5;
/// A server takes so many subjects in one issue.
const SUBJECTS: usize = 250;

type Failure = Box<dyn Error + Send + Sync>;

/// A client that puts validates together, and one that does not.
struct Clients {
    together: Client,
    alone: Client,
}

async fn issue(client: &Client) -> Result<Vec<Token>, Failure> {
    let mut tokens = Vec::with_capacity(CALLERS_MAX);
    for first in (0..CALLERS_MAX).step_by(SUBJECTS) {
        let subjects: Result<Vec<Name>, _> =
            (first..first + SUBJECTS).map(|number| format!("user-{number}").parse()).collect();
        let issue = IssueTokens {
            tenant: "default".parse()?,
            subjects: subjects?,
            claims: Claims::new([], [], ["read on journal/*".parse()?], Default::default())?,
            ttl_s: 3_600,
            not_before_s: 0,
            renewable_s: 0,
            uses_max: 0,
            parent: None,
            binding: None,
        };
        tokens.extend(client.issue(issue, None).await?.tokens);
    }
    Ok(tokens)
}

/// One worker: the service has the one core that the server leaves.
#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Failure> {
    let server = Server::start()?;
    let config = server.config()?;
    let clients = Clients {
        together: Client::connect(config.clone()).await?,
        alone: Client::connect(jeton_client::Config { coalesce: None, ..config }).await?,
    };
    let tokens = issue(&clients.together).await?;
    web::measure(&clients, &tokens).await?;
    singles::measure(&clients, &tokens).await?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    println!("load average at the end: {}", load.trim());
    Ok(())
}
