//! `dyad-gateway usage`

use std::io::Write as _;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::api_client::{Api, ApiArgs, Call, Needs};
use super::values::{day, plain};
use super::{Failure, block_on};
use crate::output::Output;

/// What is counted, by its name in the API and in the table.
const COUNTS: [(&str, &str); 5] = [
    ("requests", "REQUESTS"),
    ("failed", "FAILED"),
    ("promptTokens", "PROMPT TOKENS"),
    ("completionTokens", "COMPLETION TOKENS"),
    ("estimated", "ESTIMATED"),
];

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  dyad-gateway usage                                        # of the last 30 days\n  dyad-gateway usage --from 2026-11-01 --until 2026-11-30 --group-by key,model\n  dyad-gateway usage --key ID --group-by day --csv > november.csv\n\nIt is written some seconds after the requests. ESTIMATED are requests whose upstream told no usage."
)]
pub(crate) struct UsageArgs {
    /// From this day of UTC on
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    from: Option<String>,
    /// To this day, with it; at most 366 days
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    until: Option<String>,
    /// Only of this API key
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// Only of this provider
    #[arg(long, value_name = "SLUG")]
    provider: Option<String>,
    /// Only of this model, as clients call it
    #[arg(long)]
    model: Option<String>,
    /// What makes a row of its own, separated by commas; everything if not given
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    group_by: Vec<Group>,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    Day,
    Key,
    Provider,
    Model,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Key => "key",
            Self::Provider => "provider",
            Self::Model => "model",
        }
    }
}

pub(crate) fn run(args: &UsageArgs) -> Result<(), Failure> {
    let output = Output::new(args.api.common.json);
    let groups: Vec<&str> = args.group_by.iter().map(|group| group.name()).collect();
    let call = Call::get(&["usage"])
        .query("from", args.from.clone())
        .query("until", args.until.clone())
        .query("key", args.key.clone())
        .query("provider", args.provider.clone())
        .query("model", args.model.clone())
        .query("groupBy", (!groups.is_empty()).then(|| groups.join(",")));
    block_on(async {
        let api = Api::open(&args.api, Needs::Store).await?;
        if args.csv {
            let csv = api.content(call.query("format", Some("csv"))).await?;
            let mut stdout = std::io::stdout().lock();
            let written = stdout.write_all(&csv).and_then(|()| stdout.flush());
            return written.map_err(|error| Failure::failed("the usage cannot be written", &error));
        }
        let rows = api.whole_list(call).await?;
        for row in &rows {
            output.object(row);
        }
        if rows.is_empty() {
            output.say("There is no such usage.");
        } else {
            output.table(&table(&rows));
        }
        Ok(())
    })?
}

/// The columns that the rows have, and a line with the sums.
fn table(rows: &[Value]) -> Vec<Vec<String>> {
    let groups: Vec<Group> = Group::value_variants()
        .iter()
        .copied()
        .filter(|group| rows.iter().any(|row| row[group.name()].is_string()))
        .collect();
    let names = groups.iter().map(|group| group.name().to_uppercase());
    let mut table = vec![names.chain(COUNTS.map(|(_, name)| name.to_owned())).collect::<Vec<_>>()];
    table.extend(rows.iter().map(|row| {
        let groups = groups.iter().map(|group| row[group.name()].as_str().map(plain).unwrap_or_default());
        groups.chain(COUNTS.map(|(name, _)| row[name].to_string())).collect()
    }));
    if rows.len() > 1 && !groups.is_empty() {
        let sum = |name: &str| rows.iter().filter_map(|row| row[name].as_u64()).fold(0, u64::saturating_add);
        let empty = groups.iter().enumerate().map(|(i, _)| if i == 0 { "total" } else { "" }.to_owned());
        table.push(empty.chain(COUNTS.map(|(name, _)| sum(name).to_string())).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_rows_are_not_grouped_by_has_no_column() {
        let row = |model: &str, requests: u64| json!({"model": model, "requests": requests, "failed": 1, "promptTokens": 2, "completionTokens": 3, "estimated": 0});
        let table = table(&[row("a", 5), row("b", 7)]);
        assert_eq!(table[0][..2], ["MODEL", "REQUESTS"]);
        assert_eq!(table[3], ["total", "12", "2", "4", "6", "0"]);
    }

    #[test]
    fn one_row_is_its_own_sum() {
        let row =
            json!({"requests": 5, "failed": 1, "promptTokens": 2, "completionTokens": 3, "estimated": 0});
        assert_eq!(table(&[row]).len(), 2);
    }
}
