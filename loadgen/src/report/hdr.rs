//! Files that HdrHistogram's own tools read: an interval log (`.hlog`) and a percentile distribution (`.hgrm`).
//!
//! Values are microseconds in both; the log says so in a comment, and its maxima are milliseconds, as Java's
//! HistogramLogProcessor expects of a divisor of 1,000.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::anyhow;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

/// The intervals of a run, kept until it is over: three digits over six decades take a few kilobytes each.
#[derive(Default)]
pub(crate) struct IntervalLog {
    /// What the values are.
    what: &'static str,
    /// When measuring began, since the epoch.
    began: Duration,
    intervals: Vec<(Duration, Duration, Vec<u8>)>,
}

impl IntervalLog {
    pub(crate) fn new(what: &'static str, began: Duration) -> Self {
        Self { what, began, intervals: Vec::new() }
    }

    /// Adds an interval that begins so long after the beginning.
    pub(crate) fn add(&mut self, histogram: &Histogram<u64>, from: Duration, length: Duration) {
        use hdrhistogram::serialization::Serializer as _;
        let mut bytes = Vec::new();
        let serialized = hdrhistogram::serialization::V2Serializer::new().serialize(histogram, &mut bytes);
        serialized.expect("memory takes every histogram");
        self.intervals.push((from, length, bytes));
    }

    /// The whole log.
    pub(crate) fn text(&self) -> anyhow::Result<Vec<u8>> {
        let (mut text, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let mut reader = hdrhistogram::serialization::Deserializer::new();
        {
            let mut log = IntervalLogWriterBuilder::new()
                .add_comment("[Histogram log format version 1.3]")
                .add_comment(&format!("jeton-load: {}, in microseconds", self.what))
                .with_start_time(UNIX_EPOCH + self.began)
                .with_base_time(UNIX_EPOCH + self.began)
                .with_max_value_divisor(1_000.0)
                .begin_log_with(&mut text, &mut serializer)?;
            for (from, length, bytes) in &self.intervals {
                let histogram: Histogram<u64> = reader.deserialize(&mut &bytes[..])?;
                let written = log.write_histogram(&histogram, *from, *length, None);
                written.map_err(|error| anyhow!("the interval log: {error:?}"))?;
            }
        }
        Ok(text)
    }
}

/// The distribution as HdrHistogram prints it, five values to each halving of what is left.
pub(crate) fn percentiles(histogram: &Histogram<u64>) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut count = 0;
    for value in histogram.iter_quantiles(5) {
        count += value.count_since_last_iteration();
        let (value, quantile) = (value.value_iterated_to(), value.quantile_iterated_to());
        let _ = if quantile < 1.0 {
            writeln!(text, "{:12.3} {quantile:2.12} {count:10} {:14.2}", value as f64, 1.0 / (1.0 - quantile))
        } else {
            writeln!(text, "{:12.3} {quantile:2.12} {count:10}", value as f64)
        };
    }
    let _ =
        writeln!(text, "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]", histogram.mean(), histogram.stdev());
    let _ = writeln!(
        text,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        histogram.max() as f64,
        histogram.len()
    );
    // As Java counts them: a bucket doubles the range of the one before, of 2,048 steps for three digits.
    let buckets = (histogram.high() as f64 / 2_048.0).log2().ceil().max(0.0) + 1.0;
    let _ = writeln!(text, "#[Buckets = {buckets:12.0}, SubBuckets     = {:12}]", 2_048);
    text
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::recorder::histogram;

    #[test]
    fn an_interval_log_is_read_back_as_it_was_recorded() {
        let mut log = IntervalLog::new("latency", Duration::from_millis(1_700_000_000_123));
        let mut recorded = histogram();
        for interval in 0..3 {
            recorded.record(1_000 * (interval + 1)).unwrap();
            log.add(&recorded, Duration::from_secs(interval), Duration::from_secs(1));
        }
        let text = log.text().unwrap();
        let lines = std::str::from_utf8(&text).unwrap();
        assert!(lines.starts_with("#[Histogram log format version 1.3]\n"), "{lines}");
        let entries: Vec<_> = IntervalLogIterator::new(&text).map(Result::unwrap).collect();
        let mut counts = Vec::new();
        for entry in &entries {
            match entry {
                LogEntry::StartTime(at) | LogEntry::BaseTime(at) => {
                    assert_eq!(at.as_millis(), 1_700_000_000_123)
                }
                LogEntry::Interval(interval) => {
                    let bytes = base64_of(interval.encoded_histogram());
                    let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                    assert!((interval.max() - histogram.max() as f64 / 1_000.0).abs() < 0.01);
                    counts.push((interval.start_timestamp().as_secs(), histogram.len()));
                }
            }
        }
        assert_eq!(counts, [(0, 1), (1, 2), (2, 3)]);
    }

    /// Standard base64 with padding: no crate for one test.
    fn base64_of(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
        for letter in text.bytes().filter(|letter| *letter != b'=') {
            let value = ALPHABET.iter().position(|it| *it == letter).unwrap() as u32;
            (bits, held) = (bits << 6 | value, held + 6);
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held) as u8);
            }
        }
        bytes
    }

    #[test]
    fn a_distribution_is_printed_as_hdrhistogram_does() {
        let mut recorded = histogram();
        (1..=1_000).for_each(|value| recorded.record(value).unwrap());
        let text = percentiles(&recorded);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[2], "       1.000 0.000000000000          1           1.00");
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("     500.000 0.500000000000        500           2.00"))
        );
        assert!(lines.iter().any(|line| line.starts_with("    1000.000 1.000000000000       1000")));
        assert_eq!(lines[lines.len() - 2], "#[Max     =     1000.000, Total count    =         1000]");
    }
}
