//! A web service whose routes Jeton protects; the guard itself is in `axum/guard.rs`, to be taken along.
//!
//! With a server running: `cargo run -p jeton-client --example axum -- ~/.local/share/jeton/identities/admin`, then the
//! command that it prints.

#[path = "axum/guard.rs"]
mod guard;

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use jeton_client::{Claims, Client, Config, Error, Identity, IssueTokens, Token};

use guard::{Caller, Need, Refusal, protect};

/// How long a request waits for Jeton before it is refused.
const PATIENCE: Duration = Duration::from_secs(1);
const LISTEN: &str = "127.0.0.1:8080";

async fn read(Path(id): Path<String>, caller: Caller) -> Result<String, Refusal> {
    let subject = caller.subject().await?.unwrap_or_else(|| "somebody".to_owned());
    let grants = caller.claims().await?.grants().len();
    let left = caller.answer().seconds_left;
    Ok(format!("{subject} reads journal {id} ({grants} grants, good for {left} s)\n"))
}

async fn comment(Path(id): Path<String>, caller: Caller, words: String) -> Result<String, Refusal> {
    let subject = caller.subject().await?.unwrap_or_else(|| "somebody".to_owned());
    Ok(format!("{subject} says of journal {id}: {words}\n"))
}

fn service(client: &Client) -> Router {
    let needs = |action, resource| from_fn_with_state(Need::new(client, action, resource), protect);
    let journal = get(read)
        .layer(needs("read", "journal/{id}"))
        .merge(axum::routing::post(comment).layer(needs("comment", "journal/{id}")));
    Router::new().route("/", get(async || "open to all\n")).route("/journal/{id}", journal)
}

/// What a sign-in would end with.
async fn sign_in(client: &Client) -> Result<Token, Error> {
    let name = |text: &str| text.parse().expect("a short text is a name");
    let issue = IssueTokens {
        tenant: name("default"),
        subjects: vec![name("alice")],
        claims: Claims::new(
            [],
            [],
            [
                "read on journal/*".parse().expect("a grant"),
                "comment on journal/42".parse().expect("a grant"),
            ],
            Default::default(),
        )?,
        ttl_s: 3_600,
        not_before_s: 0,
        renewable_s: 0,
        uses_max: 0,
        parent: None,
        binding: None,
    };
    Ok(client.issue(issue, None).await?.tokens.remove(0))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "/etc/jeton/identity".to_owned());
    let address = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:7878".to_owned());
    let config = Config { deadline: PATIENCE, ..Config::new(address.parse()?, Identity::from_dir(dir)?) };
    let client = Client::connect(config).await?;
    let token = sign_in(&client).await?;
    let listener = tokio::net::TcpListener::bind(LISTEN).await?;
    println!("curl -i -H 'Authorization: Bearer {}' http://{LISTEN}/journal/42", &*token.to_text());
    axum::serve(listener, service(&client)).await?;
    Ok(())
}
