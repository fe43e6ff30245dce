//! What a run was measured on.

use serde::{Deserialize, Serialize};

/// A machine, as a reader of figures wants to know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
}

fn line_of(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

impl Machine {
    /// The one that this process runs on.
    pub(crate) fn this() -> Self {
        let kib = line_of("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory_bytes: kib.unwrap_or(0_u64) * 1_024,
            kernel: format!("Linux {}", kernel.trim()),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        write!(f, "{}, {} cores, {gib:.0} GiB, {}", self.cpu, self.cores, self.kernel)
    }
}
