//! A request's body: whole, within a size and a time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use runner_api::{Refusal, RefusalCode};
use tokio::sync::Semaphore;

/// Longest run request: a coding turn has some megabytes, images more.
pub(super) const MAX_BODY_BYTES: usize = 32 << 20;
/// How long one may take, its turn waited for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for its turn among the bodies that come in, and for the body.
pub(super) async fn read(body: Body, uploads: &Semaphore) -> Result<Bytes, Refusal> {
    let whole = async {
        // None: it is closed, which nobody does.
        let _upload = uploads.acquire().await.ok();
        Limited::new(body, MAX_BODY_BYTES).collect().await
    };
    match tokio::time::timeout(TIMEOUT, whole).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the request is longer than {MAX_BODY_BYTES} bytes");
            Err(Refusal::new(RefusalCode::TooLarge, message))
        }
        Ok(Err(_)) => Err(Refusal::new(RefusalCode::InvalidRequest, "the request's body ended early")),
        Err(_) => Err(Refusal::new(RefusalCode::Timeout, "the request's body did not come in time")),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let uploads = Semaphore::new(1);
        let silent = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let (first, second) = tokio::join!(read(silent(), &uploads), read(silent(), &uploads));
        assert_eq!(first.unwrap_err().code, RefusalCode::Timeout);
        assert_eq!(second.unwrap_err().code, RefusalCode::Timeout, "its turn did not come");
        assert_eq!(read(Body::from("{}"), &uploads).await.unwrap(), "{}");
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_told_from_one_that_is_too_long() {
        let uploads = Semaphore::new(1);
        let broken = Body::from_stream(stream::iter([Ok(Bytes::from("{")), Err("gone")]));
        assert_eq!(read(broken, &uploads).await.unwrap_err().code, RefusalCode::InvalidRequest);
        let long = Body::from(vec![b' '; MAX_BODY_BYTES + 1]);
        assert_eq!(read(long, &uploads).await.unwrap_err().code, RefusalCode::TooLarge);
    }
}
