//! Requests' bodies: each whole, within a size, a pace and a time; all of them within a share of the node's memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use runner_api::{Refusal, RefusalCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Longest run request: a coding turn has some megabytes, images more.
pub(super) const MAX_BODY_BYTES: usize = 32 << 20;
/// Of all requests that come in or wait for their CLI.
const MAX_HELD_BYTES: usize = 512 << 20;
/// Bodies that come in at the same time; others wait.
const MAX_UPLOADS: usize = 64;
/// Of those, at most so many of one client.
const MAX_UPLOADS_OF_CLIENT: usize = 16;
/// How long one may take, its turn waited for.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest pause of one that comes in.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Until there is room for another request's bytes: requests leave as runs begin.
const RETRY_AFTER_MS: u64 = 2_000;

/// Room for the bodies of all clients.
pub(super) struct Uploads {
    turns: Semaphore,
    /// By the name that let the client in: no more than are on the operator's list.
    turns_of_client: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    held_bytes: Arc<Semaphore>,
}

/// A request's bytes, and their share of the room. The share is to be held for as long as the request is.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) bytes: Bytes,
    pub(super) share: OwnedSemaphorePermit,
}

impl Uploads {
    pub(super) fn new() -> Self {
        Self {
            turns: Semaphore::new(MAX_UPLOADS),
            turns_of_client: Mutex::default(),
            held_bytes: Arc::new(Semaphore::new(MAX_HELD_BYTES)),
        }
    }

    /// Waits for the client's turn among the bodies that come in, and for the body.
    pub(super) async fn read(&self, client: &Arc<str>, body: Body) -> Result<Upload, Refusal> {
        // One that says how long it is may be refused before it comes.
        let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if declared > MAX_BODY_BYTES {
            return Err(too_long());
        }
        if declared > self.held_bytes.available_permits() {
            return Err(no_room());
        }
        let turns_of_client = self.turns_of(client);
        let whole = async {
            // None: they are closed, which nobody does. The client's own turn first: it keeps nobody else's.
            let _turn_of_client = turns_of_client.acquire().await.ok();
            let _turn = self.turns.acquire().await.ok();
            self.collect(body).await
        };
        timeout(TIMEOUT, whole).await.unwrap_or_else(|_| Err(too_slow()))
    }

    async fn collect(&self, body: Body) -> Result<Upload, Refusal> {
        let mut body = Limited::new(body, MAX_BODY_BYTES);
        let mut bytes = BytesMut::new();
        // What has come counts, not what was announced: a client that says much and sends nothing takes no room.
        let mut share = self.share(0)?;
        while let Some(frame) = timeout(MAX_PAUSE, body.frame()).await.map_err(|_| too_slow())? {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    too_long()
                } else {
                    Refusal::new(RefusalCode::InvalidRequest, "the request's body ended early")
                }
            })?;
            let Ok(data) = frame.into_data() else { continue };
            share.merge(self.share(data.len())?);
            bytes.extend_from_slice(&data);
        }
        Ok(Upload { bytes: bytes.freeze(), share })
    }

    fn share(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let bytes = u32::try_from(bytes).map_err(|_| too_long())?;
        Arc::clone(&self.held_bytes).try_acquire_many_owned(bytes).map_err(|_| no_room())
    }

    fn turns_of(&self, client: &Arc<str>) -> Arc<Semaphore> {
        let mut turns = self.turns_of_client.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = turns
            .entry(Arc::clone(client))
            .or_insert_with(|| Arc::new(Semaphore::new(MAX_UPLOADS_OF_CLIENT)));
        Arc::clone(turns)
    }
}

fn too_long() -> Refusal {
    Refusal::new(RefusalCode::TooLarge, format!("the request is longer than {MAX_BODY_BYTES} bytes"))
}

fn too_slow() -> Refusal {
    Refusal::new(RefusalCode::SlowRequest, "the request's body did not come in time")
}

fn no_room() -> Refusal {
    Refusal::new(RefusalCode::Saturated, "this node has no room for another request's bytes")
        .retry_after_ms(RETRY_AFTER_MS)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{FutureExt as _, StreamExt as _, future, stream};
    use tokio::time::{Instant, sleep};

    use super::*;

    fn silent() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())
    }

    /// A byte in each pause.
    fn dripping(bytes: usize, pause: Duration) -> Body {
        Body::from_stream(stream::iter(0..bytes).then(move |_| async move {
            sleep(pause).await;
            Ok::<_, Infallible>(Bytes::from_static(b" "))
        }))
    }

    fn code(outcome: Result<Upload, Refusal>) -> RefusalCode {
        outcome.unwrap_err().code
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let (uploads, client) = (Uploads::new(), Arc::from("edge"));
        let begun = Instant::now();
        assert_eq!(code(uploads.read(&client, silent()).await), RefusalCode::SlowRequest);
        assert_eq!(begun.elapsed(), MAX_PAUSE);
        let begun = Instant::now();
        let slow = dripping(100, MAX_PAUSE / 2);
        assert_eq!(code(uploads.read(&client, slow).await), RefusalCode::SlowRequest);
        assert_eq!(begun.elapsed(), TIMEOUT);
        let slow = dripping(10, MAX_PAUSE / 2);
        assert_eq!(uploads.read(&client, slow).await.unwrap().bytes.len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_its_part_of_the_turns_alone() {
        let uploads = Uploads::new();
        let (slow, other): (Arc<str>, Arc<str>) = (Arc::from("slow"), Arc::from("other"));
        let mut all = future::join_all((0..MAX_UPLOADS * 2).map(|_| uploads.read(&slow, silent())));
        assert!((&mut all).now_or_never().is_none());
        assert_eq!(uploads.turns.available_permits(), MAX_UPLOADS - MAX_UPLOADS_OF_CLIENT);
        assert_eq!(uploads.read(&other, Body::from("{}")).await.unwrap().bytes, "{}");
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_told_from_one_that_is_too_long() {
        let (uploads, client) = (Uploads::new(), Arc::from("edge"));
        let broken = Body::from_stream(stream::iter([Ok(Bytes::from("{")), Err("gone")]));
        assert_eq!(code(uploads.read(&client, broken).await), RefusalCode::InvalidRequest);
        let long = Bytes::from(vec![b' '; MAX_BODY_BYTES + 1]);
        assert_eq!(code(uploads.read(&client, Body::from(long.clone())).await), RefusalCode::TooLarge);
        let unannounced = Body::from_stream(stream::iter([Ok::<_, Infallible>(long)]));
        assert_eq!(code(uploads.read(&client, unannounced).await), RefusalCode::TooLarge);
    }

    #[tokio::test]
    async fn requests_that_are_held_have_a_limit_in_bytes() {
        let (uploads, client) = (Uploads::new(), Arc::from("edge"));
        let _others = uploads.share(MAX_HELD_BYTES - 10).unwrap();
        let eight = || Bytes::from_static(b"12345678");
        let held = uploads.read(&client, Body::from(eight())).await.unwrap();
        let refusal = uploads.read(&client, Body::from(eight())).await.unwrap_err();
        assert_eq!((refusal.code, refusal.retry_after_ms), (RefusalCode::Saturated, Some(RETRY_AFTER_MS)));
        let unannounced = Body::from_stream(stream::iter([Ok::<_, Infallible>(eight())]));
        assert_eq!(code(uploads.read(&client, unannounced).await), RefusalCode::Saturated);
        drop(held);
        assert_eq!(uploads.read(&client, Body::from(eight())).await.unwrap().bytes, eight());
    }
}
