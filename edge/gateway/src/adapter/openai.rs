//! Calls to upstreams that speak OpenAI's API: the adapters `proxy` and `local`.
//!
//! The client's body goes out as it came, in slices, with only the model name and what the upstream is known not to
//! accept replaced; the answer comes back the same way wherever it already has the right shape.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use catalog::Reach;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use openai_wire::request::{ChatScan, Rewrite};
use openai_wire::response::{CompletionScan, Shape};
use openai_wire::sse::{self, SseDecoder};
use openai_wire::{ChatCompletion, UpstreamErrorBody, UpstreamModels};

use super::{
    Call, ChatCall, Completed, Corrections, EmbeddingsCall, Gathered, MAX_ERROR_BODY_BYTES, call_failure,
    read_failure, until,
};
use crate::body::{Pieces, ReadTimeouts, collect};
use crate::body_memory::BodyMemory;
use crate::classify::{classify_error_object, classify_response};
use crate::embeddings;
use crate::error::{FailureClass, UpstreamFailure};
use crate::estimate;
use crate::host::{Body, Host, full};
use crate::normalize::Normalizer;
use crate::reader::Reader;
use crate::relay::{ChunkRelay, RelayError, Summary};
use crate::routes::{Lesson, OpenAiApi, Target, Upstream};
use crate::stream::Live;

const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");
const MAX_MODEL_LIST_BYTES: usize = 16 << 20;

/// Request headers of clients that go on to the upstream. All others stop here: some identify the client's
/// deployment, some are credentials, and hop-by-hop headers are not ours to pass on.
const FORWARDED: [HeaderName; 7] = [
    header::USER_AGENT,
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("http-referer"),
    HeaderName::from_static("x-title"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("idempotency-key"),
];

/// Opens a stream and reads it up to its first content.
pub(super) async fn stream(
    chat: &ChatCall,
    target: &Arc<Target>,
    api: &OpenAiApi,
    corrections: &Corrections,
) -> Result<Live, UpstreamFailure> {
    let host = &chat.call.host;
    let begun = host.monotonic();
    let response = send_chat(chat, target, api, corrections, "text/event-stream").await?;
    let live = |body| {
        let reader = Reader::Sse(SseDecoder::new(chat.call.settings.max_frame_bytes));
        let max_held_bytes = chat.call.settings.max_frame_bytes;
        let relay = ChunkRelay::new(chat.wanted.clone(), chat.prompt_estimate(target));
        Live::new(body, target.clone(), reader, relay, max_held_bytes, begun, host.clone())
    };
    let mut live = if kind_of(&response)? == Kind::EventStream {
        live(response.into_body())
    } else {
        // Asked to stream, it answered in one piece.
        let body = chat.call.read(response, target, begun).await?;
        if is_event_stream(&body) { live(full(body)) } else { one_piece(chat, &body, target)? }
    };
    poll_fn(|cx| live.poll_commit(cx)).await?;
    Ok(live)
}

pub(super) async fn complete(
    chat: &ChatCall,
    target: &Arc<Target>,
    api: &OpenAiApi,
    corrections: &Corrections,
) -> Result<Completed, UpstreamFailure> {
    let begun = chat.call.host.monotonic();
    let response = send_chat(chat, target, api, corrections, "application/json").await?;
    let streamed = kind_of(&response)? == Kind::EventStream;
    let body = chat.call.read(response, target, begun).await?;
    if streamed || is_event_stream(&body) {
        fold_stream(chat, body, target)
    } else {
        completion(chat, &body, target)
    }
}

async fn send_chat(
    chat: &ChatCall,
    target: &Target,
    api: &OpenAiApi,
    corrections: &Corrections,
    accept: &'static str,
) -> Result<http::Response<Body>, UpstreamFailure> {
    let body = chat_body(&chat.scan, target, corrections);
    post(&chat.call, &target.upstream, api, &api.chat, body, accept, corrections).await
}

/// What goes to the target, in pieces.
pub(crate) fn chat_body(scan: &ChatScan, target: &Target, corrections: &Corrections) -> Vec<Bytes> {
    let learned = &target.learned;
    let limit = corrections.lessons.iter().rev().find_map(|lesson| match lesson {
        Lesson::MaxTokensField(field) => Some(*field),
        Lesson::DropReasoningEffort | Lesson::DropStreamOptions => None,
    });
    scan.rewrite(&Rewrite {
        model: Some(&target.model.upstream_id),
        include_usage: true,
        drop_stream_options: learned.drop_stream_options()
            || corrections.lessons.contains(&Lesson::DropStreamOptions),
        drop_reasoning_effort: learned.drop_reasoning_effort()
            || corrections.lessons.contains(&Lesson::DropReasoningEffort)
            || target.model.capabilities.reasoning == Some(false),
        max_tokens_field: limit.or_else(|| learned.max_tokens_field()),
    })
}

fn completion(chat: &ChatCall, body: &Bytes, target: &Target) -> Result<Completed, UpstreamFailure> {
    let not_json = || UpstreamFailure::unavailable("The upstream's answer is not a JSON object.");
    let scan = CompletionScan::scan(body).map_err(|_| not_json())?;
    if scan.error {
        return Err(classify_error_object(body, &target.upstream));
    }
    if let (Shape::Conformant, Some(model), Some((_, usage)), 1, 0, true) =
        (scan.shape, &scan.model, &scan.usage, chat.wanted.choices, scan.max_index, scan.output)
    {
        target.learned.usage_reported(true);
        let mut out = BytesMut::with_capacity(body.len() + chat.wanted.model.len());
        out.extend_from_slice(&body[..model.start]);
        out.extend_from_slice(&chat.wanted.model);
        out.extend_from_slice(&body[model.end..]);
        return Ok(Completed { body: out.freeze(), usage: *usage, estimated: false });
    }
    let completion = ChatCompletion::parse(body).map_err(|_| not_json())?;
    let mut events = Vec::new();
    Normalizer::completion(completion, chat.wanted.seed, &mut events);
    let mut answer = Gathered::default();
    for event in events {
        answer.add(event, chat.wanted.choices);
    }
    chat.finish(answer, target)
}

/// Asked for one piece, it streamed.
fn fold_stream(chat: &ChatCall, body: Bytes, target: &Target) -> Result<Completed, UpstreamFailure> {
    let broken = || RelayError::NotJson.into_failure(&target.upstream);
    let mut decoder = SseDecoder::new(chat.call.settings.max_frame_bytes);
    let mut normalizer = Normalizer::default();
    let mut answer = Gathered::default();
    let mut events = Vec::new();
    decoder.push(body);
    while let Some(event) = decoder.next_event().or_else(|| decoder.finish()) {
        let data = event.map_err(|_| broken())?.data;
        if data.is_empty() || data.trim_ascii() == sse::DONE {
            continue;
        }
        let chunk = openai_wire::ChatChunk::parse(&data).map_err(|_| broken())?;
        if chunk.has_error() {
            return Err(classify_error_object(&data, &target.upstream));
        }
        normalizer.chunk(chunk, chat.wanted.seed, &mut events);
        for event in events.drain(..) {
            answer.add(event, chat.wanted.choices);
        }
    }
    chat.finish(answer, target)
}

/// Makes a finished stream of an answer that came in one piece.
fn one_piece(chat: &ChatCall, body: &Bytes, target: &Arc<Target>) -> Result<Live, UpstreamFailure> {
    let not_json = || UpstreamFailure::unavailable("The upstream's answer is not a JSON object.");
    if CompletionScan::scan(body).map_err(|_| not_json())?.error {
        return Err(classify_error_object(body, &target.upstream));
    }
    let mut relay = ChunkRelay::new(chat.wanted.clone(), chat.prompt_estimate(target));
    let completion = ChatCompletion::parse(body).map_err(|_| not_json())?;
    let mut events = Vec::new();
    Normalizer::completion(completion, chat.wanted.seed, &mut events);
    let mut out = BytesMut::new();
    for event in events {
        relay.event(&event, &mut out);
    }
    let summary: Summary = relay.end(&mut out).map_err(|error| error.into_failure(&target.upstream))?;
    Ok(Live::ended(target.clone(), relay, out, summary, chat.call.host.clone()))
}

pub(super) async fn embed(
    request: &EmbeddingsCall,
    target: &Arc<Target>,
    api: &OpenAiApi,
    corrections: &Corrections,
) -> Result<Completed, UpstreamFailure> {
    let begun = request.call.host.monotonic();
    let body = request.scan.rewrite(&target.model.upstream_id);
    let uri = &api.embeddings;
    let response =
        post(&request.call, &target.upstream, api, uri, body, "application/json", corrections).await?;
    kind_of(&response)?;
    let body = request.call.read(response, target, begun).await?;
    let estimate = || estimate::prompt_tokens(&request.call.body);
    match embeddings::convert(&body, &request.scan.model, request.scan.encoding_format, estimate) {
        Some((body, usage, estimated)) => Ok(Completed { body, usage, estimated }),
        None if UpstreamErrorBody::parse(&body).is_some() => {
            Err(classify_error_object(&body, &target.upstream))
        }
        None => Err(UpstreamFailure::unavailable("The upstream's answer holds no embeddings.")),
    }
}

async fn post(
    call: &Call,
    upstream: &Upstream,
    api: &OpenAiApi,
    uri: &Uri,
    body: Vec<Bytes>,
    accept: &'static str,
    corrections: &Corrections,
) -> Result<http::Response<Body>, UpstreamFailure> {
    let body = Pieces::new(body);
    let length = body.len();
    let mut request = http::Request::new(body.boxed_unsync());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.reserve(10);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    // OpenAI's name for the caller's id. `x-request-id` is the server's own: some refuse what they did not make.
    headers.insert(CLIENT_REQUEST_ID, call.request_id.clone());
    for name in FORWARDED.iter().chain(&api.forward_headers) {
        if let Some(value) = call.headers.get(name) {
            headers.insert(name, value.clone());
        }
    }
    if let Some(trace) = &call.trace {
        trace.begin();
        request.extensions_mut().insert(trace.clone());
    }
    let authorization = api.authorization(corrections.previous_credential);
    let response = send(request, upstream, api.reach, authorization, &*call.host).await?;
    if let Some(trace) = &call.trace {
        trace.answered(call.host.monotonic());
    }
    Ok(response)
}

/// Adds the credential, sends, and turns everything but success into a failure.
async fn send(
    mut request: http::Request<Body>,
    upstream: &Upstream,
    reach: Reach,
    authorization: Option<&HeaderValue>,
    host: &dyn Host,
) -> Result<http::Response<Body>, UpstreamFailure> {
    // Compressed answers could not be relayed as they come.
    request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(authorization) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
    }
    request.extensions_mut().insert(reach);
    let deadline = host.monotonic() + upstream.timeouts.first_byte;
    let answered = until(host, deadline, host.call(request, upstream.timeouts.connect)).await;
    let response = match answered {
        Some(Ok(response)) => response,
        Some(Err(error)) => return Err(call_failure(error)),
        None => {
            return Err(UpstreamFailure::new(
                FailureClass::Timeout,
                "The upstream did not begin to answer in time.",
            )
            .after_work());
        }
    };
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    let (parts, mut body) = response.into_parts();
    let timeouts = ReadTimeouts {
        idle: upstream.timeouts.idle.min(Duration::from_secs(5)),
        total: Duration::from_secs(10),
    };
    // An error body that is too long or broken says nothing; the status still does.
    let body = collect(&mut body, MAX_ERROR_BODY_BYTES, &BodyMemory::UNCOUNTED, timeouts, host)
        .await
        .unwrap_or_default();
    Err(classify_response(parts.status, &parts.headers, &body, upstream))
}

/// `GET /models` of an upstream.
pub(crate) async fn list_models(
    upstream: &Upstream,
    api: &OpenAiApi,
    host: &dyn Host,
) -> Result<UpstreamModels, UpstreamFailure> {
    let mut request = http::Request::new(crate::host::full(Bytes::new()));
    *request.uri_mut() = api.models.clone();
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let response = send(request, upstream, api.reach, api.authorization(false), host).await?;
    let timeouts = ReadTimeouts { idle: upstream.timeouts.idle, total: Duration::from_secs(30) };
    let mut body = response.into_body();
    let body = collect(&mut body, MAX_MODEL_LIST_BYTES, &BodyMemory::UNCOUNTED, timeouts, host)
        .await
        .map_err(read_failure)?;
    UpstreamModels::parse(&body)
        .map_err(|_| UpstreamFailure::unavailable("The upstream's answer to GET /models is no model list."))
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    EventStream,
    Json,
}

/// What the answer claims to be. HTML and the like come from something that is not the API.
fn kind_of(response: &http::Response<Body>) -> Result<Kind, UpstreamFailure> {
    let headers = response.headers();
    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get(header::CONTENT_ENCODING).is_some_and(|value| !is_plain(value)) {
        return Err(UpstreamFailure::unavailable(
            "The upstream compressed its answer although it was asked not to.",
        ));
    }
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let starts =
        |kind: &[u8]| content_type.get(..kind.len()).is_some_and(|head| head.eq_ignore_ascii_case(kind));
    if starts(b"text/event-stream") {
        Ok(Kind::EventStream)
    } else if starts(b"application/json") || content_type.is_empty() || starts(b"text/plain") {
        Ok(Kind::Json)
    } else {
        Err(UpstreamFailure::unavailable(
            "The upstream answered with something that is neither JSON nor an event stream. Is its base URL right?",
        ))
    }
}

/// Some streams come under another name.
fn is_event_stream(body: &[u8]) -> bool {
    [&b"data:"[..], b":", b"event:"].iter().any(|start| body.starts_with(start))
}
