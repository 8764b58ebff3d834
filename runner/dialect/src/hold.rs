//! Text that is kept back for a while, because it may not be part of the answer.
//!
//! Two things cannot be told from an answer's text as it comes. Some CLIs ask the vendor again after a stream that
//! broke, and print the new answer after the beginning of the old one, with nothing between. Some print an API's error
//! as if the model had said it. Such text is held until the end, when it is known how the vendor's calls went; text
//! that only looked so for a moment goes on at once. What is held is delayed, never lost.

/// More than this is not held, and a longer text is not looked for again.
const MAX_HELD_BYTES: usize = 4 << 20;

/// Text this short is said twice by many an answer, and no repetition of a stream.
const MIN_REPEATED_BYTES: usize = 4;

/// What a CLI is known to print as text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Suspects {
    /// The answer so far once more, after a stream that broke.
    pub(crate) repetition: bool,
    /// The beginning of an error's message; a `]` ends it.
    pub(crate) error: Option<&'static str>,
}

#[derive(Debug, Default)]
pub(crate) struct Hold {
    suspects: Suspects,
    /// What was said since the last boundary, for repetitions. None: more than can be held.
    said: Option<String>,
    held: Held,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Held {
    #[default]
    Nothing,
    /// What perhaps repeats what was said.
    Repetition { said: String, text: String },
    /// What perhaps is an error's message. Of its first word at least a part has come.
    Error(String),
}

impl Hold {
    pub(crate) fn new(suspects: Suspects) -> Self {
        Self { suspects, said: Some(String::new()), held: Held::Nothing }
    }

    /// Takes a piece of text, and gives what is the answer's for sure.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        match std::mem::take(&mut self.held) {
            Held::Nothing => match self.said.take_if(|said| self.suspects.repetition && repeats(said, piece))
            {
                Some(said) => self.hold_repetition(said, String::new(), piece),
                None => self.look_for_error(piece.to_owned()),
            },
            Held::Repetition { said, text } => self.hold_repetition(said, text, piece),
            Held::Error(text) => self.hold_error(text, piece),
        }
    }

    /// A message or a round of tools ends here.
    pub(crate) fn boundary(&mut self) -> String {
        self.said = Some(String::new());
        match std::mem::take(&mut self.held) {
            // An error is the last that is printed.
            Held::Error(text) => text,
            held => {
                self.held = held;
                String::new()
            }
        }
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == Held::Nothing
    }

    pub(crate) fn take(&mut self) -> Held {
        std::mem::take(&mut self.held)
    }

    /// `text` is what is held already.
    fn hold_repetition(&mut self, said: String, mut text: String, piece: &str) -> String {
        let agrees = agree(said.get(text.len()..).unwrap_or_default(), piece);
        text.push_str(piece);
        if agrees && text.len() <= MAX_HELD_BYTES {
            self.held = Held::Repetition { said, text };
            return String::new();
        }
        self.said = Some(said);
        self.look_for_error(text)
    }

    fn hold_error(&mut self, mut text: String, piece: &str) -> String {
        let begun = self.suspects.error.is_some_and(|error| text.starts_with(error));
        text.push_str(piece);
        if begun && text.len() <= MAX_HELD_BYTES {
            self.held = Held::Error(text);
            return String::new();
        }
        self.look_for_error(text)
    }

    fn look_for_error(&mut self, text: String) -> String {
        let begins = self.suspects.error.and_then(|error| position(&text, error));
        let (now, held) = match begins {
            Some(at) if text.len() - at <= MAX_HELD_BYTES => {
                let held = text[at..].to_owned();
                (text[..at].to_owned(), Held::Error(held))
            }
            _ => (text, Held::Nothing),
        };
        self.held = held;
        if let Some(said) = self.said.as_mut().filter(|_| self.suspects.repetition) {
            said.push_str(&now);
        }
        self.said.take_if(|said| said.len() > MAX_HELD_BYTES);
        now
    }
}

/// Whether a piece may be the beginning of what was said.
fn repeats(said: &str, piece: &str) -> bool {
    !piece.is_empty() && said.len() >= MIN_REPEATED_BYTES && agree(said, piece)
}

/// One is the other's beginning.
fn agree(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Where `word` begins in the text, if only in part at its end.
fn position(text: &str, word: &str) -> Option<usize> {
    let first = word.chars().next()?;
    text.match_indices(first).map(|(at, _)| at).find(|&at| agree(&text[at..], word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: Suspects = Suspects { repetition: false, error: Some("[API Error: ") };
    const BOTH: Suspects = Suspects { repetition: true, error: Some("[API Error: ") };

    fn push(hold: &mut Hold, pieces: &[&str]) -> String {
        pieces.iter().map(|piece| hold.push(piece)).collect()
    }

    #[test]
    fn what_only_looks_like_an_error_goes_on() {
        let mut hold = Hold::new(ERROR);
        assert_eq!(push(&mut hold, &["a [1] [AP", "I] b", " [API Error"]), "a [1] [API] b ");
        assert_eq!(push(&mut hold, &[": 401", "]"]), "");
        assert_eq!(hold.take(), Held::Error("[API Error: 401]".to_owned()));
        assert_eq!(push(&mut hold, &["more [API Error: x]"]), "more ");
        assert_eq!(hold.boundary(), "[API Error: x]");
        assert!(hold.is_empty());
    }

    #[test]
    fn a_repetition_is_held_until_it_is_none() {
        let mut hold = Hold::new(BOTH);
        assert_eq!(push(&mut hold, &["Hello", " from"]), "Hello from");
        assert_eq!(push(&mut hold, &["Hell", "o w", "orld"]), "Hello world");
        assert_eq!(push(&mut hold, &["Hello fromHello", " world", " and", " more"]), "");
        let Held::Repetition { said, text } = hold.take() else { panic!("held") };
        assert_eq!(
            (said.as_str(), text.as_str()),
            ("Hello fromHello world", "Hello fromHello world and more")
        );
    }

    #[test]
    fn short_repetitions_are_an_answers_own() {
        let mut hold = Hold::new(BOTH);
        assert_eq!(push(&mut hold, &["ha", "ha"]), "haha");
        assert_eq!(push(&mut hold, &["ha", "ha"]), "");
        assert_eq!(push(&mut hold, &["!"]), "");
        hold.boundary();
        assert!(!hold.is_empty());
    }

    #[test]
    fn no_more_is_held_than_the_limit() {
        let piece = "x".repeat(1 << 20);
        let mut hold = Hold::new(ERROR);
        let mut passed = push(&mut hold, &["[API Error: "]).len();
        for _ in 0..8 {
            passed += hold.push(&piece).len();
        }
        assert!(passed > 4 << 20);
        let mut hold = Hold::new(BOTH);
        for _ in 0..20 {
            hold.push(&piece);
        }
        assert_eq!((hold.said, hold.held), (None, Held::Nothing));
    }
}
