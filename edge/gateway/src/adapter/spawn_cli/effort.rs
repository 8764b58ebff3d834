//! `reasoning_effort` → the value that a CLI takes. Clients send it unasked for every model, so it is never refused.

pub(super) const REASONING_EFFORT: &str = "reasoning_effort";

/// Efforts that mean something to somebody, those of the same meaning together, the least first.
const EFFORTS: [&[&str]; 5] = [&["none", "minimal"], &["low"], &["medium"], &["high"], &["xhigh", "max"]];

/// Of the values that a CLI declares the nearest to what was asked for, of two equally near ones the lesser. `None`
/// leaves it to the CLI. One that declares no values gets any effort that means something.
pub(super) fn nearest<'a>(asked: &'a str, declared: &'a [String]) -> Option<&'a str> {
    if declared.iter().any(|value| value == asked) {
        return Some(asked);
    }
    let asked_rank = rank(asked)?;
    if declared.is_empty() {
        return Some(asked);
    }
    let ranked = declared.iter().filter_map(|value| Some((rank(value)?, value)));
    let (_, value) = ranked.min_by_key(|(rank, _)| (rank.abs_diff(asked_rank), *rank))?;
    Some(value)
}

fn rank(effort: &str) -> Option<usize> {
    EFFORTS.iter().position(|alike| alike.contains(&effort))
}
