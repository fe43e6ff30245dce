//! The same change before a start: a server refuses it, or serves what it served before.

use std::time::{Duration, Instant};

use jeton_client::{Check, Client, Config, Consistency, Identity, Verdict};

use super::change::Change;
use super::workbench::{Failure, Outcome, Workbench, helps};
use crate::{PATIENCE, Server, StartFailure};

/// How long a client tries: loopback, and a server that answers in milliseconds if it answers at all.
const DEADLINE: Duration = Duration::from_secs(5);

/// Starts a server on the changed copy and asks it; the copy is not to be used again.
///
/// # Errors
/// [`Failure`].
pub async fn serve(bench: Workbench<'_>, change: &Change) -> Result<Outcome, Failure> {
    bench.alter(&change.altered(bench.image, bench.foreign));
    let began = Instant::now();
    let server = match Server::try_start(bench.dir.path(), &[]) {
        Ok(server) => server,
        Err(StartFailure::Ended { status, words }) => {
            let last = words.lines().last().unwrap_or_default().to_owned();
            let is_refused = status.code() == Some(2);
            let names_it = helps(&last) || last.contains("identities");
            return match is_refused && names_it && !words.contains("panicked") {
                true => Ok(Outcome::Refused(last)),
                false => Err(Failure(format!("the start ended badly ({status}): {words}"))),
            };
        }
        Err(StartFailure::Silent) => return Err(Failure(format!("no start within {PATIENCE:?}"))),
    };
    if server.log().contains("panicked") {
        return Err(Failure(format!("a panic: {}", server.log())));
    }
    let answers = ask(&server, &bench).await;
    let log = server.log();
    server.kill9();
    match answers {
        Ok(answers) if answers == [Verdict::Valid, Verdict::Revoked] => match log.contains(" WARN ") {
            true => Ok(Outcome::Repaired(log)),
            false => Ok(Outcome::NoEffect),
        },
        Ok(answers) => Err(Failure(format!("answers {answers:?} after {:?}: {log}", began.elapsed()))),
        // With another certificate or authority it is the client that refuses.
        Err(error) if change.path().starts_with("identities") => Ok(Outcome::Refused(error.to_string())),
        Err(error) => Err(Failure(format!("{error}: {log}"))),
    }
}

async fn ask(server: &Server, bench: &Workbench<'_>) -> Result<Vec<Verdict>, jeton_client::Error> {
    let identity = Identity::from_dir(server.data.join("identities/admin"))?;
    let client =
        Client::connect(Config { deadline: DEADLINE, ..Config::new(server.address, identity) }).await?;
    let tokens = [bench.image.live.clone(), bench.image.dead.clone()];
    let answers = client.validate_batch(&tokens, &Check::live(), Consistency::Latest).await?;
    Ok(answers.into_iter().map(|answer| answer.verdict).collect())
}
