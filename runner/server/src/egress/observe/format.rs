//! What the vendors' JSON says of usage, finish and errors. Sources: the public references of Anthropic's Messages and
//! its errors, Gemini's `GenerateContentResponse` and `google.rpc.Status`, OpenAI's Responses and Chat Completions.

use std::borrow::Cow;

use runner_api::{FinishReason, RunUsage};
use serde::Deserialize;

use super::answer::{Outcome, VendorError};
use crate::egress::api::AnswerFormat;

/// Takes one event of a stream, or a whole answer. What is not of the format says nothing.
pub(super) fn read(format: AnswerFormat, json: &[u8], outcome: &mut Outcome) {
    match format {
        AnswerFormat::Messages => messages(json, outcome),
        AnswerFormat::GenerateContent => generate_content(json, outcome),
        AnswerFormat::Responses => responses(json, outcome),
        AnswerFormat::ChatCompletions => chat_completions(json, outcome),
    }
}

/// The body of an answer that is an error by its status.
pub(super) fn read_error(json: &[u8]) -> VendorError {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        error: ErrorBody<'a>,
    }
    let envelope: Option<Envelope<'_>> = if is_list(json) {
        serde_json::from_slice::<Vec<_>>(json).ok().and_then(|list| list.into_iter().next())
    } else {
        serde_json::from_slice(json).ok()
    };
    // The answer's own status says it better.
    let named = envelope.map(|envelope| envelope.error.into_error()).unwrap_or_default();
    VendorError { status: None, ..named }
}

/// Any vendor's `error`.
#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorBody<'a> {
    #[serde(borrow)]
    Object(ErrorObject<'a>),
    Text(Cow<'a, str>),
}

#[derive(Deserialize)]
struct ErrorObject<'a> {
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    code: Option<Code<'a>>,
    #[serde(borrow, default)]
    details: Option<Vec<Detail<'a>>>,
}

/// Gemini's is the status, OpenAI's a name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Code<'a> {
    Number(u64),
    #[serde(borrow)]
    Name(Cow<'a, str>),
}

#[derive(Deserialize)]
struct Detail<'a> {
    /// Of `google.rpc.RetryInfo`: `34.074824224s`.
    #[serde(borrow, default, rename = "retryDelay")]
    retry_delay: Option<Cow<'a, str>>,
}

impl ErrorBody<'_> {
    fn into_error(self) -> VendorError {
        match self {
            Self::Text(message) => {
                VendorError { message: Some(message.into_owned()), ..VendorError::default() }
            }
            Self::Object(error) => {
                let named = error.kind.as_deref().and_then(status_of);
                let status = match &error.code {
                    Some(Code::Number(status)) => u16::try_from(*status).ok(),
                    Some(Code::Name(name)) => status_of(name).or(named),
                    None => named,
                };
                let delay = error.details.iter().flatten().find_map(|detail| detail.retry_delay.as_deref());
                VendorError {
                    status,
                    message: error.message.map(Cow::into_owned),
                    retry_after_ms: delay.and_then(delay_ms),
                }
            }
        }
    }
}

/// The status with which the vendor would have answered, had the error come before the stream.
fn status_of(name: &str) -> Option<u16> {
    Some(match name {
        "invalid_request_error" | "invalid_prompt" | "context_length_exceeded" => 400,
        "authentication_error" | "invalid_api_key" => 401,
        "billing_error" | "insufficient_quota" | "billing_hard_limit_reached" => 402,
        "permission_error" => 403,
        "not_found_error" | "model_not_found" => 404,
        "request_too_large" => 413,
        "rate_limit_error" | "rate_limit_exceeded" => 429,
        "api_error" | "server_error" => 500,
        "timeout_error" => 504,
        "overloaded_error" | "server_is_overloaded" | "slow_down" => 529,
        _ => return None,
    })
}

fn delay_ms(delay: &str) -> Option<u64> {
    let (seconds, fraction) =
        delay.strip_suffix('s')?.split_once('.').unwrap_or((delay.strip_suffix('s')?, ""));
    let milliseconds: String = fraction.chars().chain("000".chars()).take(3).collect();
    seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(milliseconds.parse().ok()?)
}

fn messages(json: &[u8], outcome: &mut Outcome) {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        /// Of `message_start`.
        #[serde(borrow, default)]
        message: Option<Message<'a>>,
        /// Of `message_delta`.
        #[serde(borrow, default)]
        delta: Option<Delta<'a>>,
        /// Of `message_delta`, and of a message that is not streamed.
        #[serde(default)]
        usage: Option<Usage>,
        #[serde(borrow, default)]
        stop_reason: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        error: Option<ErrorBody<'a>>,
    }
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(default)]
        usage: Option<Usage>,
        #[serde(borrow, default)]
        stop_reason: Option<Cow<'a, str>>,
    }
    #[derive(Deserialize)]
    struct Delta<'a> {
        #[serde(borrow, default)]
        stop_reason: Option<Cow<'a, str>>,
    }
    /// Cached input is counted apart from other input. Each count replaces an earlier one.
    #[derive(Deserialize)]
    #[expect(clippy::struct_field_names, reason = "the vendor's names")]
    struct Usage {
        input_tokens: Option<u64>,
        cache_creation_input_tokens: Option<u64>,
        cache_read_input_tokens: Option<u64>,
        output_tokens: Option<u64>,
    }
    fn take_usage(usage: &Usage, outcome: &mut Outcome) {
        let total = outcome.usage.get_or_insert_default();
        if let Some(input) = usage.input_tokens {
            let cached = usage.cache_read_input_tokens.unwrap_or(0);
            let created = usage.cache_creation_input_tokens.unwrap_or(0);
            total.input_tokens = Some(input.saturating_add(cached).saturating_add(created));
            total.cached_input_tokens = usage.cache_read_input_tokens.or(total.cached_input_tokens);
        }
        total.output_tokens = usage.output_tokens.or(total.output_tokens);
    }
    let Ok(event) = serde_json::from_slice::<Event<'_>>(json) else { return };
    let message = event.message.as_ref();
    for usage in
        [message.and_then(|message| message.usage.as_ref()), event.usage.as_ref()].into_iter().flatten()
    {
        take_usage(usage, outcome);
    }
    let reasons = [
        message.and_then(|message| message.stop_reason.as_ref()),
        event.delta.as_ref().and_then(|delta| delta.stop_reason.as_ref()),
        event.stop_reason.as_ref(),
    ];
    if let Some(reason) = reasons.into_iter().flatten().next() {
        outcome.finish = Some(match reason.as_ref() {
            "end_turn" | "stop_sequence" => FinishReason::Stop,
            "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
            "refusal" => FinishReason::ContentFilter,
            _ => FinishReason::Other,
        });
    }
    match event.kind.as_ref() {
        "message_stop" | "message" => outcome.complete = true,
        "error" => fail(event.error, outcome),
        _ => {}
    }
}

fn generate_content(json: &[u8], outcome: &mut Outcome) {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Chunk<'a> {
        #[serde(borrow, default)]
        candidates: Option<Vec<Candidate<'a>>>,
        #[serde(borrow, default)]
        prompt_feedback: Option<PromptFeedback<'a>>,
        #[serde(default)]
        usage_metadata: Option<UsageMetadata>,
        #[serde(borrow, default)]
        error: Option<ErrorBody<'a>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Candidate<'a> {
        #[serde(borrow, default)]
        finish_reason: Option<Cow<'a, str>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct PromptFeedback<'a> {
        #[serde(borrow, default)]
        block_reason: Option<Cow<'a, str>>,
    }
    /// Cached content is part of the prompt; thoughts are not part of the candidates. The last chunk's holds.
    #[derive(Deserialize)]
    #[expect(clippy::struct_field_names, reason = "the vendor's names")]
    #[serde(rename_all = "camelCase")]
    struct UsageMetadata {
        prompt_token_count: Option<u64>,
        tool_use_prompt_token_count: Option<u64>,
        cached_content_token_count: Option<u64>,
        candidates_token_count: Option<u64>,
        thoughts_token_count: Option<u64>,
    }
    let take = |chunk: Chunk<'_>, outcome: &mut Outcome| {
        if let Some(usage) = chunk.usage_metadata {
            outcome.usage = Some(RunUsage {
                input_tokens: added(usage.prompt_token_count, usage.tool_use_prompt_token_count),
                output_tokens: added(usage.candidates_token_count, usage.thoughts_token_count),
                cached_input_tokens: usage.cached_content_token_count,
                reasoning_tokens: usage.thoughts_token_count,
            });
        }
        if let Some(reason) =
            chunk.candidates.iter().flatten().next().and_then(|candidate| candidate.finish_reason.as_ref())
        {
            outcome.finish = Some(match reason.as_ref() {
                "STOP" => FinishReason::Stop,
                "MAX_TOKENS" => FinishReason::Length,
                "SAFETY" | "RECITATION" | "LANGUAGE" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII"
                | "IMAGE_SAFETY" => FinishReason::ContentFilter,
                _ => FinishReason::Other,
            });
            outcome.complete = true;
        }
        if chunk.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some()) {
            outcome.finish = Some(FinishReason::ContentFilter);
            outcome.complete = true;
        }
        if chunk.error.is_some() {
            fail(chunk.error, outcome);
        }
    };
    if is_list(json) {
        for chunk in serde_json::from_slice::<Vec<_>>(json).unwrap_or_default() {
            take(chunk, outcome);
        }
    } else if let Ok(chunk) = serde_json::from_slice(json) {
        take(chunk, outcome);
    }
}

fn responses(json: &[u8], outcome: &mut Outcome) {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        response: Option<Response<'a>>,
        #[serde(borrow, default)]
        error: Option<ErrorBody<'a>>,
        #[serde(borrow, default)]
        code: Option<Code<'a>>,
        #[serde(borrow, default)]
        message: Option<Cow<'a, str>>,
    }
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow, default)]
        status: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        incomplete_details: Option<IncompleteDetails<'a>>,
        #[serde(default)]
        usage: Option<Usage>,
        #[serde(borrow, default)]
        error: Option<ErrorBody<'a>>,
    }
    #[derive(Deserialize)]
    struct IncompleteDetails<'a> {
        #[serde(borrow, default)]
        reason: Option<Cow<'a, str>>,
    }
    #[derive(Deserialize)]
    struct Usage {
        input_tokens: Option<u64>,
        #[serde(default)]
        input_tokens_details: Option<InputDetails>,
        output_tokens: Option<u64>,
        #[serde(default)]
        output_tokens_details: Option<OutputDetails>,
    }
    fn take(response: Response<'_>, outcome: &mut Outcome) {
        if let Some(usage) = response.usage {
            outcome.usage = Some(RunUsage {
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                cached_input_tokens: usage.input_tokens_details.and_then(|details| details.cached_tokens),
                reasoning_tokens: usage.output_tokens_details.and_then(|details| details.reasoning_tokens),
            });
        }
        let reason = response.incomplete_details.and_then(|details| details.reason);
        match response.status.as_deref() {
            Some("completed") => {
                outcome.complete = true;
                outcome.finish.get_or_insert(FinishReason::Stop);
            }
            Some("incomplete") => {
                outcome.complete = true;
                outcome.finish = Some(match reason.as_deref() {
                    Some("max_output_tokens" | "max_tokens") => FinishReason::Length,
                    Some("content_filter") => FinishReason::ContentFilter,
                    _ => FinishReason::Other,
                });
            }
            Some("failed") => fail(response.error, outcome),
            _ => {}
        }
    }
    let Ok(event) = serde_json::from_slice::<Event<'_>>(json) else { return };
    match event.kind.as_deref() {
        Some("response.completed" | "response.incomplete" | "response.failed") => {
            if let Some(response) = event.response {
                take(response, outcome);
            }
        }
        Some("response.refusal.done") => outcome.finish = Some(FinishReason::ContentFilter),
        Some("error") => {
            let own = ErrorObject { message: event.message, kind: None, code: event.code, details: None };
            fail(Some(event.error.unwrap_or(ErrorBody::Object(own))), outcome);
        }
        Some(_) => {}
        // Not a stream.
        None => {
            if let Ok(response) = serde_json::from_slice(json) {
                take(response, outcome);
            }
        }
    }
}

fn chat_completions(json: &[u8], outcome: &mut Outcome) {
    #[derive(Deserialize)]
    struct Chunk<'a> {
        #[serde(borrow, default)]
        choices: Option<Vec<Choice<'a>>>,
        #[serde(default)]
        usage: Option<Usage>,
        #[serde(borrow, default)]
        error: Option<ErrorBody<'a>>,
    }
    #[derive(Deserialize)]
    struct Choice<'a> {
        #[serde(borrow, default)]
        finish_reason: Option<Cow<'a, str>>,
    }
    #[derive(Deserialize)]
    struct Usage {
        prompt_tokens: Option<u64>,
        #[serde(default)]
        prompt_tokens_details: Option<InputDetails>,
        completion_tokens: Option<u64>,
        #[serde(default)]
        completion_tokens_details: Option<OutputDetails>,
    }
    if json.trim_ascii() == b"[DONE]" {
        outcome.complete = true;
        return;
    }
    let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(json) else { return };
    if let Some(usage) = chunk.usage {
        outcome.usage = Some(RunUsage {
            input_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
            cached_input_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens),
            reasoning_tokens: usage.completion_tokens_details.and_then(|details| details.reasoning_tokens),
        });
    }
    if let Some(reason) =
        chunk.choices.iter().flatten().next().and_then(|choice| choice.finish_reason.as_ref())
    {
        outcome.finish = Some(match reason.as_ref() {
            "stop" => FinishReason::Stop,
            "length" => FinishReason::Length,
            "content_filter" => FinishReason::ContentFilter,
            _ => FinishReason::Other,
        });
        outcome.complete = true;
    }
    if chunk.error.is_some() {
        fail(chunk.error, outcome);
    }
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<u64>,
}

/// A stream's own error ends it.
fn fail(error: Option<ErrorBody<'_>>, outcome: &mut Outcome) {
    outcome.error = Some(error.map(ErrorBody::into_error).unwrap_or_default());
    outcome.complete = true;
}

/// Gemini's way to stream without server-sent events.
fn is_list(json: &[u8]) -> bool {
    json.trim_ascii_start().starts_with(b"[")
}

fn added(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    }
}
