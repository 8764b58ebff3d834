//! Calls to upstreams, runners and the store.

use gateway::{Body, CallError};
use http_body_util::BodyExt as _;
use js_sys::{Promise, Uint8Array};
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, RequestInit, RequestRedirect};
use worker::{Fetcher, worker_sys};

use crate::body;
use crate::sleep::global;

/// Aborts a fetch when it is dropped: dropping a promise ends nothing.
pub(crate) struct AbortOnDrop(Option<AbortController>);

impl AbortOnDrop {
    /// What it guarded has ended by itself.
    pub(crate) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(controller) = &self.0 {
            controller.abort();
        }
    }
}

/// `through`: the binding that presents the client certificate.
pub(crate) async fn call(
    through: Option<Fetcher>,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, CallError> {
    let controller = AbortController::new().map_err(|error| unsendable(&error))?;
    let signal = controller.signal();
    let guard = AbortOnDrop(Some(controller));
    let (head, request_body) = request.into_parts();
    let init = RequestInit::new();
    init.set_method(head.method.as_str());
    init.set_redirect(RequestRedirect::Manual);
    init.set_signal(Some(&signal));
    let headers = body::headers(&head.headers).map_err(|error| unsendable(&error))?;
    init.set_headers(&headers);
    if let Some(bytes) = in_one_piece(request_body).await? {
        init.set_body(&bytes);
    }
    let request = web_sys::Request::new_with_str_and_init(&head.uri.to_string(), &init)
        .map_err(|error| unsendable(&error))?;
    let promise = match through {
        None => global().fetch_with_request(&request),
        Some(fetcher) => {
            fetcher.into_rpc::<worker_sys::Fetcher>().fetch(&request).map_err(|error| unsendable(&error))?
        }
    };
    let response = answered(promise).await?;
    body::response(&response, guard).map_err(|error| unsendable(&error))
}

async fn answered(promise: Promise) -> Result<web_sys::Response, CallError> {
    match JsFuture::from(promise).await {
        Ok(response) => response.dyn_into().map_err(|_| CallError::Protocol),
        Err(error) => {
            let reason = text(&error);
            tracing::debug!(reason, "call failed");
            Err(classify(&reason))
        }
    }
}

/// The gateway's requests are in memory already, and signed ones need a length, which a stream has not.
async fn in_one_piece(body: Body) -> Result<Option<Uint8Array>, CallError> {
    let bytes = body.collect().await.map_err(|_| CallError::Closed)?.to_bytes();
    Ok((!bytes.is_empty()).then(|| Uint8Array::from(&bytes[..])))
}

/// The platform has words only.
fn classify(reason: &str) -> CallError {
    if reason.contains("TLS") || reason.contains("certificate") {
        CallError::Tls
    } else if reason.contains("connection lost") {
        CallError::Closed
    } else {
        CallError::Connect
    }
}

fn unsendable(error: &JsValue) -> CallError {
    tracing::warn!(reason = text(error), "a request could not be made");
    CallError::Protocol
}

fn text(error: &JsValue) -> String {
    match error.dyn_ref::<js_sys::Error>() {
        Some(error) => error.message().into(),
        None => "no reason given".to_owned(),
    }
}
