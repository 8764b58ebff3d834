//! What was measured, over the rounds, as a table.

use crate::hosts::Kind;

/// A row: what is measured, and what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Size,
    Start,
    Warm,
    EarlyLarge,
    Small,
    Large,
    PacedStream,
    SmallStream,
    LargeStream,
    FirstCalls,
    Calls,
}

impl Row {
    const ALL: [Self; 11] = [
        Self::Size,
        Self::Start,
        Self::Warm,
        Self::EarlyLarge,
        Self::Small,
        Self::Large,
        Self::PacedStream,
        Self::SmallStream,
        Self::LargeStream,
        Self::FirstCalls,
        Self::Calls,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Size => "size, MB (of the Worker gzipped)",
            Self::Start => "process start to its first answer, ms",
            Self::Warm => "the same request, warm, on a new connection: ms",
            Self::EarlyLarge => "100 KB requests 2 to 21: CPU ms each",
            Self::Small => "1 KB requests: CPU ms each",
            Self::Large => "100 KB requests: CPU ms each",
            Self::PacedStream => "streams of 100 chunks 10 ms apart: CPU ms each",
            Self::SmallStream => "streams of 100 chunks at once: CPU ms each",
            Self::LargeStream => "the same for 100 KB requests: CPU ms each",
            Self::FirstCalls => "calls to the store before the first answer",
            Self::Calls => "calls to the store per 1,000 requests",
        }
    }

    /// Upper bounds that issue 4 sets. The last: whether it holds for tiny runs too.
    fn goals(self) -> &'static [(Kind, f64, bool)] {
        match self {
            Self::Size => &[(Kind::Worker, 1.0, true), (Kind::Spin, 3.0, true)],
            Self::Large => &[(Kind::Worker, 2.0, false)],
            Self::FirstCalls => &[(Kind::Worker, 2.0, true), (Kind::Spin, 2.0, true)],
            _ => &[],
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Report(Vec<(Row, Kind, f64)>);

impl Report {
    pub(crate) fn record(&mut self, row: Row, kind: Kind, value: f64) {
        self.0.push((row, kind, value));
    }

    /// The median (of an even number the mean of the middle two).
    fn value(&self, row: Row, kind: Kind) -> Option<f64> {
        let mut values: Vec<_> =
            self.0.iter().filter(|(r, k, _)| (*r, *k) == (row, kind)).map(|(_, _, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len().checked_sub(1)? / 2;
        Some(f64::midpoint(values[middle], values[values.len() / 2]))
    }

    /// Goals that were missed, in words.
    pub(crate) fn missed(&self, quick: bool) -> Vec<String> {
        let goals = Row::ALL.into_iter().flat_map(|row| row.goals().iter().map(move |goal| (row, goal)));
        goals
            .filter(|(_, (_, _, holds_for_quick))| *holds_for_quick || !quick)
            .filter_map(|(row, (kind, most, _))| {
                let value = self.value(row, *kind)?;
                (value > *most).then(|| format!("{}: {}: {value:.2}, goal ≤ {most}", kind.name(), row.name()))
            })
            .collect()
    }

    /// As a Markdown table.
    pub(crate) fn markdown(&self) -> String {
        let mut rows = vec![vec![String::new()]];
        rows[0].extend(Kind::ALL.map(|kind| kind.name().to_owned()));
        rows[0].push("goal".to_owned());
        for row in Row::ALL {
            let mut cells = vec![row.name().to_owned()];
            cells.extend(Kind::ALL.map(|kind| self.value(row, kind).map_or_else(String::new, number)));
            let goals = row.goals().iter().map(|(kind, most, _)| {
                let reached = self.value(row, *kind).is_some_and(|value| value <= *most);
                format!("{} ≤ {most}: {}", kind.name(), if reached { "reached" } else { "missed" })
            });
            cells.push(goals.collect::<Vec<_>>().join(", "));
            rows.push(cells);
        }
        let columns = rows[0].len();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut lines: Vec<String> = rows
            .iter()
            .map(|row| {
                // Words to the left, numbers to the right.
                let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                    if column == 0 { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") }
                });
                cells.collect::<String>() + "|\n"
            })
            .collect();
        let rule = widths.iter().enumerate().map(|(column, width)| {
            let dashes = "-".repeat(*width);
            if column == 0 { format!("|-{dashes}-") } else { format!("|-{dashes}:") }
        });
        lines.insert(1, rule.collect::<String>() + "|\n");
        lines.concat()
    }
}

/// Three significant digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_judged_by_the_median() {
        let mut report = Report::default();
        for value in [1.0, 1.9, 9.0] {
            report.record(Row::Large, Kind::Worker, value);
        }
        assert!(report.missed(false).is_empty());
        report.record(Row::Large, Kind::Worker, 3.0);
        let missed = report.missed(false);
        assert_eq!(missed, ["Worker: 100 KB requests: CPU ms each: 2.45, goal ≤ 2"]);
        assert!(report.missed(true).is_empty(), "tiny runs measure no time");
        report.record(Row::FirstCalls, Kind::Spin, 3.0);
        assert_eq!(report.missed(true).len(), 1);
    }

    #[test]
    fn a_table_has_a_line_for_each_row_however_little_was_measured() {
        let text = Report::default().markdown();
        assert_eq!(text.lines().count(), 2 + Row::ALL.len());
        let widths: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
