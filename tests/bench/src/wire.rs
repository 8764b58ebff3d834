//! What goes over the wire in the benchmark, and how an answer is recognised as the right one.

use bytes::Bytes;
use memchr::memmem;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Path of the one endpoint measured.
pub const PATH: &str = "/v1/chat/completions";
/// Chunks of a stream: role, content, …, content, finish with usage.
pub const CHUNKS: usize = 100;
/// The chunks among them that carry `content` (the role chunk's is empty).
const CONTENT_CHUNKS: usize = CHUNKS - 1;

/// What the upstream does, by the model it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Behaviour {
    /// Answers whole, about 1 KB.
    Whole,
    /// Streams [`CHUNKS`] chunks, 10 ms apart.
    Paced,
    /// Streams [`CHUNKS`] chunks at once, each a chunk of HTTP's too.
    Burst,
    /// Streams the role and the first content, and stays open.
    Hold,
}

impl Behaviour {
    pub const ALL: [Self; 4] = [Self::Whole, Self::Paced, Self::Burst, Self::Hold];

    /// The name by which the gateway's clients know the model.
    pub fn public_name(self) -> &'static str {
        match self {
            Self::Whole => "bench-whole",
            Self::Paced => "bench-paced",
            Self::Burst => "bench-burst",
            Self::Hold => "bench-hold",
        }
    }

    /// The name by which the upstream knows it. Of another length: splicing in place would not do.
    pub fn upstream_name(self) -> &'static str {
        match self {
            Self::Whole => "upstream-model-whole",
            Self::Paced => "upstream-model-paced",
            Self::Burst => "upstream-model-burst",
            Self::Hold => "upstream-model-hold",
        }
    }

    /// The behaviour that a request asks for. Clients of the benchmark send `model` first.
    pub fn asked_by(request: &[u8]) -> Option<Self> {
        let start = &request[..request.len().min(256)];
        Self::ALL
            .into_iter()
            .find(|it| memmem::find(start, model_member(it.upstream_name()).as_bytes()).is_some())
    }
}

fn model_member(name: &str) -> String {
    format!("\"model\":\"{name}\"")
}

/// A request whose one message is about `message_bytes` long: code, as an app builder sends it.
pub fn request(model: &str, stream: bool, message_bytes: usize) -> Bytes {
    const LINE: &str = "    let answer = \"42\\n\"; // a line of code, \"quoted\"\n";
    let content: String = LINE.chars().cycle().take(message_bytes).collect();
    let message = json!({"role": "user", "content": content}).to_string();
    // By hand: serde_json's maps would sort `model` behind `messages`.
    format!("{{\"model\":\"{model}\",\"stream\":{stream},\"reasoning_effort\":\"medium\",\"messages\":[{message}]}}")
        .into()
}

/// The upstream's whole answer.
pub fn completion(model: &str) -> Bytes {
    let content = "An answer of ordinary length. ".repeat(20);
    let message = json!({"role": "assistant", "content": content, "refusal": null, "annotations": []});
    let usage = usage();
    format!(
        "{{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1760000000,\"model\":\"{model}\",\
         \"choices\":[{{\"index\":0,\"message\":{message},\"logprobs\":null,\"finish_reason\":\"stop\"}}],\
         \"usage\":{usage},\"service_tier\":\"default\",\"system_fingerprint\":null}}"
    )
    .into()
}

/// The upstream's stream, one SSE event each, `[DONE]` included.
pub fn events(model: &str) -> Vec<Bytes> {
    let chunk = |delta: Value, finish_reason: Value, usage: Option<Value>| -> Bytes {
        let usage = usage.map_or_else(String::new, |usage| format!(",\"usage\":{usage}"));
        format!(
            "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\
             \"model\":\"{model}\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench\",\
             \"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish_reason}}}]\
             {usage}}}\n\n"
        )
        .into()
    };
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null, None)];
    events.extend((1..CONTENT_CHUNKS).map(|_| chunk(json!({"content": " token"}), Value::Null, None)));
    events.push(chunk(json!({}), "stop".into(), Some(usage())));
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

fn usage() -> Value {
    json!({"prompt_tokens": 256, "completion_tokens": 98, "total_tokens": 354})
}

/// Says what is wrong with a whole answer that should name `model`.
pub fn check_completion(body: &[u8], model: &str) -> Result<(), String> {
    let named = memmem::find(body, model_member(model).as_bytes()).is_some();
    let complete = body.ends_with(b"}") && memmem::find(body, b"\"finish_reason\":\"stop\"").is_some();
    if named && complete { Ok(()) } else { Err(wrong("answer", model, body)) }
}

/// Says what is wrong with a stream that should consist of [`CHUNKS`] chunks which name `model`. The proxy may
/// add one chunk, for usage.
pub fn check_stream(body: &[u8], model: &str) -> Result<(), String> {
    let count = |needle: &[u8]| memmem::find_iter(body, needle).count();
    let chunks = count(b"\"chat.completion.chunk\"");
    let right = (CHUNKS..=CHUNKS + 1).contains(&chunks)
        && count(model_member(model).as_bytes()) == chunks
        && count(b"\"content\":\"") == CONTENT_CHUNKS
        && body.ends_with(b"\ndata: [DONE]\n\n");
    if right { Ok(()) } else { Err(format!("{chunks} chunks; {}", wrong("stream", model, body))) }
}

/// Whether a stream has come to its first content: what TTFT counts to. The role alone is none; a proxy may hold
/// it back, as long as it can still turn to another upstream.
pub fn has_content(body: &[u8]) -> bool {
    memmem::find(body, b"\"content\":\" token\"").is_some()
}

/// Says what is wrong with the beginning of a stream that should name `model`.
pub fn check_stream_start(body: &[u8], model: &str) -> Result<(), String> {
    let named = memmem::find(body, model_member(model).as_bytes()).is_some();
    if body.starts_with(b"data: {") && named { Ok(()) } else { Err(wrong("stream", model, body)) }
}

fn wrong(what: &str, model: &str, body: &[u8]) -> String {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (start, end) = (&body[..body.len().min(600)], &body[body.len().saturating_sub(200)..]);
    format!("not the {what} of {model} ({} bytes): {} … {}", body.len(), shown(start), shown(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_valid_and_recognised() {
        for behaviour in Behaviour::ALL {
            let body = request(behaviour.upstream_name(), true, 1000);
            serde_json::from_slice::<Value>(&body).unwrap();
            assert!((1000..1300).contains(&body.len()), "{}", body.len());
            assert_eq!(Behaviour::asked_by(&body), Some(behaviour));
            assert_eq!(Behaviour::asked_by(&request(behaviour.public_name(), true, 1000)), None);
        }
    }

    #[test]
    fn answers_are_valid_and_wrong_ones_are_noticed() {
        let body = completion("m");
        serde_json::from_slice::<Value>(&body).unwrap();
        assert!((900..1100).contains(&body.len()), "{}", body.len());
        check_completion(&body, "m").unwrap();
        assert!(check_completion(&body, "other").is_err());
        assert!(check_completion(&body[..body.len() - 1], "m").is_err());
    }

    #[test]
    fn streams_are_valid_and_wrong_ones_are_noticed() {
        let events = events("m");
        assert_eq!(events.len(), CHUNKS + 1);
        for event in &events[..CHUNKS] {
            serde_json::from_slice::<Value>(&event[6..]).unwrap();
        }
        let whole = events.concat();
        check_stream(&whole, "m").unwrap();
        check_stream_start(&events[0], "m").unwrap();
        assert!(!has_content(&events[0]) && has_content(&events[1]));
        assert!(check_stream(&whole, "other").is_err());
        let one_less = [&events[..3], &events[4..]].concat().concat();
        assert!(check_stream(&one_less, "m").is_err());
        let no_done = events[..CHUNKS].concat();
        assert!(check_stream(&no_done, "m").is_err());
        let one_renamed = String::from_utf8(whole).unwrap().replacen("\"m\"", "\"n\"", 1);
        assert!(check_stream(one_renamed.as_bytes(), "m").is_err());
    }
}
