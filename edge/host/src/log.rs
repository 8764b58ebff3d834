//! The log of an edge: each event as one JSON object on a line, where the platform takes its lines.

use std::error::Error;
use std::fmt;

use serde::Serializer as _;
use serde::ser::SerializeMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Whose lines they are, what time it is, and where they go.
#[derive(Clone, Copy, Debug)]
pub struct JsonLog {
    /// Which host writes: lines of several may end in one place.
    pub host: &'static str,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: fn() -> u64,
    /// Gets one line at a time, without an end of line.
    pub write: fn(&Level, &str),
}

impl JsonLog {
    /// Takes all events from now on, of level `INFO` and above. Where events are taken already, nothing changes.
    pub fn start(self) {
        let _ = tracing::subscriber::set_global_default(self);
    }

    /// `{"timestamp", "level", "host", "message", …}`: as the native host's log has them, and the host.
    fn line(&self, event: &Event<'_>) -> Result<String, serde_json::Error> {
        let mut line = Vec::with_capacity(256);
        let mut serializer = serde_json::Serializer::new(&mut line);
        let mut map = serializer.serialize_map(None)?;
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from((self.unix_ms)()) * 1_000_000);
        if let Some(time) = time.ok().and_then(|time| time.format(&Rfc3339).ok()) {
            map.serialize_entry("timestamp", &time)?;
        }
        map.serialize_entry("level", event.metadata().level().as_str())?;
        map.serialize_entry("host", self.host)?;
        let mut members = Members { map, failure: None };
        event.record(&mut members);
        if let Some(error) = members.failure {
            return Err(error);
        }
        members.map.end()?;
        Ok(String::from_utf8(line).unwrap_or_default())
    }
}

impl Subscriber for JsonLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What is neither asks, with `tracing::enabled!`, whether an event would be taken.
        !metadata.is_span() && *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        // A line that cannot be made is one that nobody misses less for a second one about it.
        if let Ok(line) = self.line(event) {
            (self.write)(event.metadata().level(), &line);
        }
    }

    // Spans are not enabled.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// An event's fields as members of an object.
struct Members<M: SerializeMap> {
    map: M,
    failure: Option<M::Error>,
}

impl<M: SerializeMap> Members<M> {
    fn add(&mut self, field: &Field, value: &(impl serde::Serialize + ?Sized)) {
        if let Err(error) = self.map.serialize_entry(field.name(), value) {
            self.failure = Some(error);
        }
    }
}

impl<M: SerializeMap> Visit for Members<M> {
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

    /// With its causes.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        self.add(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use serde_json::{Value, json};

    use super::*;

    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    #[derive(Debug, thiserror::Error)]
    #[error("the outer one")]
    struct Outer(#[source] std::fmt::Error);

    #[test]
    fn an_event_is_a_line_of_json() {
        let log = JsonLog {
            host: "worker",
            unix_ms: || 1_700_000_000_123,
            write: |_, line| LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned()),
        };
        tracing::subscriber::with_default(log, || {
            let error = Outer(std::fmt::Error);
            assert!(tracing::enabled!(Level::INFO) && !tracing::enabled!(Level::DEBUG));
            tracing::debug!("not for the log");
            tracing::info_span!("no line either").in_scope(|| {
                tracing::warn!(
                    key = "quoted \"\n",
                    count = 3,
                    done = true,
                    nothing = None::<u64>,
                    error = &error as &dyn Error,
                    "said {}",
                    "so"
                );
            });
        });
        let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(lines.len(), 1);
        assert!(!lines[0].contains('\n'));
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        let expected = json!({
            "timestamp": "2023-11-14T22:13:20.123Z",
            "level": "WARN",
            "host": "worker",
            "message": "said so",
            "key": "quoted \"\n",
            "count": 3,
            "done": true,
            "error": format!("the outer one: {}", std::fmt::Error),
        });
        assert_eq!(line, expected);
    }
}
