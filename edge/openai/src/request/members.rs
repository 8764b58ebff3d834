//! Members of a request body: finding them, and reading values of the type that the schema gives them.

use std::{borrow::Cow, ops::Range};

use super::{Fault, RequestError, Scan};
use crate::json::{Cursor, JsonStr, Kind};

/// Members of a request body. OpenAI's schema has about 40; the bound keeps the search for duplicates cheap.
const MAX_MEMBERS: usize = 256;

/// The members that are looked for again when a body is rewritten.
const REWRITABLE: [&str; 5] =
    ["model", "stream_options", "max_tokens", "max_completion_tokens", "reasoning_effort"];

/// Characters of a model's name.
const MAX_MODEL_CHARS: usize = 256;

/// Where the members of the body are, in the order of the body; names are unique.
#[derive(Clone, Debug)]
pub(super) struct Members {
    /// Offset behind the `{`.
    pub(super) open: usize,
    pub(super) list: Vec<Member>,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    /// One of [`REWRITABLE`], or nothing for a member that always stays as it is.
    pub(super) name: Option<&'static str>,
    /// The name in the body, quotes included.
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
    pub(super) is_null: bool,
}

impl Members {
    /// Reads the whole text. `read` is given the members that are not null, and must read one value.
    pub(super) fn read<'a>(
        cursor: &mut Cursor<'a>,
        mut read: impl FnMut(&mut Cursor<'a>, &str) -> Scan<()>,
    ) -> Scan<Self> {
        if cursor.peek()? != Kind::Object {
            let message = "the request body must be a JSON object".to_owned();
            return Err(RequestError { message, param: None, code: Some("invalid_type") }.into());
        }
        cursor.enter_object()?;
        let mut members = Self { open: cursor.offset(), list: Vec::with_capacity(16) };
        let mut seen: Vec<Cow<'a, str>> = Vec::with_capacity(16);
        while let Some(key) = cursor.next_key()? {
            let name = cursor.unescape(key);
            if seen.contains(&name) {
                return Err(RequestError::invalid_value(shorten(&name), "is given twice").into());
            }
            if members.list.len() == MAX_MEMBERS {
                let message = format!("the request body has more than {MAX_MEMBERS} members");
                return Err(RequestError { message, param: None, code: Some("invalid_value") }.into());
            }
            let is_null = cursor.peek()? == Kind::Null;
            let start = cursor.offset();
            if is_null {
                cursor.null()?;
            } else {
                read(cursor, &name)?;
            }
            let known = REWRITABLE.into_iter().find(|known| *known == name);
            members.list.push(Member {
                name: known,
                key: key.span(),
                value: start..cursor.offset(),
                is_null,
            });
            seen.push(name);
        }
        cursor.end()?;
        Ok(members)
    }

    /// The member of that name, one of [`REWRITABLE`], null or not.
    pub(super) fn get(&self, name: &str) -> Option<&Member> {
        self.list.iter().find(|member| member.name == Some(name))
    }
}

/// A name chosen by the client, for a message.
fn shorten(name: &str) -> String {
    name.chars().take(64).collect()
}

pub(super) fn boolean(cursor: &mut Cursor<'_>, param: &str) -> Scan<bool> {
    expect(cursor, Kind::Boolean, param, "a boolean")?;
    Ok(cursor.boolean()?)
}

/// Digits only, as in OpenAI's schema: `1.0` is refused.
pub(super) fn integer(cursor: &mut Cursor<'_>, param: &str) -> Scan<i64> {
    expect(cursor, Kind::Number, param, "an integer")?;
    let digits = cursor.number()?;
    let value = cursor.text()[digits].parse();
    value.map_err(|_| RequestError::invalid_type(param, "an integer").into())
}

pub(super) fn number(cursor: &mut Cursor<'_>, param: &str) -> Scan<()> {
    expect(cursor, Kind::Number, param, "a number")?;
    cursor.number()?;
    Ok(())
}

pub(super) fn string(cursor: &mut Cursor<'_>, param: &str) -> Scan<JsonStr> {
    expect(cursor, Kind::String, param, "a string")?;
    Ok(cursor.string()?)
}

pub(super) fn object(cursor: &mut Cursor<'_>, param: &str) -> Scan<()> {
    expect(cursor, Kind::Object, param, "an object")?;
    cursor.skip_value()?;
    Ok(())
}

pub(super) fn string_or_object(cursor: &mut Cursor<'_>, param: &str) -> Scan<()> {
    if !matches!(cursor.peek()?, Kind::String | Kind::Object) {
        return Err(RequestError::invalid_type(param, "a string or an object").into());
    }
    cursor.skip_value()?;
    Ok(())
}

pub(super) fn string_or_strings(cursor: &mut Cursor<'_>, param: &str) -> Scan<()> {
    let rule = "a string or an array of strings";
    match cursor.peek()? {
        Kind::String => cursor.string().map(drop)?,
        Kind::Array => array_of(cursor, Kind::String, param, rule)?,
        _ => return Err(RequestError::invalid_type(param, rule).into()),
    }
    Ok(())
}

pub(super) fn strings(cursor: &mut Cursor<'_>, param: &str) -> Scan<()> {
    array_of(cursor, Kind::String, param, "an array of strings")
}

pub(super) fn objects(cursor: &mut Cursor<'_>, param: &str) -> Scan<()> {
    array_of(cursor, Kind::Object, param, "an array of objects")
}

/// A name that can be looked up, logged and put into a header.
pub(super) fn model(cursor: &mut Cursor<'_>) -> Scan<String> {
    let model = string(cursor, "model")?;
    let model = cursor.unescape(model);
    if model.is_empty() {
        return Err(RequestError::invalid_value("model", "must not be empty").into());
    }
    if model.chars().nth(MAX_MODEL_CHARS).is_some() {
        let rule = format!("must not be longer than {MAX_MODEL_CHARS} characters");
        return Err(RequestError::invalid_value("model", &rule).into());
    }
    if model.chars().any(char::is_control) {
        return Err(RequestError::invalid_value("model", "must not contain control characters").into());
    }
    Ok(model.into_owned())
}

/// Fails unless a value of that kind comes next; `expected` is a noun phrase.
pub(super) fn expect(cursor: &mut Cursor<'_>, kind: Kind, param: &str, expected: &str) -> Scan<()> {
    if cursor.peek()? == kind {
        Ok(())
    } else {
        Err(Fault::Request(RequestError::invalid_type(param, expected)))
    }
}

fn array_of(cursor: &mut Cursor<'_>, element: Kind, param: &str, expected: &str) -> Scan<()> {
    expect(cursor, Kind::Array, param, expected)?;
    cursor.enter_array()?;
    while cursor.next_element()? {
        expect(cursor, element, param, expected)?;
        cursor.skip_value()?;
    }
    Ok(())
}
