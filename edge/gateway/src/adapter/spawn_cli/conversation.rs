//! A chat request → what a CLI is asked, or why no CLI can be asked that.
//!
//! Accepted and without effect, because a CLI has no such switch or decides it itself: `tools` and `functions` (it runs
//! its own), `parallel_tool_calls`, `temperature`, `top_p`, `presence_penalty`, `frequency_penalty`, `logit_bias`,
//! `seed`, `stop`, `max_tokens`, `max_completion_tokens`, `verbosity`, `prediction`, `web_search_options`, names of
//! messages, and everything about storage, billing and users.

use std::borrow::Cow;

use bytes::Bytes;
use openai_wire::request::ChatScan;
use runner_api::{Message, Part, Role};
use serde_json::Value;

use crate::error::ApiError;

/// A chat as run requests have it. Nothing in it depends on the CLI or its node.
pub(crate) struct Conversation {
    pub system: Option<String>,
    pub messages: Vec<Message>,
    /// Where each part of each message was in the request, such as `messages[3].content[1]`.
    paths: Vec<Vec<String>>,
    pub reasoning_effort: Option<String>,
    /// The path of the first image.
    pub first_image: Option<String>,
}

impl Conversation {
    pub(crate) fn read(scan: &ChatScan, body: &Bytes) -> Result<Self, ApiError> {
        let mut body: Value = serde_json::from_slice(body).map_err(|_| {
            ApiError::invalid_request("invalid_value", "The request body is nested too deeply for a CLI.")
        })?;
        if scan.n > 1 {
            return Err(unsupported("n", "it gives one answer"));
        }
        refuse_unsupported(&body)?;
        let mut conversation = Self {
            system: None,
            messages: Vec::new(),
            paths: Vec::new(),
            reasoning_effort: scan.reasoning_effort.clone(),
            first_image: None,
        };
        let Value::Array(messages) = body["messages"].take() else {
            return Err(refused("invalid_type", "messages", "messages must be an array of objects"));
        };
        let last = messages.len().saturating_sub(1);
        for (index, message) in messages.into_iter().enumerate() {
            conversation.add(message, &format!("messages[{index}]"))?;
        }
        match conversation.messages.last() {
            None => {
                let message = "This model is a CLI, and messages has none of the user for it to answer.";
                Err(refused("invalid_value", "messages", message))
            }
            Some(Message { role: Role::Assistant, .. }) => {
                let path = format!("messages[{last}]");
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
        // A message's own path is that of its parts up to the dot.
        part.cloned().or_else(|| Some(paths.first()?.split('.').next()?.to_owned()))
    }

    fn add(&mut self, mut message: Value, path: &str) -> Result<(), ApiError> {
        let content = message["content"].take();
        let (role, parts) = match message["role"].as_str().unwrap_or_default() {
            "system" | "developer" => {
                let text = joined(texts(content, path)?);
                if !text.is_empty() {
                    let system = self.system.get_or_insert_default();
                    if !system.is_empty() {
                        system.push_str("\n\n");
                    }
                    system.push_str(&text);
                }
                return Ok(());
            }
            "user" => (Role::User, self.user_parts(content, path)?),
            "assistant" => (Role::Assistant, assistant_parts(message, content, path)?),
            "tool" => {
                let id = text_of(message["tool_call_id"].take());
                (Role::Tool, tool_result(id, content, path)?)
            }
            // The tool messages of the time before `tool_calls` name the function instead of the call.
            "function" => {
                let id = text_of(message["name"].take());
                (Role::Tool, tool_result(id, content, path)?)
            }
            _ => {
                let message = format!("{path}.role must be system, developer, user, assistant or tool");
                return Err(refused("invalid_value", &format!("{path}.role"), message));
            }
        };
        // An assistant's turn may be empty in the history of a client; nobody's else is.
        if parts.is_empty() {
            return Ok(());
        }
        let (parts, paths) = parts.into_iter().unzip();
        self.messages.push(Message { role, parts });
        self.paths.push(paths);
        Ok(())
    }

    fn user_parts(&mut self, content: Value, path: &str) -> Result<Vec<(Part, String)>, ApiError> {
        let Value::Array(parts) = content else {
            return Ok(vec![(Part::Text { text: text_of(content) }, format!("{path}.content"))]);
        };
        let mut read = Vec::with_capacity(parts.len());
        for (index, part) in parts.into_iter().enumerate() {
            let path = format!("{path}.content[{index}]");
            let part = match part["type"].as_str().unwrap_or_default() {
                "image_url" | "input_image" => {
                    self.first_image.get_or_insert_with(|| path.clone());
                    image(&part, &path)?
                }
                _ => Part::Text { text: text_part(part, &path)? },
            };
            read.push((part, path));
        }
        if read.is_empty() {
            read.push((Part::Text { text: String::new() }, format!("{path}.content")));
        }
        Ok(read)
    }
}

/// `[3].rest` → 3 and `.rest`.
fn index_of(text: &str) -> Option<(usize, &str)> {
    let (index, rest) = text.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest))
}

/// What a client asks for by it and relies on, and a CLI does not do.
fn refuse_unsupported(body: &Value) -> Result<(), ApiError> {
    if body["logprobs"] == true {
        return Err(unsupported("logprobs", "it gives no log probabilities"));
    }
    if body["top_logprobs"].as_i64().is_some_and(|count| count > 0) {
        return Err(unsupported("top_logprobs", "it gives no log probabilities"));
    }
    let format = &body["response_format"]["type"];
    if !format.is_null() && format != "text" {
        return Err(unsupported(
            "response_format",
            "it cannot be held to a format, and only type text is taken",
        ));
    }
    for name in ["tool_choice", "function_call"] {
        let choice = &body[name];
        if !choice.is_null() && choice != "auto" && choice != "none" {
            return Err(unsupported(name, "it runs its own tools, and only auto and none are taken"));
        }
    }
    let mut modalities = body["modalities"].as_array().into_iter().flatten();
    if modalities.any(|modality| modality != "text") {
        return Err(unsupported("modalities", "it answers in text only"));
    }
    Ok(())
}

fn assistant_parts(mut message: Value, content: Value, path: &str) -> Result<Vec<(Part, String)>, ApiError> {
    let mut parts = Vec::new();
    for (text, path) in texts(content, path)? {
        if !text.is_empty() {
            parts.push((Part::Text { text }, path));
        }
    }
    let refusal = text_of(message["refusal"].take());
    if !refusal.is_empty() {
        parts.push((Part::Text { text: refusal }, format!("{path}.refusal")));
    }
    if let Value::Array(calls) = message["tool_calls"].take() {
        for (index, mut call) in calls.into_iter().enumerate() {
            let path = format!("{path}.tool_calls[{index}]");
            let id = text_of(call["id"].take());
            parts.push((tool_call(id, call["function"].take(), &path)?, path));
        }
    }
    let function = message["function_call"].take();
    if !function.is_null() {
        let path = format!("{path}.function_call");
        // Its answer refers to it by the function's name.
        let id = function["name"].as_str().unwrap_or_default().to_owned();
        parts.push((tool_call(id, function, &path)?, path));
    }
    Ok(parts)
}

fn tool_call(id: String, mut function: Value, path: &str) -> Result<Part, ApiError> {
    let name = text_of(function["name"].take());
    if name.is_empty() {
        let path = format!("{path}.function.name");
        return Err(refused("missing_required_parameter", &path, format!("{path} is required")));
    }
    Ok(Part::ToolCall { id, name, arguments: text_of(function["arguments"].take()) })
}

fn tool_result(id: String, content: Value, path: &str) -> Result<Vec<(Part, String)>, ApiError> {
    let text = joined(texts(content, path)?);
    Ok(vec![(Part::ToolResult { id, text }, format!("{path}.content"))])
}

/// The texts of content that may hold nothing else, with their paths.
fn texts(content: Value, path: &str) -> Result<Vec<(String, String)>, ApiError> {
    let Value::Array(parts) = content else {
        return Ok(vec![(text_of(content), format!("{path}.content"))]);
    };
    let parts = parts.into_iter().enumerate().map(|(index, part)| {
        let path = format!("{path}.content[{index}]");
        Ok((text_part(part, &path)?, path))
    });
    parts.collect()
}

fn joined(texts: Vec<(String, String)>) -> String {
    texts.into_iter().map(|(text, _)| text).collect::<Vec<_>>().join("\n")
}

fn text_part(mut part: Value, path: &str) -> Result<String, ApiError> {
    let member = match part["type"].as_str().unwrap_or_default() {
        "text" | "input_text" | "output_text" => "text",
        "refusal" => "refusal",
        "image_url" | "input_image" | "image" => {
            return Err(unsupported_part(path, "an image, which a CLI takes in messages of the user only"));
        }
        "file" | "input_file" => return Err(unsupported_part(path, "a file, which a CLI does not take")),
        "input_audio" | "audio" => return Err(unsupported_part(path, "audio, which a CLI does not take")),
        _ => return Err(unsupported_part(path, "of a type that a CLI does not take")),
    };
    if let Value::String(text) = part[member].take() {
        return Ok(text);
    }
    let path = format!("{path}.{member}");
    Err(refused("invalid_type", &path, format!("{path} must be a string")))
}

/// `data:image/png;base64,…`, as `image_url` or as `image_url.url`.
fn image(part: &Value, path: &str) -> Result<Part, ApiError> {
    let url = &part["image_url"];
    let url = url.as_str().or_else(|| url["url"].as_str()).unwrap_or_default();
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
fn text_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn unsupported(param: &str, rule: &str) -> ApiError {
    refused(
        "unsupported_parameter",
        param,
        format!("This model is a CLI, and {param} cannot be honoured: {rule}."),
    )
}

fn unsupported_part(path: &str, what: &str) -> ApiError {
    refused("unsupported_content", path, format!("This model is a CLI, and {path} is {what}."))
}

fn refused(code: &'static str, param: &str, message: impl Into<Cow<'static, str>>) -> ApiError {
    let mut error = ApiError::invalid_request(code, message);
    error.param = Some(param.to_owned());
    error
}
