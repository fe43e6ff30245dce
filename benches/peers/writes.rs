//! Durable writes by turns: issues of Jeton, sets of a Redis that syncs before it answers, and a plain file.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::plot::Bars;
use crate::rig::{Rig, WriteFigures};
use crate::table::{in_thousands, median, ratios, spread_of};

/// The marks of the part of docs/BENCHMARKS.md that is written here.
pub(crate) const MARKS: [&str; 2] = ["<!-- writes: begin -->", "<!-- writes: end -->"];

/// Writes of one token that are outstanding on one connection.
const OUTSTANDING: [u16; 3] = [1, 16, 256];
/// What an issue takes in the log, about.
const EVENT_BYTES: usize = 150;

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Writer {
    Jeton,
    Redis,
}

/// By number outstanding: Jeton, Redis, and writes a second of a plain file, by alternation.
pub(crate) type Measured = Vec<(Vec<WriteFigures>, Vec<WriteFigures>, Vec<f64>)>;

/// Measures everybody by turns.
pub(crate) fn measure(rig: &Rig, alternations: u32, seconds: u32) -> anyhow::Result<Measured> {
    let mut measured = Measured::new();
    for outstanding in OUTSTANDING {
        let (mut jeton, mut redis, mut file) = (Vec::new(), Vec::new(), Vec::new());
        for alternation in 1..=alternations {
            // Each is early in turn: a disk that grows slower favours what comes first.
            let is_redis_first = alternation % 2 == 1;
            if is_redis_first {
                redis.push(rig.measure_writes(Writer::Redis, outstanding, seconds)?);
            }
            jeton.push(rig.measure_writes(Writer::Jeton, outstanding, seconds)?);
            if !is_redis_first {
                redis.push(rig.measure_writes(Writer::Redis, outstanding, seconds)?);
            }
            file.push(plain_file(rig.dir(), outstanding, Duration::from_secs(u64::from(seconds)))?);
            if let (Some(jeton), Some(redis), Some(file)) = (jeton.last(), redis.last(), file.last()) {
                eprintln!(
                    "{alternation} of {alternations}: {outstanding} outstanding: Jeton {:.0}/s, p50 {} us; Redis {:.0}/s, p50 \
                     {} us; a plain file {file:.0}/s",
                    jeton.per_s, jeton.p50_us, redis.per_s, redis.p50_us
                );
            }
        }
        measured.push((jeton, redis, file));
    }
    Ok(measured)
}

/// Writes a second of a file to which the bytes of so many are appended and made durable at a time, with nothing else.
fn plain_file(dir: &Path, outstanding: u16, time: Duration) -> anyhow::Result<f64> {
    let mut file = File::create(dir.join("plain"))?;
    let bytes = vec![7; usize::from(outstanding) * EVENT_BYTES];
    let (began, mut times) = (Instant::now(), 0_u32);
    while began.elapsed() < time {
        file.write_all(&bytes)?;
        file.sync_data()?;
        times += 1;
    }
    Ok(f64::from(times) * f64::from(outstanding) / began.elapsed().as_secs_f64())
}

fn spread(values: &[f64], text: impl Fn(f64) -> String) -> String {
    let [middle, least, most] = spread_of(values).map(text);
    format!("{middle} ({least} to {most})")
}

/// The table and what has to be said about it.
pub(crate) fn write(measured: &Measured, machine: &str, redis: &str, command: &str) -> String {
    let mut text = format!(
        "![durable issues beside Redis and a plain file](writes.svg)\n\nDurable writes of one token each, outstanding on one connection; Jeton, Redis {redis} (`--appendonly yes --appendfsync \
         always`, plaintext, a `SET` for an issue) and a plain file to which {EVENT_BYTES} bytes for each are appended and synced \
         together, by turns, on the same disk; {} alternations; medians (least to greatest). Machine: {machine}.\n\n\
         Command: `{command}`.\n\n\
         | outstanding | Jeton: issues/s | Redis: sets/s | Jeton : Redis | plain file : Jeton | p50 of Jeton, of Redis | ratio of \
         p50 | processor time of a write: Jeton, Redis |\n|{}\n",
        measured[0].0.len(),
        "---|".repeat(8)
    );
    for (outstanding, (jeton, redis, file)) in OUTSTANDING.iter().zip(measured) {
        let of = |figures: &[WriteFigures], value: fn(&WriteFigures) -> f64| -> Vec<f64> {
            figures.iter().map(value).collect()
        };
        let rates = [of(jeton, |figures| figures.per_s), of(redis, |figures| figures.per_s)];
        let p50 = [of(jeton, |figures| figures.p50_us as f64), of(redis, |figures| figures.p50_us as f64)];
        let cpu = [of(jeton, |figures| figures.cpu_us), of(redis, |figures| figures.cpu_us)];
        let times = |value: f64| format!("{value:.2}");
        let _ = writeln!(
            text,
            "| {outstanding} | {} | {} | {} | {} | {:.0} us, {:.0} us | {} | {:.1} us, {:.1} us |",
            spread(&rates[0], in_thousands),
            spread(&rates[1], in_thousands),
            spread(&ratios(jeton, redis, |figures| figures.per_s), times),
            spread(&ratios(file, &rates[0], |rate| *rate), times),
            median(p50[0].iter().copied()),
            median(p50[1].iter().copied()),
            spread(&ratios(&p50[0], &p50[1], |p50| *p50), times),
            median(cpu[0].iter().copied()),
            median(cpu[1].iter().copied()),
        );
    }
    text
}

/// The ratios as a picture, all of them the greater the better.
pub(crate) fn draw(measured: &Measured) -> String {
    let groups = OUTSTANDING.iter().zip(measured).map(|(outstanding, (jeton, redis, file))| {
        let rates: Vec<f64> = jeton.iter().map(|figures| figures.per_s).collect();
        let bars = vec![
            ratios(jeton, redis, |figures| figures.per_s),
            ratios(redis, jeton, |figures| figures.p50_us as f64),
            ratios(&rates, file, |rate| *rate),
        ];
        (format!("{outstanding} outstanding"), bars)
    });
    Bars {
        title: "Durable issues of Jeton as a multiple of others' writes",
        legend: &["of Redis, a second", "of Redis, how soon at the median", "of a plain file, a second"],
        groups: groups.collect(),
    }
    .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each_number_outstanding_with_ratios_of_the_same_alternation() {
        let figures = |per_s: f64| WriteFigures { per_s, cpu_us: 5.0, p50_us: 200 };
        let row =
            || (vec![figures(10.0), figures(40.0)], vec![figures(20.0), figures(40.0)], vec![30.0, 80.0]);
        let measured = vec![row(), row(), row()];
        assert_eq!(draw(&measured).matches("class=\"spread\"").count(), 9);
        let text = write(&measured, "a machine", "7", "a command");
        assert_eq!(text.matches("| 1.00 (0.50 to 1.00) | 3.00 (2.00 to 3.00) |").count(), 3, "{text}");
        assert!(!text.contains("NaN"));
    }
}
