//! A pull cursor over JSON text: checks it strictly (RFC 8259) and tells where things are, without building a tree.
//!
//! For bodies that pass through as bytes and of which only a few members matter. Everything a caller does not look at
//! goes through [`Cursor::skip_value`], so a text that was walked to its [`end`](Cursor::end) is valid JSON throughout.
//! Recursion-free: nesting deeper than [`MAX_DEPTH`] is an error, not a stack overflow.

mod strings;

use std::{borrow::Cow, ops::Range};

pub use self::strings::quote;
use self::strings::{INVALID_ESCAPE, escape_length, plain_string_bytes, rest_as_word, stops_in, unescape};

/// Arrays and objects within each other that are accepted.
pub const MAX_DEPTH: u32 = 128;

/// Beyond it a string is read in the way that suits long ones.
const LONG_STRING_BYTES: usize = 128;

/// Why a text is not JSON (or not the JSON that was asked for), and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {offset}")]
pub struct JsonError {
    /// What is wrong, in words for the person who wrote the text.
    pub message: &'static str,
    /// Bytes before the place.
    pub offset: usize,
}

impl JsonError {
    /// Line and column of the place in `text`, both from 1; a column is a byte.
    pub fn line_and_column(&self, text: &[u8]) -> (usize, usize) {
        let before = &text[..self.offset.min(text.len())];
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |at| at + 1) + 1;
        (line, column)
    }
}

/// What a value is, told by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

/// Where a string is in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonStr {
    /// Offset of the opening quote.
    start: usize,
    /// Offset behind the closing quote.
    end: usize,
    has_escapes: bool,
}

impl JsonStr {
    /// The bytes it takes, quotes included.
    pub fn span(self) -> Range<usize> {
        self.start..self.end
    }

    /// The bytes between the quotes.
    pub fn inner(self) -> Range<usize> {
        self.start + 1..self.end - 1
    }

    pub fn is_empty(self) -> bool {
        self.end - self.start == 2
    }

    /// Whether the bytes between the quotes differ from the string that they mean.
    pub fn has_escapes(self) -> bool {
        self.has_escapes
    }
}

/// Reads one JSON text from front to back.
///
/// Objects: [`enter_object`](Self::enter_object), then [`next_key`](Self::next_key) until `None`, and after each key
/// exactly one value. Arrays likewise with [`enter_array`](Self::enter_array) and [`next_element`](Self::next_element).
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    /// An array or object was just entered: no comma comes before what follows.
    first: bool,
}

type Result<T, E = JsonError> = std::result::Result<T, E>;

impl<'a> Cursor<'a> {
    /// Checks that the text is UTF-8.
    pub fn new(text: &'a [u8]) -> Result<Self> {
        match str::from_utf8(text) {
            Ok(text) => Ok(Self::of_str(text)),
            Err(error) => Err(JsonError { message: "invalid UTF-8", offset: error.valid_up_to() }),
        }
    }

    pub fn of_str(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, first: false }
    }

    /// The whole text: what spans refer to.
    #[inline]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// What comes next, after white space.
    #[inline]
    pub fn peek(&mut self) -> Result<Kind> {
        Ok(match self.skip_whitespace() {
            Some(b'"') => Kind::String,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            Some(b'n') => Kind::Null,
            Some(b't' | b'f') => Kind::Boolean,
            Some(_) => return Err(self.error("expected a JSON value")),
            None => return Err(self.error("the text ends where a value is expected")),
        })
    }

    /// Bytes read; after [`peek`](Self::peek), where the value begins.
    #[inline]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Reads `{`.
    #[inline]
    pub fn enter_object(&mut self) -> Result<()> {
        self.expect(b'{', "expected an object")?;
        self.enter()
    }

    /// Reads up to the value of the next member, or `}`.
    #[inline]
    pub fn next_key(&mut self) -> Result<Option<JsonStr>> {
        if self.separator(b'}', "expected `,` or `}`")? {
            return Ok(None);
        }
        if self.skip_whitespace() != Some(b'"') {
            return Err(self.error("expected a string as member name"));
        }
        let key = self.string()?;
        self.expect(b':', "expected `:`")?;
        Ok(Some(key))
    }

    /// Goes to the value of a member of the outermost object, in a text whose start up to there is known to be right.
    pub(crate) fn resume_in_object(&mut self, at: usize) {
        self.at = at;
        self.depth = 1;
        self.first = false;
    }

    /// Reads `[`.
    #[inline]
    pub fn enter_array(&mut self) -> Result<()> {
        self.expect(b'[', "expected an array")?;
        self.enter()
    }

    /// Reads up to the next element (`true`), or `]`.
    #[inline]
    pub fn next_element(&mut self) -> Result<bool> {
        Ok(!self.separator(b']', "expected `,` or `]`")?)
    }

    /// Reads a string.
    #[inline]
    pub fn string(&mut self) -> Result<JsonStr> {
        self.expect(b'"', "expected a string")?;
        let start = self.at - 1;
        let mut has_escapes = false;
        loop {
            if self.at - start > LONG_STRING_BYTES {
                return self.long_string(start, has_escapes);
            }
            self.at += plain_string_bytes(&self.text.as_bytes()[self.at..]);
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(JsonStr { start, end: self.at, has_escapes });
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.error("control character in a string")),
                None => return Err(self.error("the text ends inside a string")),
            }
        }
    }

    /// The rest of a string that begins at `start`. Prompts are code with an escape every few words, so what costs is
    /// coming to a stop: here eight bytes are looked at once for all stops among them, and control characters are
    /// looked for afterwards, in one sweep that the compiler turns into vector instructions.
    #[inline(never)]
    fn long_string(&mut self, start: usize, mut has_escapes: bool) -> Result<JsonStr> {
        let from = self.at;
        let bytes = &self.text.as_bytes()[from..];
        let error_at = |offset, message| JsonError { message, offset };
        // What an escape has taken already.
        let mut taken = 0;
        let mut end = None;
        let (words, rest) = bytes.as_chunks::<8>();
        let last = (words.len() * 8, stops_in(rest_as_word(rest)));
        let stops = words.iter().enumerate().map(|(index, word)| (index * 8, stops_in(*word))).chain([last]);
        'words: for (base, mut stops) in stops {
            while stops != 0 {
                let stop = base + stops.trailing_zeros() as usize / 8;
                stops &= stops - 1;
                if stop < taken {
                    continue;
                }
                if bytes[stop] == b'"' {
                    end = Some(Ok(stop));
                    break 'words;
                }
                has_escapes = true;
                let Some(length) = escape_length(&bytes[stop..]) else {
                    end = Some(Err(error_at(from + stop, INVALID_ESCAPE)));
                    break 'words;
                };
                taken = stop + length;
            }
        }
        let end = end.unwrap_or_else(|| Err(error_at(self.text.len(), "the text ends inside a string")));
        let sweep = match &end {
            Ok(stop) => &bytes[..*stop],
            Err(error) => &bytes[..error.offset - from],
        };
        if sweep.iter().fold(u8::MAX, |lowest, byte| lowest.min(*byte)) < 0x20 {
            let at = sweep.iter().position(|byte| *byte < 0x20).unwrap_or(0);
            return Err(error_at(from + at, "control character in a string"));
        }
        self.at = from + end? + 1;
        Ok(JsonStr { start, end: self.at, has_escapes })
    }

    /// Reads a number and gives its bytes.
    #[inline]
    pub fn number(&mut self) -> Result<Range<usize>> {
        self.skip_whitespace();
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.error("expected a number")),
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(start..self.at)
    }

    /// Reads `true` or `false`.
    #[inline]
    pub fn boolean(&mut self) -> Result<bool> {
        let value = self.skip_whitespace() == Some(b't');
        self.literal(if value { "true" } else { "false" }, "expected `true` or `false`")?;
        Ok(value)
    }

    /// Reads `null`.
    #[inline]
    pub fn null(&mut self) -> Result<()> {
        self.skip_whitespace();
        self.literal("null", "expected `null`")
    }

    /// Reads a value of any kind and gives its bytes.
    #[inline]
    pub fn skip_value(&mut self) -> Result<Range<usize>> {
        let kind = self.peek()?;
        let start = self.at;
        match kind {
            Kind::Array | Kind::Object => self.skip_nested()?,
            _ => self.skip_scalar(kind)?,
        }
        Ok(start..self.at)
    }

    /// Checks that nothing but white space follows.
    pub fn end(&mut self) -> Result<()> {
        match self.skip_whitespace() {
            None => Ok(()),
            Some(_) => Err(self.error("the text goes on after the JSON value")),
        }
    }

    /// The bytes between the quotes, escapes unresolved.
    #[inline]
    pub fn raw(&self, string: JsonStr) -> &'a str {
        &self.text[string.inner()]
    }

    /// The string that is meant. An escaped surrogate without its partner, which is no character, becomes U+FFFD.
    pub fn unescape(&self, string: JsonStr) -> Cow<'a, str> {
        let raw = self.raw(string);
        if string.has_escapes { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
    }

    /// An error about what was read last or comes next.
    #[cold]
    pub fn error(&self, message: &'static str) -> JsonError {
        JsonError { message, offset: self.at }
    }

    fn skip_nested(&mut self) -> Result<()> {
        // One bit for each array or object that is open here, the innermost lowest; 1 is an object.
        const { assert!(MAX_DEPTH <= u128::BITS) }
        let mut objects: u128 = 0;
        let outside = self.depth;
        loop {
            // At the start of a value.
            match self.peek()? {
                Kind::Object => {
                    self.enter_object()?;
                    objects = objects << 1 | 1;
                }
                Kind::Array => {
                    self.enter_array()?;
                    objects <<= 1;
                }
                scalar => self.skip_scalar(scalar)?,
            }
            // Behind a value or an opening bracket: on to the next value, or out of what ends here.
            loop {
                let more = if objects & 1 == 1 { self.next_key()?.is_some() } else { self.next_element()? };
                if more {
                    break;
                }
                objects >>= 1;
                if self.depth == outside {
                    return Ok(());
                }
            }
        }
    }

    #[inline]
    fn skip_scalar(&mut self, kind: Kind) -> Result<()> {
        match kind {
            Kind::String => self.string().map(drop),
            Kind::Number => self.number().map(drop),
            Kind::Boolean => self.boolean().map(drop),
            // Callers deal with arrays and objects themselves.
            Kind::Null | Kind::Array | Kind::Object => self.null(),
        }
    }

    #[inline]
    fn enter(&mut self) -> Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        self.depth += 1;
        self.first = true;
        Ok(())
    }

    /// Reads the comma before the next member or element, or the closing bracket: `true`.
    #[inline]
    fn separator(&mut self, close: u8, message: &'static str) -> Result<bool> {
        let first = std::mem::take(&mut self.first);
        match self.skip_whitespace() {
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(true)
            }
            Some(b',') if !first => {
                self.at += 1;
                Ok(false)
            }
            Some(_) if first => Ok(false),
            Some(_) => Err(self.error(message)),
            None => Err(self.error("the text ends inside an array or object")),
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8, message: &'static str) -> Result<()> {
        if self.skip_whitespace() != Some(byte) {
            return Err(self.error(message));
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn literal(&mut self, literal: &str, message: &'static str) -> Result<()> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.error(message));
        }
        self.at += literal.len();
        Ok(())
    }

    /// At a backslash.
    fn escape(&mut self) -> Result<()> {
        let length = escape_length(&self.text.as_bytes()[self.at..]);
        self.at += length.ok_or_else(|| self.error(INVALID_ESCAPE))?;
        Ok(())
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<()> {
        let start = self.at;
        self.digits();
        if self.at == start { Err(self.error("expected a digit")) } else { Ok(()) }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Gives the byte behind it.
    #[inline]
    fn skip_whitespace(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                byte => return byte,
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
