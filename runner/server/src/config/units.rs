//! Sizes and durations as people write them: a whole number and its unit.

use std::time::Duration;

pub(super) const SIZE_RULE: &str =
    "must be a size: a whole number and B, KiB, MiB, GiB, TiB, kB, MB, GB or TB, such as \"512MiB\"";
pub(super) const DURATION_RULE: &str =
    "must be a duration: a whole number and ms, s, m, h or d, such as \"90s\"";

const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];
const DURATIONS_MS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    with_unit(text, SIZES).ok_or_else(|| SIZE_RULE.to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    with_unit(text, DURATIONS_MS).map(Duration::from_millis).ok_or_else(|| DURATION_RULE.to_owned())
}

/// In the largest unit that leaves nothing over.
pub(super) fn show_size(bytes: u64) -> String {
    let binary = SIZES[..5].iter().rev();
    show(bytes, binary)
}

pub(super) fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), DURATIONS_MS.iter().rev())
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show<'a>(value: u64, mut largest_first: impl Iterator<Item = &'a (&'a str, u64)>) -> String {
    let unit = largest_first.find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    unit.map_or_else(|| value.to_string(), |(name, factor)| format!("{}{name}", value / factor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_and_durations() {
        for (text, bytes) in [
            ("0B", 0),
            ("1KiB", 1024),
            ("512MiB", 512 << 20),
            ("1 GiB", 1 << 30),
            ("3kB", 3000),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, ms) in
            [("5ms", 5), ("90s", 90_000), ("10m", 600_000), ("2h", 7_200_000), ("1 d", 86_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_is_refused_with_the_rule() {
        for text in [
            "",
            "1",
            "MiB",
            "-1MiB",
            "+1MiB",
            "1.5GiB",
            "1mib",
            "1  MiB",
            " 1MiB",
            "1MiB ",
            "1e3B",
            "0x1B",
            "١MiB",
            "18446744073709551616B",
            "18446744073709551615KiB",
        ] {
            assert_eq!(size(text), Err(SIZE_RULE.to_owned()), "{text:?}");
        }
        for text in ["", "1", "s", "1w", "1S", "-1s", "1.5h", "1h30m", "18446744073709551615d"] {
            assert_eq!(duration(text), Err(DURATION_RULE.to_owned()), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(bytes: u64, ms: u64) {
            prop_assert_eq!(size(&show_size(bytes.max(1))), Ok(bytes.max(1)));
            let shown = show_duration(Duration::from_millis(ms.max(1)));
            prop_assert_eq!(duration(&shown), Ok(Duration::from_millis(ms.max(1))));
        }

        #[test]
        fn no_text_is_too_odd(text: String) {
            let _ = (size(&text), duration(&text));
        }
    }
}
