//! The rules for text that people write and read.

use std::ops::RangeInclusive;

use crate::Violations;

/// `length` in characters. Text goes to logs, terminals and listings: no control characters, and no white space at
/// its ends, which nobody can see.
pub(crate) fn check_text(violations: &mut Violations, path: &str, text: &str, length: RangeInclusive<usize>) {
    let characters = text.chars().count();
    if characters == 0 && *length.start() > 0 {
        violations.add(path, "must not be empty");
    } else if !length.contains(&characters) {
        violations.add(path, format!("has {characters} characters; at most {} are allowed", length.end()));
    } else if text.chars().any(char::is_control) {
        violations.add(path, "must not contain control characters");
    } else if text.trim() != text {
        violations.add(path, "must not begin or end with white space");
    }
}
