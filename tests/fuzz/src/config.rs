//! The configuration of a server: any file is read or refused with a message that helps; what is read prints as a file
//! that reads the same.
//!
//! The lower part of an input, behind a line of dashes, is taken for flags: names and numbers that win over the file.
//! The environment is not: a process has one, and changing it is unsafe.

use std::collections::BTreeMap;
use std::io::Write as _;

use jeton::config::ServerConfig;

/// Reads the bytes as a configuration file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, flags) = text.split_once("\n---\n").unwrap_or((text, ""));
    let flags: BTreeMap<&str, u64> = flags
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter_map(|(name, number)| Some((name.trim(), number.trim().parse().ok()?)))
        .collect();
    match load(file, &flags) {
        Ok(config) => check(&config, &flags),
        Err(message) => {
            assert!(
                message.contains("TOML") || ServerConfig::names().iter().any(|name| message.contains(name)),
                "{message:?} names neither a setting nor the place in the file"
            );
        }
    }
}

fn load(text: &str, flags: &BTreeMap<&str, u64>) -> Result<ServerConfig, String> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(text.as_bytes()).expect("and written");
    ServerConfig::load(Some(file.path()), flags)
}

fn check(config: &ServerConfig, flags: &BTreeMap<&str, u64>) {
    assert!(config.segment_mib.checked_mul(1 << 20).is_some_and(|bytes| bytes > 0), "a segment has a size");
    assert!(config.space_reserve_mib.checked_mul(1 << 20).is_some(), "the reserve is a number of bytes");
    assert!(config.space_hard_mib <= config.space_reserve_mib);
    assert!(
        config.snapshot_log_mib.checked_mul(1 << 20).is_some(),
        "what a log grows by is a number of bytes"
    );
    assert!(config.snapshot_minutes.checked_mul(60_000).is_some(), "a time is a number of milliseconds");
    assert!(
        config.clock_jump_max_hours.checked_mul(3_600_000).is_some(),
        "a time is a number of milliseconds"
    );
    assert!((1..=1 << 20).contains(&config.connections_max));
    assert!(config.tokens_max.is_none_or(|max| config.tokens_initial <= max as usize));
    if let Some(told) = flags.get("segment_mib") {
        assert_eq!(config.segment_mib, *told, "a flag wins over the file");
    }
    let printed = config.to_commented_toml();
    let read = load(&printed, &BTreeMap::new());
    assert_eq!(read.as_ref(), Ok(config), "what is printed reads the same:\n{printed}");
}
