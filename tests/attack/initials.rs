//! Handshakes that are begun and never completed.
//!
//! The first flights are real: made by the product's own sans-IO driver from the client's side, then taken out of its
//! hands. Whatever the server answers is counted and thrown away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use jeton_net::driver::{Driver, DriverConfig};
use jeton_net::tls::{Credentials, client_config};

use super::rig::{Papers, SERVER_NAME};

/// First datagrams of clients that will never send a second one.
///
/// # Errors
/// If the papers are no good for TLS at all.
pub fn first_datagrams(papers: &Papers, target: SocketAddr, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let papers = papers.clone();
    let credentials = Credentials { chain: papers.chain, key: papers.key, authorities: papers.authorities };
    let tls = Driver::client_crypto(Arc::new(client_config(credentials)?))?;
    let mut driver = Driver::new(DriverConfig::client())?;
    let now = Instant::now();
    let mut datagrams = Vec::with_capacity(count);
    let mut buffer = Vec::new();
    while datagrams.len() < count {
        driver.connect(now, Arc::clone(&tls), target, SERVER_NAME)?;
        buffer.clear();
        while let Some(transmit) = driver.poll_transmit(now, &mut buffer) {
            let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
            datagrams.extend(buffer[..transmit.size].chunks(segment).map(<[u8]>::to_vec));
            buffer.clear();
        }
    }
    datagrams.truncate(count);
    Ok(datagrams)
}
