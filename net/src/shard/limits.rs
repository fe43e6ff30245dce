//! What the system must give before a shard can start, and how to make it.

use std::num::NonZeroUsize;

use rustix::process::{Resource, getrlimit};
use rustix::thread::sched_getaffinity;

/// What one executor locks in memory.
const MEMLOCK_BYTES: u64 = 512 * 1024;

/// Why shards cannot start here.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The memory that may be locked does not suffice for the rings.
    #[error(
        "{needed} KiB of lockable memory are needed for {shards} shard(s), {has} KiB are allowed: raise the limit \
         with `ulimit -l {needed}`, LimitMEMLOCK= in the systemd unit, or memlock in /etc/security/limits.conf"
    )]
    Memlock {
        /// What is needed, in KiB.
        needed: u64,
        /// What is allowed, in KiB.
        has: u64,
        /// For how many shards.
        shards: usize,
    },
    /// The system does not say which cores there are.
    #[error("the cores that this process may use cannot be told: {0}")]
    Affinity(String),
    /// More shards than cores.
    #[error("{asked} shards were asked for, but this process may use {available} core(s) only")]
    Cores {
        /// What was asked for.
        asked: usize,
        /// What there is.
        available: usize,
    },
}

/// Checks that so many shards can lock the memory of their rings.
///
/// # Errors
/// [`StartError::Memlock`].
pub fn check_memlock(shards: usize) -> Result<(), StartError> {
    let needed = MEMLOCK_BYTES * shards as u64;
    match getrlimit(Resource::Memlock).current {
        Some(has) if has < needed => {
            Err(StartError::Memlock { needed: needed / 1_024, has: has / 1_024, shards })
        }
        _ => Ok(()),
    }
}

/// The cores this process may use, or the first `wanted` of them.
///
/// # Errors
/// [`StartError::Affinity`] and [`StartError::Cores`].
pub fn available_cpus(wanted: Option<NonZeroUsize>) -> Result<Vec<usize>, StartError> {
    let set = sched_getaffinity(None).map_err(|error| StartError::Affinity(error.to_string()))?;
    let mut cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    if let Some(wanted) = wanted {
        if wanted.get() > cpus.len() {
            return Err(StartError::Cores { asked: wanted.get(), available: cpus.len() });
        }
        cpus.truncate(wanted.get());
    }
    Ok(cpus)
}

/// Whether the system gives huge pages to those who ask, and this process did not give them up (`PR_SET_THP_DISABLE`; the
/// field `THP_enabled` of proc_pid_status(5)); without them lookups take three times as long.
#[must_use]
pub fn huge_pages() -> bool {
    let given = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|setting| !setting.contains("[never]"));
    let is_given_up = std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.split_whitespace().eq(["THP_enabled:", "0"])));
    given && !is_given_up
}
