//! Clients that open more connections than anybody needs.

use quinn::Connection;

use super::rig::{Papers, Target};

/// Opens connections until `count` of them stand or one does not come about; those that stand, and what was said of the
/// one that does not.
pub async fn open(
    target: &Target,
    papers: &Papers,
    count: usize,
) -> (Vec<Connection>, Option<anyhow::Error>) {
    let mut connections = Vec::new();
    while connections.len() < count {
        match target.connect(papers).await {
            Ok(connection) => connections.push(connection),
            Err(error) => return (connections, Some(error)),
        }
    }
    (connections, None)
}
