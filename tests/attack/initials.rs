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

/// Hands each datagram that a driver has to send to `send`.
pub(super) fn each_datagram(driver: &mut Driver, now: Instant, mut send: impl FnMut(&[u8])) {
    let mut buffer = Vec::new();
    while let Some(transmit) = driver.poll_transmit(now, &mut buffer) {
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        buffer[..transmit.size].chunks(segment).for_each(&mut send);
        buffer.clear();
    }
}

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
    while datagrams.len() < count {
        driver.connect(now, Arc::clone(&tls), target, SERVER_NAME)?;
        each_datagram(&mut driver, now, |datagram| datagrams.push(datagram.to_vec()));
    }
    datagrams.truncate(count);
    Ok(datagrams)
}
