//! What a service does with Jeton: hand out a token, ask about it on every request, take it back.
//!
//! With a server running: `cargo run -p jeton-client --example protect -- ~/.local/share/jeton/identities/admin`.

use std::time::Duration;

use jeton_client::{
    Check, Claims, Client, Config, Consistency, Error, Identity, IssueTokens, RevokeTarget, Verdict,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "/etc/jeton/identity".to_owned());
    let address = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:7878".to_owned());
    let address = address.parse().map_err(|_| Error::Failed(format!("{address} is no address")))?;
    let mut config = Config::new(address, Identity::from_dir(dir)?);
    config.deadline = Duration::from_secs(2);
    let client = Client::connect(config).await?;

    // Somebody has signed in.
    let name = |text: &str| text.parse().expect("a short text is a name");
    let grants = ["read,comment on journal/42".parse().expect("a grant")];
    let issue = IssueTokens {
        tenant: name("default"),
        subjects: vec![name("alice")],
        claims: Claims::new([], [], grants, Default::default())?,
        ttl_s: 3_600,
        not_before_s: 0,
        renewable_s: 0,
        uses_max: 0,
        parent: None,
        binding: None,
    };
    let token = client.issue(issue, None).await?.tokens.remove(0);
    println!("hand this to the browser: {}", &*token.to_text());

    // Every request carries the token.
    for resource in ["journal/42", "journal/43"] {
        let answer = client.validate(&token, &Check::access("read", resource)?).await?;
        println!("read {resource}: {}", answer.verdict.word());
    }

    // They sign out; what any server says from here on rests on that.
    client.revoke(RevokeTarget::Token(token.clone())).await?;
    let answers = client.validate_batch(&[token], &Check::live(), Consistency::ReadYourWrites).await?;
    println!("after signing out: {}", answers[0].verdict.word());
    assert_eq!(answers[0].verdict, Verdict::Revoked);
    Ok(())
}
