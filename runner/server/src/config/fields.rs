//! Reads the members of a TOML table and notes every one that is wrong, where serde would stop at the first.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use super::{Violation, units};

/// Longest string, list aside.
const MAX_TEXT_BYTES: usize = 4096;

/// One table that is being read. `None` from a reader means absent, or wrong and noted.
pub(super) struct Fields<'a> {
    path: String,
    table: &'a Table,
    /// Where relative paths count from.
    folder: &'a Path,
    known: Vec<&'static str>,
    /// Whether the operator chooses the names.
    open: bool,
    violations: &'a mut Vec<Violation>,
}

impl<'a> Fields<'a> {
    /// Reads a whole file, unknown keys included.
    pub(super) fn read<T>(
        table: &'a Table,
        folder: &'a Path,
        violations: &'a mut Vec<Violation>,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> T {
        let mut fields =
            Self { path: String::new(), table, folder, known: Vec::new(), open: false, violations };
        let value = read(&mut fields);
        fields.refuse_unknown();
        value
    }

    /// Notes a violation of the member `name`, or of what is below it; of the table as a whole if `name` is empty.
    pub(super) fn violation(&mut self, name: &str, message: impl Into<String>) {
        let path = self.path_of(name);
        self.violations.push(Violation { path, message: message.into() });
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Counts a member as known whose place is not here, for a message that says more than that it is unknown.
    pub(super) fn misplaced(&mut self, name: &'static str, message: &str) {
        if self.value(name).is_some() {
            self.violation(name, message);
        }
    }

    pub(super) fn is_table(&self, name: &str) -> bool {
        self.table.get(name).is_some_and(Value::is_table)
    }

    /// The names of all members, of a table in which the operator chooses them.
    pub(super) fn names(&mut self) -> impl Iterator<Item = &'a String> + use<'a> {
        self.open = true;
        self.table.keys()
    }

    fn path_of(&self, name: &str) -> String {
        let parent = &self.path;
        if parent.is_empty() || name.is_empty() {
            format!("{parent}{name}")
        } else {
            format!("{parent}.{name}")
        }
    }

    fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.table.get(name)
    }

    /// A member as `parse` reads it; its error says what the member must be.
    pub(super) fn parsed<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&'a Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(name)?;
        parse(value).map_err(|message| self.violation(name, message)).ok()
    }

    /// The same for a member that must be there; `missing` says what it is.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        missing: &str,
        parse: impl FnOnce(&'a Value) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(name) {
            self.violation(name, format!("is missing: {missing}"));
        }
        self.parsed(name, parse)
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.parsed(name, |value| {
            value.as_bool().ok_or_else(|| format!("must be true or false, not {}", kind(value)))
        })
    }

    pub(super) fn number(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.parsed(name, |value| {
            let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
            number
                .filter(|number| range.contains(number))
                .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
        })
    }

    pub(super) fn count(&mut self, name: &'static str, range: RangeInclusive<u32>) -> Option<usize> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.number(name, range).and_then(|number| usize::try_from(number).ok())
    }

    /// A number of bytes, such as `512MiB`.
    pub(super) fn size(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.parsed(name, |value| {
            let size = units::size(text(value).map_err(|_| units::SIZE_RULE.to_owned())?)?;
            if range.contains(&size) {
                return Ok(size);
            }
            let (least, most) = (units::show_size(*range.start()), units::show_size(*range.end()));
            Err(format!("must be from {least} to {most}"))
        })
    }

    /// A duration, such as `90s`.
    pub(super) fn duration(
        &mut self,
        name: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        self.parsed(name, |value| {
            let duration = units::duration(text(value).map_err(|_| units::DURATION_RULE.to_owned())?)?;
            if range.contains(&duration) {
                return Ok(duration);
            }
            let (least, most) = (units::show_duration(*range.start()), units::show_duration(*range.end()));
            Err(format!("must be from {least} to {most}"))
        })
    }

    /// A path, made absolute.
    pub(super) fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        let folder = self.folder;
        self.parsed(name, |value| path(value, folder))
    }

    pub(super) fn required_path(&mut self, name: &'static str, missing: &str) -> Option<PathBuf> {
        let folder = self.folder;
        self.required(name, missing, |value| path(value, folder))
    }

    pub(super) fn folder(&self) -> &'a Path {
        self.folder
    }

    pub(super) fn address(&mut self, name: &'static str) -> Option<SocketAddr> {
        self.parsed(name, |value| {
            let address = value.as_str().and_then(|text| text.parse().ok());
            address.ok_or_else(|| "must be an IP address and a port, such as \"127.0.0.1:7443\"".to_owned())
        })
    }

    /// One of some words. The first of a pair is what the file says.
    pub(super) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.parsed(name, |value| {
            let word = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
            word.map(|(_, meaning)| *meaning).ok_or_else(|| {
                let all = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>();
                format!("must be one of {}", all.join(", "))
            })
        })
    }

    /// A list, each element as `parse` reads it.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        max: usize,
        parse: impl Fn(&'a Value) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let elements = self.elements(name, max, "a list")?.iter().enumerate();
        let parsed: Vec<Option<T>> = elements
            .map(|(index, element)| {
                let noted = |message| self.violation(&format!("{name}[{index}]"), message);
                parse(element).map_err(noted).ok()
            })
            .collect();
        parsed.into_iter().collect()
    }

    fn elements(&mut self, name: &'static str, max: usize, wanted: &str) -> Option<&'a [Value]> {
        self.parsed(name, |value| {
            let list = value.as_array().ok_or_else(|| format!("must be {wanted}, not {}", kind(value)))?;
            if list.len() > max {
                return Err(format!("has {} entries; at most {max} are allowed", list.len()));
            }
            Ok(list.as_slice())
        })
    }

    /// A table below this one.
    pub(super) fn table<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        let value = self.value(name)?;
        self.below(name, value, read)
    }

    /// The same; where the table is absent, all its members are.
    pub(super) fn table_or_empty<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        match self.value(name) {
            Some(value) => self.below(name, value, read),
            None => self.below(name, &Value::Table(Table::new()), read),
        }
    }

    pub(super) fn required_table<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        if !self.has(name) {
            self.violation(name, format!("is missing: the table [{name}]"));
        }
        self.table(name, read)
    }

    /// A table whose name the operator has chosen, of [`Self::names`].
    pub(super) fn named_table<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        let value = self.table.get(name)?;
        self.below(name, value, read)
    }

    /// A member whose name the operator has chosen, of [`Self::names`].
    pub(super) fn named<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&'a Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.table.get(name)?;
        parse(value).map_err(|message| self.violation(name, message)).ok()
    }

    /// A list of tables; `None` in the place of those that are wrong.
    pub(super) fn tables<T>(
        &mut self,
        name: &'static str,
        max: usize,
        read: impl Fn(&mut Fields<'_>) -> Option<T>,
    ) -> Vec<Option<T>> {
        let wanted = format!("a list of tables, each written as [[{}]]", self.path_of(name));
        let elements = self.elements(name, max, &wanted).unwrap_or_default();
        let tables = elements.iter().enumerate();
        tables
            .map(|(index, element)| self.below(&format!("{name}[{index}]"), element, &read).flatten())
            .collect()
    }

    fn below<T>(&mut self, name: &str, value: &Value, read: impl FnOnce(&mut Fields<'_>) -> T) -> Option<T> {
        let Value::Table(table) = value else {
            self.violation(name, format!("must be a table, not {}", kind(value)));
            return None;
        };
        let path = self.path_of(name);
        let violations = &mut *self.violations;
        let mut fields =
            Fields { path, table, folder: self.folder, known: Vec::new(), open: false, violations };
        let value = read(&mut fields);
        fields.refuse_unknown();
        Some(value)
    }

    /// Notes the members that nobody asked for.
    fn refuse_unknown(&mut self) {
        if self.open {
            return;
        }
        let table = self.table;
        for name in table.keys() {
            if !self.known.contains(&name.as_str()) {
                let message = format!("is not a setting; there are {}", self.known.join(", "));
                self.violation(&shown(name), message);
            }
        }
    }
}

/// A name of the file's for messages: escaped, and cut where no real name reaches.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

/// A string without control characters, for [`Fields::parsed`].
pub(super) fn text(value: &Value) -> Result<&str, String> {
    let text = value.as_str().ok_or_else(|| format!("must be a string, not {}", kind(value)))?;
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("must have at most {MAX_TEXT_BYTES} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not have control characters".to_owned());
    }
    Ok(text)
}

fn path(value: &Value, folder: &Path) -> Result<PathBuf, String> {
    text(value).map(|path| folder.join(path))
}

/// What a value is, for messages: never its content, which may be a secret in the wrong place.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}
