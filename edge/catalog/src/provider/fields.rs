//! Reads the members of a JSON object and notes every one that is wrong, where serde would stop at the first.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::Violations;
use crate::text::check_text;
use crate::violation::join;

/// One JSON object being read. `None` from a reader means absent, null, or wrong and noted.
pub(super) struct Fields<'a> {
    path: String,
    members: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// `None`, and a violation, if `value` is not an object.
    pub(super) fn of(value: &'a Value, path: String, violations: &mut Violations) -> Option<Self> {
        if let Value::Object(members) = value {
            Some(Self { path, members, known: Vec::new() })
        } else {
            violations.add(path, format!("must be an object, not {}", kind(value)));
            None
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        join(&self.path, name)
    }

    pub(super) fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// A member of type `T`, as `read` extracts it; `wanted` describes it.
    fn typed<T>(
        &mut self,
        name: &'static str,
        wanted: impl Display,
        violations: &mut Violations,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(name)?;
        let typed = read(value);
        if typed.is_none() {
            violations.add(self.path(name), format!("must be {wanted}, not {}", kind(value)));
        }
        typed
    }

    pub(super) fn string(&mut self, name: &'static str, violations: &mut Violations) -> Option<&'a str> {
        self.typed(name, "a string", violations, Value::as_str)
    }

    /// A string that satisfies [`check_text`].
    pub(super) fn text(
        &mut self,
        name: &'static str,
        length: RangeInclusive<usize>,
        violations: &mut Violations,
    ) -> Option<&'a str> {
        let text = self.string(name, violations)?;
        check_text(violations, &self.path(name), text, length);
        Some(text)
    }

    pub(super) fn boolean(&mut self, name: &'static str, violations: &mut Violations) -> Option<bool> {
        self.typed(name, "true or false", violations, Value::as_bool)
    }

    pub(super) fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        violations: &mut Violations,
    ) -> Option<u64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.typed(name, wanted, violations, |value| whole(value).filter(|number| range.contains(number)))
    }

    pub(super) fn number_u32(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u32>,
        violations: &mut Violations,
    ) -> Option<u32> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.number(name, range, violations).and_then(|number| u32::try_from(number).ok())
    }

    /// At most `max` elements; a longer list is noted and not read.
    pub(super) fn list(
        &mut self,
        name: &'static str,
        max: usize,
        violations: &mut Violations,
    ) -> Option<&'a [Value]> {
        let list = self.typed(name, "a list", violations, Value::as_array)?;
        if list.len() > max {
            violations.add(self.path(name), format!("has {} entries; at most {max} are allowed", list.len()));
            return None;
        }
        Some(list)
    }

    /// Members whose names are whoever wrote them's choice, at most `max`; more are noted and not read.
    pub(super) fn map(
        &mut self,
        name: &'static str,
        max: usize,
        violations: &mut Violations,
    ) -> Option<&'a Map<String, Value>> {
        let map = self.typed(name, "an object", violations, Value::as_object)?;
        if map.len() > max {
            violations.add(self.path(name), format!("has {} members; at most {max} are allowed", map.len()));
            return None;
        }
        Some(map)
    }

    pub(super) fn object(&mut self, name: &'static str, violations: &mut Violations) -> Option<Fields<'a>> {
        let value = self.value(name)?;
        Fields::of(value, self.path(name), violations)
    }

    /// Notes the members that nobody asked for. Call it last.
    pub(super) fn refuse_unknown(&self, violations: &mut Violations) {
        for name in self.members.keys().filter(|name| !self.known.contains(&name.as_str())) {
            // The name is somebody's input: escaped, and cut where no real key reaches.
            let name: String = name.chars().take(64).flat_map(char::escape_debug).collect();
            violations.add(self.path(&name), format!("unknown key; known are {}", self.known.join(", ")));
        }
    }
}

/// `2.0` is a whole number to JSON Schema, and to many who write JSON.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole, not negative and exact in an f64"
)]
fn whole(value: &Value) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let is_whole = |number: &f64| (0.0..=EXACT).contains(number) && number.fract() == 0.0;
    value.as_u64().or_else(|| value.as_f64().filter(is_whole).map(|number| number as u64))
}

/// What a value is, for messages: never its content, which may be a secret in the wrong place.
pub(super) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
