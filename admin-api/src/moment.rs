//! Times on the wire: RFC 3339 in UTC with milliseconds.

use std::num::NonZero;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, Iso8601, TimePrecision};
use time::{OffsetDateTime, UtcOffset};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

const MILLISECONDS: EncodedConfig =
    Config::DEFAULT.set_time_precision(TimePrecision::Second { decimal_digits: NonZero::new(3) }).encode();

/// A moment, in milliseconds since the Unix epoch; on the wire `2026-11-21T10:52:07.123Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// Any offset is taken, any precision cut to milliseconds. `None` if it is no time of RFC 3339, or one before 1970.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // 64 bytes is more than any time needs.
        let at = OffsetDateTime::parse(text.get(..text.len().min(64))?, &Rfc3339).ok()?;
        u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = i128::from(self.0) * 1_000_000;
        let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
        let text = at.and_then(|at| at.to_offset(UtcOffset::UTC).format(&Iso8601::<MILLISECONDS>).ok());
        // A clock beyond the year 9999 has its own troubles.
        f.write_str(text.as_deref().unwrap_or("9999-12-31T23:59:59.999Z"))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("is no time as in RFC 3339"))
    }
}

impl ToSchema for Moment {}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339, in UTC with milliseconds"))
            .examples([serde_json::json!("2026-11-21T10:52:07.123Z")])
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_both_ways() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2026-11-21T10:52:07.123Z", 1_795_258_327_123),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(Moment::parse(text), Some(Moment(ms)));
            assert_eq!(Moment(ms).to_string(), text);
        }
        assert_eq!(Moment::parse("2026-11-21T12:52:07.123999+02:00"), Some(Moment(1_795_258_327_123)));
        assert_eq!(Moment(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        let bad =
            ["", "2026-11-21", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z", "é", &"2".repeat(1 << 20)];
        assert!(bad.iter().all(|text| Moment::parse(text).is_none()));
    }
}
