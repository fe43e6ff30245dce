//! A report as files in a folder.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Record;
use super::hdr::percentiles;
use crate::run::Outcome;

/// A folder that reports are written to. Whether they can be is found out before a run, not after it.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        let folder = Self(path.to_owned());
        std::fs::create_dir_all(path)
            .with_context(|| format!("the folder {} cannot be made", path.display()))?;
        // What an earlier run left stays until there is something to put in its place.
        tempfile::tempfile_in(path).with_context(|| format!("{} cannot be written to", path.display()))?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.0.join(name);
        replace(&path, bytes).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Writes everything that is known of a run.
    pub(crate) fn save(&self, record: &Record, outcome: &Outcome) -> anyhow::Result<()> {
        self.write("run.json", &serde_json::to_vec_pretty(record)?)?;
        self.write("summary.json", &serde_json::to_vec_pretty(&record.summary)?)?;
        self.write("report.html", super::page::runs(std::slice::from_ref(record)).as_bytes())?;
        self.write("latency.hlog", &outcome.log.text()?)?;
        self.write("service.hlog", &outcome.service_log.text()?)?;
        self.write("latency.hgrm", percentiles(&outcome.whole.all_latency()).as_bytes())?;
        self.write("service.hgrm", percentiles(&outcome.whole.all_service()).as_bytes())
    }
}

/// Writes a file beside the old one, which stays whole until the new one is.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let readable = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder_of(path))?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads what [`Folder::save`] wrote: the folder, or the file in it.
pub(crate) fn read(path: &Path) -> anyhow::Result<Record> {
    let path = if path.is_dir() { path.join("run.json") } else { path.to_owned() };
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{} is no run.json of jeton-load", path.display()))
}
