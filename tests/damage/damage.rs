//! Damage to a data directory, one change at a time, judged by the real binary, or by its command line in a process that
//! takes many.
//!
//! Each change must be refused by name, put right from what is there twice, or have no effect: the same events, the same
//! chain. Never a panic, a hang, or another log without a word.

mod cases;
mod change;
mod image;
mod judge;
mod layout;
mod repair;
mod serving;
mod small;
mod workbench;
mod worker;

use std::collections::BTreeMap;
use std::fmt;

pub use cases::{all, every_header, gate};
pub use change::Change;
pub use image::Image;
pub use judge::{Judges, judge_by};
pub use repair::{Repaired, repair, repair_all};
pub use serving::serve;
pub use workbench::{Failure, Outcome, Workbench};
pub use worker::{WORKER, Worker, work};

/// How many failures are told in full.
const FAILURES_MAX: usize = 20;

/// What the changes came to.
#[derive(Debug, Default)]
pub struct Report {
    /// By file and kind of change: refused, repaired, without effect.
    rows: BTreeMap<(String, &'static str), [usize; 3]>,
    /// What was refused.
    pub refused: Vec<Change>,
    /// What may not be.
    pub failures: Vec<String>,
    failed: usize,
    /// How many were judged by a worker and by the real binary.
    pub sampled: usize,
}

impl Report {
    fn add(&mut self, change: &Change, outcome: Result<Outcome, Failure>) {
        let row = self.rows.entry((part(change), change.kind())).or_default();
        match outcome {
            Ok(Outcome::Refused(_)) => {
                row[0] += 1;
                self.refused.push(change.clone());
            }
            Ok(Outcome::Repaired(_)) => row[1] += 1,
            Ok(Outcome::NoEffect) => row[2] += 1,
            Err(Failure(words)) => {
                self.failed += 1;
                if self.failures.len() < FAILURES_MAX {
                    self.failures.push(format!("{change}: {words}"));
                }
            }
        }
    }

    /// How many changes were judged.
    pub fn changes(&self) -> usize {
        self.rows.values().flatten().sum::<usize>() + self.failed
    }

    /// How many were refused, put right and without effect.
    pub fn sums(&self) -> [usize; 3] {
        self.rows.values().fold([0; 3], |sums, row| std::array::from_fn(|at| sums[at] + row[at]))
    }
}

/// Which part of a data directory a change is about.
fn part(change: &Change) -> String {
    let name = change.path().file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    match name.as_str() {
        _ if name.starts_with("snap.") => "sled's snapshot".to_owned(),
        _ if name.starts_with("snapshot-") => "a manifest".to_owned(),
        _ if name.starts_with("part-") => "a part".to_owned(),
        _ if name.len() == 20 => "a segment".to_owned(),
        _ => name,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | change | refused | put right | no effect |\n|---|---|---|---|---|")?;
        for ((part, kind), [refused, repaired, harmless]) in &self.rows {
            writeln!(f, "| {part} | {kind} | {refused} | {repaired} | {harmless} |")?;
        }
        let [refused, repaired, harmless] = self.sums();
        writeln!(f, "| all | {} | {refused} | {repaired} | {harmless} |", self.changes())?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "FAILED {failure}"))
    }
}
