//! What a terminal would be told → plain text.

/// Bytes → text, however they come cut. What is not UTF-8 becomes U+FFFD.
#[derive(Debug, Default)]
pub(crate) struct Utf8 {
    /// The beginning of a character that has not ended yet: at most three bytes.
    partial: Vec<u8>,
}

impl Utf8 {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        let mut bytes = [self.partial.as_slice(), bytes].concat();
        self.partial = bytes.split_off(bytes.len() - unfinished(&bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The stream has ended, perhaps within a character.
    pub(crate) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned()
    }
}

/// How many bytes at the end may be the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    match bytes.utf8_chunks().last() {
        // An invalid part at the very end that more bytes could make valid.
        Some(chunk) if !chunk.invalid().is_empty() => {
            let tail = chunk.invalid();
            let unexpected_end = std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
            if unexpected_end { tail.len() } else { 0 }
        }
        _ => 0,
    }
}

/// The longest title, link or other string for the terminal that is passed over. An unterminated one must not swallow
/// the rest of an answer.
const MAX_STRING_CHARS: u16 = 4096;

/// Removes escape sequences (ECMA-48) and control characters but tab, line feed and carriage return from a text, however
/// it comes cut. Something that only begins like a sequence loses its escape character, nothing more.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate byte: one final byte follows.
    Intermediate,
    /// Parameters, then a final byte.
    Control,
    /// Up to BEL or ESC \, of which so many characters have passed.
    String(u16),
    /// ESC within a string: its end, or another sequence.
    StringEscape,
}

impl Plain {
    pub(crate) fn push(&mut self, text: &str) -> String {
        text.chars().filter(|&char| self.keeps(char)).collect()
    }

    fn keeps(&mut self, char: char) -> bool {
        let (state, keep) = self.step(char);
        self.state = state;
        keep
    }

    fn step(&self, char: char) -> (State, bool) {
        let escaped = matches!(self.state, State::Escape | State::StringEscape);
        match (char, escaped) {
            ('[', true) | ('\u{9b}', _) => return (State::Control, false),
            (']' | 'P' | 'X' | '^' | '_', true) | ('\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}', _) => {
                return (State::String(0), false);
            }
            _ => {}
        }
        match (self.state, char) {
            (State::String(_), '\x1b') => (State::StringEscape, false),
            (_, '\x1b') => (State::Escape, false),
            (State::Escape | State::StringEscape | State::Intermediate, ' '..='/') => {
                (State::Intermediate, false)
            }
            (State::Control, ' '..='?') => (State::Control, false),
            (State::Escape | State::StringEscape | State::Intermediate, '0'..='~')
            | (State::Control, '@'..='~')
            | (State::String(_), '\x07' | '\u{9c}') => (State::Text, false),
            // A string has no line feeds, so this was none.
            (State::String(count), char) if char != '\n' && count < MAX_STRING_CHARS => {
                (State::String(count + 1), false)
            }
            (_, char) => (State::Text, !char.is_control() || matches!(char, '\t' | '\n' | '\r')),
        }
    }
}

/// A whole text at once.
pub(crate) fn plain(text: &str) -> String {
    Plain::default().push(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequences_go_and_text_stays() {
        for (terminal, text) in [
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b[93m\x1b[1m! \x1b[0mx", "! x"),
            ("\x1b[?25l\x1b[2K\x1b[1;2Hx", "x"),
            ("\x1b]0;title\x07x", "x"),
            ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1bPq#0\x1b\\x", "x"),
            ("\x1b(Bx\x1bcy\x1b=z", "xyz"),
            ("\u{9b}31mred\u{9d}0;t\u{9c}.", "red."),
            ("a\tb\r\nc\x07\x08\0\x7f", "a\tb\r\nc"),
            // What only begins like one.
            ("\x1b]0;no end\nanswer", "\nanswer"),
            ("\x1b[31é", "é"),
            ("\x1b\x1b[1mx", "x"),
            ("\x1b", ""),
        ] {
            assert_eq!(plain(terminal), text, "{terminal:?}");
        }
    }

    #[test]
    fn an_unterminated_string_swallows_no_answer() {
        let text = format!("\x1b]{}", "x".repeat(10_000));
        assert_eq!(plain(&text).len(), 10_000 - usize::from(MAX_STRING_CHARS));
    }

    fn decode(pieces: &[&[u8]]) -> String {
        let mut utf8 = Utf8::default();
        let mut text: String = pieces.iter().map(|piece| utf8.push(piece)).collect();
        text += &utf8.finish();
        text
    }

    proptest! {
        #[test]
        fn bytes_mean_the_same_however_they_are_cut(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xF0), Just(0x9F), Just(0x98), Just(0x80), Just(0xE2)], 0..24),
        ) {
            let whole = String::from_utf8_lossy(&bytes);
            prop_assert_eq!(decode(&bytes.chunks(1).collect::<Vec<_>>()), whole.as_ref());
            for at in 0..=bytes.len() {
                prop_assert_eq!(decode(&[&bytes[..at], &bytes[at..]]), whole.as_ref());
            }
        }

        #[test]
        fn plain_text_is_the_same_however_it_is_cut(text in r"[\x1b\x07\x9b\x9c\[\]\\;0ma é\n]{0,24}") {
            let mut cut = Plain::default();
            let pieces: String = text.chars().map(|char| cut.push(&char.to_string())).collect();
            prop_assert_eq!(pieces, plain(&text));
        }

        #[test]
        fn text_without_controls_is_left_alone(text in r"[^\p{Cc}]{0,40}") {
            prop_assert_eq!(plain(&text), text);
        }
    }
}
