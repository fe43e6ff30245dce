//! Builds the shim (`tests/shim`), and runs a process under it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::trace::Trace;

const SOURCES: [(&str, &str); 5] = [
    ("shim.h", include_str!("../shim/shim.h")),
    ("calls.c", include_str!("../shim/calls.c")),
    ("fault.c", include_str!("../shim/fault.c")),
    ("pages.c", include_str!("../shim/pages.c")),
    ("trace.c", include_str!("../shim/trace.c")),
];

/// How long a process may take, and how often to look.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(2);

/// The shim as a library, compiled by `cc` once for each version of its source.
///
/// # Panics
/// If it does not compile.
pub fn shim() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut hasher = blake3::Hasher::new();
        for (_, source) in SOURCES {
            hasher.update(source.as_bytes());
        }
        let version = &hasher.finalize().to_hex()[..16];
        let beside = std::env::current_exe().expect("a test has a path");
        let beside = beside.parent().expect("it lies in a directory");
        let library = beside.join(format!("jeton-shim-{version}.so"));
        if !library.exists() {
            let build = tempfile::tempdir_in(beside).expect("a place to compile in");
            SOURCES
                .iter()
                .for_each(|(name, source)| fs::write(build.path().join(name), source).expect("written"));
            let fresh = build.path().join("shim.so");
            let mut cc = Command::new("cc");
            cc.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o"]).arg(&fresh);
            cc.args(
                SOURCES
                    .iter()
                    .filter(|(name, _)| name.ends_with(".c"))
                    .map(|(name, _)| build.path().join(name)),
            );
            assert!(cc.arg("-ldl").status().expect("cc runs").success(), "the shim compiles");
            fs::rename(&fresh, &library).expect("put in place, whoever else does the same meanwhile");
        }
        library
    })
}

/// One call that is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault<'f> {
    /// Counted from this mark on; empty: from the start.
    pub after: &'f str,
    /// `create`, `write`, `truncate`, `fsync`, `fdatasync`, `range`, `mkdir`, `rmdir`, `unlink` or `rename`.
    pub call: &'f str,
    /// Of its path, as a shell would match it; `*` passes over `/`.
    pub path: &'f str,
    /// Which of these calls, from 1 on; 0: each.
    pub number: u32,
    /// What it fails with.
    pub error: &'f str,
    /// It was done all the same.
    pub is_kept: bool,
    /// The process dies of it.
    pub is_crash: bool,
}

impl Fault<'_> {
    /// As the shim reads it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let fate = if self.is_kept { "kept" } else { "lost" };
        let end = if self.is_crash { "crash" } else { "go" };
        let Self { after, call, path, number, error, .. } = self;
        format!("{after}|{call}|{path}|{number}|{error}|{fate}|{end}")
    }
}

/// What a watched process left.
#[derive(Debug)]
pub struct Recorded {
    /// What it did to its files.
    pub trace: Trace,
    /// What it said.
    pub words: String,
    /// How it ended.
    pub status: ExitStatus,
}

/// Where files of a test lie: in memory, if the machine has such a place, because thousands of images are opened.
pub(super) fn place() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a directory for a test")
}

/// Runs `command` on an empty directory, which it finds in its last argument.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn record(command: Command, fault: Option<&Fault<'_>>) -> Recorded {
    record_in(place().path(), command, fault)
}

/// As [`record`], on a directory that is given.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn record_in(root: &Path, mut command: Command, fault: Option<&Fault<'_>>) -> Recorded {
    let root = root.canonicalize().expect("the directory is there");
    let outside = place();
    let trace = outside.path().join("trace");
    command.arg(&root).env("LD_PRELOAD", shim()).env("SHIM_ROOT", &root).env("SHIM_TRACE", &trace);
    if let Some(fault) = fault {
        command.env("SHIM_FAULT", fault.to_text());
    }
    let words = outside.path().join("words");
    let to = fs::File::create(&words).expect("a file for its words");
    let from = to.try_clone().expect("a file for its words");
    let mut process = command.stdout(to).stderr(from).spawn().expect("it runs");
    let began = Instant::now();
    let status = loop {
        match process.try_wait().expect("a status") {
            Some(status) => break status,
            None if began.elapsed() < PATIENCE => std::thread::sleep(LOOK),
            None => {
                process.kill().and_then(|()| process.wait()).expect("it can be killed");
                panic!("it hangs, with {:?}: {}", fault, fs::read_to_string(&words).unwrap_or_default());
            }
        }
    };
    Recorded {
        trace: Trace::new(fs::read(trace).unwrap_or_default()),
        words: fs::read_to_string(words).unwrap_or_default(),
        status,
    }
}
