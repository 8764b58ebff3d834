//! `POST /v1/embeddings`. Source: OpenAI's API reference, "Create embeddings".

use bytes::Bytes;

use super::{
    RequestError, Scan, members,
    members::Members,
    splice::{Edit, splice},
};
use crate::json::{Cursor, Kind, quote};

/// What a body says, and where.
#[derive(Clone, Debug)]
pub struct EmbeddingsScan {
    /// As the client spelt it: not empty, at most 256 characters, no control characters.
    pub model: String,
    /// Texts or token arrays to embed, at least 1.
    pub inputs: usize,
    pub encoding_format: EncodingFormat,
    /// Length asked for of each embedding.
    pub dimensions: Option<u32>,
    body: Bytes,
    members: Members,
}

/// How the numbers of an embedding are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodingFormat {
    /// An array of numbers.
    #[default]
    Float,
    /// A string of little-endian 32-bit floats.
    Base64,
}

const INPUT_TYPES: &str =
    "a string, or a non-empty array of strings, of integers (tokens) or of arrays of integers";

impl EmbeddingsScan {
    /// Checks `body` and finds what matters, in one pass.
    pub fn scan(body: &Bytes) -> Result<Self, RequestError> {
        Self::read(body).map_err(|fault| fault.into_request_error(body))
    }

    /// The body for the upstream, in pieces, with the upstream's name of the model.
    pub fn rewrite(&self, model: &str) -> Vec<Bytes> {
        let edit = self.members.get("model").map(|member| Edit::replace(member.value.clone(), quote(model)));
        splice(&self.body, Vec::from_iter(edit))
    }

    fn read(body: &Bytes) -> Scan<Self> {
        let mut cursor = Cursor::new(body)?;
        let (mut model, mut inputs, mut dimensions) = (None, None, None);
        let mut encoding_format = EncodingFormat::default();
        let members = Members::read(&mut cursor, |cursor, name| {
            match name {
                "model" => model = Some(members::model(cursor)?),
                "input" => inputs = Some(count_inputs(cursor)?),
                "encoding_format" => {
                    let format = members::string(cursor, name)?;
                    encoding_format = match cursor.unescape(format).as_ref() {
                        "float" => EncodingFormat::Float,
                        "base64" => EncodingFormat::Base64,
                        _ => return Err(RequestError::invalid_value(name, "must be float or base64").into()),
                    };
                }
                "dimensions" => {
                    let length =
                        u32::try_from(members::integer(cursor, name)?).ok().filter(|length| *length > 0);
                    if length.is_none() {
                        return Err(RequestError::invalid_value(name, "must be at least 1").into());
                    }
                    dimensions = length;
                }
                "user" => members::string(cursor, name).map(drop)?,
                _ => cursor.skip_value().map(drop)?,
            }
            Ok(())
        })?;
        Ok(Self {
            model: model.ok_or_else(|| RequestError::missing("model"))?,
            inputs: inputs.ok_or_else(|| RequestError::missing("input"))?,
            encoding_format,
            dimensions,
            body: body.clone(),
            members,
        })
    }
}

fn count_inputs(cursor: &mut Cursor<'_>) -> Scan<usize> {
    let wrong = || RequestError::invalid_type("input", INPUT_TYPES);
    match cursor.peek()? {
        Kind::String => cursor.string().map(drop)?,
        Kind::Array => {
            cursor.enter_array()?;
            if !cursor.next_element()? {
                return Err(RequestError::invalid_value("input", "must not be empty").into());
            }
            let kind = cursor.peek()?;
            let mut count = 0;
            loop {
                match kind {
                    _ if cursor.peek()? != kind => return Err(wrong().into()),
                    Kind::String => cursor.string().map(drop)?,
                    Kind::Number => members::integer(cursor, "input").map(drop)?,
                    Kind::Array => tokens(cursor)?,
                    _ => return Err(wrong().into()),
                }
                count += 1;
                if !cursor.next_element()? {
                    // Numbers are the tokens of one input.
                    return Ok(if kind == Kind::Number { 1 } else { count });
                }
            }
        }
        _ => return Err(wrong().into()),
    }
    Ok(1)
}

fn tokens(cursor: &mut Cursor<'_>) -> Scan<()> {
    cursor.enter_array()?;
    let mut is_empty = true;
    while cursor.next_element()? {
        members::expect(cursor, Kind::Number, "input", INPUT_TYPES)?;
        members::integer(cursor, "input")?;
        is_empty = false;
    }
    if is_empty {
        return Err(RequestError::invalid_value("input", "must not contain an empty array").into());
    }
    Ok(())
}
