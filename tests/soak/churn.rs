//! Tokens that come by the hundred, live for a minute and expire by themselves, in waves: what memory has to follow.

use std::time::{Duration, Instant};

use jeton_client::Client;

use super::load::Load;
use crate::issue_for;
use crate::sim::rng::Rng;

/// Tokens of one issue.
const ISSUED: u32 = 256;
/// Lifetimes, in seconds.
const LIFETIME_S: std::ops::Range<u64> = 20..60;
/// Half of this at the full rate, half at a tenth of it: long enough for the server to have reclaimed what has expired.
const WAVE: Duration = Duration::from_secs(600);
/// Of the rate, while it is low.
const LOW: u32 = 10;

/// Has `rate` tokens issued each second of the high half of each wave, for as long as `duration`.
pub(super) async fn churn(load: Load, client: Client, rate: u32, seed: u64, duration: Duration) {
    let (began, mut rng) = (Instant::now(), Rng::new(!seed));
    let subjects: Vec<_> = (0..ISSUED).map(|subject| format!("churn-{subject}")).collect();
    let subjects: Vec<_> = subjects.iter().map(String::as_str).collect();
    let mut due = Duration::ZERO;
    while due < duration && began.elapsed() < duration {
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        let mut issue = issue_for(&subjects);
        issue.ttl_s = rng.within(LIFETIME_S) as u32;
        if let Err(error) = client.issue(issue, None).await {
            load.error(|| format!("an issue of {ISSUED} tokens: {error}"));
        }
        due += Duration::from_secs(1) * ISSUED / at(due, rate);
    }
    client.close().await;
}

/// Tokens a second at this time of the run.
fn at(time: Duration, rate: u32) -> u32 {
    let is_high = time.as_secs() % WAVE.as_secs() < WAVE.as_secs() / 2;
    if is_high { rate } else { (rate / LOW).max(1) }
}
