//! `jeton-load report`.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::report::{files, page};

/// Flags of `report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Report {
    /// Folders that runs were written to, or their run.json.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page to write.
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

impl Report {
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        let records = self.runs.iter().map(|path| files::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
        std::fs::write(&self.out, page::runs(&records))
            .with_context(|| format!("{} cannot be written", self.out.display()))?;
        tell!("{}", self.out.display())?;
        Ok(true)
    }
}
