//! What a model says in one turn, in OpenAI's wire format: as chunks of a stream and as one chat
//! completion (<https://platform.openai.com/docs/api-reference/chat>). Quirks of other servers
//! are applied to the finished chunks with [`Turn::distort`].

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

/// `id` of every answer of the fake.
pub const ID: &str = "chatcmpl-fake-0001";
/// `created` of every answer of the fake.
pub const CREATED: u64 = 1_760_000_000;

/// Where the usage of a streamed turn is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageAt {
    /// On a last chunk without choices, if `stream_options.include_usage` asked for it: OpenAI's way.
    #[default]
    OwnChunkIfAsked,
    /// On the chunk with the finish reason, asked or not.
    FinishChunk,
    /// Nowhere, neither streamed nor not.
    Nowhere,
}

type Distortion = Arc<dyn Fn(&mut Vec<Value>) + Send + Sync>;

/// One turn of the assistant.
#[derive(Clone)]
pub struct Turn {
    deltas: Vec<Value>,
    message: serde_json::Map<String, Value>,
    finish_reason: Option<String>,
    usage: (u64, u64),
    usage_at: UsageAt,
    done: bool,
    distortions: Vec<Distortion>,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("deltas", &self.deltas).finish_non_exhaustive()
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self::new()
    }
}

impl Turn {
    /// A turn that says nothing yet; it ends with `stop`.
    pub fn new() -> Self {
        let mut message = serde_json::Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), Value::Null);
        Self {
            deltas: vec![json!({"role": "assistant", "content": ""})],
            message,
            finish_reason: Some("stop".into()),
            usage: (12, 5),
            usage_at: UsageAt::default(),
            done: true,
            distortions: Vec::new(),
        }
    }

    /// A turn that says `text`, one chunk per word.
    pub fn says(text: &str) -> Self {
        Self::new().text(text)
    }

    /// Adds text, one chunk per word.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        text.split_inclusive(' ').fold(self, |turn, word| turn.string("content", word))
    }

    /// Adds reasoning under `field` (`reasoning_content` or `reasoning`), one chunk per word.
    #[must_use]
    pub fn reasoning(self, field: &str, text: &str) -> Self {
        text.split_inclusive(' ').fold(self, |turn, word| turn.string(field, word))
    }

    /// Adds a refusal and ends the turn as OpenAI does, with `stop`.
    #[must_use]
    pub fn refusal(self, text: &str) -> Self {
        self.string("refusal", text)
    }

    fn string(mut self, field: &str, piece: &str) -> Self {
        self.deltas.push(json!({ field: piece }));
        let whole = self.message.get(field).and_then(Value::as_str).unwrap_or_default().to_owned() + piece;
        self.message.insert(field.into(), whole.into());
        self
    }

    /// Adds a well-formed tool call: the head in one chunk, the arguments in pieces of seven
    /// characters.
    #[must_use]
    pub fn tool_call(mut self, id: &str, name: &str, arguments: &str) -> Self {
        let calls = self.message.entry("tool_calls").or_insert_with(|| json!([]));
        let calls = calls.as_array_mut().expect("only this method writes tool_calls");
        let index = calls.len();
        calls.push(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}));
        self.deltas.push(json!({"tool_calls": [
            {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]}));
        let characters: Vec<char> = arguments.chars().collect();
        for piece in characters.chunks(7) {
            let piece: String = piece.iter().collect();
            self.deltas.push(json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}));
        }
        self.finish_reason = Some("tool_calls".into());
        self
    }

    /// Adds a delta as it is, to the stream only.
    #[must_use]
    pub fn delta(mut self, delta: Value) -> Self {
        self.deltas.push(delta);
        self
    }

    /// Sets the finish reason.
    #[must_use]
    pub fn finish(mut self, reason: &str) -> Self {
        self.finish_reason = Some(reason.to_owned());
        self
    }

    /// Leaves out the chunk with the finish reason.
    #[must_use]
    pub fn without_finish(mut self) -> Self {
        self.finish_reason = None;
        self
    }

    /// Leaves out `data: [DONE]`.
    #[must_use]
    pub fn without_done(mut self) -> Self {
        self.done = false;
        self
    }

    /// Says where the usage is told.
    #[must_use]
    pub fn usage_at(mut self, place: UsageAt) -> Self {
        self.usage_at = place;
        self
    }

    /// Changes the chunks of the stream after they were made.
    #[must_use]
    pub fn distort(mut self, change: impl Fn(&mut Vec<Value>) + Send + Sync + 'static) -> Self {
        self.distortions.push(Arc::new(change));
        self
    }

    /// Changes each chunk of the stream.
    #[must_use]
    pub fn distort_each(self, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.distort(move |chunks| chunks.iter_mut().for_each(&change))
    }

    /// Takes `member` out of every chunk.
    #[must_use]
    pub fn without_member(self, member: &'static str) -> Self {
        self.distort_each(move |chunk| {
            chunk.as_object_mut().expect("chunks are objects").remove(member);
        })
    }

    fn usage(&self) -> Value {
        let (prompt, completion) = self.usage;
        json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
    }

    /// The chunks of the stream.
    pub fn chunks(&self, model: &str, include_usage: bool) -> Vec<Value> {
        let chunk = |delta: &Value, finish_reason: Option<&str>| {
            json!({"id": ID, "object": "chat.completion.chunk", "created": CREATED, "model": model,
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})
        };
        let mut chunks: Vec<Value> = self.deltas.iter().map(|delta| chunk(delta, None)).collect();
        if let Some(reason) = &self.finish_reason {
            let mut last = chunk(&json!({}), Some(reason));
            if self.usage_at == UsageAt::FinishChunk {
                last["usage"] = self.usage();
            }
            chunks.push(last);
        }
        if include_usage && self.usage_at == UsageAt::OwnChunkIfAsked {
            let mut last = chunk(&json!({}), None);
            last["choices"] = json!([]);
            last["usage"] = self.usage();
            chunks.push(last);
        }
        for change in &self.distortions {
            change(&mut chunks);
        }
        chunks
    }

    /// The frames of the stream, `[DONE]` included.
    pub fn frames(&self, model: &str, include_usage: bool) -> Vec<String> {
        let mut frames: Vec<String> = self.chunks(model, include_usage).iter().map(frame).collect();
        if self.done {
            frames.push("data: [DONE]\n\n".into());
        }
        frames
    }

    /// The turn as one chat completion.
    pub fn completion(&self, model: &str) -> Value {
        let mut completion = json!({"id": ID, "object": "chat.completion", "created": CREATED, "model": model,
            "choices": [{"index": 0, "message": self.message, "logprobs": null, "finish_reason": self.finish_reason}],
            "system_fingerprint": "fp_fake"});
        if self.usage_at != UsageAt::Nowhere {
            completion["usage"] = self.usage();
        }
        completion
    }
}

/// One server-sent event with `data`.
pub fn frame(data: &Value) -> String {
    format!("data: {data}\n\n")
}
