//! The second quarter of a run against the last: what has to be flat, and by how much it was not.
//!
//! In the first quarter the server settles: the caches of the log's database fill, auditors open their copies of closed
//! segments, keys are remembered for ten minutes before the first is forgotten. It is told beside the others.
//!
//! Of each quarter the median of the samples is taken, so that a compiler that runs beside for a minute does not decide;
//! of errors the total counts.

use serde_json::{Value, json};

use super::control::CONTROLS;
use super::{Class, Latency, Sample};

/// How much more the last quarter may have than the second.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// As a part of the second.
    part: f64,
    /// Beside that.
    fixed: f64,
}

const MIB: f64 = 1_048_576.0;

/// Memory beyond the server's own accounting: pages of the allocator, caches of the log, names, keys remembered for ten
/// minutes.
const MEMORY: Allowance = Allowance { part: 0.10, fixed: 8.0 * MIB };
/// A connection takes no descriptor of the server; a segment of the log that is being read takes a few for a moment.
const DESCRIPTORS: Allowance = Allowance { part: 0.0, fixed: 2.0 };
const THREADS: Allowance = Allowance { part: 0.0, fixed: 0.0 };
const CONNECTIONS: Allowance = Allowance { part: 0.0, fixed: 2.0 };
/// Of what an answer takes beyond an echo, in microseconds.
const LATENCY: Allowance = Allowance { part: 0.25, fixed: 100.0 };
/// Of how many plain syncs a write takes as long as, in hundredths: a commit waits for the disk more than once.
const SYNCS: Allowance = Allowance { part: 0.25, fixed: 25.0 };

/// One figure, quarter by quarter.
#[derive(Clone, Debug)]
pub struct Ruling {
    /// What, and in which unit.
    pub what: String,
    /// The median of the first quarter.
    pub first: f64,
    /// The median of the second.
    pub settled: f64,
    /// The median of the last.
    pub last: f64,
    /// What the last may be at most.
    pub bound: f64,
}

impl Ruling {
    /// Whether it is within its bound.
    pub fn is_flat(&self) -> bool {
        self.last <= self.bound
    }
}

/// All figures of a run.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What must not grow.
    pub flat: Vec<Ruling>,
    /// Latencies, by what the machine itself took meanwhile.
    pub latency: Vec<Ruling>,
    /// Both as they were measured: told, and not judged, for others on the machine disturb them.
    pub measured: Vec<Ruling>,
    /// What grows by design: its first and last value.
    pub grown: Vec<(&'static str, u64, u64)>,
    /// Wrong answers and requests without one.
    pub errors: u64,
}

fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Judgement {
    /// Judges a run by its samples.
    pub fn of(samples: &[Sample]) -> Self {
        let quarter = samples.len().div_ceil(4);
        let first = &samples[..quarter];
        let settled = &samples[quarter.min(samples.len() - quarter)..][..quarter];
        let last = &samples[samples.len() - quarter..];
        let rule = |what: &str, allowance: Allowance, figure: &dyn Fn(&Sample) -> f64| {
            let [first, settled, last] = [first, settled, last].map(|quarter| median(quarter, figure));
            let bound = settled * (1.0 + allowance.part) + allowance.fixed;
            Ruling { what: what.to_owned(), first, settled, last, bound }
        };
        let flat = vec![
            rule("memory beyond its own accounting, bytes", MEMORY, &Sample::unaccounted),
            rule("descriptors", DESCRIPTORS, &|sample| sample.descriptors as f64),
            rule("threads", THREADS, &|sample| sample.threads as f64),
            rule("connections", CONNECTIONS, &|sample| sample.connections as f64),
        ];
        type Quantile = fn(&Latency) -> f64;
        let quantiles: [(&str, Quantile); 2] =
            [("p50", |of| of.p50_us as f64), ("p99", |of| of.p99_us as f64)];
        let (mut latency, mut measured) = (Vec::new(), Vec::new());
        for (quantile, value) in quantiles {
            for class in [Class::Validate, Class::Write, Class::Visit] {
                let of = move |sample: &Sample| value(&sample.latency[class as usize]);
                let [disk, echo] = [0, 1].map(|at| move |sample: &Sample| value(&sample.control[at]));
                let name = format!("{} {quantile}", class.name());
                measured.push(rule(&format!("{name}, us"), LATENCY, &of));
                latency.push(match class {
                    Class::Write => rule(&format!("{name}, hundredths of a sync"), SYNCS, &|sample| {
                        100.0 * of(sample) / disk(sample).max(1.0)
                    }),
                    _ => rule(&format!("{name} beyond an echo, us"), LATENCY, &|sample| {
                        of(sample) - echo(sample)
                    }),
                });
            }
            for (at, name) in CONTROLS.into_iter().enumerate() {
                let name = format!("the {name} itself {quantile}, us");
                measured.push(rule(&name, LATENCY, &|sample| value(&sample.control[at])));
            }
        }
        type Figure = fn(&Sample) -> u64;
        let ends = |figure: Figure| (samples.first().map_or(0, figure), samples.last().map_or(0, figure));
        let grows: [(&'static str, Figure); 3] = [
            ("tokens in the index", |sample| sample.tokens),
            ("memory by the server's own accounting, bytes", |sample| sample.accounted),
            ("files of the log, bytes", |sample| sample.log_files),
        ];
        let grown = grows.map(|(what, figure)| (what, ends(figure).0, ends(figure).1)).to_vec();
        Self { flat, latency, measured, grown, errors: samples.last().map_or(0, |sample| sample.errors) }
    }

    /// Whether nothing grew that must not, latencies aside.
    pub fn is_flat(&self) -> bool {
        self.errors == 0 && self.flat.iter().all(Ruling::is_flat)
    }

    pub(super) fn to_json(&self) -> Value {
        let rulings = |all: &[Ruling]| -> Vec<Value> {
            let one = |ruling: &Ruling| {
                json!({
                    "what": ruling.what, "first": ruling.first, "second": ruling.settled, "last": ruling.last,
                    "bound": ruling.bound, "flat": ruling.is_flat(),
                })
            };
            all.iter().map(one).collect()
        };
        json!({
            "flat": rulings(&self.flat),
            "latency": rulings(&self.latency),
            "measured": rulings(&self.measured),
            "errors": self.errors,
        })
    }
}

impl std::fmt::Display for Judgement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = ["first", "second", "last", "at most"];
        write!(f, "{:<46}", "median of a quarter")?;
        head.iter().try_for_each(|name| write!(f, " {name:>12}"))?;
        for Ruling { what, first, settled, last, bound } in self.flat.iter().chain(&self.latency) {
            let mark = if last <= bound { "" } else { "  GREW" };
            write!(f, "\n{what:<46} {first:>12.0} {settled:>12.0} {last:>12.0} {bound:>12.0}{mark}")?;
        }
        for Ruling { what, first, settled, last, .. } in &self.measured {
            write!(f, "\n{what:<46} {first:>12.0} {settled:>12.0} {last:>12.0}       as it was")?;
        }
        for (what, first, last) in &self.grown {
            write!(f, "\n{what:<46} {first:>12} {:>12} {last:>12}    by design", "")?;
        }
        write!(f, "\n{:<46} {:>38} {:>12}", "errors", self.errors, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(figures: impl Fn(u64, &mut Sample)) -> Judgement {
        let latency = Latency { count: 1, p50_us: 200, p99_us: 1_000, max_us: 2_000 };
        let samples: Vec<Sample> = (0..400)
            .map(|at| {
                let mut sample = Sample {
                    at_s: at as f64,
                    rss: 100 << 20,
                    accounted: 20 << 20,
                    tokens: at,
                    descriptors: 30,
                    threads: 7,
                    connections: 5,
                    cpu_percent: 3.0,
                    log_files: at,
                    log_written: at,
                    errors: 0,
                    latency: std::array::from_fn(|_| latency.clone()),
                    control: std::array::from_fn(|_| Latency { p50_us: 100, p99_us: 500, ..latency.clone() }),
                };
                figures(at, &mut sample);
                sample
            })
            .collect();
        Judgement::of(&samples)
    }

    #[test]
    fn a_run_in_which_nothing_grows_is_flat() {
        let judged = run(|_, _| {});
        assert!(judged.is_flat());
        assert!(judged.latency.iter().all(Ruling::is_flat));
    }

    #[test]
    fn memory_that_the_server_accounts_for_may_grow_and_any_other_may_not() {
        let grown = 40 << 10; // each sample
        assert!(
            run(|at, sample| (sample.rss, sample.accounted) =
                ((100 << 20) + at * grown, (20 << 20) + at * grown))
            .is_flat()
        );
        assert!(!run(|at, sample| sample.rss += at * 160 * 1_024).is_flat());
    }

    #[test]
    fn what_a_server_takes_until_it_has_settled_is_told_and_not_judged() {
        let judged = run(|at, sample| sample.rss += at.min(100) << 20);
        assert!(judged.is_flat());
        let memory = &judged.flat[0];
        assert!(memory.first < memory.last && memory.settled == memory.last, "{judged}");
    }

    #[test]
    fn a_descriptor_that_is_lost_now_and_then_a_thread_too_many_and_an_error_are_told() {
        assert!(!run(|at, sample| sample.descriptors += at / 50).is_flat());
        assert!(!run(|at, sample| sample.threads += at / 300).is_flat());
        assert!(!run(|at, sample| sample.connections += at / 50).is_flat());
        assert!(!run(|at, sample| sample.errors = at / 399).is_flat());
    }

    #[test]
    fn answers_that_take_longer_and_longer_are_told() {
        let judged = run(|at, sample| sample.latency[0].p99_us += at * 5);
        assert_eq!(judged.latency.iter().filter(|ruling| !ruling.is_flat()).count(), 1);
    }

    #[test]
    fn answers_that_take_longer_because_the_machine_does_are_no_fault_of_the_server() {
        let judged = run(|at, sample| {
            // Everything takes five times as long in the end.
            let slow = |of: &mut Latency| {
                of.p50_us += of.p50_us * at / 100;
                of.p99_us += of.p99_us * at / 100;
            };
            slow(&mut sample.latency[Class::Write as usize]);
            slow(&mut sample.control[0]);
        });
        assert!(judged.latency.iter().all(Ruling::is_flat), "{judged}");
        assert!(judged.measured.iter().any(|ruling| !ruling.is_flat()), "{judged}");
    }
}
