//! Embeddings.

use std::ops::Range;

use super::{
    Shape,
    scan::{EMBEDDING_COUNTS, Seen, UsageMember, is_null, is_string, string, unsigned},
};
use crate::{
    json::{Cursor, JsonError, Kind},
    usage::Usage,
};

/// What a response says, and where. Offsets are into the scanned bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingsResponseScan {
    /// Conformant: `object` `"list"`, string `model`, `usage` absent, null or with its two integers, and `data` objects
    /// with `object` `"embedding"`, integer `index` and an `embedding` that is a string or an array. Each of these at
    /// most once. Any other members are welcome.
    pub shape: Shape,
    /// The value of `model`, quotes included, if a string.
    pub model: Option<Range<usize>>,
    /// The value of `usage`, if an object.
    pub usage: Option<(Range<usize>, Usage)>,
    /// The value of `usage`, if null.
    pub usage_null: Option<Range<usize>>,
    /// There is an `error` that is not null.
    pub error: bool,
    /// Elements of `data`.
    pub embeddings: usize,
    /// Offset of the `}` that ends the response: a further member can be inserted here.
    pub close: usize,
}

// Members of the response.
const OBJECT: u8 = 1;
const MODEL: u8 = 2;
const DATA: u8 = 4;
const USAGE: u8 = 8;
const ERROR: u8 = 16;

// Members of an element of `data`.
const ELEMENT_OBJECT: u8 = 1;
const INDEX: u8 = 2;
const EMBEDDING: u8 = 4;

impl EmbeddingsResponseScan {
    /// Fails if `data` is not a JSON object.
    pub fn scan(data: &[u8]) -> Result<Self, JsonError> {
        let mut cursor = Cursor::new(data)?;
        let (mut model, mut usage, mut error) = (None, UsageMember::default(), false);
        let mut embeddings = 0;
        let mut seen = Seen::default();
        let mut is_regular = true;
        cursor.enter_object()?;
        while let Some(key) = cursor.next_key()? {
            // A name spelt with escapes matches none of these. `&` and not `&&`: values are read in any case.
            is_regular &= match cursor.raw(key) {
                "object" => seen.add(OBJECT) & is_string(&mut cursor, "list")?,
                "model" => {
                    model = string(&mut cursor)?.map(|model| model.span);
                    seen.add(MODEL) & model.is_some()
                }
                "data" if cursor.peek()? == Kind::Array => {
                    let mut is_regular = seen.add(DATA);
                    cursor.enter_array()?;
                    while cursor.next_element()? {
                        is_regular &= element(&mut cursor)?;
                        embeddings += 1;
                    }
                    is_regular
                }
                "usage" => {
                    usage = UsageMember::default();
                    seen.add(USAGE) & usage.read(&mut cursor, EMBEDDING_COUNTS)?
                }
                "error" => {
                    error |= !is_null(&mut cursor)?;
                    seen.add(ERROR) && !error
                }
                _ => {
                    cursor.skip_value()?;
                    !key.has_escapes()
                }
            };
        }
        is_regular &= seen.has_all(OBJECT | MODEL | DATA);
        let close = cursor.offset() - 1;
        cursor.end()?;
        let shape = if is_regular { Shape::Conformant } else { Shape::Irregular };
        Ok(Self { shape, model, usage: usage.value, usage_null: usage.null, error, embeddings, close })
    }
}

/// Tells whether it is an embedding.
fn element(cursor: &mut Cursor<'_>) -> Result<bool, JsonError> {
    if cursor.peek()? != Kind::Object {
        cursor.skip_value()?;
        return Ok(false);
    }
    let mut seen = Seen::default();
    let mut is_regular = true;
    cursor.enter_object()?;
    while let Some(key) = cursor.next_key()? {
        is_regular &= match cursor.raw(key) {
            "object" => seen.add(ELEMENT_OBJECT) & is_string(cursor, "embedding")?,
            "index" => seen.add(INDEX) & unsigned(cursor)?.is_some(),
            "embedding" => {
                let kind = cursor.peek()?;
                cursor.skip_value()?;
                seen.add(EMBEDDING) & matches!(kind, Kind::String | Kind::Array)
            }
            _ => {
                cursor.skip_value()?;
                !key.has_escapes()
            }
        };
    }
    Ok(is_regular && seen.has_all(ELEMENT_OBJECT | INDEX | EMBEDDING))
}
