//! Deliberate mistakes, for the simulator to find: tests of the tests; and limits small enough for it to reach. Compiled
//! in with the feature `mutations` only, which `jeton` by itself does not have. Where Cargo builds the whole workspace at
//! once and joins features, all of it is there and switched off: only the simulator's own threads switch anything on.

/// A mistake that can be switched on, one at a time and for one thread.
#[cfg(feature = "mutations")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutation {
    /// None: the code as it is.
    #[default]
    None,
    /// A rejection is answered before what it rests on is durable.
    AnswerBeforeDurable,
    /// What was decided is published at once.
    PublishAtOnce,
    /// A revoke by subject passes over some of its tokens.
    SubjectRevokeForgetsOne,
    /// A token is still valid at the millisecond of its expiry.
    ExpiryOffByOne,
    /// A use is granted and no event says so.
    ConsumeWithoutEvent,
    /// A start knows none of the idempotency keys used before.
    KeysForgottenInReplay,
    /// Publishing an issue overwrites a revoke that came first.
    IssueOverRevoke,
    /// A revoke that is still being carried out counts as carried out.
    PendingRevokeCounts,
    /// Readers see a renewal that is not durable.
    RenewalSeenAtOnce,
    /// A batch ends in the middle of a command.
    CommandCutInTwo,
    /// A bound token is good without its binding.
    BindingNotAsked,
    /// A token is good that has one of the scopes asked for.
    OneScopeIsEnough,
    /// A revoke by family passes over the root.
    FamilyForgetsRoot,
    /// A right that was withdrawn meanwhile is given by an earlier grant once that is durable.
    RightGivenBack,
    /// A token is issued under a claim set that a wide revoke killed.
    DeadClaimsReused,
    /// A renewal can leave a token with less time than it had.
    RenewalShortens,
    /// A token is issued into the family of a parent that is dead.
    ParentNotAsked,
    /// A key that was used for another command recalls the outcome of that.
    KeyOfAnother,
    /// When the log fails, what waits for it is acknowledged.
    FailureAcknowledged,
    /// What is moved to a denser segment is left out of its subject's list.
    MovedAndUnlisted,
    /// A token is reclaimed a moment before it dies.
    ReclaimedAlive,
    /// Uses spent are forgotten when a record moves.
    UsesForgottenInMove,
    /// A revoke by subject under way does not cover the subject's newest token.
    NewestNotCovered,
    /// Claim sets and subjects are shown before they are durable.
    NumbersSeenEarly,
    /// A snapshot exists before the event it is of is durable.
    SnapshotBeforeDurable,
    /// Renewals under way when a snapshot was cut are not in it.
    SnapshotForgetsRenewals,
    /// A snapshot is taken in the middle of a revoke by subject.
    SnapshotAmidMarking,
    /// Uses spent are not in a snapshot.
    SnapshotForgetsUses,
    /// A start behind a snapshot does not list the tokens that subjects have.
    SnapshotUnlisted,
    /// The second client of the log never has its turn.
    ClientNeverServed,
    /// A client's turn goes on for as long as it has something to ask.
    TurnWithoutEnd,
    /// Of two commands of a client the second is decided first.
    OrderWithinClientSwapped,
    /// A start takes a batch that does not follow the one before.
    ChainNotAsked,
    /// A start believes a part of a snapshot without its hash.
    PartNotCompared,
    /// A commit lacks what was sealed ahead of it.
    SealedAheadForgotten,
    /// While the disk is nearly full a revoke is refused as well.
    RevokeRefusedOnLowDisk,
    /// While the clock is in doubt a revoke is refused as well.
    RevokeRefusedOnDoubt,
    /// What is kept for revokes is given to whoever asks.
    KeptRoomGivenAway,
    /// A command is refused as if there were no room while there is half of it.
    BusyTooEarly,
    /// A stop does not keep new commands out.
    StopNotAsked,
    /// What the queue keeps for revokes is given to whoever asks.
    QueueRoomGivenAway,
    /// The queue turns commands away while there is half of its room.
    TurnedAwayTooEarly,
    /// A family takes as many members as come.
    FamilyLimitNotAsked,
}

#[cfg(feature = "mutations")]
thread_local! {
    static ACTIVE: std::cell::Cell<Mutation> = const { std::cell::Cell::new(Mutation::None) };
}

/// Switches one mistake on, for this thread.
#[cfg(feature = "mutations")]
pub fn set(mutation: Mutation) {
    ACTIVE.set(mutation);
}

#[cfg(feature = "mutations")]
pub(crate) fn is(mutation: Mutation) -> bool {
    ACTIVE.get() == mutation
}

/// Limits and steps of the core that a simulation cannot reach as they are; each `None` is as it is.
#[cfg(feature = "mutations")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmallLimits {
    /// Tokens that a revoke by subject marks at a time.
    pub mark_step: Option<usize>,
    /// Batches of one commit.
    pub commit_batches: Option<usize>,
    /// Buckets moved at a time while the index grows.
    pub growth_buckets: Option<usize>,
    /// Records written between two rounds of reclaiming.
    pub reclaim_records: Option<usize>,
    /// Walks of one step of reclaiming.
    pub reclaim_walks: Option<usize>,
    /// How long an expired token is kept, in milliseconds.
    pub reclaim_kept_ms: Option<u64>,
    /// How long one is kept that died before, in milliseconds; at least 1.
    pub reclaim_epoch_ms: Option<u64>,
    /// Events assigned and not durable.
    pub events_in_flight: Option<usize>,
    /// Events decided ahead of the log.
    pub events_ahead: Option<usize>,
    /// What a client of the queue is credited with for each turn, at least 1.
    pub queue_quantum: Option<u64>,
    /// Members of a family.
    pub family_tokens: Option<usize>,
    /// Idempotency keys remembered.
    pub keys: Option<usize>,
}

#[cfg(feature = "mutations")]
thread_local! {
    static LIMITS: std::cell::Cell<SmallLimits> = const {
        std::cell::Cell::new(SmallLimits {
            mark_step: None,
            commit_batches: None,
            growth_buckets: None,
            reclaim_records: None,
            reclaim_walks: None,
            reclaim_kept_ms: None,
            reclaim_epoch_ms: None,
            events_in_flight: None,
            events_ahead: None,
            queue_quantum: None,
            family_tokens: None,
            keys: None,
        })
    };
}

/// Makes limits small, for this thread.
#[cfg(feature = "mutations")]
pub fn set_limits(limits: SmallLimits) {
    LIMITS.set(limits);
}

#[cfg(feature = "mutations")]
pub(crate) fn limits() -> SmallLimits {
    LIMITS.get()
}

/// A limit as it is, or as small as the simulator has made it.
#[cfg(feature = "mutations")]
macro_rules! limit {
    ($name:ident, $as_it_is:expr) => {
        $crate::mutation::limits().$name.unwrap_or($as_it_is)
    };
}
#[cfg(not(feature = "mutations"))]
macro_rules! limit {
    ($name:ident, $as_it_is:expr) => {
        $as_it_is
    };
}
pub(crate) use limit;

/// Whether a deliberate mistake is switched on; never outside of the simulator.
#[cfg(feature = "mutations")]
macro_rules! mutated {
    ($mutation:ident) => {
        $crate::mutation::is($crate::mutation::Mutation::$mutation)
    };
}
#[cfg(not(feature = "mutations"))]
macro_rules! mutated {
    ($mutation:ident) => {
        false
    };
}
pub(crate) use mutated;
