//! Values as people write and read them.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time};

use super::Failure;

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// `90d`, `12h`, `30m` or `45s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and a unit: 90d, 12h, 30m or 45s".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(seconds) if (1..=100 * 366 * 86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be between a second and a hundred years".to_owned()),
    }
}

/// The same, or `0`.
pub(super) fn duration_or_none(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text) }
}

/// A time of RFC 3339, or a day: its start, in UTC.
pub(super) fn moment(text: &str) -> Result<String, String> {
    at(text, Some)
        .ok_or_else(|| "write a time such as 2026-11-21T10:00:00Z, or a day such as 2026-11-21".to_owned())
}

/// The same, or how long ago it is.
pub(super) fn since(text: &str) -> Result<String, String> {
    at(text, Some).or_else(|| ago(text)).ok_or_else(past_moment_rule)
}

/// The same, with the day itself in it.
pub(super) fn until(text: &str) -> Result<String, String> {
    at(text, Date::next_day).or_else(|| ago(text)).ok_or_else(past_moment_rule)
}

fn past_moment_rule() -> String {
    "write a time such as 2026-11-21T10:00:00Z, a day such as 2026-11-21, or how long ago it is, such as 7d"
        .to_owned()
}

fn at(text: &str, start_of: impl FnOnce(Date) -> Option<Date>) -> Option<String> {
    if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
        return Some(text.to_owned());
    }
    let day = Date::parse(text, DAY).ok()?;
    start_of(day)?.with_time(Time::MIDNIGHT).assume_utc().format(&Rfc3339).ok()
}

fn ago(text: &str) -> Option<String> {
    let ago = time::Duration::try_from(duration(text).ok()?).ok()?;
    OffsetDateTime::now_utc().checked_sub(ago)?.format(&Rfc3339).ok()
}

/// A day of UTC, as the API takes it.
pub(super) fn day(text: &str) -> Result<String, String> {
    Date::parse(text, DAY).map(|_| text.to_owned()).map_err(|_| "write a day such as 2026-11-21".to_owned())
}

/// The moment that is so far ahead, as the API takes it.
pub(super) fn from_now(ahead: Duration) -> Result<String, String> {
    let ahead = time::Duration::try_from(ahead).ok();
    let at = ahead.and_then(|ahead| OffsetDateTime::now_utc().checked_add(ahead));
    at.and_then(|at| at.format(&Rfc3339).ok()).ok_or_else(|| "is too far ahead".to_owned())
}

/// Milliseconds since the Unix epoch of a time of the API.
pub(super) fn unix_ms(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

/// A time of the API, for people: `2026-11-21 10:52:07`, in UTC.
pub(super) fn shown_time(text: &str) -> String {
    text.get(..19).map_or_else(|| plain(text), |seconds| plain(seconds).replace('T', " "))
}

/// Text of elsewhere for a terminal: a control character could write over what stands there.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A file of JSON, `-` for standard input.
pub(super) fn read_json(path: &Path) -> Result<Value, Failure> {
    /// As long as a body of the API may be.
    const MAX_BYTES: u64 = 1 << 20;
    let shown = path.display();
    let wrong = |reason: String| Failure::Usage(vec![format!("{shown}: {reason}")]);
    let file: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?)
    };
    let mut text = String::new();
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("it is longer than {MAX_BYTES} bytes")));
    }
    serde_json::from_str(&text).map_err(|error| wrong(format!("it is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(duration("45s"), Ok(Duration::from_secs(45)));
        for wrong in
            ["", "d", "0d", "-1d", "1w", "1.5h", "99999999999999999999d", "18446744073709551615d", "1é"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration_or_none("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn moments() {
        assert_eq!(since("2026-11-21").unwrap(), "2026-11-21T00:00:00Z");
        assert_eq!(moment("2026-11-21").unwrap(), "2026-11-21T00:00:00Z");
        assert!(moment("7d").is_err());
        assert_eq!(until("2026-12-31").unwrap(), "2027-01-01T00:00:00Z");
        assert_eq!(since("2026-11-21T10:00:00+01:00").unwrap(), "2026-11-21T10:00:00+01:00");
        assert!(unix_ms(&since("1h").unwrap()).unwrap() < unix_ms(&since("1s").unwrap()).unwrap());
        for wrong in ["", "yesterday", "2026-13-01", "9999-12-31T", "18446744073709551615s"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
        assert!(until("9999-12-31").is_err(), "there is no day after it");
        assert_eq!(unix_ms("1970-01-01T00:00:01.500Z"), Some(1_500));
    }

    #[test]
    fn what_is_shown_moves_no_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\r\n"), "a [2Jb  ");
        assert_eq!(shown_time("2026-11-21T10:52:07.123Z"), "2026-11-21 10:52:07");
        assert_eq!(shown_time("é\u{7}"), "é ");
    }
}
