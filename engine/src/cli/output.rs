//! What commands print: JSON for machines, sentences for people.

use std::io::{self, Write as _};

use jeton_core::time::Seconds;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Ending;

/// Prints `json` as one line, or the text of `human`.
pub(super) fn print(
    is_json: bool,
    json: &serde_json::Value,
    human: impl FnOnce() -> String,
) -> anyhow::Result<Ending> {
    let text = if is_json { json.to_string() } else { human() };
    print_text(&(text + "\n"))
}

/// Prints text as it is.
pub(super) fn print_text(text: &str) -> anyhow::Result<Ending> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Ending::Done),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Ending::Done),
    }
}

/// A moment as RFC 3339 says it, in UTC.
pub(super) fn moment(seconds: Seconds) -> String {
    moment_ms(u64::from(seconds.0) * 1_000)
}

/// A moment in milliseconds as RFC 3339 says it, in UTC.
pub(super) fn moment_ms(ms: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{ms} ms since 1970"))
}

/// Reads `90`, `90s`, `15m`, `1h`, `30d` as seconds.
pub(super) fn duration_s(text: &str) -> Result<u32, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(format!("'{unit}' is no unit of time: s, m, h and d are")),
    };
    let number: u32 =
        number.parse().map_err(|_| "a duration is a number and a unit, such as 15m or 1h".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_a_unit() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3_600), ("2d", 172_800)] {
            assert_eq!(duration_s(text), Ok(seconds));
        }
        for text in ["", "h", "1w", "-1s", "9999999999", "99999999d"] {
            assert!(duration_s(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_told_in_utc() {
        assert_eq!(moment(Seconds(1_700_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(moment_ms(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
