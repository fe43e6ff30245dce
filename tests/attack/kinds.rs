//! Every attack by name, run until it is told to stop.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::datagrams::{Sources, garbage, unknown_version};
use super::frames::{OFFENCES, UNKNOWN_TOKENS, ask_about_unknown, commit};
use super::initials::first_datagrams;
use super::migration::wander;
use super::readers::ask_and_take;
use super::rig::{Papers, Stop, Target};
use super::stalled::stall;
use super::streams::{TREATMENTS, waste};
use super::withdrawals::withdraw;
use super::writes::{Answers, Write, flood, writer};
use super::{certificates, connections};
use crate::sim::rng::Rng;

/// What an attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Handshakes begun and never completed, from few addresses, too few for proof to be asked for.
    HalfOpen,
    /// The same from thousands of addresses that nobody answers at.
    SpoofedInitials,
    /// The same from an address that proves to be real when it is asked, and then says nothing more: as many as there may be.
    StalledHandshakes,
    /// Datagrams that are no QUIC.
    Garbage,
    /// First datagrams of a version that nobody speaks.
    Versions,
    /// A client whose every datagram comes from another address.
    Wandering,
    /// Clients with faulty certificates, one after another.
    Certificates,
    /// One client with many connections.
    Connections,
    /// A byte a second on many streams.
    Trickle,
    /// Oversized, garbage, early and cut frames.
    BadFrames,
    /// Validates of tokens that nobody issued.
    UnknownTokens,
    /// A client that asks, and whose rights are withdrawn and given back all the while.
    Withdrawals,
    /// Streams opened and reset as fast as they may be.
    Streams,
    /// Clients that ask and read nothing, or next to nothing.
    SlowReaders,
    /// One client that issues as fast as it can.
    IssueFlood,
    /// One client that revokes what does not exist as fast as it can.
    RevokeFlood,
    /// One client that uses up idempotency keys.
    KeyFlood,
}

/// How hard.
#[derive(Clone, Copy, Debug)]
pub struct Force {
    /// Datagrams, requests or attempts a second, where there is a pace at all.
    pub per_s: u32,
    /// Connections, sockets or tasks at a time.
    pub width: usize,
}

impl Kind {
    /// What an attacker with part of one core can do, so that what the witness feels is the server.
    #[must_use]
    pub fn usual_force(self) -> Force {
        let (per_s, width) = match self {
            Self::HalfOpen => (80, 4),
            Self::SpoofedInitials => (4_000, 4_000),
            // Three seconds each make 4,096 of it.
            Self::StalledHandshakes => (1_366, 1),
            Self::Garbage => (20_000, 256),
            Self::Versions => (10_000, 256),
            Self::Wandering => (0, 64),
            Self::Certificates => (200, 4),
            Self::Connections => (500, 20_000),
            Self::Trickle => (0, 64),
            Self::BadFrames => (200, 4),
            Self::UnknownTokens => (2_000, 4),
            Self::Withdrawals => (100, 2),
            Self::Streams => (0, 4),
            Self::SlowReaders => (0, 32),
            Self::IssueFlood | Self::RevokeFlood | Self::KeyFlood => (0, 16),
        };
        Force { per_s, width }
    }

    /// Runs it; what it did and saw.
    ///
    /// # Errors
    /// If it cannot be run.
    pub async fn run(self, target: &Target, force: Force, stop: &Stop) -> anyhow::Result<Value> {
        let admin = target.papers_of("admin")?;
        match self {
            Self::HalfOpen | Self::SpoofedInitials | Self::Garbage | Self::Versions => {
                let (target, stop) = (target.clone(), stop.clone());
                tokio::task::spawn_blocking(move || self.throw(&target, &admin, force, &stop)).await?
            }
            Self::StalledHandshakes => {
                let (target, stop) = (target.clone(), stop.clone());
                let stalling = move || stall(&target, &admin, force.per_s, &stop);
                let seen = tokio::task::spawn_blocking(stalling).await??;
                Ok(json!({
                    "begun": seen.begun, "proofs": seen.proofs, "taken_on": seen.taken_on,
                    "sent_bytes": seen.sent, "received_bytes": seen.received,
                }))
            }
            Self::Wandering => {
                let (target, stop) = (target.clone(), stop.clone());
                let wandering = move || wander(&target, &admin, force.width, &stop);
                let seen = tokio::task::spawn_blocking(wandering).await??;
                Ok(json!({
                    "addresses": seen.addresses, "sent_bytes": seen.sent(), "received_bytes": seen.received(),
                    "still_connected": seen.is_connected,
                }))
            }
            Self::Certificates => knock(target, force, stop).await,
            Self::Connections => open(target, &admin, force, stop).await,
            Self::Trickle => trickle(target, &admin, force, stop).await,
            Self::BadFrames => offend(target, &admin, force, stop).await,
            Self::UnknownTokens => ask_for_unknown(target, &admin, force, stop).await,
            Self::Withdrawals => withdraw(target, force.per_s, force.width, stop).await,
            Self::Streams => waste_streams(target, &admin, force, stop).await,
            Self::SlowReaders => read_slowly(target, &admin, force, stop).await,
            Self::IssueFlood => write(target, Write::Issue, force, stop).await,
            Self::RevokeFlood => write(target, Write::Revoke, force, stop).await,
            Self::KeyFlood => write(target, Write::KeyedIssue, force, stop).await,
        }
    }

    /// Throws datagrams, a millisecond's worth at a time.
    fn throw(self, target: &Target, admin: &Papers, force: Force, stop: &Stop) -> anyhow::Result<Value> {
        let mut random = Rng::new(11);
        let mut sources = Sources::new(target.address, force.width)?;
        let is_handshake = matches!(self, Self::HalfOpen | Self::SpoofedInitials);
        let count = if is_handshake { (force.per_s as usize * 4).min(4_096) } else { 4_096 };
        let ammunition = match self {
            Self::Garbage => (0..count).map(|_| garbage(&mut random)).collect(),
            Self::Versions => (0..count).map(|_| unknown_version(&mut random)).collect(),
            // Each is good again once the server has forgotten it, three seconds later.
            _ => first_datagrams(admin, target.address, count)?,
        };
        let began = Instant::now();
        let mut thrown = 0_usize;
        while !stop.is_over() {
            let due = (began.elapsed().as_secs_f64() * f64::from(force.per_s)) as usize;
            while thrown < due {
                sources.send(thrown, &ammunition[thrown % ammunition.len()]);
                sources.drain(thrown + sources.len() / 2);
                thrown += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        sources.drain_all();
        let received = sources.received();
        Ok(json!({
            "datagrams": thrown, "sources": sources.len(),
            "sent_bytes": sources.sent(), "received_bytes": received.bytes,
            "received_datagrams": received.datagrams, "retries": received.retries,
            "version_negotiations": received.negotiations, "short_headers": received.resets,
            "bytes_back_per_byte": received.bytes as f64 / sources.sent().max(1) as f64,
            "bytes_back_per_byte_worst_source": sources.amplification_max(),
        }))
    }
}

fn pause(force: Force) -> Duration {
    Duration::from_secs(1) * u32::try_from(force.width).unwrap_or(u32::MAX) / force.per_s.max(1)
}

async fn knock(target: &Target, force: Force, stop: &Stop) -> anyhow::Result<Value> {
    let faults = certificates::FAULTS.map(|fault| certificates::forge(target, fault));
    let faults: Vec<Papers> = faults.into_iter().collect::<anyhow::Result<_>>()?;
    let mut knockers = JoinSet::new();
    for _ in 0..force.width {
        let (target, faults, stop) = (target.clone(), faults.clone(), stop.clone());
        knockers.spawn(async move {
            let (mut knocks, mut welcomes) = (0, 0);
            for papers in faults.iter().cycle().take_while(|_| !stop.is_over()) {
                knocks += 1;
                let reception = certificates::knock(&target, papers).await;
                welcomes += u64::from(reception == certificates::Reception::Welcome);
                tokio::time::sleep(pause(force)).await;
            }
            (knocks, welcomes)
        });
    }
    let (knocks, welcomes) =
        knockers.join_all().await.into_iter().fold((0_u64, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    Ok(json!({ "handshakes": knocks, "welcomed": welcomes }))
}

async fn open(target: &Target, admin: &Papers, force: Force, stop: &Stop) -> anyhow::Result<Value> {
    let (mut standing, mut refused, mut last) = (Vec::new(), 0_u64, None);
    while !stop.is_over() {
        let (more, refusal) = connections::open(target, admin, 1).await;
        standing.extend(more);
        if let Some(refusal) = refusal {
            refused += 1;
            last = Some(refusal.to_string());
        }
        if standing.len() >= force.width {
            standing.truncate(force.width / 2);
        }
        tokio::time::sleep(Duration::from_secs(1) / force.per_s.max(1)).await;
    }
    let closed = standing.iter().filter(|connection| connection.close_reason().is_some()).count();
    Ok(
        json!({ "opened": standing.len(), "closed_by_the_server": closed, "refused": refused, "refusal": last }),
    )
}

async fn trickle(target: &Target, admin: &Papers, force: Force, stop: &Stop) -> anyhow::Result<Value> {
    let mut writers = JoinSet::new();
    for _ in 0..force.width {
        let (target, admin, stop) = (target.clone(), admin.clone(), stop.clone());
        writers.spawn(async move {
            let (mut connections, mut closed) = (0_u64, 0_u64);
            while !stop.is_over() {
                let Ok((connection, mut send, _receive)) = target.greeted(&admin).await else { continue };
                connections += 1;
                let mut streams = Vec::new();
                while streams.len() < 60
                    && let Ok((mut send, receive)) = connection.open_bi().await
                {
                    let _ = send.write_all(&[32]).await;
                    streams.push((send, receive));
                }
                while !stop.is_over() && connection.close_reason().is_none() {
                    let _ = send.write_all(&[32]).await;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                closed += u64::from(connection.close_reason().is_some());
            }
            (connections, closed)
        });
    }
    let (connections, closed) =
        writers.join_all().await.into_iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    Ok(json!({ "connections": connections, "streams_each": 61, "closed_by_the_server": closed }))
}

async fn offend(target: &Target, admin: &Papers, force: Force, stop: &Stop) -> anyhow::Result<Value> {
    let mut offenders = JoinSet::new();
    for _ in 0..force.width {
        let (target, admin, stop) = (target.clone(), admin.clone(), stop.clone());
        offenders.spawn(async move {
            let (mut offences, mut closed) = (0_u64, 0_u64);
            // The unfinished one takes seconds; `Trickle` has it.
            for offence in OFFENCES[1..].iter().cycle().take_while(|_| !stop.is_over()) {
                offences += 1;
                let code = commit(&target, &admin, *offence).await;
                closed += u64::from(matches!(code, Ok(Some(_))));
                tokio::time::sleep(pause(force)).await;
            }
            (offences, closed)
        });
    }
    let (offences, closed) =
        offenders.join_all().await.into_iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    Ok(json!({ "offences": offences, "closed_with_a_code": closed }))
}

async fn ask_for_unknown(
    target: &Target,
    admin: &Papers,
    force: Force,
    stop: &Stop,
) -> anyhow::Result<Value> {
    let mut askers = JoinSet::new();
    for seed in 0..force.width {
        let (target, admin, stop) = (target.clone(), admin.clone(), stop.clone());
        askers.spawn(async move {
            ask_about_unknown(&target, &admin, seed as u64 + 1, pause(force), &stop).await
        });
    }
    let (mut asked, mut bytes) = (0, 0);
    for done in askers.join_all().await {
        let (one, read) = done?;
        (asked, bytes) = (asked + one, bytes + read);
    }
    Ok(json!({ "requests": asked, "tokens": asked * UNKNOWN_TOKENS, "answer_bytes": bytes }))
}

async fn waste_streams(target: &Target, admin: &Papers, force: Force, stop: &Stop) -> anyhow::Result<Value> {
    let mut wasters = JoinSet::new();
    for at in 0..force.width {
        let (target, admin, stop) = (target.clone(), admin.clone(), stop.clone());
        wasters.spawn(async move {
            let (connection, _send, _receive) = target.greeted(&admin).await?;
            let (mut streams, mut answered) = (0_u64, 0_u64);
            for (id, treatment) in (0..).zip(TREATMENTS.into_iter().cycle().skip(at)) {
                if stop.is_over() {
                    break;
                }
                let wasted = waste(&connection, id, treatment).await;
                answered += u64::from(wasted?);
                streams += 1;
            }
            anyhow::Ok((streams, answered))
        });
    }
    let (mut streams, mut answered) = (0, 0);
    for done in wasters.join_all().await {
        let (one, right) = done?;
        (streams, answered) = (streams + one, answered + right);
    }
    Ok(json!({ "streams": streams, "answered": answered }))
}

async fn read_slowly(target: &Target, admin: &Papers, force: Force, stop: &Stop) -> anyhow::Result<Value> {
    let mut readers = JoinSet::new();
    for at in 0..force.width {
        let (target, admin, stop) = (target.clone(), admin.clone(), stop.clone());
        // Every other one takes nothing, the rest a little.
        let bytes = if at.is_multiple_of(2) { 0 } else { 512 };
        readers.spawn(async move {
            let mut closed = 0_u64;
            while !stop.is_over() {
                let reading = ask_and_take(&target, &admin, bytes, Duration::from_millis(500));
                let until = async {
                    while !stop.is_over() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                tokio::select! {
                    ended = reading => closed += u64::from(ended.is_ok()),
                    () = until => {}
                }
            }
            closed
        });
    }
    let closed: u64 = readers.join_all().await.into_iter().sum();
    Ok(json!({ "readers": force.width, "closed_by_the_server": closed }))
}

async fn write(target: &Target, what: Write, force: Force, stop: &Stop) -> anyhow::Result<Value> {
    let papers = writer(target).await?;
    let answers = std::sync::Arc::new(Answers::default());
    let mut writers = JoinSet::new();
    for seed in 0..force.width as u64 {
        let (target, papers, stop) = (target.clone(), papers.clone(), stop.clone());
        let answers = std::sync::Arc::clone(&answers);
        writers.spawn(async move { flood(&target, &papers, what, seed + 1, &answers, &stop).await });
    }
    writers.join_all().await.into_iter().collect::<anyhow::Result<Vec<()>>>()?;
    Ok(json!({
        "asked": answers.asked.get(), "done": answers.done.get(), "busy": answers.busy.get(),
        "refused": answers.refused.get(),
    }))
}
