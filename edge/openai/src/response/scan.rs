//! What the scanners of responses have in common.

use std::ops::Range;

use crate::{
    json::{Cursor, JsonError, Kind},
    usage::Usage,
};

/// The set of members of one object that occurred and are wanted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(u8);

impl Seen {
    /// Adds a member, a single bit; `false` if it is there already.
    #[inline]
    pub(super) fn add(&mut self, member: u8) -> bool {
        let is_new = self.0 & member == 0;
        self.0 |= member;
        is_new
    }

    pub(super) fn has_any(self, members: u8) -> bool {
        self.0 & members != 0
    }

    #[inline]
    pub(super) fn has_all(self, members: u8) -> bool {
        self.0 & members == members
    }
}

/// The bytes of a string value with quotes, or none after skipping a value of another kind.
#[inline]
pub(super) fn string<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Str<'a>>, JsonError> {
    if cursor.peek()? != Kind::String {
        cursor.skip_value()?;
        return Ok(None);
    }
    let string = cursor.string()?;
    Ok(Some(Str { raw: cursor.raw(string), span: string.span() }))
}

/// A string value: the bytes between its quotes with escapes unresolved, and where it is, quotes included.
pub(super) struct Str<'a> {
    pub(super) raw: &'a str,
    pub(super) span: Range<usize>,
}

/// Whether the value is this string, spelt without escapes.
#[inline]
pub(super) fn is_string(cursor: &mut Cursor<'_>, expected: &str) -> Result<bool, JsonError> {
    Ok(string(cursor)?.is_some_and(|string| string.raw == expected))
}

/// A non-negative integer written as digits, or none after skipping any other value.
#[inline]
pub(super) fn unsigned(cursor: &mut Cursor<'_>) -> Result<Option<u64>, JsonError> {
    if cursor.peek()? != Kind::Number {
        cursor.skip_value()?;
        return Ok(None);
    }
    let digits = cursor.number()?;
    Ok(cursor.text()[digits].parse().ok())
}

/// Whether the value is `null`.
#[inline]
pub(super) fn is_null(cursor: &mut Cursor<'_>) -> Result<bool, JsonError> {
    let is_null = cursor.peek()? == Kind::Null;
    cursor.skip_value()?;
    Ok(is_null)
}

/// A `finish_reason`: whether it is one of OpenAI's, and whether it is null.
pub(super) enum FinishReason {
    Null,
    Known,
    Unknown,
}

#[inline]
pub(super) fn finish_reason(cursor: &mut Cursor<'_>) -> Result<FinishReason, JsonError> {
    if cursor.peek()? == Kind::Null {
        cursor.null()?;
        return Ok(FinishReason::Null);
    }
    let reason = string(cursor)?.map(|reason| reason.raw);
    Ok(match reason {
        Some("stop" | "length" | "tool_calls" | "content_filter" | "function_call") => FinishReason::Known,
        _ => FinishReason::Unknown,
    })
}

/// The member `usage`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct UsageMember {
    /// Of an object.
    pub(super) value: Option<(Range<usize>, Usage)>,
    /// Where a `null` is.
    pub(super) null: Option<Range<usize>>,
}

impl UsageMember {
    /// Tells whether it is absent, null or an object with integers for all of `counts`.
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>, counts: &[&str]) -> Result<bool, JsonError> {
        let kind = cursor.peek()?;
        let start = cursor.offset();
        if kind != Kind::Object {
            let span = cursor.skip_value()?;
            let is_null = kind == Kind::Null;
            self.null = is_null.then_some(span);
            return Ok(is_null);
        }
        let mut seen = Seen::default();
        let mut is_regular = true;
        cursor.enter_object()?;
        while let Some(key) = cursor.next_key()? {
            if let Some(index) = counts.iter().position(|count| *count == cursor.raw(key)) {
                is_regular &= seen.add(1 << index) & unsigned(cursor)?.is_some();
            } else {
                is_regular &= !key.has_escapes();
                cursor.skip_value()?;
            }
        }
        let span = start..cursor.offset();
        // Duplicates are the one thing that it refuses; the shape is irregular then anyway.
        let usage = serde_json::from_str(&cursor.text()[span.clone()]).unwrap_or_default();
        self.value = Some((span, usage));
        Ok(is_regular && seen.has_all((1 << counts.len()) - 1))
    }
}

/// `usage` of chat completions.
pub(super) const CHAT_COUNTS: &[&str] = &["prompt_tokens", "completion_tokens", "total_tokens"];
