//! A run: make or read the key space, let the workers go, collect what they say.

mod collect;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

pub(crate) use self::collect::{Outcome, Row};
use crate::checker::Truth;
use crate::engine::Shared;
use crate::fill::{TTL_S, fill, revoke_some};
use crate::keyspace::{KeySpace, Mapping, Saved, TokenFile};
use crate::layout::Layout;
use crate::live::View;
use crate::measure::wall;
use crate::peer::Peer;
use crate::target::Server;
use crate::trace::Trace;
use crate::worker::Crew;
use crate::workload::Workload;
use crate::workload::kind::{KINDS, Kind};

/// Connections over which the key space is filled.
const FILL_CONNECTIONS: u16 = 4;
/// What a run takes at most beside its duration and warm-up: connecting, draining.
const SLACK_S: u64 = 60;
/// Tokens of an earlier run are to be good for so many runs, for a search or a comparison has many; but half their day is
/// always enough.
const RUNS: u64 = 24;
/// Intervals that a run is cut into: one a second, or ten in a short one.
const INTERVAL: Duration = Duration::from_secs(1);
const INTERVALS_MIN: u32 = 10;

/// A key space that was made or read, and may be used for several runs.
pub(crate) struct Prepared {
    pub(crate) shared: Arc<Shared>,
    /// Durable issues a second while it was made; `None` if it was read.
    pub(crate) fill_per_s: Option<f64>,
    saved: Option<(TokenFile, Saved)>,
}

/// Connects, and makes the key space or reads that of an earlier run.
pub(crate) fn prepare(
    server: &Server,
    workload: &Workload,
    token_file: Option<PathBuf>,
) -> anyhow::Result<Prepared> {
    let token_file = token_file.as_deref().map(TokenFile::open).transpose()?;
    let mut peer = server.connect(FILL_CONNECTIONS.min(workload.connections), 1)?;
    check_fit(peer.as_ref(), workload)?;
    let layout = Layout::new(workload);
    let token_file = match token_file {
        Some(file) => {
            let identity = peer.identity();
            match file.load(&identity, layout, workload.keys.subjects, needed_until_s(workload))? {
                Ok((saved, keys)) => return Ok(reuse(workload, keys, saved, file)),
                Err(None) => {}
                Err(Some(reason)) => {
                    eprintln!("jeton-load: {} is made anew: {reason}", file.path().display());
                }
            }
            Some(file)
        }
        None => None,
    };
    let tag = format!("{:08x}", getrandom::u32().context("random bytes")?);
    let (begun, tokens) = match &token_file {
        Some(file) => {
            let (begun, tokens) = file.begin(layout.tokens())?;
            (Some(begun), tokens)
        }
        None => (None, Mapping::anonymous(layout.tokens()).context("memory for the tokens")?),
    };
    let mut keys = KeySpace::new(tokens, workload.keys.subjects, tag);
    // Tokens that the generator makes itself must not be those of an earlier run.
    let seed = getrandom::u64().context("random bytes")?;
    // The first tokens are issued now.
    let good_until_s = wall().as_secs() + u64::from(TTL_S);
    let fill_per_s = fill(peer.as_mut(), &mut keys, &layout, seed)?;
    let truth = Truth::new(layout);
    if workload.validate.revoked > 0.0 {
        revoke_some(peer.as_mut(), &keys, &truth)?;
    }
    let saved = match token_file.zip(begun) {
        Some((file, begun)) => {
            let saved = Saved::new(peer.identity(), &keys, layout, good_until_s);
            file.keep(begun, &saved, &keys)?;
            Some((file, saved))
        }
        None => None,
    };
    let shared = Arc::new(Shared { workload: workload.clone(), keys, truth, trace: None });
    Ok(Prepared { shared, fill_per_s: Some(fill_per_s), saved })
}

/// Until when tokens of an earlier run have to be good, in seconds since the epoch.
fn needed_until_s(workload: &Workload) -> u64 {
    let once = workload.duration.0.as_secs() + workload.warm_up.0.as_secs() + SLACK_S;
    wall().as_secs() + (once * RUNS).min(u64::from(TTL_S) / 2).max(once)
}

fn reuse(workload: &Workload, keys: KeySpace, saved: Saved, file: TokenFile) -> Prepared {
    let truth = Truth::new(saved.layout);
    truth.restore(saved.progress.as_ref());
    if saved.progress.is_none() {
        eprintln!(
            "jeton-load: the last run over {} did not end: its revokes are uncertain, and none is made now",
            file.path().display()
        );
    }
    let shared = Arc::new(Shared { workload: workload.clone(), keys, truth, trace: None });
    Prepared { shared, fill_per_s: None, saved: Some((file, saved)) }
}

/// Whether a peer has a counterpart of everything that a workload asks for.
fn check_fit(peer: &dyn Peer, workload: &Workload) -> anyhow::Result<()> {
    let asked = KINDS.into_iter().zip(workload.mix.shares()).filter(|(_, share)| *share > 0.0);
    if let Some((kind, _)) = asked.into_iter().find(|(kind, _)| peer.lacks(*kind)) {
        bail!("this peer has no counterpart of {}: leave it out of the mix", kind.name());
    }
    let asks = &workload.validate;
    if peer.lacks(Kind::Issue) && asks.revoked + asks.expired > 0.0 {
        bail!(
            "this peer's tokens neither die nor are they revoked: leave revoked and expired out of what validates ask"
        );
    }
    if !peer.has_checks() && asks.granted + asks.forbidden > 0.0 {
        bail!("this peer checks no resources: leave granted and forbidden out of what validates ask");
    }
    Ok(())
}

impl Prepared {
    /// The same key space for another workload of the same layout: that of a later run, or of a step of a search.
    pub(crate) fn with(self, workload: Workload) -> anyhow::Result<Self> {
        let Self { shared, fill_per_s, saved } = self;
        let shared = Arc::into_inner(shared).context("no run goes on")?;
        if Layout::new(&workload) != shared.truth.layout {
            bail!("a key space cannot serve a workload of another layout");
        }
        Ok(Self { shared: Arc::new(Shared { workload, ..shared }), fill_per_s, saved })
    }

    /// The same key space, for asking again what was asked before.
    pub(crate) fn replaying(self, trace: Trace) -> anyhow::Result<Self> {
        let Self { shared, fill_per_s, saved } = self;
        let shared = Arc::into_inner(shared).context("no run goes on")?;
        Ok(Self { shared: Arc::new(Shared { trace: Some(Arc::new(trace)), ..shared }), fill_per_s, saved })
    }

    /// Lets the workers go and collects what they measure.
    pub(crate) fn run(&mut self, server: &Server, view: &mut dyn View) -> anyhow::Result<Outcome> {
        let workload = &self.shared.workload;
        if let Some((file, saved)) = &mut self.saved {
            saved.progress = None;
            file.note(saved)?;
        }
        let interval = INTERVAL.min(workload.duration.0 / INTERVALS_MIN);
        let crew = Crew::new(Arc::clone(&self.shared), interval);
        let outcome = collect::collect(&crew, server, view)?;
        drop(crew);
        if let Some((file, saved)) = &mut self.saved {
            saved.progress = Some(self.shared.truth.progress());
            // The note that is there says that a run is under way, which is true enough; the run itself is to be told of.
            if let Err(error) = file.note(saved) {
                eprintln!(
                    "jeton-load: {error:#}: a later run will not know how far the revokes of this one came"
                );
            }
        }
        Ok(outcome)
    }
}
