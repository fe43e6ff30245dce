//! How much memory the process may have, and whether the configured tokens fit into it.

use std::fs;
use std::path::Path;

/// What a token takes at most: 128 bytes of record and 16 of links, because a segment is given up only when less than half of it
/// lives, and of index words 32 while a table of three quarters full grows into one of twice its size. Freshly issued they
/// take half of that. Subjects' names and claim sets come on top, and terms beyond the ordinary count as a token.
pub const TOKEN_BYTES_MAX: u64 = 176;
/// The server without any token: code, stacks, sled's caches, connections.
const SERVER_BYTES: u64 = 256 << 20;
/// More tokens than this are only held if the configuration says so.
const TOKENS_UNASKED_MAX: u32 = 100_000_000;
/// And fewer than this are never the default.
const TOKENS_UNASKED_MIN: u32 = 1_000_000;

/// The configured tokens do not fit into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "tokens_max = {tokens_max} takes up to {needed} MiB ({TOKEN_BYTES_MAX} bytes a token and {server} MiB beside them), and this \
     process may have {available} MiB: set tokens_max to {fitting} at most, or give it more memory",
    needed = needed_mib(*tokens_max), server = SERVER_BYTES >> 20, fitting = fitting(*available << 20)
)]
pub struct TooLittleMemory {
    /// What is configured.
    pub tokens_max: u32,
    /// What there is, in MiB.
    pub available: u64,
}

fn needed_mib(tokens_max: u32) -> u64 {
    (u64::from(tokens_max) * TOKEN_BYTES_MAX + SERVER_BYTES) >> 20
}

/// Tokens that fit into so many bytes.
fn fitting(bytes: u64) -> u64 {
    bytes.saturating_sub(SERVER_BYTES) / TOKEN_BYTES_MAX
}

/// The most tokens to hold: those configured if they fit; as many as fit, 100 million at most, if nothing is.
///
/// # Errors
/// [`TooLittleMemory`].
pub fn tokens_max(configured: Option<u32>, available: Option<u64>) -> Result<u32, TooLittleMemory> {
    let Some(available) = available else {
        return Ok(configured.unwrap_or(TOKENS_UNASKED_MAX));
    };
    match configured {
        Some(tokens_max) if u64::from(tokens_max) > fitting(available) => {
            Err(TooLittleMemory { tokens_max, available: available >> 20 })
        }
        Some(tokens_max) => Ok(tokens_max),
        None => {
            let fitting = u32::try_from(fitting(available)).unwrap_or(u32::MAX);
            Ok(fitting.clamp(TOKENS_UNASKED_MIN, TOKENS_UNASKED_MAX))
        }
    }
}

/// Bytes that this process may have: the machine's memory, or less if its control group or its address space is limited. `None`
/// if the system does not say.
#[must_use]
pub fn available() -> Option<u64> {
    let limits = [machine(), control_group(Path::new("/sys/fs/cgroup")), address_space()];
    limits.into_iter().flatten().min()
}

/// proc(5), /proc/meminfo.
fn machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The limit of the process's own control group, of version 2 or 1, as it is seen from inside a container.
fn control_group(root: &Path) -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").trim_start_matches('/');
    let files = [
        root.join(path).join("memory.max"),
        root.join("memory.max"),
        root.join("memory/memory.limit_in_bytes"),
    ];
    files.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

fn address_space() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::As).current
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_is_configured_has_to_fit_and_the_default_does() {
        assert_eq!(tokens_max(Some(4_000_000), Some(GIB)), Ok(4_000_000));
        let refused = tokens_max(Some(100_000_000), Some(4 * GIB)).unwrap_err();
        let words = refused.to_string();
        assert!(words.contains("up to 17040 MiB") && words.contains("may have 4096 MiB"), "{words}");
        assert!(words.contains("set tokens_max to 22878021 at most"), "{words}");
        assert_eq!(tokens_max(Some(22_878_021), Some(4 * GIB)), Ok(22_878_021));
        assert_eq!(tokens_max(None, Some(4 * GIB)), Ok(22_878_021));
        assert_eq!(tokens_max(None, Some(64 * GIB)), Ok(100_000_000));
        assert_eq!(
            tokens_max(None, Some(GIB / 8)),
            Ok(1_000_000),
            "a small machine starts, and is told when it is full"
        );
        assert_eq!(tokens_max(None, None), Ok(100_000_000));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 26));
    }

    #[test]
    fn a_control_group_may_allow_less() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(control_group(dir.path()), None);
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(control_group(dir.path()), None);
        fs::write(dir.path().join("memory.max"), "1073741824\n").unwrap();
        assert_eq!(control_group(dir.path()), Some(GIB));
    }
}
