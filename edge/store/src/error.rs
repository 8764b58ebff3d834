//! What failed at DynamoDB, in the words of the ports.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::CancellationReason;
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use catalog::StoreError;

/// Codes that may pass, of requests and of the parts of a transaction.
const PASSING: &[&str] = &[
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceeded",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingError",
    "ThrottlingException",
    "TransactionConflict",
    "TransactionConflictException",
    "TransactionInProgressException",
];

/// Codes of requests that are understood and not allowed. Some are of signatures: a secret that is wrong, or a clock.
const DENIED: &[&str] = &[
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

pub(crate) fn unavailable(reason: impl Into<String>) -> StoreError {
    StoreError::Unavailable { reason: reason.into() }
}

pub(crate) fn broken(reason: impl Into<String>) -> StoreError {
    StoreError::Broken { reason: reason.into() }
}

/// The error of a request without a condition.
pub(crate) fn store_error<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> StoreError {
    match error {
        SdkError::TimeoutError(_) => unavailable("it took too long"),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => unavailable("it took too long"),
        SdkError::DispatchFailure(_) => unavailable("no connection"),
        SdkError::ResponseError(_) => unavailable("the answer broke off"),
        SdkError::ServiceError(service) => {
            let status = service.raw().status();
            match service.err().code() {
                Some(code) if PASSING.contains(&code) || status.is_server_error() => {
                    unavailable(printable(code))
                }
                Some("ResourceNotFoundException") => {
                    StoreError::NotSetUp { reason: "there is no such table".to_owned() }
                }
                Some(code) if DENIED.contains(&code) => StoreError::Denied { reason: code.to_owned() },
                None if status.is_server_error() => unavailable(format!("status {}", status.as_u16())),
                Some(code) => broken(printable(code)),
                None => broken(format!("an answer that is not DynamoDB's, with status {}", status.as_u16())),
            }
        }
        _ => broken("the request could not be made"),
    }
}

/// The parts of a transaction whose conditions did not hold, by their places in it.
pub(crate) fn unmet_conditions(error: &SdkError<TransactWriteItemsError, HttpResponse>) -> Vec<usize> {
    let reasons = error.as_service_error().and_then(cancellation_reasons).unwrap_or_default();
    let unmet = |reason: &CancellationReason| reason.code() == Some("ConditionalCheckFailed");
    reasons.iter().enumerate().filter(|(_, reason)| unmet(reason)).map(|(place, _)| place).collect()
}

/// The error of a write whose conditions held.
pub(crate) fn write_error(error: &SdkError<TransactWriteItemsError, HttpResponse>) -> StoreError {
    let Some(reasons) = error.as_service_error().and_then(cancellation_reasons) else {
        return store_error(error);
    };
    match codes(reasons).find(|code| !PASSING.contains(code)) {
        Some(code) => broken(printable(code)),
        None => unavailable("other writes are in the way"),
    }
}

/// Codes come from the other side: only what looks like one is repeated.
fn printable(code: &str) -> &str {
    let plain = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plain { code } else { "an unknown error code" }
}

fn cancellation_reasons(error: &TransactWriteItemsError) -> Option<&[CancellationReason]> {
    match error {
        TransactWriteItemsError::TransactionCanceledException(canceled) => {
            Some(canceled.cancellation_reasons())
        }
        _ => None,
    }
}

/// The codes of the parts that failed.
fn codes(reasons: &[CancellationReason]) -> impl Iterator<Item = &str> {
    reasons.iter().filter_map(CancellationReason::code).filter(|code| *code != "None")
}

/// Tries a cancelled transaction again if nothing but other traffic was in its way, which the SDK does not do by
/// itself: all writes meet at the configuration version.
#[derive(Debug)]
pub(crate) struct RetryCollisions;

impl ClassifyRetry for RetryCollisions {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let reasons = context
            .output_or_error()
            .and_then(Result::err)
            .and_then(OrchestratorError::as_operation_error)
            .and_then(|error| error.downcast_ref())
            .and_then(cancellation_reasons);
        match reasons {
            Some(reasons)
                if codes(reasons).next().is_some() && codes(reasons).all(|code| PASSING.contains(&code)) =>
            {
                RetryAction::transient_error()
            }
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "collided transactions"
    }
}
