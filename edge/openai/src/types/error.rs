//! Error objects: ours, strictly; an upstream's, in whatever shape.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

/// `{"error":{message, type, param, code}}`, with all four members, absent ones as `null`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ErrorBody<'a> {
    pub message: &'a str,
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub param: Option<&'a str>,
    pub code: Option<&'a str>,
}

impl ErrorBody<'_> {
    pub fn to_json(&self) -> Bytes {
        #[derive(Serialize)]
        struct Whole<'a> {
            error: &'a ErrorBody<'a>,
        }
        serde_json::to_vec(&Whole { error: self }).expect("strings are always JSON").into()
    }
}

/// What an upstream says of its error, as far as it says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamErrorBody {
    pub message: Option<String>,
    pub kind: Option<String>,
    pub param: Option<String>,
    /// A word or a number, as text.
    pub code: Option<String>,
}

impl UpstreamErrorBody {
    /// Understands OpenAI's `{"error":{…}}`, `{"error":"text"}`, `FastAPI`'s `{"detail":…}`, and members at the top;
    /// `None` for what is no error object. A tree is fine here: error bodies are short and rare.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let whole: Value = serde_json::from_slice(body).ok()?;
        // Google wraps its error in a list.
        let whole = whole.as_array().and_then(|list| list.first()).unwrap_or(&whole);
        let members = whole.as_object()?;
        let error =
            ["error", "detail"].iter().find_map(|name| members.get(*name).filter(|error| !error.is_null()));
        match error {
            Some(Value::Object(_)) => Some(Self::from_members(error?)),
            Some(Value::String(text)) => {
                Some(Self { message: Some(text.clone()), ..Self::from_members(whole) })
            }
            // FastAPI's list of violations.
            Some(Value::Array(list)) => {
                let texts: Vec<&str> = list.iter().filter_map(|item| item.get("msg")?.as_str()).collect();
                Some(Self { message: (!texts.is_empty()).then(|| texts.join("; ")), ..Self::default() })
            }
            Some(_) => Some(Self::from_members(whole)),
            None => members.contains_key("message").then(|| Self::from_members(whole)),
        }
    }

    fn from_members(object: &Value) -> Self {
        let text = |name: &str| match object.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        Self { message: text("message"), kind: text("type"), param: text("param"), code: text("code") }
    }
}
