//! What `jeton log repair` makes of a log that is refused: a copy is kept, nothing is guessed, and it is served again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use super::change::Change;
use super::image::read_files;
use super::workbench::{Failure, PATIENCE, Workbench, helps};
use crate::run_within;

/// What became of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// Nothing of the log can be verified, and it says so.
    Nothing,
    /// So many events were kept.
    Kept(u64),
}

fn ask(dir: &Path, arguments: &[&str]) -> Result<Output, Failure> {
    let output = run_within(dir, arguments, PATIENCE);
    output.ok_or_else(|| Failure(format!("{arguments:?}: no end within {} s", PATIENCE.as_secs())))
}

fn json(output: &Output) -> Result<Value, Failure> {
    serde_json::from_slice(&output.stdout).map_err(|_| Failure::new("no JSON", output))
}

/// Makes the change and has it repaired; the copy is not to be used again.
///
/// # Errors
/// [`Failure`].
pub fn repair(bench: &Workbench<'_>, change: &Change) -> Result<Repaired, Failure> {
    repair_all(bench, std::slice::from_ref(change))
}

/// As [`repair`], after several changes, of which those to one file add up.
///
/// # Errors
/// [`Failure`].
pub fn repair_all(bench: &Workbench<'_>, changes: &[Change]) -> Result<Repaired, Failure> {
    let altered = bench.altered_by(changes);
    bench.alter(&altered);
    let dir = bench.dir.path();
    let asked = ask(dir, &["--json", "log", "repair"])?;
    let strays = bench.strays(&altered);
    if !strays.is_empty() {
        return Err(Failure::new(&format!("it was only asked, and changed {strays:?}"), &asked));
    }
    if asked.status.code() == Some(2) {
        let words = String::from_utf8_lossy(&asked.stderr).trim().to_owned();
        return match helps(&words) {
            true => Ok(Repaired::Nothing),
            false => Err(Failure::new("it gives up in words that do not help", &asked)),
        };
    }
    let found = json(&asked)?;
    let (verified, is_whole) = (found["verified_events"].as_u64().unwrap_or(0), found["whole"] == true);
    let is_lost =
        found["lost"].as_bool().ok_or_else(|| Failure::new("it does not say whether it lost", &asked))?;
    if !is_whole && found["broken"].is_null() && !is_lost {
        return Err(Failure::new("it does not say what is wrong", &asked));
    }
    // The image was closed in order, so that its anchor knows of all of it.
    if verified < bench.image.events && !is_lost {
        return Err(Failure::new("it says that nothing is lost", &asked));
    }
    if let Some(beyond) = found["beyond"].as_array() {
        // Of another log's segment, too, it is said that it is there in part.
        let events_max = bench.image.events.max(bench.foreign.events);
        let numbers: Vec<u64> = beyond.iter().filter_map(Value::as_u64).collect();
        if !matches!(numbers[..], [first, last] if verified < first && first <= last && last <= events_max) {
            return Err(Failure::new("what lies behind the hole is not there", &asked));
        }
    }
    let before = log_files(dir);
    let repaired = ask(dir, &["--json", "log", "repair", "--accept-loss"])?;
    let told = json(&repaired)?;
    if !repaired.status.success() || (told["repaired"] == true) == is_whole {
        return Err(Failure::new("it was not repaired", &repaired));
    }
    let kept = told["old_log"].as_str().map(|kept| below(&read_files(Path::new(kept)), Path::new("")));
    if kept != (!is_whole).then_some(before) {
        return Err(Failure::new("the old log is not kept as it was", &repaired));
    }
    let after = ask(dir, &["--json", "log", "verify"])?;
    let now = json(&after)?;
    if now["events"] != verified || (now["log"] == json_log(bench)) != is_whole {
        return Err(Failure::new("the repaired log is not what was announced", &after));
    }
    // Never a guess: what is there now is what was there before, event by event.
    let limit = verified.to_string();
    let shown = ask(dir, &["log", "show", "--json", "--limit", &limit])?;
    let expected: String = bench
        .image
        .shown
        .split_inclusive('\n')
        .take(usize::try_from(verified).unwrap_or(usize::MAX))
        .collect();
    if shown.stdout != expected.as_bytes() {
        return Err(Failure::new("the repaired log holds other events", &after));
    }
    Ok(Repaired::Kept(verified))
}

fn json_log(bench: &Workbench<'_>) -> Value {
    serde_json::from_str::<Value>(&bench.image.verified).map(|value| value["log"].clone()).unwrap_or_default()
}

fn log_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    below(&read_files(&dir.join("log")), Path::new(""))
}

fn below(files: &BTreeMap<PathBuf, Vec<u8>>, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files.iter().filter(|(path, _)| path.starts_with(dir)).map(|(p, b)| (p.clone(), b.clone())).collect()
}
