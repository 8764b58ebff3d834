//! `POST /v1/chat/completions`. Source: OpenAI's API reference, "Create chat completion".

use std::ops::Range;

use bytes::Bytes;

use super::{
    RequestError, Scan, members,
    members::Members,
    splice::{Edit, remove_members, splice},
};
use crate::json::{Cursor, JsonStr, Kind, quote};

/// Most choices that may be asked for at once; OpenAI's bound.
const MAX_CHOICES: i64 = 128;

/// What a body says, and where.
#[derive(Clone, Debug)]
pub struct ChatScan {
    /// As the client spelt it: not empty, at most 256 characters, no control characters.
    pub model: String,
    pub stream: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    /// Choices asked for, 1 to 128.
    pub n: u32,
    /// In tokens. Some clients send -1 for "no limit".
    pub max_tokens: Option<i64>,
    /// In tokens.
    pub max_completion_tokens: Option<i64>,
    pub reasoning_effort: Option<String>,
    /// The first content part that is not text.
    pub first_media: Option<MediaPart>,
    body: Bytes,
    members: Members,
    stream_options: Option<StreamOptions>,
    /// Corrections that are made whatever else is rewritten.
    corrections: Vec<Edit>,
}

/// A content part that is not text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaPart {
    pub kind: MediaKind,
    /// `messages[3].content[1]`
    pub path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    Image,
    File,
    Audio,
}

/// What to change on the way to the upstream. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Rewrite<'a> {
    /// The upstream's name of the model.
    pub model: Option<&'a str>,
    /// Ask for usage (`stream_options.include_usage`), whatever the client did, if the request is for a stream.
    pub include_usage: bool,
    /// For upstreams that refuse the member. Wins over `include_usage`.
    pub drop_stream_options: bool,
    /// For upstreams or models that refuse the member.
    pub drop_reasoning_effort: bool,
    /// The one name under which the upstream takes a limit. If both were sent, that one is kept.
    pub max_tokens_field: Option<MaxTokensField>,
}

/// The two names of the limit on generated tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxTokensField {
    MaxTokens,
    MaxCompletionTokens,
}

/// Where `stream_options` is.
#[derive(Clone, Debug)]
struct StreamOptions {
    /// Offset behind the `{`.
    open: usize,
    is_empty: bool,
    /// Values of `include_usage`; several if a client repeats it.
    include_usage: Vec<Range<usize>>,
}

impl ChatScan {
    /// Checks `body` and finds what matters, in one pass.
    pub fn scan(body: &Bytes) -> Result<Self, RequestError> {
        Self::read(body).map_err(|fault| fault.into_request_error(body))
    }

    fn read(body: &Bytes) -> Scan<Self> {
        let mut cursor = Cursor::new(body)?;
        let mut model = None;
        let mut has_messages = false;
        let mut scan = Self {
            model: String::new(),
            stream: false,
            include_usage: false,
            n: 1,
            max_tokens: None,
            max_completion_tokens: None,
            reasoning_effort: None,
            first_media: None,
            body: body.clone(),
            members: Members { open: 0, list: Vec::new() },
            stream_options: None,
            corrections: Vec::new(),
        };
        scan.members = Members::read(&mut cursor, |cursor, name| {
            match name {
                "model" => model = Some(members::model(cursor)?),
                "messages" => {
                    scan.messages(cursor)?;
                    has_messages = true;
                }
                "stream" => scan.stream = members::boolean(cursor, name)?,
                "stream_options" => scan.stream_options(cursor)?,
                "n" => scan.n = choices(cursor)?,
                "max_tokens" => scan.max_tokens = Some(members::integer(cursor, name)?),
                "max_completion_tokens" => scan.max_completion_tokens = Some(members::integer(cursor, name)?),
                "reasoning_effort" => {
                    let effort = members::string(cursor, name)?;
                    scan.reasoning_effort = Some(cursor.unescape(effort).into_owned());
                }
                _ => other_member(cursor, name)?,
            }
            Ok(())
        })?;
        scan.model = model.ok_or_else(|| RequestError::missing("model"))?;
        if !has_messages {
            return Err(RequestError::missing("messages").into());
        }
        Ok(scan)
    }

    /// The body for the upstream, in pieces: slices of what was scanned and small replacements. What `rewrite` does
    /// not name stays as it is, byte for byte, with one exception: `arguments` of tool calls in the history that were
    /// encoded twice are decoded once.
    pub fn rewrite(&self, rewrite: &Rewrite<'_>) -> Vec<Bytes> {
        let mut edits = self.corrections.clone();
        if let (Some(model), Some(member)) = (rewrite.model, self.members.get("model")) {
            edits.push(Edit::replace(member.value.clone(), quote(model)));
        }
        if rewrite.include_usage && self.stream && !rewrite.drop_stream_options {
            self.ask_for_usage(&mut edits);
        }
        let unwanted_limit = rewrite.max_tokens_field.and_then(|field| self.choose_limit(field, &mut edits));
        remove_members(&self.members, &mut edits, |name| match name {
            "stream_options" => rewrite.drop_stream_options,
            "reasoning_effort" => rewrite.drop_reasoning_effort,
            _ => Some(name) == unwanted_limit,
        });
        splice(&self.body, edits)
    }

    fn ask_for_usage(&self, edits: &mut Vec<Edit>) {
        match (&self.stream_options, self.members.get("stream_options")) {
            (Some(options), _) if options.include_usage.is_empty() => edits.push(Edit::insert(
                options.open,
                if options.is_empty { r#""include_usage":true"# } else { r#""include_usage":true,"# },
            )),
            (Some(options), _) => {
                let values = options.include_usage.iter().cloned();
                edits.extend(values.map(|value| Edit::replace(value, "true")));
            }
            (None, Some(null)) => edits.push(Edit::replace(null.value.clone(), r#"{"include_usage":true}"#)),
            // A member follows: `model` at least.
            (None, None) => {
                edits.push(Edit::insert(self.members.open, r#""stream_options":{"include_usage":true},"#));
            }
        }
    }

    /// Renames the limit where only the other name was sent; gives the name to remove.
    fn choose_limit(&self, wanted: MaxTokensField, edits: &mut Vec<Edit>) -> Option<&'static str> {
        let (wanted, other) = match wanted {
            MaxTokensField::MaxTokens => ("max_tokens", "max_completion_tokens"),
            MaxTokensField::MaxCompletionTokens => ("max_completion_tokens", "max_tokens"),
        };
        let sent = self.members.get(other)?;
        let has_wanted = self.members.get(wanted).is_some_and(|member| !member.is_null);
        if has_wanted || sent.is_null {
            return Some(other);
        }
        edits.push(Edit::replace(sent.key.clone(), quote(wanted)));
        // A null under the wanted name would be a duplicate now.
        Some(wanted)
    }

    fn messages(&mut self, cursor: &mut Cursor<'_>) -> Scan<()> {
        members::expect(cursor, Kind::Array, "messages", "an array of objects")?;
        cursor.enter_array()?;
        let mut count = 0;
        while cursor.next_element()? {
            self.message(cursor, count)?;
            count += 1;
        }
        if count == 0 {
            return Err(RequestError::invalid_value("messages", "must not be empty").into());
        }
        Ok(())
    }

    fn message(&mut self, cursor: &mut Cursor<'_>, index: usize) -> Scan<()> {
        let wrong = |member: &str, expected: &str| {
            RequestError::invalid_type(format!("messages[{index}]{member}"), expected)
        };
        if cursor.peek()? != Kind::Object {
            return Err(wrong("", "an object").into());
        }
        cursor.enter_object()?;
        let mut has_role = false;
        while let Some(key) = cursor.next_key()? {
            let kind = cursor.peek()?;
            match cursor.unescape(key).as_ref() {
                "role" if kind == Kind::String => {
                    cursor.string()?;
                    has_role = true;
                }
                "role" => return Err(wrong(".role", "a string").into()),
                "content" => match kind {
                    Kind::Array => self.content_parts(cursor, index)?,
                    Kind::String | Kind::Null => cursor.skip_value().map(drop)?,
                    _ => return Err(wrong(".content", "a string or an array of objects").into()),
                },
                "tool_calls" => match kind {
                    Kind::Array => self.tool_calls(cursor, index)?,
                    Kind::Null => cursor.null()?,
                    _ => return Err(wrong(".tool_calls", "an array of objects").into()),
                },
                _ => cursor.skip_value().map(drop)?,
            }
        }
        if !has_role {
            return Err(RequestError::missing(format!("messages[{index}].role")).into());
        }
        Ok(())
    }

    fn content_parts(&mut self, cursor: &mut Cursor<'_>, message: usize) -> Scan<()> {
        cursor.enter_array()?;
        let mut index = 0;
        while cursor.next_element()? {
            let path = || format!("messages[{message}].content[{index}]");
            if cursor.peek()? != Kind::Object {
                return Err(RequestError::invalid_type(path(), "an object").into());
            }
            cursor.enter_object()?;
            let mut part_type = None;
            while let Some(key) = cursor.next_key()? {
                let kind = cursor.peek()?;
                if cursor.unescape(key) != "type" {
                    cursor.skip_value()?;
                } else if kind == Kind::String {
                    part_type = Some(cursor.string()?);
                } else {
                    return Err(RequestError::invalid_type(path() + ".type", "a string").into());
                }
            }
            let Some(part_type) = part_type else {
                return Err(RequestError::missing(path() + ".type").into());
            };
            if self.first_media.is_none()
                && let Some(kind) = media_kind(&cursor.unescape(part_type))
            {
                self.first_media = Some(MediaPart { kind, path: path() });
            }
            index += 1;
        }
        Ok(())
    }

    fn tool_calls(&mut self, cursor: &mut Cursor<'_>, message: usize) -> Scan<()> {
        cursor.enter_array()?;
        let mut index = 0;
        while cursor.next_element()? {
            if cursor.peek()? != Kind::Object {
                let path = format!("messages[{message}].tool_calls[{index}]");
                return Err(RequestError::invalid_type(path, "an object").into());
            }
            cursor.enter_object()?;
            while let Some(key) = cursor.next_key()? {
                if cursor.unescape(key) == "function" && cursor.peek()? == Kind::Object {
                    self.function(cursor)?;
                } else {
                    cursor.skip_value()?;
                }
            }
            index += 1;
        }
        Ok(())
    }

    fn function(&mut self, cursor: &mut Cursor<'_>) -> Scan<()> {
        cursor.enter_object()?;
        while let Some(key) = cursor.next_key()? {
            if cursor.unescape(key) == "arguments" && cursor.peek()? == Kind::String {
                let arguments = cursor.string()?;
                if let Some(decoded) = decode_twice_encoded(cursor, arguments) {
                    self.corrections.push(Edit::replace(arguments.span(), decoded));
                }
            } else {
                cursor.skip_value()?;
            }
        }
        Ok(())
    }

    fn stream_options(&mut self, cursor: &mut Cursor<'_>) -> Scan<()> {
        members::expect(cursor, Kind::Object, "stream_options", "an object")?;
        cursor.enter_object()?;
        let mut options = StreamOptions { open: cursor.offset(), is_empty: true, include_usage: Vec::new() };
        while let Some(key) = cursor.next_key()? {
            options.is_empty = false;
            let kind = cursor.peek()?;
            let start = cursor.offset();
            if cursor.unescape(key) != "include_usage" {
                cursor.skip_value()?;
                continue;
            }
            self.include_usage = if kind == Kind::Null {
                cursor.null()?;
                false
            } else {
                members::boolean(cursor, "stream_options.include_usage")?
            };
            options.include_usage.push(start..cursor.offset());
        }
        self.stream_options = Some(options);
        Ok(())
    }
}

fn choices(cursor: &mut Cursor<'_>) -> Scan<u32> {
    let n = members::integer(cursor, "n")?;
    match u32::try_from(n) {
        Ok(choices) if (1..=MAX_CHOICES).contains(&n) => Ok(choices),
        _ => Err(RequestError::invalid_value("n", &format!("must be between 1 and {MAX_CHOICES}")).into()),
    }
}

/// Members that only need to be of the right type; unknown ones may be anything.
fn other_member(cursor: &mut Cursor<'_>, name: &str) -> Scan<()> {
    match name {
        "temperature" | "top_p" | "presence_penalty" | "frequency_penalty" => members::number(cursor, name),
        "seed" | "top_logprobs" => members::integer(cursor, name).map(drop),
        "logprobs" | "parallel_tool_calls" | "store" => members::boolean(cursor, name).map(drop),
        "user" | "service_tier" | "prompt_cache_key" | "safety_identifier" | "verbosity" => {
            members::string(cursor, name).map(drop)
        }
        "stop" => members::string_or_strings(cursor, name),
        "modalities" => members::strings(cursor, name),
        "tools" | "functions" => members::objects(cursor, name),
        "tool_choice" | "function_call" => members::string_or_object(cursor, name),
        "response_format" | "logit_bias" | "metadata" | "prediction" | "audio" | "web_search_options" => {
            members::object(cursor, name)
        }
        _ => Ok(cursor.skip_value().map(drop)?),
    }
}

fn media_kind(part_type: &str) -> Option<MediaKind> {
    match part_type {
        "image_url" | "input_image" | "image" => Some(MediaKind::Image),
        "file" | "input_file" => Some(MediaKind::File),
        "input_audio" | "audio" => Some(MediaKind::Audio),
        _ => None,
    }
}

/// Some clients encode the arguments of a call that is already a JSON string once more, and send what means
/// `"{\"a\":1}"` where `{"a":1}` is due. Gives the JSON string that means the latter.
fn decode_twice_encoded(cursor: &Cursor<'_>, arguments: JsonStr) -> Option<String> {
    // An escaped quote comes first in what was encoded twice.
    if !arguments.has_escapes() || !cursor.raw(arguments).trim_start().starts_with('\\') {
        return None;
    }
    let once = cursor.unescape(arguments);
    let once = once.trim_matches([' ', '\t', '\n', '\r']);
    let mut inner = Cursor::new(once.as_bytes()).ok()?;
    let literal = inner.string().ok()?;
    inner.end().ok()?;
    let twice = inner.unescape(literal);
    let mut json = Cursor::new(twice.as_bytes()).ok()?;
    json.skip_value().ok()?;
    json.end().ok()?;
    Some(once.to_owned())
}
