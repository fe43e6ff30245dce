//! The soak: a real server under a steady, modest, mixed load for an hour, to see that nothing grows but what has to.
//!
//! The load is open: every operation has an intended start, whether or not the server has answered the one before it, and
//! its latency counts from there (`load`). Every few seconds the server's memory, descriptors, threads, CPU time, files
//! and own accounting are noted beside the latencies since the last time (`sample`). At the end the last quarter of the
//! run is held against the second (`judge`), and everything is drawn (`plot`). Beside them stands what a plain sync of the
//! same disk and an echo over loopback take (`control`): latencies are judged by how far they leave these behind.
//!
//! What grows by design: the server's own accounting of its memory follows the tokens, and the log has every event. Memory is
//! therefore judged less that accounting.

mod churn;
mod control;
mod judge;
mod load;
mod plot;
mod pool;
mod sample;

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use judge::{Judgement, Ruling};
pub use load::Class;
pub use sample::{Latency, Sample};

use crate::{Server, run as run_jeton};
use control::Control;
use load::Load;
use sample::Sampler;

/// Identities that come and go: their connections are short, their rights are withdrawn and given back.
const GUESTS: usize = 4;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long the load goes on.
    pub duration: Duration,
    /// Operations started each second.
    pub rate: u32,
    /// Tokens that are issued each second beside that, in waves, and left to expire; 0 for none.
    pub churn: u32,
    /// Time between two samples.
    pub every: Duration,
    /// Which operations, in which order, on which tokens.
    pub seed: u64,
    /// Where samples, plot and the server's data go.
    pub out: PathBuf,
}

/// What a run has shown.
#[derive(Debug)]
pub struct Report {
    /// Every sample, in order.
    pub samples: Vec<Sample>,
    /// The last quarter against the second.
    pub judgement: Judgement,
    /// Operations answered, of all classes.
    pub operations: u64,
    /// Answers that are wrong and requests without one: how many, and the first few in words.
    pub errors: (u64, Vec<String>),
}

/// Runs the soak: the server, the load, the samples, the judgement and the plot.
///
/// # Errors
/// Files that cannot be written, in words.
///
/// # Panics
/// If the server cannot be started, asked or stopped.
pub fn run(plan: &Plan) -> Result<Report, String> {
    let written = |error: std::io::Error| format!("{}: {error}", plan.out.display());
    std::fs::create_dir_all(&plan.out).map_err(written)?;
    let data = plan.out.join("data");
    let _ = std::fs::remove_dir_all(&data);
    // Small segments, so that the log goes on to the next one many times in an hour: with churn it grows faster.
    let log_mib = (plan.churn / 80).max(4).to_string();
    let server = Server::start_as(
        &data,
        &["--listen", "127.0.0.1:0", "--cores", "1"],
        &[("JETON_SEGMENT_MIB", &log_mib), ("JETON_SNAPSHOT_LOG_MIB", &log_mib)],
    );
    let guests: Vec<String> = (0..GUESTS).map(|guest| format!("guest-{guest}")).collect();
    for guest in &guests {
        let made = run_jeton(&data, &["identity", "create", guest, "--rights", "validate"], "");
        assert!(made.status.success(), "{made:?}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let load = runtime.block_on(Load::prepare(&server, &guests, plan.seed));
    let mut lines = File::create(plan.out.join("samples.jsonl")).map_err(written)?;
    let mut samples = Vec::new();
    let began = Instant::now();
    let pacing = load.start(runtime.handle().clone(), plan.rate, plan.duration);
    let churning = (plan.churn > 0).then(|| {
        let client = runtime.block_on(server.admin());
        runtime.spawn(churn::churn(load.clone(), client, plan.churn, plan.seed, plan.duration))
    });
    let control = Control::start(&plan.out).map_err(written)?;
    let mut sampler = Sampler::new(&server, began);
    while began.elapsed() < plan.duration {
        std::thread::sleep(plan.every.min(plan.duration.saturating_sub(began.elapsed())));
        let sample = runtime.block_on(sampler.take(&load, &control));
        writeln!(lines, "{}", sample.to_json()).map_err(written)?;
        samples.push(sample);
    }
    pacing.join().expect("the load is started to its end");
    if let Some(churning) = churning {
        runtime.block_on(churning).expect("the churn goes on to its end");
    }
    runtime.block_on(load.finish());
    let mut judgement = Judgement::of(&samples);
    judgement.errors = load.errors().0;
    writeln!(lines, "{}", judgement.to_json()).map_err(written)?;
    if samples.len() > 1 {
        plot::draw(&plan.out.join("soak.svg"), &samples)?;
    }
    server.terminate();
    Ok(Report { judgement, operations: load.operations(), errors: load.errors(), samples })
}

/// Draws the samples of an earlier run again.
///
/// # Errors
/// A file that cannot be read or written, or holds no samples.
pub fn replot(samples: &std::path::Path, svg: &std::path::Path) -> Result<Judgement, String> {
    let text = std::fs::read_to_string(samples).map_err(|error| format!("{}: {error}", samples.display()))?;
    let samples: Vec<Sample> = text.lines().filter_map(Sample::from_json).collect();
    if samples.len() < 2 {
        return Err("fewer than two samples: nothing to draw".to_owned());
    }
    plot::draw(svg, &samples)?;
    Ok(Judgement::of(&samples))
}
