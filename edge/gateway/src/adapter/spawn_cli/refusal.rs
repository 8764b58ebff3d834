//! A node that does not begin a run: why, whose fault it is, and whether another node may.

use std::time::Duration;

use catalog::SpawnCliConfig;
use http::StatusCode;
use runner_api::{Refusal, RefusalCode};

use super::{Conversation, REASONING_EFFORT, Refused, callers_fault};
use crate::classify::safe_text;
use crate::error::{FailureClass, UpstreamFailure};

pub(super) fn classify(
    status: StatusCode,
    body: &[u8],
    conversation: &Conversation,
    cli: &SpawnCliConfig,
) -> Refused {
    let Some(refusal) = Refusal::from_json(body) else {
        tracing::warn!(status = status.as_u16(), "a runner answered neither run events nor a refusal");
        let message = "A runner answered something that is not of its protocol.";
        return Refused::elsewhere(UpstreamFailure::unavailable(message));
    };
    let failure = UpstreamFailure::new;
    let mut failure = match refusal.code {
        RefusalCode::InvalidRequest => return invalid(&refusal, conversation, cli),
        RefusalCode::TooLarge => {
            let message = "The request is longer than its runner takes.".to_owned();
            let failure = callers_fault(None, "request_too_large", message);
            return Refused { failure, elsewhere: false };
        }
        // Whatever is tried now comes too late as well.
        RefusalCode::Timeout => {
            let failure = failure(FailureClass::Timeout, "No run could begin in the time there was.");
            return Refused { failure, elsewhere: false };
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
    Refused::elsewhere(failure)
}

/// Of what the gateway sends, the conversation is the client's, the model the provider's, and the rest its own.
fn invalid(refusal: &Refusal, conversation: &Conversation, cli: &SpawnCliConfig) -> Refused {
    let param = refusal.param.as_deref().unwrap_or_default();
    let parameter = param.strip_prefix("parameters.");
    let path = match parameter {
        None => conversation.path_of(param),
        Some(REASONING_EFFORT) if !cli.parameters.contains_key(REASONING_EFFORT) => {
            Some(REASONING_EFFORT.to_owned())
        }
        Some(_) => None,
    };
    if let Some(path) = path {
        let message = said(refusal);
        return Refused { failure: callers_fault(Some(path), "invalid_value", message), elsewhere: false };
    }
    tracing::warn!(param, "a runner refused what the gateway asked for: {}", said(refusal));
    let failure = if parameter.is_some() && parameter == cli.model_parameter.as_deref() {
        UpstreamFailure::new(FailureClass::NotFound, "The runner does not have this model.")
    } else {
        UpstreamFailure::unavailable("The runner did not take what this model's provider is configured with.")
    };
    Refused::elsewhere(failure)
}

fn said(refusal: &Refusal) -> String {
    safe_text(&refusal.message, None)
}
