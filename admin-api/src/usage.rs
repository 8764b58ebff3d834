//! `/admin/usage`: what was used, per API key, provider, model and day.

mod csv;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use catalog::{ApiKeyId, Day, ProviderSlug, UsageCounts, UsageRow};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use time::Date;
use time::format_description::well_known::Iso8601;
use utoipa::ToSchema;

use crate::answer::Answer;
use crate::error::AdminError;
use crate::query::{List, Query};
use crate::service::Admin;

/// Days that one request may ask for: a leap year.
const MAX_DAYS: u32 = 366;
/// Days that are asked for if none are named.
const DEFAULT_DAYS: u32 = 30;
/// Rows of one answer.
const MAX_ROWS: usize = 50_000;
/// Days that are read at once.
const PARALLEL: usize = 4;

/// What was counted together. What was not told apart is null.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UsageRow)]
pub(crate) struct ShownRow {
    /// Of UTC.
    #[schema(required, format = Date)]
    day: Option<String>,
    /// The id of the API key.
    #[schema(required)]
    key: Option<String>,
    /// The slug of the provider that answered, or was asked last.
    #[schema(required)]
    provider: Option<String>,
    /// The public name that clients asked for.
    #[schema(required)]
    model: Option<String>,
    requests: u64,
    /// Of the requests, those that were not answered in full.
    failed: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    /// Of the requests, those whose tokens were estimated.
    estimated: u64,
}

/// What rows are told apart by, in the order in which they are sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    day: Option<Day>,
    key: Option<ApiKeyId>,
    provider: Option<ProviderSlug>,
    model: Option<String>,
}

/// By which of them rows are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GroupBy {
    day: bool,
    key: bool,
    provider: bool,
    model: bool,
}

/// Which rows are wanted.
struct Asked {
    from: Day,
    until: Day,
    key: Option<ApiKeyId>,
    provider: Option<ProviderSlug>,
    model: Option<String>,
    group_by: GroupBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
}

/// Show usage
///
/// Counts of requests and tokens, by day, API key, provider and model. Instances add what they have counted every few
/// seconds. As JSON, or as CSV for `Accept: text/csv` or `format=csv`; a cell that a spreadsheet would take for a formula
/// begins with an apostrophe.
#[utoipa::path(
    get, path = "/admin/usage", tag = "usage",
    params(
        ("from" = Option<String>, Query, format = Date, description = "The first day, of UTC; 29 days before `until` if not given"),
        ("until" = Option<String>, Query, format = Date, description = "The last day; today if not given. At most 366 days in all"),
        ("key" = Option<String>, Query, pattern = "^[0-9A-Za-z]{12}$", description = "Of this API key alone, by its id"),
        ("provider" = Option<String>, Query, description = "Of this provider alone, by its slug"),
        ("model" = Option<String>, Query, description = "Of this model alone"),
        ("groupBy" = Option<String>, Query, description = "What is told apart: any of day, key, provider and model, with commas between; all if not given"),
        ("format" = Option<String>, Query, pattern = "^(json|csv)$", description = "Instead of the header Accept"),
    ),
    responses((
        status = 200,
        description = "The rows, in the order of days, keys, providers and models",
        content((List<ShownRow> = "application/json"), (String = "text/csv")),
    )),
)]
pub(crate) async fn show_usage(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, AdminError> {
    let format = query.read("format", "json or csv", |text| match text {
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        _ => None,
    });
    let asked = Asked::read(query, Day::of_ms(admin.now_ms()))?;
    let rows = asked.rows(&admin).await?;
    let rows: Vec<ShownRow> = rows.into_iter().map(|(group, counts)| ShownRow::new(group, counts)).collect();
    match format.unwrap_or_else(|| accepted(&headers)) {
        Format::Json => Ok(Answer::ok(&List::new(rows, None))?.into_response()),
        Format::Csv => Ok(csv_answer(&rows, asked.from, asked.until)),
    }
}

impl Asked {
    fn read(mut query: Query, today: Day) -> Result<Self, AdminError> {
        const DAY: &str = "a day, such as 2026-11-21";
        let until = query.read("until", DAY, parse_day);
        let from = query.read("from", DAY, parse_day);
        let key = query
            .read("key", "the id of an API key: 12 letters and digits", |text| ApiKeyId::parse(text).ok());
        let provider =
            query.read("provider", "the slug of a provider", |text| ProviderSlug::parse(text).ok());
        let model = query.text("model").map(str::to_owned);
        let group_by = query.read("groupBy", "some of day, key, provider and model", GroupBy::parse);
        query.finish()?;
        let until = until.unwrap_or(today);
        let from = from.unwrap_or(Day(until.0.saturating_sub(DEFAULT_DAYS - 1)));
        if from > until {
            return Err(AdminError::invalid("/from", "must not be later than until"));
        }
        if until.0 - from.0 >= MAX_DAYS {
            return Err(AdminError::invalid("/from", format!("at most {MAX_DAYS} days can be asked for")));
        }
        Ok(Self { from, until, key, provider, model, group_by: group_by.unwrap_or(GroupBy::ALL) })
    }

    async fn rows(&self, admin: &Admin) -> Result<BTreeMap<Group, UsageCounts>, AdminError> {
        let _turn = admin.long_read().await?;
        let mut days = stream::iter(self.from.0..=self.until.0)
            .map(|day| admin.parts.store.usage(Day(day)))
            .buffered(PARALLEL);
        let mut rows: BTreeMap<Group, UsageCounts> = BTreeMap::new();
        while let Some(day) = days.try_next().await? {
            for row in day.into_iter().filter(|row| self.wants(row)) {
                rows.entry(self.group_by.group(&row)).or_default().add(row.counts);
            }
            if rows.len() > MAX_ROWS {
                let message = format!("more than {MAX_ROWS} rows; tell less apart, or ask for fewer days");
                return Err(AdminError::invalid("/groupBy", message));
            }
        }
        Ok(rows)
    }

    fn wants(&self, row: &UsageRow) -> bool {
        self.key.as_ref().is_none_or(|key| *key == row.of.key)
            && self.provider.as_ref().is_none_or(|provider| *provider == row.of.provider)
            && self.model.as_ref().is_none_or(|model| *model == row.of.model)
    }
}

impl GroupBy {
    const ALL: Self = Self { day: true, key: true, provider: true, model: true };

    /// Names with commas between, at least one, none twice.
    fn parse(text: &str) -> Option<Self> {
        let mut group_by = Self { day: false, key: false, provider: false, model: false };
        for name in text.split(',') {
            let member = match name.trim() {
                "day" => &mut group_by.day,
                "key" => &mut group_by.key,
                "provider" => &mut group_by.provider,
                "model" => &mut group_by.model,
                _ => return None,
            };
            if std::mem::replace(member, true) {
                return None;
            }
        }
        Some(group_by)
    }

    fn group(self, row: &UsageRow) -> Group {
        Group {
            day: self.day.then_some(row.of.day),
            key: self.key.then(|| row.of.key.clone()),
            provider: self.provider.then(|| row.of.provider.clone()),
            model: self.model.then(|| row.of.model.clone()),
        }
    }
}

impl ShownRow {
    fn new(group: Group, counts: UsageCounts) -> Self {
        let UsageCounts { requests, failed, prompt_tokens, completion_tokens, estimated } = counts;
        Self {
            day: group.day.map(day_text),
            key: group.key.map(|key| key.to_string()),
            provider: group.provider.map(|provider| provider.to_string()),
            model: group.model,
            requests,
            failed,
            prompt_tokens,
            completion_tokens,
            estimated,
        }
    }
}

/// CSV where it is asked for and JSON is not.
fn accepted(headers: &HeaderMap) -> Format {
    let mut types = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .map(|range| range.trim().to_ascii_lowercase());
    match types.find(|range| range == "text/csv" || range == "application/json") {
        Some(range) if range == "text/csv" => Format::Csv,
        _ => Format::Json,
    }
}

fn csv_answer(rows: &[ShownRow], from: Day, until: Day) -> Response {
    let mut response = csv::table(rows).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    let name = format!("attachment; filename=\"usage-{}-{}.csv\"", day_text(from), day_text(until));
    let name = HeaderValue::from_str(&name).expect("days are digits and hyphens");
    headers.insert(CONTENT_DISPOSITION, name);
    response
}

/// `YYYY-MM-DD` and nothing else. `None` before 1970.
fn parse_day(text: &str) -> Option<Day> {
    let date = Date::parse(text.get(..text.len().min(16))?, &Iso8601::DATE).ok()?;
    let day = u32::try_from(date.to_julian_day() - EPOCH.to_julian_day()).ok().map(Day)?;
    // ISO 8601 has other forms too, such as weeks.
    (day_text(day) == text).then_some(day)
}

fn day_text(day: Day) -> String {
    let date = i32::try_from(day.0).ok().and_then(|days| EPOCH.to_julian_day().checked_add(days));
    // A clock beyond the year 9999 has its own troubles.
    date.and_then(|days| Date::from_julian_day(days).ok()).unwrap_or(Date::MAX).to_string()
}

const EPOCH: Date = time::OffsetDateTime::UNIX_EPOCH.date();

#[cfg(test)]
mod tests;
