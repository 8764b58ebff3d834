//! Messages, from the platform's types to those of the gateway and back.

use std::pin::Pin;
use std::str::FromStr as _;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::Stream;
use futures_util::io::AsyncRead as _;
use gateway::{Body, BoxError, full};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use js_sys::{Array, Uint8Array};
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_streams::ReadableStream;
use wasm_streams::readable::IntoAsyncRead;
use web_sys::{Headers, ResponseInit};
use worker::send::SendWrapper;

use crate::fetch::AbortOnDrop;

/// What is read of a body at once, at most: by default the platform gives 4 KiB, and each piece has its price.
const READ_BYTES: usize = 32 * 1024;

/// The client's request, whose body is read as the gateway asks for it, and the end of that reading.
pub(crate) fn request(
    request: &web_sys::Request,
) -> Result<(http::Request<Body>, oneshot::Receiver<()>), JsValue> {
    let headers = header_map(&request.headers())?;
    let length = content_length(&headers);
    let (done, read) = oneshot::channel();
    let body = match request.body() {
        Some(stream) => incoming(stream, length, Held::UntilRead(done))?,
        None => full(""),
    };
    let mut converted = http::Request::new(body);
    *converted.method_mut() = Method::from_str(&request.method()).map_err(|error| text(&error))?;
    *converted.uri_mut() = target(&request.url());
    *converted.headers_mut() = headers;
    Ok((converted, read))
}

/// Path and query alone: the rest is the address of this Worker, as far as it is one. What is no path leads nowhere.
fn target(url: &str) -> Uri {
    let (_, from_host) = url.split_once("://").unwrap_or_default();
    let path = from_host.find('/').map_or("/", |at| &from_host[at..]);
    Uri::from_str(path).unwrap_or_default()
}

/// An upstream's response. `guard` ends the call when the body is dropped before its end.
pub(crate) fn response(
    response: &web_sys::Response,
    mut guard: AbortOnDrop,
) -> Result<http::Response<Body>, JsValue> {
    let headers = header_map(&response.headers())?;
    let body = if let Some(stream) = response.body() {
        // Its content may have been decoded on the way: the length is that of what was sent.
        incoming(stream, None, Held::Call(guard))?
    } else {
        guard.disarm();
        full("")
    };
    let mut converted = http::Response::new(body);
    *converted.status_mut() = StatusCode::from_u16(response.status()).map_err(|error| text(&error))?;
    *converted.headers_mut() = headers;
    Ok(converted)
}

/// An answer that is known in full, so that the client is told its length.
pub(crate) fn in_one_piece(head: &http::response::Parts, bytes: &[u8]) -> Result<web_sys::Response, JsValue> {
    // A status without content, such as 204, takes no body, and none is not the same as an empty one.
    let bytes = (!bytes.is_empty()).then(|| Uint8Array::from(bytes));
    web_sys::Response::new_with_opt_js_u8_array_and_init(bytes.as_ref(), &init(head)?)
}

/// An answer that goes out as `stream` gives it. The stream is dropped when nobody reads on.
pub(crate) fn streamed(
    head: &http::response::Parts,
    stream: impl Stream<Item = Result<JsValue, JsValue>> + 'static,
) -> Result<web_sys::Response, JsValue> {
    let stream: web_sys::ReadableStream = ReadableStream::from_stream(stream).into_raw().unchecked_into();
    web_sys::Response::new_with_opt_readable_stream_and_init(Some(&stream), &init(head)?)
}

fn init(head: &http::response::Parts) -> Result<ResponseInit, JsValue> {
    let init = ResponseInit::new();
    init.set_status(head.status.as_u16());
    init.set_headers(headers(&head.headers)?.as_ref());
    Ok(init)
}

pub(crate) fn headers(map: &HeaderMap) -> Result<Headers, JsValue> {
    let headers = Headers::new()?;
    for (name, value) in map {
        // A JavaScript header is text.
        headers.append(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
    }
    Ok(headers)
}

fn header_map(headers: &Headers) -> Result<HeaderMap, JsValue> {
    let mut map = HeaderMap::new();
    for entry in headers.entries() {
        let entry: Array = entry?.unchecked_into();
        let (Some(name), Some(value)) = (entry.get(0).as_string(), entry.get(1).as_string()) else {
            continue;
        };
        // The platform has checked both; what is beyond ASCII passes as UTF-8.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_str(&name), HeaderValue::from_bytes(value.as_bytes()))
        {
            map.append(name, value);
        }
    }
    Ok(map)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn incoming(stream: web_sys::ReadableStream, length: Option<u64>, held: Held) -> Result<Body, JsValue> {
    let stream = ReadableStream::from_raw(stream.unchecked_into());
    let stream = stream.try_into_async_read().map_err(|(error, _)| JsValue::from(error))?;
    let source = Source { stream, buffer: vec![0; READ_BYTES], left: length, held: Some(held) };
    Ok(Incoming(SendWrapper::new(source)).boxed_unsync())
}

/// A body that comes in. Dropping it gives its stream up.
struct Incoming(SendWrapper<Source>);

struct Source {
    stream: IntoAsyncRead<'static>,
    buffer: Vec<u8>,
    /// Bytes that are still to come, where that was announced.
    left: Option<u64>,
    /// Let go when all is read, dropped with the body before.
    held: Option<Held>,
}

/// What a body holds as long as it is read.
enum Held {
    /// The call whose answer it is.
    Call(AbortOnDrop),
    /// Whoever waits for the end of the reading: dropping is telling.
    UntilRead(#[expect(dead_code, reason = "is there to be dropped")] oneshot::Sender<()>),
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let source = &mut *self.0;
        match ready!(Pin::new(&mut source.stream).poll_read(cx, &mut source.buffer)) {
            Ok(0) => {
                if let Some(Held::Call(mut guard)) = source.held.take() {
                    guard.disarm();
                }
                Poll::Ready(None)
            }
            Ok(read) => {
                source.left = source.left.map(|left| left.saturating_sub(read as u64));
                Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&source.buffer[..read])))))
            }
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.0.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn text(error: &impl std::fmt::Display) -> JsValue {
    JsValue::from_str(&error.to_string())
}
