//! `jeton-load run`.

use std::path::PathBuf;

use anyhow::Context as _;

use super::flags::Load;
use crate::live;
use crate::report::files::Folder;
use crate::report::{Record, print_text, warnings};
use crate::run::{Prepared, prepare};
use crate::target::Server;
use crate::workload::Workload;

/// Where reports go if nothing else is said.
pub(crate) const FOLDER: &str = "jeton-load-report";

/// Flags of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
}

/// What becomes of the figures.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Write the report to this folder: jeton-load-report, or none with --json.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the report as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show nothing while the run goes on.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Output {
    /// The folder to write to; that it can be written to was found out.
    pub(crate) fn folder(&self) -> anyhow::Result<Option<Folder>> {
        let default = (!self.json).then(|| PathBuf::from(FOLDER));
        self.out.clone().or(default).map(|path| Folder::new(&path)).transpose()
    }
}

impl Run {
    /// Runs; returns whether every reply was right and the run came to its end.
    pub(crate) fn run(&self) -> anyhow::Result<bool> {
        let workload = self.load.workload()?;
        let folder = self.output.folder()?;
        let server = Server::new(&self.load.target)?;
        let prepared = prepare(&server, &workload, self.load.token_file.clone())?;
        run_and_tell(prepared, &server, &workload, &self.output, folder.as_ref())
    }
}

/// Runs what was prepared, and tells what came of it; returns whether every reply was right.
pub(crate) fn run_and_tell(
    mut prepared: Prepared,
    server: &Server,
    workload: &Workload,
    output: &Output,
    folder: Option<&Folder>,
) -> anyhow::Result<bool> {
    let mut view = live::view(workload.duration.0.as_secs_f64(), output.quiet || output.json);
    let outcome = prepared.run(server, view.as_mut())?;
    let fill_per_s = prepared.fill_per_s.filter(|_| server.issues());
    let record = Record::new(workload, server.to_string(), fill_per_s, &outcome);
    // Files first: standard output may be a full disk, or a pipe that nobody reads any more.
    let saved = folder.map_or(Ok(()), |folder| folder.save(&record, &outcome));
    let told =
        if output.json { tell!("{}", serde_json::to_string(&record.summary)?) } else { print_text(&record) };
    for warning in warnings(&record) {
        eprintln!("jeton-load: {warning}");
    }
    if let Some(folder) = folder.filter(|_| saved.is_ok()) {
        eprintln!("jeton-load: the report is in {}", folder.path().join("report.html").display());
    }
    // A server that died in mid-run: what was measured is told, and then that.
    if let Some(failed) = outcome.failed {
        record.check_truth().with_context(|| format!("{failed:#}"))?;
        return Err(failed);
    }
    outcome.check_answers()?;
    match saved.and(told) {
        // That replies were wrong outweighs a report that could not be written.
        Err(error) if record.summary.wrong_replies > 0 => eprintln!("jeton-load: {error:#}"),
        written => written?,
    }
    Ok(record.is_good())
}
