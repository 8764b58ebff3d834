//! A request's body: whole, within a size and a time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use runner_api::{Refusal, RefusalCode};

/// Longest run request: a coding turn has some megabytes, images more.
pub(super) const MAX_BODY_BYTES: usize = 32 << 20;
/// How long one may be on its way.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn read(body: Body) -> Result<Bytes, Refusal> {
    let collected = tokio::time::timeout(TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the request is longer than {MAX_BODY_BYTES} bytes");
            Err(Refusal::new(RefusalCode::TooLarge, message))
        }
        Ok(Err(_)) => Err(Refusal::new(RefusalCode::InvalidRequest, "the request's body ended early")),
        Err(_) => Err(Refusal::new(RefusalCode::Timeout, "the request's body did not come in time")),
    }
}
