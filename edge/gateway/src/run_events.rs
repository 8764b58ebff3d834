//! What a runner says of a run → canonical events and classified failures.

use std::borrow::Cow;
use std::time::Duration;

use openai_wire::{CompletionTokensDetails, FinishReason, PromptTokensDetails, Usage};
use runner_api::frame::FrameError;
use runner_api::{ErrorClass, RunEvent, RunUsage};

use crate::classify::{LONGEST_SHORT_WAIT, safe_text};
use crate::error::{FailureClass, Scope, UpstreamFailure};
use crate::event::ChatEvent;

/// `Ok(None)` for what is nothing to a client: the tools that a CLI runs in its sandbox are its own, and its runner
/// has logged what operators may want to know. `run` names the run in our log as in the runner's.
pub(crate) fn chat_event(event: RunEvent, run: &str) -> Result<Option<ChatEvent>, UpstreamFailure> {
    Ok(match event {
        RunEvent::Text { text } if !text.is_empty() => {
            Some(ChatEvent::Text { choice: 0, text, logprobs: None })
        }
        RunEvent::Reasoning { text } if !text.is_empty() => Some(ChatEvent::Reasoning { choice: 0, text }),
        RunEvent::Usage(told) => usage(told).map(ChatEvent::Usage),
        RunEvent::Finished { reason } => {
            let reason = match reason {
                runner_api::FinishReason::Stop | runner_api::FinishReason::Other => FinishReason::Stop,
                runner_api::FinishReason::Length => FinishReason::Length,
                runner_api::FinishReason::ContentFilter => FinishReason::ContentFilter,
            };
            Some(ChatEvent::Finish { choice: 0, reason })
        }
        RunEvent::Error { class, message, status, retry_after_ms } => {
            let mut failure = run_failure(class, retry_after_ms.map(Duration::from_millis));
            if status.is_some() && failure.scope == Scope::Upstream {
                // The vendor's word, which is the same on every node.
                failure.scope = Scope::Target;
            }
            if !failure.class.is_callers_fault() {
                let class = class.as_str();
                tracing::warn!(run, class, status, "a run failed: {}", safe_text(&message, None));
            } else if !message.trim().is_empty() {
                // The caller's own fault is told in the vendor's words.
                failure.message = Cow::Owned(safe_text(&message, None));
            }
            return Err(failure);
        }
        // `Started`, `ToolCall`, `Notice`, empty pieces, and events of newer versions.
        _ => None,
    })
}

/// Reported only if both counts are: half of it would be taken for all.
fn usage(told: RunUsage) -> Option<Usage> {
    let (prompt, completion) = told.input_tokens.zip(told.output_tokens)?;
    let usage = Usage {
        prompt_tokens_details: told
            .cached_input_tokens
            .map(|cached_tokens| PromptTokensDetails { cached_tokens }),
        completion_tokens_details: told
            .reasoning_tokens
            .map(|reasoning_tokens| CompletionTokensDetails { reasoning_tokens }),
        ..Usage::new(prompt, completion)
    };
    (usage.total_tokens > 0).then_some(usage)
}

fn run_failure(class: ErrorClass, retry_after: Option<Duration>) -> UpstreamFailure {
    let failure_class = match class {
        ErrorClass::Auth => FailureClass::Auth,
        // As with other upstreams: nobody repeats a request an hour later.
        ErrorClass::RateLimited if retry_after.is_some_and(|after| after >= LONGEST_SHORT_WAIT) => {
            FailureClass::QuotaExhausted
        }
        ErrorClass::RateLimited => FailureClass::RateLimited,
        ErrorClass::QuotaExhausted => FailureClass::QuotaExhausted,
        ErrorClass::Overloaded => FailureClass::Overloaded,
        ErrorClass::Timeout => FailureClass::Timeout,
        ErrorClass::InvalidRequest => FailureClass::InvalidRequest,
        ErrorClass::NotFound => FailureClass::NotFound,
        ErrorClass::ContentFilter => FailureClass::ContentFilter,
        // Not by the client: who has left is told nothing.
        ErrorClass::Unavailable | ErrorClass::Cancelled => FailureClass::Unavailable,
        ErrorClass::Internal => FailureClass::Internal,
    };
    let mut failure = UpstreamFailure::new(failure_class, own_words(class));
    if class == ErrorClass::Cancelled {
        // Who ended it there does not want it begun anew elsewhere.
        failure.scope = Scope::Request;
    }
    failure.retry_after =
        retry_after.filter(|_| matches!(failure_class, FailureClass::RateLimited | FailureClass::Overloaded));
    failure
}

fn own_words(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Auth => {
            "The CLI's vendor refused its runner's credential. The runner's operator must renew it; repeating the request does not help."
        }
        ErrorClass::RateLimited => "The rate limit of the CLI's vendor is reached. Try again shortly.",
        ErrorClass::QuotaExhausted => {
            "The quota at the CLI's vendor is used up. Repeating the request does not help."
        }
        ErrorClass::Overloaded => "The CLI's vendor is overloaded. Try again shortly.",
        ErrorClass::Timeout => "The CLI did not answer in time.",
        ErrorClass::InvalidRequest => "The CLI refused the request as invalid without saying why.",
        ErrorClass::NotFound => "The CLI's vendor does not have this model.",
        ErrorClass::ContentFilter => "The content filter of the CLI's vendor refused the request.",
        ErrorClass::Unavailable => "The CLI's vendor or its runner could not be reached.",
        ErrorClass::Cancelled => "The run was ended on its runner before the answer was complete.",
        ErrorClass::Internal => "The CLI failed.",
    }
}

pub(crate) fn frame_failure(error: &FrameError) -> UpstreamFailure {
    UpstreamFailure::unavailable(match error {
        FrameError::TooLong => "The runner sent an event beyond the size limit.",
        FrameError::Malformed(_) => "The runner sent something that is no run event.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_reported_whole_or_not_at_all() {
        let told = |input_tokens, output_tokens| RunUsage {
            input_tokens,
            output_tokens,
            cached_input_tokens: Some(2),
            reasoning_tokens: Some(1),
        };
        let whole = usage(told(Some(5), Some(3))).unwrap();
        assert_eq!((whole.prompt_tokens, whole.completion_tokens, whole.total_tokens), (5, 3, 8));
        assert_eq!(whole.prompt_tokens_details, Some(PromptTokensDetails { cached_tokens: 2 }));
        assert_eq!(whole.completion_tokens_details, Some(CompletionTokensDetails { reasoning_tokens: 1 }));
        for (input, output) in [(None, Some(3)), (Some(5), None), (None, None), (Some(0), Some(0))] {
            assert_eq!(usage(told(input, output)), None, "{input:?} {output:?}");
        }
        assert_eq!(
            usage(RunUsage { cached_input_tokens: None, ..told(Some(1), Some(0)) })
                .unwrap()
                .prompt_tokens_details,
            None
        );
    }
}
