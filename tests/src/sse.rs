//! The gateway's event streams, read as strictly as the contract has them written. Lenient parsers
//! are what the client libraries have.

use serde_json::Value;

use crate::raw::assert_error_shape;

/// A whole event stream.
#[derive(Clone, Debug, Default)]
pub struct EventStream {
    pub chunks: Vec<Value>,
    /// The error that ended the stream.
    pub error: Option<Value>,
    /// Whether it ended with `data: [DONE]`.
    pub done: bool,
    /// Number of comments.
    pub comments: usize,
}

impl EventStream {
    /// Reads a stream, and checks its framing: events are one `data: ` line and a blank line,
    /// comments one line that begins with `:`, nothing comes after `[DONE]` or an error, and one
    /// of both ends it.
    pub fn parse(body: &[u8]) -> Self {
        let text = std::str::from_utf8(body).expect("an event stream is UTF-8");
        assert!(text.ends_with("\n\n"), "the last event has its blank line: {text:?}");
        assert!(!text.contains('\r'), "lines end with LF alone");
        let mut stream = Self::default();
        for event in text.trim_end_matches('\n').split("\n\n") {
            assert!(!stream.done && stream.error.is_none(), "nothing comes after the end: {text}");
            let event = event.trim_start_matches('\n');
            if event.starts_with(':') {
                assert!(!event.contains('\n'), "a comment is one line: {event:?}");
                stream.comments += 1;
                continue;
            }
            let data = event.strip_prefix("data: ").unwrap_or_else(|| panic!("not a data event: {event:?}"));
            assert!(!data.contains('\n'), "an event is one line: {event:?}");
            if data == "[DONE]" {
                stream.done = true;
                continue;
            }
            let value: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
            if value.get("error").is_some() {
                stream.error = Some(assert_error_shape(&value).clone());
            } else {
                stream.chunks.push(value);
            }
        }
        assert!(stream.done || stream.error.is_some(), "a stream ends with [DONE] or an error: {text}");
        stream
    }

    /// The stream, which must have ended well and conform (see [`assert_conformant`]).
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "often called for its checks alone")]
    pub fn ok(self, model: &str) -> Self {
        assert!(self.done, "the stream ended with an error: {:?}", self.error);
        assert_conformant(&self.chunks, model);
        self
    }

    /// The text of choice 0.
    pub fn text(&self) -> String {
        self.strings("content")
    }

    /// The reasoning of choice 0.
    pub fn reasoning(&self) -> String {
        self.strings("reasoning_content")
    }

    /// The finish reason of choice 0.
    pub fn finish_reason(&self) -> Option<&str> {
        self.chunks.iter().find_map(|chunk| chunk["choices"][0]["finish_reason"].as_str())
    }

    /// The deltas of choice 0.
    pub fn deltas(&self) -> impl Iterator<Item = &Value> {
        self.chunks.iter().filter_map(|chunk| chunk["choices"].get(0)).map(|choice| &choice["delta"])
    }

    /// Every tool call delta of choice 0.
    pub fn tool_call_deltas(&self) -> Vec<&Value> {
        self.deltas().filter_map(|delta| delta["tool_calls"].as_array()).flatten().collect()
    }

    fn strings(&self, member: &str) -> String {
        self.deltas().filter_map(|delta| delta[member].as_str()).collect()
    }
}

/// Checks what every complete stream has (contract lines 16 to 20): whole chunks, one id, the
/// asked model's name, a role first, one finish reason, numbers as usage.
#[track_caller]
pub fn assert_conformant(chunks: &[Value], model: &str) {
    assert!(!chunks.is_empty(), "a stream has chunks");
    let id = &chunks[0]["id"];
    assert!(id.as_str().is_some_and(|id| !id.is_empty()), "id is text: {}", chunks[0]);
    let mut finished = false;
    for chunk in chunks {
        assert_eq!(&chunk["id"], id, "all chunks have one id");
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert!(chunk["created"].is_u64(), "created is an integer: {chunk}");
        assert_eq!(chunk["model"], model, "the model is the one that was asked for");
        for choice in chunk["choices"].as_array().unwrap_or_else(|| panic!("choices is a list: {chunk}")) {
            assert!(choice["index"].is_u64(), "index is an integer: {chunk}");
            assert!(choice["delta"].is_object(), "delta is an object: {chunk}");
            let reason =
                choice.get("finish_reason").unwrap_or_else(|| panic!("finish_reason is there: {chunk}"));
            assert!(reason.is_null() || reason.is_string(), "finish_reason is text or null: {chunk}");
            finished |= reason.is_string();
            if let Some(role) = choice["delta"].get("role") {
                assert_eq!(role, "assistant", "the role of every delta that has one: {chunk}");
            }
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| !usage.is_null()) {
            assert_usage(usage);
        }
    }
    let first = chunks.iter().find_map(|chunk| chunk["choices"].get(0)).expect("some chunk has a choice");
    assert_eq!(first["delta"]["role"], "assistant", "the first delta has the role");
    assert!(finished, "some chunk has a finish reason");
}

/// Checks that usage is three numbers that add up.
#[track_caller]
pub fn assert_usage(usage: &Value) {
    let tokens =
        |member: &str| usage[member].as_u64().unwrap_or_else(|| panic!("{member} is a number: {usage}"));
    assert_eq!(tokens("prompt_tokens") + tokens("completion_tokens"), tokens("total_tokens"), "{usage}");
}

#[cfg(test)]
mod tests {
    use super::EventStream;

    #[test]
    #[should_panic(expected = "nothing comes after the end")]
    fn an_event_after_done_is_refused() {
        EventStream::parse(b"data: [DONE]\n\ndata: {}\n\n");
    }

    #[test]
    #[should_panic(expected = "not a data event")]
    fn an_event_name_is_refused() {
        EventStream::parse(b"event: ping\ndata: {}\n\ndata: [DONE]\n\n");
    }

    #[test]
    #[should_panic(expected = "has its blank line")]
    fn a_last_event_without_its_blank_line_is_refused() {
        EventStream::parse(b"data: [DONE]\n");
    }
}
