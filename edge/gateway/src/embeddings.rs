//! Embeddings: whatever form the upstream gives them → the form that the client asked for.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use openai_wire::Usage;
use openai_wire::request::EncodingFormat;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An upstream's answer. The vectors stay as they are written until they must change.
#[derive(Deserialize)]
struct UpstreamEmbeddings<'a> {
    #[serde(borrow)]
    data: Vec<UpstreamEmbedding<'a>>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct UpstreamEmbedding<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow)]
    embedding: &'a RawValue,
}

#[derive(Serialize)]
struct Embeddings<'a> {
    object: &'static str,
    data: Vec<Embedding<'a>>,
    model: &'a str,
    usage: EmbeddingsUsage,
}

#[derive(Serialize)]
struct Embedding<'a> {
    object: &'static str,
    index: u64,
    #[serde(rename = "embedding")]
    vector: Vector<'a>,
}

/// Little-endian 32-bit floats in base64, or an array of numbers.
#[derive(Serialize)]
#[serde(untagged)]
enum Vector<'a> {
    AsSent(&'a RawValue),
    Base64(String),
    Floats(Vec<f32>),
}

#[derive(Serialize)]
struct EmbeddingsUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// The client's answer, with the usage that the upstream reported, if it did; `None` for what holds no embeddings.
pub(crate) fn convert(
    body: &[u8],
    model: &str,
    format: EncodingFormat,
    estimate: impl FnOnce() -> u64,
) -> Option<(Bytes, Usage, bool)> {
    let upstream: UpstreamEmbeddings<'_> = serde_json::from_slice(body).ok()?;
    if upstream.data.is_empty() {
        return None;
    }
    let mut data = Vec::with_capacity(upstream.data.len());
    for (position, element) in upstream.data.into_iter().enumerate() {
        let vector = vector(element.embedding, format)?;
        data.push(Embedding { object: "embedding", index: element.index.unwrap_or(position as u64), vector });
    }
    let reported = upstream.usage.filter(|usage| usage.total_tokens > 0);
    let usage = reported.unwrap_or_else(|| Usage::new(estimate(), 0));
    let written = EmbeddingsUsage { prompt_tokens: usage.prompt_tokens, total_tokens: usage.total_tokens };
    let answer = Embeddings { object: "list", data, model, usage: written };
    let json = serde_json::to_vec(&answer).expect("these types have string keys only");
    Some((json.into(), usage, reported.is_none()))
}

fn vector(sent: &RawValue, format: EncodingFormat) -> Option<Vector<'_>> {
    match (sent.get().as_bytes().first()?, format) {
        (b'"', EncodingFormat::Base64) | (b'[', EncodingFormat::Float) => Some(Vector::AsSent(sent)),
        (b'[', EncodingFormat::Base64) => {
            let floats: Vec<f32> = serde_json::from_str(sent.get()).ok()?;
            let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
            Some(Vector::Base64(BASE64_STANDARD.encode(bytes)))
        }
        (b'"', EncodingFormat::Float) => {
            let text: String = serde_json::from_str(sent.get()).ok()?;
            let bytes = BASE64_STANDARD.decode(text).ok()?;
            let (floats, rest) = bytes.as_chunks::<4>();
            rest.is_empty()
                .then(|| Vector::Floats(floats.iter().map(|float| f32::from_le_bytes(*float)).collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(body: &str, format: EncodingFormat) -> Option<(serde_json::Value, Usage, bool)> {
        let (json, usage, estimated) = convert(body.as_bytes(), "public", format, || 7)?;
        Some((serde_json::from_slice(&json).unwrap(), usage, estimated))
    }

    #[test]
    fn vectors_come_in_the_form_that_was_asked_for() {
        let floats =
            r#"{"data":[{"index":0,"embedding":[1.0,-0.5]}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#;
        let encoded = r#"{"data":[{"embedding":"AACAPwAAAL8="}]}"#;
        for (body, estimated) in [(floats, false), (encoded, true)] {
            let (answer, usage, was_estimated) = converted(body, EncodingFormat::Base64).unwrap();
            assert_eq!(answer["data"][0]["embedding"], "AACAPwAAAL8=");
            assert_eq!((answer["model"].as_str(), answer["object"].as_str()), (Some("public"), Some("list")));
            assert_eq!((usage.prompt_tokens, was_estimated), (if estimated { 7 } else { 3 }, estimated));
            let (answer, ..) = converted(body, EncodingFormat::Float).unwrap();
            assert_eq!(answer["data"][0]["embedding"], serde_json::json!([1.0, -0.5]));
        }
    }

    #[test]
    fn what_holds_no_embeddings_is_refused() {
        for body in [
            "{}",
            r#"{"data":[]}"#,
            r#"{"data":[{"embedding":7}]}"#,
            r#"{"data":[{"embedding":["a"]}]}"#,
            "[]",
            "",
        ] {
            assert!(converted(body, EncodingFormat::Base64).is_none(), "{body}");
        }
        assert!(converted(r#"{"data":[{"embedding":"AAA="}]}"#, EncodingFormat::Float).is_none());
    }
}
