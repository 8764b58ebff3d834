//! Log lines: one JSON object per event, in the form of the native host's.

use std::fmt;
use std::io::Write as _;
use std::str::FromStr as _;
use std::sync::Arc;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use gateway::Host;
use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Crates of ours, whose debug events are known to have no secret in them. Others are heard from warnings on.
const OURS: [&str; 6] = ["catalog", "edge_", "gateway", "openai_wire", "runner_api", "store"];

/// Starts logging, once per instance; a second call changes nothing. `level` is the text of
/// [`LOG`](crate::variables::LOG); what it does not say, or says wrongly, is `info`. `write` gets a line without its end.
pub fn start_log(level: Option<&str>, host: Arc<dyn Host>, write: fn(Level, &str)) {
    let level = level.and_then(parse_level).unwrap_or(LevelFilter::INFO);
    // An error means that there is a log already.
    let _ = tracing::subscriber::set_global_default(JsonLines { level, host, write });
}

/// `error`, `warn`, `info` or `debug`: what lies below is of no use in production, and may show too much.
pub(crate) fn parse_level(text: &str) -> Option<LevelFilter> {
    LevelFilter::from_str(text).ok().filter(|level| (LevelFilter::ERROR..=LevelFilter::DEBUG).contains(level))
}

/// Spans are of nobody's interest here, and cost nothing.
struct JsonLines {
    level: LevelFilter,
    host: Arc<dyn Host>,
    write: fn(Level, &str),
}

impl Subscriber for JsonLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_ours = OURS.iter().any(|name| metadata.target().starts_with(name));
        let level = if is_ours { self.level } else { self.level.min(LevelFilter::WARN) };
        metadata.is_event() && *metadata.level() <= level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let now = DateTime::from_millis(i64::try_from(self.host.unix_ms()).unwrap_or(i64::MAX));
        // An error means that a field could not be written: a line that is cut off is of no use to a JSON reader.
        if let Ok(line) = line(event, now) {
            (self.write)(*event.metadata().level(), &line);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn line(event: &Event<'_>, now: DateTime) -> Result<String, Box<dyn std::error::Error>> {
    let mut out = Vec::with_capacity(256);
    let mut json = serde_json::Serializer::new(&mut out);
    let mut map = json.serialize_map(None)?;
    map.serialize_entry("timestamp", &now.fmt(Format::DateTime)?)?;
    map.serialize_entry("level", event.metadata().level().as_str())?;
    let mut fields = Fields { map: &mut map, failed: None };
    event.record(&mut fields);
    if let Some(error) = fields.failed {
        return Err(error.into());
    }
    map.end()?;
    out.flush()?;
    Ok(String::from_utf8(out)?)
}

struct Fields<'a, M: serde::ser::SerializeMap> {
    map: &'a mut M,
    failed: Option<M::Error>,
}

impl<M: serde::ser::SerializeMap> Fields<'_, M> {
    fn add(&mut self, field: &Field, value: &(impl serde::Serialize + ?Sized)) {
        if let Err(error) = self.map.serialize_entry(field.name(), value) {
            self.failed = Some(error);
        }
    }
}

impl<M: serde::ser::SerializeMap> Visit for Fields<'_, M> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.add(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn levels_are_those_that_production_may_use() {
        assert_eq!(parse_level("debug"), Some(LevelFilter::DEBUG));
        assert_eq!(parse_level("WARN"), Some(LevelFilter::WARN));
        assert_eq!(parse_level("trace"), None);
        assert_eq!(parse_level("off"), None);
        assert_eq!(parse_level("loud"), None);
    }

    #[test]
    fn an_event_is_one_line_of_json() {
        static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let log = JsonLines {
            level: LevelFilter::INFO,
            host: Arc::new(crate::testing::StillHost),
            write: |_, line| LINES.lock().unwrap().push(line.to_owned()),
        };
        tracing::subscriber::with_default(log, || {
            let error = std::io::Error::other("a \"quoted\"\nreason");
            tracing::info!(
                target: "gateway",
                model = "m",
                stream = true,
                tokens = 7_u64,
                nothing = None::<&str>,
                %error,
                "chat_completion"
            );
            tracing::debug!(target: "gateway", "too quiet");
            tracing::info!(target: "aws_smithy_runtime", "not ours");
            tracing::warn!(target: "aws_smithy_runtime", "heard");
        });
        let lines = LINES.lock().unwrap();
        assert_eq!(
            *lines,
            [
                r#"{"timestamp":"1970-01-01T00:00:01.5Z","level":"INFO","message":"chat_completion","model":"m","stream":true,"tokens":7,"error":"a \"quoted\"\nreason"}"#,
                r#"{"timestamp":"1970-01-01T00:00:01.5Z","level":"WARN","message":"heard"}"#,
            ]
        );
    }
}
