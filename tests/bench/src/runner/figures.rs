//! Times, and how they are shown.

use std::time::Duration;

/// Of one run, in milliseconds from the request on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// To the CLI having its input; not known of a CLI that does not tell.
    pub(crate) stdin: Option<f64>,
    pub(crate) first_text: f64,
    pub(crate) end: f64,
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value below which so many percent of the values are.
pub(crate) fn percentile(values: impl Iterator<Item = f64>, percent: usize) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or(f64::NAN)
}

/// `| name | stdin | first text | end |`, each p50 / p99.
pub(crate) fn row(name: &str, times: &[Times]) -> String {
    let cell = |values: Vec<f64>| {
        if values.is_empty() {
            return String::new();
        }
        let at = |percent| percentile(values.iter().copied(), percent);
        format!("{:.1} / {:.1}", at(50), at(99))
    };
    let stdin = cell(times.iter().filter_map(|times| times.stdin).collect());
    let first_text = cell(times.iter().map(|times| times.first_text).collect());
    let end = cell(times.iter().map(|times| times.end).collect());
    format!("| {name} | {} | {stdin} | {first_text} | {end} |\n", times.len())
}

pub(crate) const HEAD: &str =
    "| ms, p50 / p99 | runs | CLI has its input | first text | end |\n|---|---:|---:|---:|---:|\n";
