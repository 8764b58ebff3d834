//! Looking into a JSON text without a tree of it: what takes memory is only what a caller keeps.

use std::borrow::Cow;

use openai_wire::json::{Cursor, Kind};

/// A value in a text that was found to be JSON before. In any other text, what cannot be read is not there.
#[derive(Clone, Copy)]
pub(super) struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    const NULL: Self = Self("null");

    pub(super) fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// As it is written.
    pub(super) fn source(self) -> &'a str {
        self.0
    }

    pub(super) fn kind(self) -> Kind {
        Cursor::of_str(self.0).peek().unwrap_or(Kind::Null)
    }

    pub(super) fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The string that is meant; `None` for a value of another kind.
    pub(super) fn string(self) -> Option<Cow<'a, str>> {
        let mut cursor = Cursor::of_str(self.0);
        let string = cursor.string().ok()?;
        Some(cursor.unescape(string))
    }

    /// The members of these names: null where there is none or this is no object, the last one where a name is given
    /// again.
    pub(super) fn members<const N: usize>(self, names: [&str; N]) -> [Self; N] {
        let mut found = [Self::NULL; N];
        let mut cursor = Cursor::of_str(self.0);
        if cursor.enter_object().is_ok() {
            while let Ok(Some(key)) = cursor.next_key()
                && let Ok(value) = cursor.skip_value()
            {
                let name = cursor.unescape(key);
                if let Some((_, found)) = names.iter().zip(&mut found).find(|(wanted, _)| **wanted == name) {
                    *found = Self(&self.0[value]);
                }
            }
        }
        found
    }

    /// The elements; none where this is no array.
    pub(super) fn elements(self) -> impl Iterator<Item = Self> {
        let mut cursor = Cursor::of_str(self.0);
        let mut goes_on = cursor.enter_array().is_ok();
        std::iter::from_fn(move || {
            goes_on = goes_on && cursor.next_element().unwrap_or(false);
            let element = goes_on.then(|| cursor.skip_value().ok()).flatten();
            goes_on = element.is_some();
            element.map(|element| Self(&self.0[element]))
        })
    }
}
