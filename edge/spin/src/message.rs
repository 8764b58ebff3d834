//! Requests and responses between WASI's types and the gateway's.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway::{Body, BoxError, full};
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use spin_sdk::http::Request;

/// Longest piece of a body that is handed to WASI at once, which copies it.
const MAX_PIECE_BYTES: usize = 256 * 1024;

pub(crate) fn from_wasi(request: Request) -> http::Request<Body> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    request.map(|body| match length {
        Some(0) => full(Bytes::new()),
        Some(left) => Announced { body: body.map_err(Into::into).boxed_unsync(), left }.boxed_unsync(),
        None => body.map_err(Into::into).boxed_unsync(),
    })
}

/// A response as it leaves the component. A length that is known is said, as every other host says it.
pub(crate) fn to_wasi(mut response: http::Response<Body>) -> http::Response<Body> {
    if let Some(length) = response.body().size_hint().exact()
        && !response.headers().contains_key(header::CONTENT_LENGTH)
    {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response.map(pieces)
}

/// An answer to what the gateway cannot even be asked.
pub(crate) fn malformed() -> http::Response<Body> {
    let error = r#"{"error":{"message":"The request is malformed: its URL, its headers or its Content-Length.","type":"invalid_request_error","param":null,"code":"malformed_request"}}"#;
    let mut response = http::Response::new(full(error));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A request's body whose length its client has announced. WASI's own type knows the length as an upper bound only,
/// and a body that is too long would be read as far as it may go before it is refused.
struct Announced {
    body: Body,
    left: u64,
}

impl http_body::Body for Announced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.left = self.left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The same body, with long frames cut up.
pub(crate) fn pieces(body: Body) -> Body {
    Pieces { body, rest: Bytes::new() }.boxed_unsync()
}

struct Pieces {
    body: Body,
    /// What was not handed on yet of the last frame.
    rest: Bytes,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(MAX_PIECE_BYTES);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
