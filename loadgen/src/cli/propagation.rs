//! `jeton-load propagation`.

use anyhow::ensure;

use super::run::Output;
use crate::live::{latency, time};
use crate::propagation::measure;
use crate::report::Quantiles;
use crate::report::hdr::percentiles;
use crate::run::prepare;
use crate::target::{Server, Target};
use crate::workload::{Asks, Mix, Workload};

/// Flags of `propagation`.
#[derive(Debug, clap::Args)]
pub(crate) struct Propagation {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
    /// Tokens to revoke, one after another.
    #[arg(long, default_value_t = 500)]
    revokes: u32,
    /// Connections on which each of them is asked about all the time.
    #[arg(long, default_value_t = 8)]
    watchers: u16,
}

impl Propagation {
    /// Measures; returns whether no validate sent after an acknowledgement was answered `valid`.
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        ensure!((1..=100_000).contains(&self.revokes), "--revokes is 1 to 100000");
        ensure!((1..=1_000).contains(&self.watchers), "--watchers is 1 to 1000");
        let folder = self.output.folder()?;
        let server = Server::new(&self.target)?;
        let mut workload = Workload {
            mix: Mix { revoke: 100.0, ..Mix::none() },
            validate: Asks { live: 100.0, ..Asks::none() },
            ..Workload::default()
        };
        workload.keys.revocable = 90;
        workload.keys.tokens = (self.revokes + self.revokes / 8 + 1).max(crate::workload::TOKENS_MIN);
        let prepared = prepare(&server, &workload, None)?;
        let shared = &prepared.shared;
        let mut peer = server.connect(self.watchers + 1, 1)?;
        let (seen, result) = measure(peer.as_mut(), &shared.keys, &shared.truth, self.revokes);
        // Files first: standard output may be a full disk.
        if let Some(folder) = folder {
            folder.write("propagation.json", &serde_json::to_vec_pretty(&seen)?)?;
            folder.write("propagation.hgrm", percentiles(&seen.histogram).as_bytes())?;
            eprintln!("jeton-load: the figures are in {}", folder.path().display());
        }
        if self.output.json {
            tell!("{}", serde_json::to_string(&seen)?)?;
        } else {
            // That nobody was told valid any more is no time of 0 us, unless nothing was revoked at all.
            let shown = if seen.revokes == 0 { latency } else { time };
            let line = |name, it: Quantiles| {
                tell!("{name:<42} p50 {}, p99 {}, max {}", shown(it.p50), shown(it.p99), shown(it.max))
            };
            tell!("{} revokes, {} connections that watch", seen.revokes, seen.watchers)?;
            line("from the revoke to its acknowledgement", seen.acknowledged_us)?;
            line("from the revoke to the first denial", seen.first_denied_us)?;
            line("from the acknowledgement to the last valid", seen.last_valid_us)?;
            tell!("after {} of them nobody was told valid any more at all", seen.none_after)?;
            tell!("valid to a validate sent after the acknowledgement: {}", seen.wrong_replies)?;
        }
        // A server that died: what was seen until then is told, and then that. One that lied before has failed of that.
        match result {
            Err(error) if seen.wrong_replies > 0 => {
                eprintln!("jeton-load: {error:#}");
                Ok(false)
            }
            result => result.map(|()| seen.wrong_replies == 0),
        }
    }
}
