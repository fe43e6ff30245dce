//! Configuration: defaults, then a TOML file, then environment variables `JETON_...`, then flags.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use jeton_core::claims::Name;
use serde::{Deserialize, Serialize};

/// Where a server listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7878";

/// The largest segment and the largest reserve: 1 TiB.
const SPACE_MIB_MAX: u64 = 1 << 20;
const SNAPSHOT_MINUTES_MAX: u64 = 365 * 24 * 60;
const CLOCK_JUMP_HOURS_MAX: u64 = 100 * 365 * 24;
const SPIN_US_MAX: u32 = 1_000;
const CONNECTIONS_MAX: usize = 1 << 20;

/// Everything a server can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The data directory.
    pub data: PathBuf,
    /// How many cores to serve on; all that the process may use if not set.
    pub cores: Option<NonZeroUsize>,
    /// Tokens to have room for from the start.
    pub tokens_initial: usize,
    /// The most tokens to hold at a time, dead ones until they are reclaimed; as many as memory has room for, 100 million at
    /// most, if not set.
    pub tokens_max: Option<u32>,
    /// Connections to hold on each core.
    pub connections_max: usize,
    /// Listen on other addresses than loopback although the authority is the development one.
    pub allow_development_authority: bool,
    /// A log segment that has grown to so many MiB is followed by a new one.
    pub segment_mib: u64,
    /// With fewer MiB free on the log's disk only revokes are taken.
    pub space_reserve_mib: u64,
    /// With fewer MiB free nothing is written.
    pub space_hard_mib: u64,
    /// A snapshot is written once the log has grown by so many MiB since the last; 0 for never.
    pub snapshot_log_mib: u64,
    /// And once so many minutes have passed since, if anything was written; 0 for never.
    pub snapshot_minutes: u64,
    /// Read and verify the whole log at each start, whatever snapshots there are.
    pub read_whole_log: bool,
    /// How many hours the wall clock may be ahead of the last event before it is doubted.
    pub clock_jump_max_hours: u64,
    /// The identity that a new log gives every right: the URI SAN of the first administrator's certificate.
    pub admin: String,
    /// Whether to look for datagrams of up to 8,900 bytes, which loopback and jumbo frames carry, or of 1,452 at most.
    pub large_datagrams: bool,
    /// How many microseconds a shard looks for more to do before it sleeps.
    pub spin_us: u32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN.parse().expect("the default address is one"),
            data: default_data(),
            cores: None,
            tokens_initial: 1 << 16,
            tokens_max: None,
            connections_max: 16_384,
            allow_development_authority: false,
            segment_mib: 256,
            space_reserve_mib: 384,
            space_hard_mib: 16,
            snapshot_log_mib: 256,
            snapshot_minutes: 60,
            read_whole_log: false,
            clock_jump_max_hours: 30 * 24,
            admin: crate::credentials::ADMIN.to_owned(),
            large_datagrams: true,
            spin_us: 0,
        }
    }
}

/// The data directory of this user: `$XDG_DATA_HOME/jeton`, `~/.local/share/jeton`, or `/var/lib/jeton` without a home.
#[must_use]
pub fn default_data() -> PathBuf {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("XDG_DATA_HOME")
        .or_else(|| of("HOME").map(|home| home.join(".local/share")))
        .map_or_else(|| PathBuf::from("/var/lib/jeton"), |base| base.join("jeton"))
}

impl ServerConfig {
    /// Reads file and environment, and lays the flags given over them.
    ///
    /// # Errors
    /// A message that names the setting, where it came from and what is wrong.
    pub fn load(file: Option<&Path>, flags: impl Serialize) -> Result<Self, String> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(format!("{}: there is no such file", file.display()));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        // Others put variables there too: the client commands, and Kubernetes for a service of that name.
        let env = Env::prefixed("JETON_").filter(|key| is_setting(key.as_str()));
        let config: Self = figment
            .merge(env)
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    /// The names of all settings, as they stand in a file.
    #[must_use]
    pub fn names() -> Vec<String> {
        let settings = serde_json::to_value(Self::default()).expect("settings are plain values");
        settings.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    fn check(&self) -> Result<(), String> {
        // The upper bounds are beyond any use, and below where a number of bytes or milliseconds would overflow.
        let rules = [
            (
                (1..=SPACE_MIB_MAX).contains(&self.segment_mib),
                "segment_mib: a segment has 1 MiB to 1 TiB (1048576 MiB)",
            ),
            (self.snapshot_log_mib <= SPACE_MIB_MAX, "snapshot_log_mib: at most 1 TiB (1048576 MiB)"),
            (
                self.snapshot_minutes <= SNAPSHOT_MINUTES_MAX,
                "snapshot_minutes: at most a year (525600 minutes)",
            ),
            (self.space_reserve_mib <= SPACE_MIB_MAX, "space_reserve_mib: at most 1 TiB (1048576 MiB)"),
            (
                self.clock_jump_max_hours <= CLOCK_JUMP_HOURS_MAX,
                "clock_jump_max_hours: at most 100 years (876000 hours)",
            ),
            (
                self.space_hard_mib <= self.space_reserve_mib,
                "space_hard_mib: it cannot exceed space_reserve_mib",
            ),
            (self.tokens_max.is_none_or(|max| max >= 1_000), "tokens_max: at least 1,000"),
            (self.tokens_max.is_none_or(|max| max < i32::MAX as u32), "tokens_max: below 2^31 - 1"),
            (
                self.tokens_max.is_none_or(|max| self.tokens_initial <= max as usize),
                "tokens_initial: it cannot exceed tokens_max",
            ),
            (
                (1..=CONNECTIONS_MAX).contains(&self.connections_max),
                "connections_max: 1 to 1,048,576 on each core",
            ),
            (self.spin_us <= SPIN_US_MAX, "spin_us: at most 1,000: whoever sleeps is woken far sooner"),
            (
                self.admin.parse::<Name>().is_ok(),
                "admin: an identity has 1 to 255 bytes, none of them a control",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(rule.to_owned()),
            None => Ok(()),
        }
    }

    /// The configuration as a file with comments.
    #[must_use]
    pub fn to_commented_toml(&self) -> String {
        let cores = self.cores.map_or_else(|| "# cores = 2".to_owned(), |cores| format!("cores = {cores}"));
        let tokens_max = self
            .tokens_max
            .map_or_else(|| "# tokens_max = 100000000".to_owned(), |max| format!("tokens_max = {max}"));
        let data = toml_text(&self.data.to_string_lossy());
        format!(
            "# Jeton server. Each setting can also be given in the environment as JETON_<NAME>, and some as flags\n\
             # (jeton serve --help); a flag wins over the environment, the environment over this file.\n\n\
             # Where to listen (UDP). Other than loopback needs an authority of your own, or\n\
             # allow_development_authority.\n\
             listen = \"{}\"\n\
             # Log, certificates, and the address of the running server.\n\
             data = {data}\n\
             # Cores to serve on; all that the process may use if not set.\n\
             {cores}\n\n\
             # Tokens to have room for from the start, and at most at a time; as many as memory has room for, 100\n\
             # million at most, if not set. One takes up to 100 bytes.\n\
             tokens_initial = {}\n\
             {tokens_max}\n\n\
             # Connections on each core.\n\
             connections_max = {}\n\
             # Who gets every right in a new log: the URI SAN of the first administrator's certificate.\n\
             admin = {}\n\
             # Listen beyond loopback with the development authority.\n\
             allow_development_authority = {}\n\
             # Look for datagrams of up to 8,900 bytes, which loopback and jumbo frames carry; 1,452 at most if not.\n\
             large_datagrams = {}\n\
             # How many microseconds a core looks for more to do before it sleeps: answers come some 10 us sooner, for more of\n\
             # the processor, if requests come that close behind one another.\n\
             spin_us = {}\n\n\
             # The log: size of a segment, and the free space below which only revokes, or nothing, is written.\n\
             segment_mib = {}\n\
             space_reserve_mib = {}\n\
             space_hard_mib = {}\n\n\
             # Snapshots: written once the log has grown by so much, or so much time has passed (0: never). A start\n\
             # reads the log behind the newest one, or all of it.\n\
             snapshot_log_mib = {}\n\
             snapshot_minutes = {}\n\
             read_whole_log = {}\n\n\
             # How far ahead of the last event the wall clock may be at a start before it is doubted.\n\
             clock_jump_max_hours = {}\n",
            self.listen,
            self.tokens_initial,
            self.connections_max,
            toml_text(&self.admin),
            self.allow_development_authority,
            self.large_datagrams,
            self.spin_us,
            self.segment_mib,
            self.space_reserve_mib,
            self.space_hard_mib,
            self.snapshot_log_mib,
            self.snapshot_minutes,
            self.read_whole_log,
            self.clock_jump_max_hours,
        )
    }
}

/// Whether a setting has this name, in whatever case.
fn is_setting(name: &str) -> bool {
    ServerConfig::names().iter().any(|setting| name.eq_ignore_ascii_case(setting))
}

/// A TOML basic string.
fn toml_text(text: &str) -> String {
    // JSON's escapes are a subset of TOML's, and of what TOML wants escaped JSON leaves one character as it is.
    serde_json::to_string(text).expect("a string is JSON").replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct NoFlags {}

    #[test]
    fn the_printed_configuration_reads_back_as_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jeton.toml");
        for data in ["/var/lib/jeton", "a \"quoted\" \\ folder\nof two lines", "\u{7f}\u{1}\u{9f}"] {
            let config = ServerConfig {
                data: data.into(),
                cores: NonZeroUsize::new(3),
                tokens_max: Some(5_000_000),
                ..ServerConfig::default()
            };
            std::fs::write(&path, config.to_commented_toml()).unwrap();
            assert_eq!(ServerConfig::load(Some(&path), NoFlags {}), Ok(config));
        }
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jeton.toml");
        for (content, words) in [
            ("listen = \"nowhere\"", "listen"),
            ("listen = 7878", "listen"),
            ("lisen = \"127.0.0.1:1\"", "lisen"),
            ("segment_mib = 0", "segment_mib"),
            ("segment_mib = 17592186044416", "segment_mib"), // 2^64 bytes
            ("space_reserve_mib = 17592186044416", "space_reserve_mib"),
            ("clock_jump_max_hours = 5124095576030432", "clock_jump_max_hours"),
            ("connections_max = 0", "connections_max"),
            ("connections_max = 9223372036854775807", "connections_max"),
            ("tokens_max = 5", "tokens_max"),
            ("space_hard_mib = 500", "space_hard_mib"),
            ("spin_us = 1001", "spin_us"),
            ("cores = 0", "cores"),
            ("listen = ", "TOML"),
        ] {
            std::fs::write(&path, content).unwrap();
            let message = ServerConfig::load(Some(&path), NoFlags {}).unwrap_err();
            assert!(message.contains(words), "{content}: {message}");
        }
        assert!(
            ServerConfig::load(Some(Path::new("/nowhere.toml")), NoFlags {})
                .unwrap_err()
                .contains("no such file")
        );
    }
}
