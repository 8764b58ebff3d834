//! What is inside of strings: where they stop, what their escapes stand for.

/// How many bytes come before the first quote, backslash or control character. Eight at a time: strings are most of
/// what a gateway reads.
#[inline]
pub(super) fn plain_string_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 0x80;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The high bit of each byte that is below the operand. Bits above the lowest one that is set may be wrong,
        // which does not matter as only that one is used.
        let below = |word: u64, operand: u64| word.wrapping_sub(ONES * operand) & !word;
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = (quote | backslash | below(word, 0x20)) & HIGHS;
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
    bytes.len() - rest.len() + plain
}

/// The high bit of each byte that is a quote or a backslash, exactly.
#[inline]
pub(super) fn stops_in(word: [u8; 8]) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const LOWS: u64 = ONES * 0x7F;
    let word = u64::from_le_bytes(word);
    // The high bit of each byte that is not zero. No carry goes from one byte to the next.
    let nonzero = |word: u64| ((word & LOWS) + LOWS) | word;
    let quote = word ^ (ONES * u64::from(b'"'));
    let backslash = word ^ (ONES * u64::from(b'\\'));
    !(nonzero(quote) & nonzero(backslash)) & !LOWS
}

/// Fewer than eight bytes, filled up with what is no stop.
pub(super) fn rest_as_word(rest: &[u8]) -> [u8; 8] {
    let mut word = [b' '; 8];
    word[..rest.len()].copy_from_slice(rest);
    word
}

pub(super) const INVALID_ESCAPE: &str = "invalid escape in a string";

/// Bytes of the escape that `text` begins with, its backslash included.
#[inline]
pub(super) fn escape_length(text: &[u8]) -> Option<usize> {
    match text.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' if text.get(2..6)?.iter().all(u8::is_ascii_hexdigit) => Some(6),
        _ => None,
    }
}

/// `raw` was checked by [`Cursor::string`].
pub(super) fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let mut length = 1;
        out.push(match escape.as_bytes().first() {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = utf16_unit(escape);
                let (character, units) =
                    match (unit, escape.get(5..).and_then(|next| next.strip_prefix('\\'))) {
                        (Some(high @ 0xD800..=0xDBFF), Some(next)) => match utf16_unit(next) {
                            Some(low @ 0xDC00..=0xDFFF) => {
                                (char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)), 2)
                            }
                            _ => (None, 1),
                        },
                        (unit, _) => (unit.and_then(char::from_u32), 1),
                    };
                length = units * 6 - 1;
                character.unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            // `"`, `\` and `/` stand for themselves.
            Some(byte) => char::from(*byte),
            None => char::REPLACEMENT_CHARACTER,
        });
        rest = rest.get(at + 1 + length..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Of `u` and four hexadecimal digits.
fn utf16_unit(escape: &str) -> Option<u32> {
    let digits = escape.strip_prefix('u')?.get(..4)?;
    u32::from_str_radix(digits, 16).ok()
}

/// `text` as a JSON string, quotes included.
pub fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}
