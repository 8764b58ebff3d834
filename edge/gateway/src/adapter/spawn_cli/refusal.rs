//! A node that does not begin a run: why, whose fault it is, and who else may.

use std::time::Duration;

use catalog::SpawnCliConfig;
use http::StatusCode;
use runner_api::{Refusal, RefusalCode};

use super::effort::REASONING_EFFORT;
use super::{Conversation, cannot_do};
use crate::classify::safe_text;
use crate::error::{FailureClass, Scope, UpstreamFailure};

pub(super) fn classify(
    status: StatusCode,
    body: &[u8],
    conversation: &Conversation,
    cli: &SpawnCliConfig,
) -> UpstreamFailure {
    let Some(refusal) = Refusal::from_json(body) else {
        tracing::warn!(status = status.as_u16(), "a runner answered neither run events nor a refusal");
        return UpstreamFailure::unavailable("A runner answered something that is not of its protocol.");
    };
    let failure = UpstreamFailure::new;
    let mut failure = match refusal.code {
        RefusalCode::InvalidRequest => return invalid(&refusal, conversation, cli),
        RefusalCode::TooLarge => {
            let message = "The request is longer than its runner takes.".to_owned();
            return cannot_do(None, "request_too_large", message);
        }
        // Whatever is tried now comes too late as well.
        RefusalCode::Timeout => {
            return failure(FailureClass::Timeout, "No run could begin in the time there was.");
        }
        RefusalCode::Saturated => {
            failure(FailureClass::Overloaded, "All runners of this model are busy. Try again shortly.")
        }
        RefusalCode::Draining => failure(
            FailureClass::Overloaded,
            "The runners of this model take no new requests right now. Try again shortly.",
        ),
        RefusalCode::Unavailable => {
            failure(FailureClass::Unavailable, "The runner could not make a sandbox for the request.")
        }
        RefusalCode::SlowRequest => {
            failure(FailureClass::Unavailable, "The request did not reach its runner in time.")
        }
        RefusalCode::Forbidden => {
            failure(FailureClass::Auth, "The runner does not accept this gateway's certificate.")
        }
        RefusalCode::NotFound => {
            failure(FailureClass::NotFound, "The runner does not have the CLI of this model.")
        }
        RefusalCode::Version => {
            failure(FailureClass::Unavailable, "The runner is of another version than this gateway.")
        }
        RefusalCode::MethodNotAllowed | RefusalCode::Replayed | RefusalCode::Internal => {
            failure(FailureClass::Unavailable, "The runner could not begin a run.")
        }
    };
    tracing::warn!(status = status.as_u16(), code = ?refusal.code, "a runner refused: {}", said(&refusal));
    failure.retry_after = refusal.retry_after_ms.map(Duration::from_millis);
    failure.of_scope(Scope::Upstream)
}

/// Of what the gateway sends, the conversation is the client's, the model the provider's, and the rest its own.
fn invalid(refusal: &Refusal, conversation: &Conversation, cli: &SpawnCliConfig) -> UpstreamFailure {
    let param = refusal.param.as_deref().unwrap_or_default();
    if let Some(path) = conversation.path_of(param) {
        return cannot_do(Some(path), "invalid_value", said(refusal));
    }
    tracing::warn!(param, "a runner refused what the gateway asked for: {}", said(refusal));
    let parameter = param.strip_prefix("parameters.");
    let mut failure = if parameter.is_some() && parameter == cli.model_parameter.as_deref() {
        UpstreamFailure::new(FailureClass::NotFound, "The runner does not have this model.")
    } else {
        UpstreamFailure::unavailable("The runner did not take what this model's provider is configured with.")
    };
    if parameter == Some(REASONING_EFFORT) {
        failure.param = parameter.map(str::to_owned);
    }
    failure.of_scope(Scope::Upstream)
}

fn said(refusal: &Refusal) -> String {
    safe_text(&refusal.message, None)
}
