//! Wire types for the typed path: lenient in, strict out.
//!
//! Lenient: `null` counts as absent, unknown members are passed over, and a member of the wrong type counts as absent
//! where the rest still makes sense. What upstreams really send decided each rule.

mod error;
mod models;

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny};
use serde_json::value::RawValue;

use crate::Usage;

pub use error::{ErrorBody, UpstreamErrorBody};
pub use models::{UpstreamModel, UpstreamModels};

/// The upstream's bytes are no JSON object of the expected kind.
#[derive(Debug, thiserror::Error)]
#[error("not the JSON that was expected")]
pub struct ParseError(#[from] serde_json::Error);

/// Why a choice ended, in OpenAI's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
    /// The predecessor of `tool_calls`.
    FunctionCall,
}

impl FinishReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::FunctionCall => "function_call",
        }
    }

    /// OpenAI's words exactly; `None` for any other.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "tool_calls" => Self::ToolCalls,
            "content_filter" => Self::ContentFilter,
            "function_call" => Self::FunctionCall,
            _ => return None,
        })
    }

    /// Also the words that other vendors' compatibility layers let through. Whatever else it says, the answer ended.
    pub fn from_upstream(word: &str) -> Self {
        Self::parse(word).unwrap_or_else(|| match word.to_ascii_lowercase().as_str() {
            "length" | "max_tokens" | "model_length" | "max_output_tokens" => Self::Length,
            "tool_calls" | "tool_use" | "tool_call" => Self::ToolCalls,
            "content_filter" | "safety" | "refusal" | "recitation" | "blocklist" | "prohibited_content"
            | "spii" => Self::ContentFilter,
            "function_call" => Self::FunctionCall,
            _ => Self::Stop,
        })
    }
}

/// A chunk of a stream or a whole completion: they differ in `delta` and `message` only, and some upstreams mix them up.
#[derive(Debug, Default, Deserialize)]
pub struct ChatChunk {
    #[serde(default, deserialize_with = "or_absent")]
    pub id: Option<String>,
    #[serde(default, deserialize_with = "number")]
    pub created: Option<u64>,
    #[serde(default, deserialize_with = "list")]
    pub choices: Vec<Choice>,
    #[serde(default, deserialize_with = "usage")]
    pub usage: Option<Usage>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

pub type ChatCompletion = ChatChunk;

#[derive(Debug, Default, Deserialize)]
pub struct Choice {
    #[serde(default, deserialize_with = "index")]
    pub index: u32,
    #[serde(default)]
    pub delta: Option<Delta>,
    #[serde(default)]
    pub message: Option<Delta>,
    #[serde(default, deserialize_with = "or_absent")]
    pub finish_reason: Option<String>,
    #[serde(default)]
    pub logprobs: Option<Box<RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
pub struct Delta {
    #[serde(default, deserialize_with = "text")]
    pub content: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub reasoning_content: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub reasoning: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub refusal: Option<String>,
    #[serde(default, deserialize_with = "list")]
    pub tool_calls: Vec<ToolCallDelta>,
    #[serde(default)]
    pub function_call: Option<FunctionDelta>,
}

#[derive(Debug, Default, Deserialize)]
pub struct ToolCallDelta {
    #[serde(default, deserialize_with = "number")]
    pub index: Option<u64>,
    #[serde(default, deserialize_with = "or_absent")]
    pub id: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub function: FunctionDelta,
}

#[derive(Debug, Default, Deserialize)]
pub struct FunctionDelta {
    #[serde(default, deserialize_with = "or_absent")]
    pub name: Option<String>,
    /// JSON text, or a piece of it. Some upstreams send the object itself, which is taken as its text.
    #[serde(default, deserialize_with = "arguments")]
    pub arguments: Option<String>,
}

impl ChatChunk {
    pub fn parse(json: &[u8]) -> Result<Self, ParseError> {
        parse(json)
    }

    /// Whether an error stands where an answer belongs.
    pub fn has_error(&self) -> bool {
        self.error.is_some()
    }
}

impl ToolCallDelta {
    /// The one call of the time before `tool_calls`.
    pub fn from_legacy(function: FunctionDelta) -> Self {
        Self { index: Some(0), id: None, function }
    }
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, ParseError> {
    // serde takes an array for a struct; the wire does not.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(ParseError(de::Error::custom("an object was expected")));
    }
    Ok(serde_json::from_slice(json)?)
}

/// The value, or nothing where it is of another type.
fn or_absent<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(from)?;
    Ok(raw.and_then(|raw| serde_json::from_str(raw.get()).ok()))
}

/// The default where it is null or of another type.
fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Ok(or_absent(from)?.unwrap_or_default())
}

fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Whole numbers however they are written: 3, 3.0, "3".
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    struct Number;
    impl<'de> de::Visitor<'de> for Number {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number")
        }

        fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
            Ok(Some(value))
        }

        fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
            Ok(u64::try_from(value).ok())
        }

        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, which is meant"
        )]
        fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
            Ok((value >= 0.0).then_some(value as u64))
        }

        fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
            Ok(value.parse().ok())
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(None)
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(None)
        }
    }
    from.deserialize_any(Number)
}

fn index<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    Ok(number(from)?.map_or(0, |index| u32::try_from(index).unwrap_or(u32::MAX)))
}

/// A string, or the text parts of a list of content parts.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    struct Part {
        #[serde(default, deserialize_with = "or_absent")]
        text: Option<String>,
    }
    let Some(raw) = Option::<Box<RawValue>>::deserialize(from)? else { return Ok(None) };
    if raw.get().starts_with('[') {
        let parts: Vec<Part> = serde_json::from_str(raw.get()).unwrap_or_default();
        let texts: String = parts.into_iter().filter_map(|part| part.text).collect();
        return Ok((!texts.is_empty()).then_some(texts));
    }
    Ok(serde_json::from_str(raw.get()).ok())
}

fn arguments<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(from)?;
    Ok(raw.map(|raw| serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned())))
}

/// All zeros say nothing.
fn usage<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Usage>, D::Error> {
    Ok(or_absent::<D, Usage>(from)?.filter(|usage| usage.total_tokens > 0))
}

#[cfg(test)]
mod tests;
