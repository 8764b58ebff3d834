//! Bytes → lines, and a line → JSON.

use std::borrow::Cow;

use serde_json::Value;

/// The longest line that is kept whole. CLIs print a whole answer, and some the whole prompt, as one line.
pub(crate) const MAX_LINE_BYTES: usize = 4 << 20;

/// So much of the beginning of a longer line is kept.
const HEAD_BYTES: usize = 1 << 10;

/// A line of output, without its line feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Whole(&'a [u8]),
    /// The first bytes of a line that is longer than the limit.
    TooLong(&'a [u8]),
}

/// Splits a stream into lines, however it comes cut. Keeps no more than one line.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    /// The beginning of a line that has not ended yet.
    partial: Vec<u8>,
    too_long: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self::new(MAX_LINE_BYTES)
    }
}

impl Lines {
    /// `limit`: the longest line in bytes, its line feed not counted.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, partial: Vec::new(), too_long: false }
    }

    /// Calls `each` with every line that ends in `bytes`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.partial.is_empty() && line.len() <= self.limit {
                each(Line::Whole(line));
            } else {
                self.keep(line);
                self.take(&mut each);
            }
            bytes = rest;
        }
        self.keep(bytes);
    }

    /// The stream has ended: what is left is a line too.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(Line<'_>)) {
        if !self.partial.is_empty() {
            self.take(&mut each);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.too_long {
            return;
        }
        if self.partial.len() + bytes.len() <= self.limit {
            self.partial.extend_from_slice(bytes);
            return;
        }
        self.too_long = true;
        let head = HEAD_BYTES.min(self.limit);
        let missing = head.saturating_sub(self.partial.len()).min(bytes.len());
        self.partial.extend_from_slice(&bytes[..missing]);
        self.partial.truncate(head);
        self.partial.shrink_to_fit();
    }

    fn take(&mut self, each: &mut impl FnMut(Line<'_>)) {
        let line = std::mem::take(&mut self.partial);
        let too_long = std::mem::take(&mut self.too_long);
        each(if too_long { Line::TooLong(&line) } else { Line::Whole(&line) });
    }
}

/// A line's JSON object; None for anything else. Forgives what CLIs are known to do to strings: bytes that are not
/// UTF-8, and halves of surrogate pairs, become U+FFFD.
pub(crate) fn parse_object(line: &[u8]) -> Option<Value> {
    let line = line.trim_ascii();
    if line.first() != Some(&b'{') {
        return None;
    }
    let text = String::from_utf8_lossy(line);
    let parsed = serde_json::from_str(&text)
        .or_else(|_| serde_json::from_str(&whole_surrogates(&text)))
        .unwrap_or(Value::Null);
    parsed.is_object().then_some(parsed)
}

/// `JSON.stringify` writes half of a surrogate pair as an escape that no UTF-8 string can hold.
fn whole_surrogates(json: &str) -> Cow<'_, str> {
    const ESCAPE: usize = "\\uXXXX".len();
    let unit = |at: usize| {
        let digits = json.get(at..at + ESCAPE)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(next) = json[at..].find('\\') {
        at += next;
        at += match (unit(at), unit(at + ESCAPE)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 2 * ESCAPE,
            (Some(0xD800..=0xDFFF), _) => {
                out.push_str(&json[copied..at]);
                out.push_str("\\ufffd");
                copied = at + ESCAPE;
                ESCAPE
            }
            (Some(_), _) => ESCAPE,
            // A backslash and what it escapes, which a broken text may lack.
            (None, _) => 1 + json[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn split(pieces: &[&[u8]], limit: usize) -> Vec<(bool, Vec<u8>)> {
        let mut lines = Lines::new(limit);
        let mut out = Vec::new();
        let mut each = |line: Line<'_>| match line {
            Line::Whole(line) => out.push((true, line.to_vec())),
            Line::TooLong(head) => out.push((false, head.to_vec())),
        };
        for piece in pieces {
            lines.push(piece, &mut each);
        }
        lines.finish(&mut each);
        out
    }

    #[test]
    fn every_line_comes_once_wherever_it_is_cut() {
        let stream = b"one\n\ntwo\r\nabcdef\nrest";
        let whole = [("one", true), ("", true), ("two\r", true), ("abcd", false), ("rest", true)]
            .map(|(line, whole)| (whole, line.as_bytes().to_vec()));
        for at in 0..=stream.len() {
            let (left, right) = stream.split_at(at);
            assert_eq!(split(&[left, right], 4), whole);
        }
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let mut lines = Lines::new(1 << 16);
        for _ in 0..1000 {
            lines.push(&[b'x'; 1000], |_| panic!("the line has not ended"));
            assert!(lines.partial.capacity() <= 2 << 16);
        }
        assert_eq!(lines.partial.len(), HEAD_BYTES);
    }

    #[test]
    fn strings_that_are_none_are_mended() {
        let parsed = parse_object(br#" {"a":"\ud83d\ude00 \ud83d \\ud83d \udE00\n","b":"\ud83d"} "#).unwrap();
        assert_eq!(parsed, json!({"a": "\u{1F600} \u{FFFD} \\ud83d \u{FFFD}\n", "b": "\u{FFFD}"}));
        assert_eq!(parse_object(b"{\"a\":\"\xff\"}").unwrap(), json!({"a": "\u{FFFD}"}));
        for not_an_object in [&b""[..], b"[1]", b"1", b"{", b"{\"a\":\"\\", b"Warning: {}", b"{}{}"] {
            assert_eq!(parse_object(not_an_object), None);
        }
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(stream in "[ab\n]{0,40}", cuts in prop::collection::vec(0usize..40, 0..6), limit in 1usize..6) {
            let stream = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
            prop_assert_eq!(split(&pieces, limit), split(&[stream], limit));
        }

        #[test]
        fn mending_never_panics_and_leaves_json_alone(text in ".{0,40}", broken in r#"[{}":\\ud8cf0é]{0,40}"#) {
            let line = json!({ "a": text }).to_string();
            let mended = whole_surrogates(&line);
            prop_assert_eq!(mended.as_ref(), &line);
            whole_surrogates(&broken);
            parse_object(broken.as_bytes());
        }
    }
}
