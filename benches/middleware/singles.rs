//! Single validates of many tasks, put together or each in a frame of its own.

use std::sync::Arc;
use std::time::Instant;

use jeton_client::{Check, Client, Token, Verdict};
use tokio::task::JoinSet;

use crate::sample::{Recorder, Sample, asked_since};
use crate::{ALTERNATIONS, CALLERS_MAX, Clients, Failure};

const CALLERS: [usize; 4] = [1, 16, 256, CALLERS_MAX];

async fn load(client: &Client, tokens: &[Token]) -> Result<Sample, Failure> {
    let before = client.validate_counts();
    let recorder = Arc::new(Recorder::new()?);
    let mut tasks = JoinSet::new();
    for (number, token) in tokens.iter().enumerate() {
        let (client, token, recorder) = (client.clone(), token.clone(), Arc::clone(&recorder));
        let check = Check::access("read", &format!("journal/{number}"))?;
        tasks.spawn(async move {
            while !recorder.is_over() {
                let began = Instant::now();
                let verdict = client.validate(&token, &check).await?.verdict;
                if verdict != Verdict::Valid {
                    return Err(Failure::from(format!("a live token is {}", verdict.word())));
                }
                recorder.note(began);
            }
            Ok(())
        });
    }
    tasks.join_all().await.into_iter().collect::<Result<Vec<()>, Failure>>()?;
    let recorder = Arc::into_inner(recorder).ok_or("every caller has ended")?;
    recorder.sample(asked_since(client, before))
}

pub(crate) async fn measure(clients: &Clients, tokens: &[Token]) -> Result<(), Failure> {
    println!(
        "| tasks | way | validates/s | p50 us | p99 us | CPU us | tokens a frame |\n|---|---|---|---|---|---|---|"
    );
    for count in CALLERS {
        let tokens = tokens.get(..count).ok_or("a token for each caller")?;
        let (mut together, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..ALTERNATIONS {
            together.push(load(&clients.together, tokens).await?);
            alone.push(load(&clients.alone, tokens).await?);
        }
        Sample::row("together", count, &together);
        Sample::row("alone", count, &alone);
    }
    Ok(())
}
