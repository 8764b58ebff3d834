//! What was measured, over the rounds, as a table.

use serde::Serialize;

use crate::server::Kind;

/// A row: what is measured, and what is wanted of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    SmallRate,
    SmallCpu,
    LargeRate,
    LargeCpu,
    LatencyP50,
    LatencyP99,
    PacedCpu,
    TtftP50,
    TtftP99,
    BurstRate,
    BurstCpu,
    StreamMemory,
    IdleMemory,
}

/// An upper bound for the gateway's median.
#[derive(Clone, Copy, Debug)]
enum Goal {
    /// Of its ratio to nginx in the same round.
    Ratio(f64),
    /// Of the value itself.
    Value(f64),
}

impl Row {
    pub(crate) const ALL: [Self; 13] = [
        Self::SmallRate,
        Self::SmallCpu,
        Self::LargeRate,
        Self::LargeCpu,
        Self::LatencyP50,
        Self::LatencyP99,
        Self::PacedCpu,
        Self::TtftP50,
        Self::TtftP99,
        Self::BurstRate,
        Self::BurstCpu,
        Self::StreamMemory,
        Self::IdleMemory,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::SmallRate => "1 KB requests, saturated: requests/s",
            Self::SmallCpu => "1 KB requests, saturated: CPU s per 10,000",
            Self::LargeRate => "200 KB requests, saturated: requests/s",
            Self::LargeCpu => "200 KB requests, saturated: CPU s per 10,000",
            Self::LatencyP50 => "1,000 requests/s: p50 added, ms",
            Self::LatencyP99 => "1,000 requests/s: p99 added, ms",
            Self::PacedCpu => "streams of 100 chunks 10 ms apart: CPU s per 1,000",
            Self::TtftP50 => "streams of 100 chunks 10 ms apart: TTFT p50 added, ms",
            Self::TtftP99 => "streams of 100 chunks 10 ms apart: TTFT p99 added, ms",
            Self::BurstRate => "streams of 100 chunks at once: streams/s",
            Self::BurstCpu => "streams of 100 chunks at once: CPU s per 1,000",
            Self::StreamMemory => "open streams: KB each (PSS)",
            Self::IdleMemory => "idle: MB (RSS)",
        }
    }

    /// Issue 2 sets these.
    fn goal(self) -> Option<Goal> {
        match self {
            Self::SmallCpu => Some(Goal::Ratio(1.5)),
            Self::PacedCpu => Some(Goal::Ratio(1.2)),
            Self::BurstCpu => Some(Goal::Ratio(2.5)),
            Self::LatencyP99 => Some(Goal::Value(1.0)),
            Self::StreamMemory => Some(Goal::Value(40.0)),
            Self::IdleMemory => Some(Goal::Value(30.0)),
            Self::SmallRate
            | Self::LargeRate
            | Self::LargeCpu
            | Self::LatencyP50
            | Self::TtftP50
            | Self::TtftP99
            | Self::BurstRate => None,
        }
    }

    /// A value that a proxy adds to the bare upstream's has no ratio worth reading: it may be about 0.
    fn is_added(self) -> bool {
        matches!(self, Self::LatencyP50 | Self::LatencyP99 | Self::TtftP50 | Self::TtftP99)
    }
}

/// What one round measured. [`Kind::Bare`] has no CPU and memory: nobody proxies there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round(Vec<(Row, Kind, f64)>);

impl Round {
    pub(crate) fn record(&mut self, row: Row, kind: Kind, value: f64) {
        self.0.push((row, kind, value));
    }

    fn get(&self, row: Row, kind: Kind) -> Option<f64> {
        self.0.iter().find(|(r, k, _)| (*r, *k) == (row, kind)).map(|(_, _, value)| *value)
    }

    /// The value, less the bare upstream's where the row is about what a proxy adds.
    fn value(&self, row: Row, kind: Kind) -> Option<f64> {
        let value = self.get(row, kind)?;
        if row.is_added() && kind != Kind::Bare {
            Some(value - self.get(row, Kind::Bare)?)
        } else {
            Some(value)
        }
    }

    fn ratio(&self, row: Row) -> Option<f64> {
        let ratio = self.get(row, Kind::Gateway)? / self.get(row, Kind::Nginx)?;
        // Tiny runs may use less CPU than the kernel counts.
        (!row.is_added() && ratio.is_finite()).then_some(ratio)
    }
}

/// A row of the table: medians over the rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    measure: &'static str,
    bare: Option<f64>,
    nginx: Option<f64>,
    gateway: Option<f64>,
    /// Gateway to nginx in the same round: median, least, greatest.
    ratio: Option<[f64; 3]>,
    goal: Option<String>,
    reached: Option<bool>,
}

/// The table of these rounds.
pub(crate) fn lines(rounds: &[Round]) -> Vec<Line> {
    Row::ALL.into_iter().map(|row| line(row, rounds)).collect()
}

/// The table of rounds too small to judge by.
pub(crate) fn unjudged_lines(rounds: &[Round]) -> Vec<Line> {
    lines(rounds).into_iter().map(|line| Line { reached: None, ..line }).collect()
}

fn line(row: Row, rounds: &[Round]) -> Line {
    let of = |kind| Some(spread(rounds.iter().filter_map(|round| round.value(row, kind)))?[0]);
    let (bare, nginx, gateway) = (of(Kind::Bare), of(Kind::Nginx), of(Kind::Gateway));
    let ratio = spread(rounds.iter().filter_map(|round| round.ratio(row)));
    let (goal, reached) = match row.goal() {
        None => (None, None),
        Some(Goal::Ratio(most)) => (Some(format!("≤ {most}×")), ratio.map(|[median, ..]| median <= most)),
        Some(Goal::Value(most)) => (Some(format!("≤ {most}")), gateway.map(|median| median <= most)),
    };
    Line { measure: row.name(), bare, nginx, gateway, ratio, goal, reached }
}

/// Median (of an even number the mean of the middle two), least and greatest.
fn spread(values: impl Iterator<Item = f64>) -> Option<[f64; 3]> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let (least, greatest) = (*values.first()?, *values.last()?);
    let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
    Some([median, least, greatest])
}

/// The lines as a Markdown table.
pub(crate) fn markdown(lines: &[Line]) -> String {
    let mut rows = vec![
        ["", "bare", "nginx", "gateway", "gateway/nginx (least–greatest)", "goal", ""].map(String::from),
    ];
    rows.extend(lines.iter().map(|line| {
        let reached = match line.reached {
            None => "",
            Some(true) => "reached",
            Some(false) => "missed",
        };
        let ratio =
            line.ratio.map(|[median, least, greatest]| format!("{median:.2} ({least:.2}–{greatest:.2})"));
        [
            line.measure.into(),
            number(line.bare),
            number(line.nginx),
            number(line.gateway),
            ratio.unwrap_or_default(),
            line.goal.clone().unwrap_or_default(),
            reached.into(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..7).map(width).collect();
    let texts = rows.iter().map(|row| {
        // Words to the left, numbers to the right.
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("| {cell:<width$} "),
            _ => format!("| {cell:>width$} "),
        });
        cells.collect::<String>() + "|\n"
    });
    let mut texts: Vec<_> = texts.collect();
    let rule = widths.iter().enumerate().map(|(column, width)| {
        let dashes = "-".repeat(*width);
        if column == 0 { format!("|-{dashes}-") } else { format!("|-{dashes}:") }
    });
    texts.insert(1, rule.collect::<String>() + "|\n");
    texts.concat()
}

/// Three significant digits or so.
fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(bare: f64, nginx: f64, gateway: f64, row: Row) -> Round {
        let mut round = Round::default();
        round.record(row, Kind::Bare, bare);
        round.record(row, Kind::Nginx, nginx);
        round.record(row, Kind::Gateway, gateway);
        round
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rounds = [
            round(0.0, 1.0, 2.0, Row::SmallCpu),
            round(0.0, 4.0, 4.0, Row::SmallCpu),
            round(0.0, 2.0, 3.0, Row::SmallCpu),
        ];
        let line = line(Row::SmallCpu, &rounds);
        assert_eq!(line.nginx, Some(2.0));
        assert_eq!(line.gateway, Some(3.0));
        assert_eq!(line.ratio, Some([1.5, 1.0, 2.0]));
        assert_eq!(line.reached, Some(true));
    }

    #[test]
    fn added_values_are_differences_within_a_round() {
        let rounds = [round(1.0, 1.5, 3.0, Row::LatencyP99), round(2.0, 2.5, 2.5, Row::LatencyP99)];
        let line = line(Row::LatencyP99, &rounds);
        assert_eq!(line.bare, Some(1.5));
        assert_eq!(line.nginx, Some(0.5));
        assert_eq!(line.gateway, Some(1.25));
        assert_eq!(line.ratio, None);
        assert_eq!(line.reached, Some(false));
    }

    #[test]
    fn nothing_measured_is_an_empty_cell() {
        let text = markdown(&lines(&[Round::default()]));
        assert_eq!(text.lines().count(), 2 + Row::ALL.len());
        let widths: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
