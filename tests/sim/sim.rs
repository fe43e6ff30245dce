//! The deterministic simulator: the real state machine, sequencer, index, view, session, wire codec and recovery, on
//! virtual time, with a network, a disk and a clock that misbehave as a seed says.
//!
//! One seed is one run, always the same ([`run`]). Clients issue, validate, consume, renew and revoke through sessions;
//! their connections are cut, their datagrams are late, lost, repeated and exchanged; the disk is slow, full, fails or loses,
//! tears and reorders what was not synced; the server crashes at any step and recovers from what the disk kept. Snapshots are written beside all that, and
//! damaged; most starts go on from one.
//!
//! Checked as it goes (`oracle`, `witness`): every verdict is exactly what a plain map of the same events says; no
//! `valid` after an acknowledged revoke; nothing acknowledged is lost; a use is spent once; watermarks in order; the
//! digest after a replay is that of the running state, and after a start from a snapshot that of a replay; once faults heal, everybody is answered.

mod client;
mod disk;
mod model;
mod node;
mod oracle;
mod parts;
mod plan;
pub mod rng;
mod seen;
mod turns;
mod witness;
mod workload;
mod world;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use jeton_core::mutation::Mutation as CoreMutation;
use jeton_core::mutation::SmallLimits;

use rng::Rng;
pub use seen::Seen;
use world::World;

/// A deliberate mistake for the simulator to find: a test of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// In the core, behind its `mutations` feature.
    Core(CoreMutation),
    /// The log says durable when it has only taken the bytes.
    DurableBeforeSync,
    /// A start does not look at the anchor.
    AnchorIgnored,
    /// A datagram that comes twice is read twice.
    DatagramReadTwice,
    /// One answer in so many is not sent, though the client is there.
    AnswerForgotten,
}

/// Every mistake there is.
pub const MISTAKES: [Mistake; 47] = [
    Mistake::DurableBeforeSync,
    Mistake::AnchorIgnored,
    Mistake::DatagramReadTwice,
    Mistake::AnswerForgotten,
    Mistake::Core(CoreMutation::AnswerBeforeDurable),
    Mistake::Core(CoreMutation::PublishAtOnce),
    Mistake::Core(CoreMutation::SubjectRevokeForgetsOne),
    Mistake::Core(CoreMutation::ExpiryOffByOne),
    Mistake::Core(CoreMutation::ConsumeWithoutEvent),
    Mistake::Core(CoreMutation::MovedAndUnlisted),
    Mistake::Core(CoreMutation::ReclaimedAlive),
    Mistake::Core(CoreMutation::UsesForgottenInMove),
    Mistake::Core(CoreMutation::KeysForgottenInReplay),
    Mistake::Core(CoreMutation::IssueOverRevoke),
    Mistake::Core(CoreMutation::PendingRevokeCounts),
    Mistake::Core(CoreMutation::RenewalSeenAtOnce),
    Mistake::Core(CoreMutation::CommandCutInTwo),
    Mistake::Core(CoreMutation::BindingNotAsked),
    Mistake::Core(CoreMutation::OneScopeIsEnough),
    Mistake::Core(CoreMutation::FamilyForgetsRoot),
    Mistake::Core(CoreMutation::RightGivenBack),
    Mistake::Core(CoreMutation::DeadClaimsReused),
    Mistake::Core(CoreMutation::RenewalShortens),
    Mistake::Core(CoreMutation::ParentNotAsked),
    Mistake::Core(CoreMutation::KeyOfAnother),
    Mistake::Core(CoreMutation::FailureAcknowledged),
    Mistake::Core(CoreMutation::NewestNotCovered),
    Mistake::Core(CoreMutation::NumbersSeenEarly),
    Mistake::Core(CoreMutation::SnapshotBeforeDurable),
    Mistake::Core(CoreMutation::SnapshotForgetsRenewals),
    Mistake::Core(CoreMutation::SnapshotAmidMarking),
    Mistake::Core(CoreMutation::SnapshotForgetsUses),
    Mistake::Core(CoreMutation::SnapshotUnlisted),
    Mistake::Core(CoreMutation::ClientNeverServed),
    Mistake::Core(CoreMutation::TurnWithoutEnd),
    Mistake::Core(CoreMutation::OrderWithinClientSwapped),
    Mistake::Core(CoreMutation::ChainNotAsked),
    Mistake::Core(CoreMutation::PartNotCompared),
    Mistake::Core(CoreMutation::SealedAheadForgotten),
    Mistake::Core(CoreMutation::RevokeRefusedOnLowDisk),
    Mistake::Core(CoreMutation::RevokeRefusedOnDoubt),
    Mistake::Core(CoreMutation::KeptRoomGivenAway),
    Mistake::Core(CoreMutation::BusyTooEarly),
    Mistake::Core(CoreMutation::StopNotAsked),
    Mistake::Core(CoreMutation::QueueRoomGivenAway),
    Mistake::Core(CoreMutation::TurnedAwayTooEarly),
    Mistake::Core(CoreMutation::FamilyLimitNotAsked),
];

impl Mistake {
    /// The mistake with this name, as `Debug` writes it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        MISTAKES.into_iter().find(|mistake| mistake.name() == name)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Core(mutation) => format!("{mutation:?}"),
            other => format!("{other:?}"),
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A hash over everything that happened, in order.
    pub trace: [u8; 32],
    /// Things that happened.
    pub steps: u64,
    /// Verdicts compared with the model.
    pub verdicts: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Crashes, of which each was recovered from.
    pub crashes: u64,
    /// Starts that were refused, as they had to be.
    pub refused: u64,
    /// The situations it came through.
    pub seen: Seen,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { trace, steps, verdicts, acknowledged, crashes, refused, .. } = self;
        write!(f, "{steps} steps, {verdicts} verdicts, {acknowledged} writes acknowledged, ")?;
        write!(f, "{crashes} crashes, {refused} starts refused, trace ")?;
        trace[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The run.
    pub seed: u64,
    /// The step at which it was noticed.
    pub step: u64,
    /// Which promise, and by what.
    pub what: String,
    /// The mistake that was made on purpose.
    pub mistake: Option<Mistake>,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, step, what, mistake } = self;
        writeln!(f, "seed {seed} broke a promise at step {step}: {what}")?;
        write!(f, "reproduce: cargo run -p jeton-tests --bin sim -- --seed {seed}")?;
        mistake.map_or(Ok(()), |mistake| write!(f, " --mistake {}", mistake.name()))
    }
}

/// Runs one seed to its end, with a mistake switched on or none.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, mistake: Option<Mistake>) -> Result<Report, Broken> {
    let core = match mistake {
        Some(Mistake::Core(mutation)) => mutation,
        _ => CoreMutation::None,
    };
    let mut rng = Rng::new(seed);
    jeton_core::mutation::set(core);
    let limits = limits(&mut rng);
    jeton_core::mutation::set_limits(limits);
    let mut world = World::new(rng, seed, mistake, &limits);
    // A panic is a broken promise like any other: it must not take the seeds after it along.
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    jeton_core::mutation::set(CoreMutation::None);
    jeton_core::mutation::set_limits(SmallLimits::default());
    let what = match result {
        Ok(Ok(())) => return Ok(world.report()),
        Ok(Err(what)) => what,
        Err(panic) => format!("it panicked: {}", words_of(&*panic)),
    };
    Err(Broken { seed, step: world.steps(), what, mistake })
}

/// In most runs what the core does in steps is done in tiny ones, and its limits are within reach.
fn limits(rng: &mut Rng) -> SmallLimits {
    let mut one_of = |small: &[Option<usize>]| *rng.pick(small);
    SmallLimits {
        mark_step: one_of(&[None, Some(1), Some(2), Some(3)]),
        commit_batches: one_of(&[None, Some(1), Some(3)]),
        growth_buckets: one_of(&[None, Some(1)]),
        reclaim_records: one_of(&[None, Some(1), Some(20)]),
        reclaim_walks: one_of(&[None, Some(1)]),
        reclaim_kept_ms: one_of(&[None, Some(0), Some(0)]).map(|ms| ms as u64),
        reclaim_epoch_ms: one_of(&[None, Some(1), Some(500)]).map(|ms| ms as u64),
        events_in_flight: one_of(&[None, None, Some(40)]),
        events_ahead: one_of(&[None, Some(1), Some(6)]),
        queue_quantum: one_of(&[None, Some(1), Some(2)]).map(|cost| cost as u64),
        family_tokens: one_of(&[None, None, Some(4)]),
        keys: one_of(&[None, None, None, None, None, None, None, Some(50)]),
    }
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words")
}
