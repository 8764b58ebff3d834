//! Bodies of requests: JSON, bounded, read strictly.

use std::fmt;

use axum::body::Body as AxumBody;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::AdminError;

/// Longest body of a request.
/// For a whole body: who is slower holds a place that others need.
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
pub(crate) const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The body of a request as JSON; an extractor. A `PATCH` may also send it as a merge patch (RFC 7396).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Body(pub(crate) Value);

/// The same where a request may have no body: an empty object then.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OptionalBody(pub(crate) Value);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = AdminError;

    async fn from_request(request: Request, _: &S) -> Result<Self, AdminError> {
        let (parts, body) = request.into_parts();
        check_content_type(&parts.method, &parts.headers)?;
        parse(&read(body).await?).map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for OptionalBody {
    type Rejection = AdminError;

    async fn from_request(request: Request, _: &S) -> Result<Self, AdminError> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return Ok(Self(Value::Object(Map::new())));
        }
        check_content_type(&parts.method, &parts.headers)?;
        parse(&bytes).map(Self)
    }
}

/// All of a body, if it is not too long.
pub(crate) async fn read(body: AxumBody) -> Result<Bytes, AdminError> {
    let reading = Limited::new(body, MAX_BODY_BYTES).collect();
    let Ok(read) = tokio::time::timeout(BODY_TIMEOUT, reading).await else {
        return Err(AdminError::InvalidJson("it took too long to arrive".to_owned()));
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(AdminError::TooLarge { max_bytes: MAX_BODY_BYTES })
        }
        Err(_) => Err(AdminError::InvalidJson("it ended early".to_owned())),
    }
}

fn check_content_type(method: &Method, headers: &HeaderMap) -> Result<(), AdminError> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    let is_patch = method == Method::PATCH;
    if essence.eq_ignore_ascii_case("application/json")
        || is_patch && essence.eq_ignore_ascii_case("application/merge-patch+json")
    {
        return Ok(());
    }
    let taken = if is_patch { "application/merge-patch+json" } else { "application/json" };
    Err(AdminError::UnsupportedMediaType(taken))
}

/// JSON in which no object has a member twice: which of the two was meant would be a guess.
fn parse(bytes: &[u8]) -> Result<Value, AdminError> {
    let invalid = |error: serde_json::Error| AdminError::InvalidJson(error.to_string());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Unique.deserialize(&mut deserializer).map_err(invalid)?;
    deserializer.end().map_err(invalid)?;
    Ok(value)
}

struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            let value = object.next_value_seed(Self)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("an object has the same member twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests;
