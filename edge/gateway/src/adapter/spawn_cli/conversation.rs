//! A chat request → what a CLI is asked, or why no CLI can be asked that.
//!
//! Accepted and without effect, because a CLI has no such switch or decides it itself: `tools` and `functions` (it runs
//! its own), `parallel_tool_calls`, `temperature`, `top_p`, `presence_penalty`, `frequency_penalty`, `logit_bias`,
//! `seed`, `stop`, `max_tokens`, `max_completion_tokens`, `verbosity`, `prediction`, `web_search_options`, names of
//! messages, and everything about storage, billing and users.

mod json;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use openai_wire::json::Kind;
use openai_wire::request::ChatScan;
use runner_api::{Message, Part, Role};

use self::json::Json;
use crate::error::ApiError;

/// Parts of all messages together. Each takes a few hundred bytes of memory, however few it was sent as.
const MAX_PARTS: usize = 20_000;

/// A chat as run requests have it. Nothing in it depends on the CLI or its node.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub system: Option<String>,
    /// None is without parts.
    pub messages: Vec<Message>,
    /// Where each part of each message was in the request.
    paths: Vec<Vec<Path>>,
    parts: usize,
    pub reasoning_effort: Option<String>,
    /// The path of the first image.
    pub first_image: Option<String>,
}

/// Where a part was in the request, such as `messages[3].content[1]`.
#[derive(Clone, Copy, Debug)]
struct Path {
    message: usize,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Content,
    ContentPart(usize),
    Refusal,
    ToolCall(usize),
    FunctionCall,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "messages[{}].", self.message)?;
        match self.place {
            Place::Content => f.write_str("content"),
            Place::ContentPart(index) => write!(f, "content[{index}]"),
            Place::Refusal => f.write_str("refusal"),
            Place::ToolCall(index) => write!(f, "tool_calls[{index}]"),
            Place::FunctionCall => f.write_str("function_call"),
        }
    }
}

impl Conversation {
    /// `scan` is what was found in `body`.
    pub(crate) fn read(scan: &ChatScan, body: &Bytes) -> Result<Self, ApiError> {
        let body = str::from_utf8(body)
            .map_err(|_| ApiError::invalid_request("invalid_value", "The request body is not UTF-8."))?;
        let body = Json::new(body);
        if scan.n > 1 {
            return Err(unsupported("n", "it gives one answer"));
        }
        refuse_unsupported(body)?;
        let mut conversation = Self {
            system: None,
            messages: Vec::new(),
            paths: Vec::new(),
            parts: 0,
            reasoning_effort: scan.reasoning_effort.clone(),
            first_image: None,
        };
        let [messages] = body.members(["messages"]);
        for (index, message) in messages.elements().enumerate() {
            conversation.add(index, message)?;
        }
        match conversation.messages.last() {
            None => {
                let message = "This model is a CLI, and messages has none of the user for it to answer.";
                Err(refused("invalid_value", "messages", message))
            }
            Some(Message { role: Role::Assistant, .. }) => {
                let last = conversation.paths.last().and_then(|paths| paths.first());
                let path = last.map_or_else(|| "messages".to_owned(), |path| message_path(path.message));
                let message = format!(
                    "This model is a CLI, which does not go on with {path}, the assistant's own message."
                );
                Err(refused("invalid_value", &path, message))
            }
            Some(_) => Ok(conversation),
        }
    }

    /// The client's name for a member of the run request: `messages[0].parts[1]` → `messages[1].content[1]`.
    pub(crate) fn path_of(&self, param: &str) -> Option<String> {
        if param == "system" {
            return Some("messages".to_owned());
        }
        let rest = param.strip_prefix("messages")?;
        let Some((index, rest)) = index_of(rest) else { return Some("messages".to_owned()) };
        let paths = self.paths.get(index)?;
        let part = rest.strip_prefix(".parts").and_then(index_of).and_then(|(part, _)| paths.get(part));
        part.map(Path::to_string).or_else(|| Some(message_path(paths.first()?.message)))
    }

    fn add(&mut self, index: usize, message: Json<'_>) -> Result<(), ApiError> {
        let [role, content, id, name] = message.members(["role", "content", "tool_call_id", "name"]);
        let role = match role.string().unwrap_or_default().as_ref() {
            "system" | "developer" => {
                self.add_system(&joined(content, index)?);
                return Ok(());
            }
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" | "function" => Role::Tool,
            _ => {
                let param = format!("{}.role", message_path(index));
                let message = format!("{param} must be system, developer, user, assistant or tool");
                return Err(refused("invalid_value", &param, message));
            }
        };
        self.messages.push(Message { role, parts: Vec::new() });
        self.paths.push(Vec::new());
        match role {
            Role::User => self.add_user(index, content)?,
            Role::Assistant => self.add_assistant(index, message, content)?,
            Role::Tool => {
                // Those of the time before `tool_calls` name the function instead of the call.
                let id = if id.is_null() { name } else { id };
                let result = Part::ToolResult { id: text_of(id), text: joined(content, index)? };
                self.push(result, Path { message: index, place: Place::Content })?;
            }
        }
        // An assistant's turn may be empty in the history of a client; nobody's else is.
        if self.messages.last().is_some_and(|message| message.parts.is_empty()) {
            self.messages.pop();
            self.paths.pop();
        }
        Ok(())
    }

    fn add_system(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let system = self.system.get_or_insert_default();
        if !system.is_empty() {
            system.push_str("\n\n");
        }
        system.push_str(text);
    }

    fn add_user(&mut self, message: usize, content: Json<'_>) -> Result<(), ApiError> {
        let mut is_empty = true;
        for (path, part) in parts_of(content, message) {
            is_empty = false;
            let [kind] = part.members(["type"]);
            let part = match kind.string().unwrap_or_default().as_ref() {
                "image_url" | "input_image" => {
                    self.first_image.get_or_insert_with(|| path.to_string());
                    image(part, path)?
                }
                _ => Part::Text { text: text_part(part, path)? },
            };
            self.push(part, path)?;
        }
        if is_empty {
            let text = if content.kind() == Kind::Array { String::new() } else { text_of(content) };
            self.push(Part::Text { text }, Path { message, place: Place::Content })?;
        }
        Ok(())
    }

    fn add_assistant(&mut self, index: usize, message: Json<'_>, content: Json<'_>) -> Result<(), ApiError> {
        let path = |place| Path { message: index, place };
        for text in texts(content, index) {
            let (path, text) = text?;
            if !text.is_empty() {
                self.push(Part::Text { text }, path)?;
            }
        }
        let [refusal, calls, call] = message.members(["refusal", "tool_calls", "function_call"]);
        let text = text_of(refusal);
        if !text.is_empty() {
            self.push(Part::Text { text }, path(Place::Refusal))?;
        }
        for (index, call) in calls.elements().enumerate() {
            let path = path(Place::ToolCall(index));
            let [id, function] = call.members(["id", "function"]);
            self.push(tool_call(Some(id), function, &format!("{path}.function"))?, path)?;
        }
        if !call.is_null() {
            let path = path(Place::FunctionCall);
            self.push(tool_call(None, call, &path.to_string())?, path)?;
        }
        Ok(())
    }

    /// To the message that was begun last.
    fn push(&mut self, part: Part, path: Path) -> Result<(), ApiError> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            let message = format!("This model is a CLI, and messages has more than {MAX_PARTS} parts.");
            return Err(refused("invalid_value", "messages", message));
        }
        if let (Some(message), Some(paths)) = (self.messages.last_mut(), self.paths.last_mut()) {
            message.parts.push(part);
            paths.push(path);
        }
        Ok(())
    }
}

fn message_path(index: usize) -> String {
    format!("messages[{index}]")
}

/// `[3].rest` → 3 and `.rest`.
fn index_of(text: &str) -> Option<(usize, &str)> {
    let (index, rest) = text.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest))
}

/// What a client asks for by it and relies on, and a CLI does not do.
fn refuse_unsupported(body: Json<'_>) -> Result<(), ApiError> {
    let [logprobs, top_logprobs, format, tool_choice, function_call, modalities] = body.members([
        "logprobs",
        "top_logprobs",
        "response_format",
        "tool_choice",
        "function_call",
        "modalities",
    ]);
    if logprobs.source() == "true" {
        return Err(unsupported("logprobs", "it gives no log probabilities"));
    }
    if top_logprobs.source().parse::<i64>().is_ok_and(|count| count > 0) {
        return Err(unsupported("top_logprobs", "it gives no log probabilities"));
    }
    let [format] = format.members(["type"]);
    if !format.is_null() && format.string().as_deref() != Some("text") {
        return Err(unsupported(
            "response_format",
            "it cannot be held to a format, and only type text is taken",
        ));
    }
    for (name, choice) in [("tool_choice", tool_choice), ("function_call", function_call)] {
        if !choice.is_null() && !matches!(choice.string().as_deref(), Some("auto" | "none")) {
            return Err(unsupported(name, "it runs its own tools, and only auto and none are taken"));
        }
    }
    if modalities.elements().any(|modality| modality.string().as_deref() != Some("text")) {
        return Err(unsupported("modalities", "it answers in text only"));
    }
    Ok(())
}

/// `path` is that of the function. Without an id the call's answer refers to it by the function's name.
fn tool_call(id: Option<Json<'_>>, function: Json<'_>, path: &str) -> Result<Part, ApiError> {
    if !matches!(function.kind(), Kind::Object | Kind::Null) {
        return Err(refused("invalid_type", path, format!("{path} must be an object")));
    }
    let [name, arguments] = function.members(["name", "arguments"]);
    let name = text_of(name);
    if name.is_empty() {
        let path = format!("{path}.name");
        return Err(refused("missing_required_parameter", &path, format!("{path} is required")));
    }
    let id = id.map_or_else(|| name.clone(), text_of);
    Ok(Part::ToolCall { id, name, arguments: text_of(arguments) })
}

fn parts_of(content: Json<'_>, message: usize) -> impl Iterator<Item = (Path, Json<'_>)> {
    let path = move |index| Path { message, place: Place::ContentPart(index) };
    content.elements().enumerate().map(move |(index, part)| (path(index), part))
}

/// The texts of content that may hold nothing else.
fn texts(content: Json<'_>, message: usize) -> impl Iterator<Item = Result<(Path, String), ApiError>> {
    let whole = (content.kind() != Kind::Array)
        .then(|| Ok((Path { message, place: Place::Content }, text_of(content))));
    let parts = parts_of(content, message).map(|(path, part)| Ok((path, text_part(part, path)?)));
    whole.into_iter().chain(parts)
}

fn joined(content: Json<'_>, message: usize) -> Result<String, ApiError> {
    let mut all = String::new();
    for (index, text) in texts(content, message).enumerate() {
        if index > 0 {
            all.push('\n');
        }
        all.push_str(&text?.1);
    }
    Ok(all)
}

fn text_part(part: Json<'_>, path: Path) -> Result<String, ApiError> {
    let [kind, text, refusal] = part.members(["type", "text", "refusal"]);
    let (member, text) = match kind.string().unwrap_or_default().as_ref() {
        "text" | "input_text" | "output_text" => ("text", text),
        "refusal" => ("refusal", refusal),
        "image_url" | "input_image" | "image" => {
            return Err(unsupported_part(path, "an image, which a CLI takes in messages of the user only"));
        }
        "file" | "input_file" => return Err(unsupported_part(path, "a file, which a CLI does not take")),
        "input_audio" | "audio" => return Err(unsupported_part(path, "audio, which a CLI does not take")),
        _ => return Err(unsupported_part(path, "of a type that a CLI does not take")),
    };
    text.string().map(Cow::into_owned).ok_or_else(|| {
        let path = format!("{path}.{member}");
        refused("invalid_type", &path, format!("{path} must be a string"))
    })
}

/// `data:image/png;base64,…`, as `image_url` or as `image_url.url`.
fn image(part: Json<'_>, path: Path) -> Result<Part, ApiError> {
    let [image] = part.members(["image_url"]);
    let [inner] = image.members(["url"]);
    let url = image.string().or_else(|| inner.string()).unwrap_or_default();
    let data_uri = url.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:")).map(|_| &url[5..]);
    let Some((head, data)) = data_uri.and_then(|uri| uri.split_once(',')) else {
        let what = "an image by reference: a CLI takes images as data: URIs only, because it has no network of its own";
        return Err(unsupported_part(path, what));
    };
    let mut head = head.split(';').map(str::trim);
    let media_type = match head.next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "image/png" => "image/png",
        "image/jpeg" | "image/jpg" => "image/jpeg",
        "image/gif" => "image/gif",
        "image/webp" => "image/webp",
        _ => return Err(unsupported_part(path, "an image that is neither PNG, JPEG, GIF nor WebP")),
    };
    if !head.any(|parameter| parameter.eq_ignore_ascii_case("base64")) || !is_base64(data) {
        return Err(unsupported_part(path, "an image whose data is not base64"));
    }
    Ok(Part::Image { media_type: media_type.to_owned(), data: data.to_owned() })
}

/// Standard alphabet, padded, not empty.
fn is_base64(data: &str) -> bool {
    let digits = data.trim_end_matches('=');
    !digits.is_empty()
        && data.len().is_multiple_of(4)
        && data.len() - digits.len() <= 2
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

/// The text of a string; arguments and results that came as JSON instead are their JSON text.
fn text_of(value: Json<'_>) -> String {
    match value.string() {
        Some(text) => text.into_owned(),
        None if value.is_null() => String::new(),
        None => value.source().to_owned(),
    }
}

fn unsupported(param: &str, rule: &str) -> ApiError {
    refused(
        "unsupported_parameter",
        param,
        format!("This model is a CLI, and {param} cannot be honoured: {rule}."),
    )
}

fn unsupported_part(path: Path, what: &str) -> ApiError {
    refused("unsupported_content", &path.to_string(), format!("This model is a CLI, and {path} is {what}."))
}

fn refused(code: &'static str, param: &str, message: impl Into<Cow<'static, str>>) -> ApiError {
    let mut error = ApiError::invalid_request(code, message);
    error.param = Some(param.to_owned());
    error
}
