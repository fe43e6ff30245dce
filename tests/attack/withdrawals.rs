//! A client whose rights are withdrawn and given back while it asks, over and over, in mid-connection.

use std::time::Duration;

use jeton_client::{Client, Config, Identity, Rights};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::frames::ask_about_unknown;
use super::rig::{Stop, Target, Wish};
use crate::name;

const ASKER: &str = "jeton:client:asker";
const PAUSE: Duration = Duration::from_millis(1);

/// Asks over `connections`, a question a millisecond each, and withdraws the asker's right or gives it back `per_s` times a second.
///
/// # Errors
/// If the administrator may not, or the server does not let the asker in.
pub async fn withdraw(target: &Target, per_s: u32, connections: usize, stop: &Stop) -> anyhow::Result<Value> {
    let identity = Identity::from_dir(target.data.join("identities/admin"))?;
    let admin = Client::connect(Config::new(target.address, identity)).await?;
    let papers = target.sign(&Wish::good(ASKER))?;
    let mut askers = JoinSet::new();
    for seed in 0..connections {
        let (target, papers, stop) = (target.clone(), papers.clone(), stop.clone());
        askers.spawn(async move { ask_about_unknown(&target, &papers, seed as u64 + 1, PAUSE, &stop).await });
    }
    let mut changes = 0_u64;
    while !stop.is_over() {
        if changes.is_multiple_of(2) {
            admin.grant_rights(name(ASKER), name("default"), Rights::VALIDATE).await?;
        } else {
            admin.withdraw_rights(name(ASKER), name("default"), Rights::VALIDATE).await?;
        }
        changes += 1;
        tokio::time::sleep(Duration::from_secs(1) / per_s.max(1)).await;
    }
    let (mut asked, mut bytes) = (0, 0);
    for done in askers.join_all().await {
        let (one, read) = done?;
        (asked, bytes) = (asked + one, bytes + read);
    }
    admin.close().await;
    Ok(json!({ "changes_of_rights": changes, "requests": asked, "answer_bytes": bytes }))
}
