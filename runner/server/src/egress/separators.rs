//! U+2028 and U+2029, which JSON allows in strings and JavaScript takes for ends of lines: Gemini CLI cuts its vendor's
//! events there, and loses them. Written as escapes they mean the same and cut nothing.

use bytes::Bytes;
use memchr::memmem;

/// How both begin in UTF-8; their third bytes are A8 and A9.
const BEGINNING: [u8; 2] = [0xE2, 0x80];

/// Escapes them in a stream of JSON. Bytes that may begin one are kept until more is known.
#[derive(Debug, Default)]
pub(super) struct EscapeSeparators {
    kept: Vec<u8>,
}

impl EscapeSeparators {
    /// What can go on. Empty if all of it is kept.
    pub(super) fn push(&mut self, bytes: Bytes) -> Bytes {
        let bytes = if self.kept.is_empty() {
            bytes
        } else {
            let mut all = std::mem::take(&mut self.kept);
            all.extend_from_slice(&bytes);
            Bytes::from(all)
        };
        let keep = match bytes[..] {
            [.., 0xE2, 0x80] => 2,
            [.., 0xE2] => 1,
            _ => 0,
        };
        let (bytes, kept) = bytes.split_at(bytes.len() - keep);
        self.kept = kept.to_vec();
        escape(bytes)
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What was kept, at the end of the stream.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        (!self.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.kept)))
    }
}

fn escape(bytes: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len());
    let mut done = 0;
    for at in memmem::find_iter(bytes, &BEGINNING) {
        let escaped: &[u8] = match bytes.get(at + 2) {
            Some(0xA8) => br"\u2028",
            Some(0xA9) => br"\u2029",
            _ => continue,
        };
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(escaped);
        done = at + 3;
    }
    out.extend_from_slice(&bytes[done..]);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_escaped_however_the_stream_is_cut() {
        let text = "{\"a\u{2028}b\": \"\u{2029}\u{2028}\u{2026} … \u{201C}\u{2028}\"}\u{2028}";
        let escaped = r#"{"a\u2028b": "\u2029\u2028… … “\u2028"}\u2028"#;
        let bytes = Bytes::from(text.as_bytes().to_vec());
        for at in 0..=bytes.len() {
            for second in at..=bytes.len() {
                let mut escape = EscapeSeparators::default();
                let mut out = Vec::new();
                for piece in [bytes.slice(..at), bytes.slice(at..second), bytes.slice(second..)] {
                    out.extend_from_slice(&escape.push(piece));
                }
                out.extend(escape.finish().into_iter().flatten());
                assert_eq!(std::str::from_utf8(&out).unwrap(), escaped, "cut at {at} and {second}");
            }
        }
    }

    #[test]
    fn what_is_kept_comes_at_the_end() {
        let mut escape = EscapeSeparators::default();
        assert_eq!(escape.push(Bytes::from_static(&[b'a', 0xE2, 0x80])), b"a"[..]);
        assert_eq!(escape.push(Bytes::new()), b""[..]);
        assert_eq!(escape.finish(), Some(Bytes::from_static(&[0xE2, 0x80])));
        assert_eq!(escape.finish(), None);
    }
}
