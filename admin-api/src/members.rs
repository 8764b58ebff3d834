//! Reads the members of a JSON object and notes everything that is wrong, each with its JSON pointer, where serde would
//! stop at the first.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{AdminError, Detail};
use crate::moment::Moment;

/// One JSON object being read. `None` from a reader means absent, null, or wrong and noted.
pub(crate) struct Members<'a> {
    pointer: String,
    object: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

/// Everything that was wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Details(pub(crate) Vec<Detail>);

impl Details {
    pub(crate) fn add(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.0.push(Detail::new(pointer, message));
    }

    /// `value` if nothing was wrong. A `value` that is missing has its reason noted.
    pub(crate) fn or<T>(self, value: T) -> Result<T, AdminError> {
        if self.0.is_empty() { Ok(value) } else { Err(AdminError::Invalid(self.0)) }
    }
}

impl<'a> Members<'a> {
    /// `None`, and a note, if `value` is not an object. `pointer` is empty for the whole body.
    pub(crate) fn of(value: &'a Value, pointer: String, details: &mut Details) -> Option<Self> {
        if let Value::Object(object) = value {
            Some(Self { pointer, object, known: Vec::new() })
        } else {
            details.add(pointer, format!("must be an object, not {}", kind(value)));
            None
        }
    }

    pub(crate) fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1"))
    }

    /// The member, whatever it is; `None` if it is absent or null.
    pub(crate) fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        details: &mut Details,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(name)?;
        let typed = read(value);
        if typed.is_none() {
            details.add(self.pointer(name), format!("must be {wanted}, not {}", kind(value)));
        }
        typed
    }

    /// Of whatever length: the rules of the catalog say what may be in it.
    pub(crate) fn string(&mut self, name: &'static str, details: &mut Details) -> Option<&'a str> {
        self.typed(name, "a string", details, Value::as_str)
    }

    pub(crate) fn boolean(&mut self, name: &'static str, details: &mut Details) -> Option<bool> {
        self.typed(name, "true or false", details, Value::as_bool)
    }

    pub(crate) fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        details: &mut Details,
    ) -> Option<u64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.typed(name, &wanted, details, |value| whole(value).filter(|number| range.contains(number)))
    }

    pub(crate) fn moment(&mut self, name: &'static str, details: &mut Details) -> Option<Moment> {
        self.typed(name, "a time as in RFC 3339, such as 2026-11-21T10:52:07Z", details, |value| {
            value.as_str().and_then(Moment::parse)
        })
    }

    pub(crate) fn list(&mut self, name: &'static str, details: &mut Details) -> Option<&'a [Value]> {
        self.typed(name, "a list", details, |value| value.as_array().map(Vec::as_slice))
    }

    pub(crate) fn object(&mut self, name: &'static str, details: &mut Details) -> Option<Members<'a>> {
        let value = self.value(name)?;
        Self::of(value, self.pointer(name), details)
    }

    /// Notes that a member is missing.
    pub(crate) fn require(&self, name: &str, details: &mut Details) {
        details.add(self.pointer(name), "is required");
    }

    /// Notes the members that nobody asked for. Call it last.
    pub(crate) fn refuse_unknown(&self, details: &mut Details) {
        let unknown = self.object.keys().filter(|name| !self.known.contains(&name.as_str()));
        for name in unknown.take(MAX_UNKNOWN) {
            // The name is somebody's input: cut where no real one reaches, and cleared of control characters.
            let name: String = name.chars().take(64).filter(|c| !c.is_control()).collect();
            details.add(self.pointer(&name), format!("unknown key; known are {}", self.known.join(", ")));
        }
    }
}

/// Of one object, this many are named: whoever sends a million has another problem.
const MAX_UNKNOWN: usize = 20;

/// JSON Schema's integers: `2.0` is one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole, not negative and exact in an f64"
)]
fn whole(value: &Value) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let whole = |number: &f64| (0.0..EXACT).contains(number) && number.fract() == 0.0;
    value.as_u64().or_else(|| value.as_f64().filter(whole).map(|number| number as u64))
}

/// What a value is, for messages: never its content, which may be a secret in the wrong place.
pub(crate) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "this string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// RFC 7396, but for members that are set to null: they stay as null, which the readers above take for absent, so that a
/// mistyped name is found there too.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (name, change) in changes {
        merge(members.entry(name.as_str()).or_insert(Value::Null), change);
    }
}

/// `requests_per_minute`, as the catalog has it, as `requestsPerMinute`.
pub(crate) fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut raise = false;
    for c in name.chars() {
        if c == '_' {
            raise = true;
        } else {
            camel.push(if raise { c.to_ascii_uppercase() } else { c });
            raise = false;
        }
    }
    camel
}
