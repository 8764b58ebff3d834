//! Calls to upstreams that speak OpenAI's API: the adapters `proxy` and `local`.
//!
//! The client's body goes out as it came, in slices, with only the model name and what the upstream is known not to
//! accept replaced; the answer comes back the same way wherever it already has the right shape.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use openai_wire::request::{ChatScan, EmbeddingsScan, Rewrite};
use openai_wire::response::{CompletionScan, Shape};
use openai_wire::sse::{self, SseDecoder};
use openai_wire::{ChatCompletion, UpstreamErrorBody, UpstreamModels, Usage};

use crate::body::{Pieces, ReadError, ReadTimeouts, collect};
use crate::classify::{classify_error_object, classify_response};
use crate::embeddings;
use crate::encode::{self, Fold, Head};
use crate::error::{FailureClass, UpstreamFailure};
use crate::estimate;
use crate::host::{Body, CallError, Host, full};
use crate::normalize::Normalizer;
use crate::relay::{ChunkRelay, RelayError, Summary, Wanted};
use crate::routes::{Lesson, Target, Upstream};
use crate::settings::Settings;
use crate::stream::Live;
use crate::timer::LazyTimer;

const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");
const MAX_ERROR_BODY_BYTES: usize = 64 * 1024;
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

/// One client request, ready to be sent to any of its targets.
pub(crate) struct Call {
    pub host: Arc<dyn Host>,
    pub settings: Arc<Settings>,
    pub headers: HeaderMap,
    pub request_id: HeaderValue,
    pub body: Bytes,
}

pub(crate) struct ChatCall {
    pub call: Call,
    pub scan: ChatScan,
    pub wanted: Wanted,
}

/// An answer in one piece.
pub(crate) struct Completed {
    pub body: Bytes,
    pub usage: Usage,
    pub estimated: bool,
}

impl ChatCall {
    /// Opens a stream and reads it up to its first content.
    pub(crate) async fn stream(
        &self,
        target: &Arc<Target>,
        corrections: &[Lesson],
    ) -> Result<Live, UpstreamFailure> {
        let host = &self.call.host;
        let begun = host.monotonic();
        let response = self.send(target, corrections, "text/event-stream").await?;
        let relay = ChunkRelay::new(self.wanted.clone(), self.prompt_estimate(target));
        let mut live = if kind_of(&response)? == Kind::EventStream {
            Live::new(
                response.into_body(),
                target.clone(),
                relay,
                self.call.settings.max_frame_bytes,
                begun,
                host.clone(),
            )
        } else {
            // Asked to stream, it answered in one piece.
            let body = self.call.read(response, target, begun).await?;
            if is_event_stream(&body) {
                Live::new(
                    full(body),
                    target.clone(),
                    relay,
                    self.call.settings.max_frame_bytes,
                    begun,
                    host.clone(),
                )
            } else {
                one_piece(&body, target, relay, host.clone())?
            }
        };
        poll_fn(|cx| live.poll_commit(cx)).await?;
        Ok(live)
    }

    pub(crate) fn is_changed_by(&self, lesson: Lesson) -> bool {
        match lesson {
            Lesson::DropReasoningEffort => self.scan.reasoning_effort.is_some(),
            Lesson::DropStreamOptions => self.scan.stream,
            // Whichever name the client used: it may have been sent under the other one, as an earlier lesson said.
            Lesson::MaxTokensField(_) => {
                self.scan.max_tokens.is_some() || self.scan.max_completion_tokens.is_some()
            }
        }
    }

    pub(crate) async fn complete(
        &self,
        target: &Arc<Target>,
        corrections: &[Lesson],
    ) -> Result<Completed, UpstreamFailure> {
        let begun = self.call.host.monotonic();
        let response = self.send(target, corrections, "application/json").await?;
        let streamed = kind_of(&response)? == Kind::EventStream;
        let body = self.call.read(response, target, begun).await?;
        if streamed || is_event_stream(&body) {
            self.fold_stream(body, target)
        } else {
            self.completion(&body, target)
        }
    }

    async fn send(
        &self,
        target: &Target,
        corrections: &[Lesson],
        accept: &'static str,
    ) -> Result<http::Response<Body>, UpstreamFailure> {
        let learned = &target.learned;
        let limit = corrections.iter().rev().find_map(|lesson| match lesson {
            Lesson::MaxTokensField(field) => Some(*field),
            Lesson::DropReasoningEffort | Lesson::DropStreamOptions => None,
        });
        let body = self.scan.rewrite(&Rewrite {
            model: Some(&target.model.upstream_id),
            include_usage: true,
            drop_stream_options: learned.drop_stream_options()
                || corrections.contains(&Lesson::DropStreamOptions),
            drop_reasoning_effort: learned.drop_reasoning_effort()
                || corrections.contains(&Lesson::DropReasoningEffort)
                || target.model.capabilities.reasoning == Some(false),
            max_tokens_field: limit.or_else(|| learned.max_tokens_field()),
        });
        self.call.post(&target.upstream, &target.upstream.chat, body, accept).await
    }

    /// Not computed for an upstream that is known to report usage itself.
    fn prompt_estimate(&self, target: &Target) -> u64 {
        if target.learned.is_usage_reported() {
            estimate::rough_prompt_tokens(&self.call.body)
        } else {
            estimate::prompt_tokens(&self.call.body)
        }
    }

    fn completion(&self, body: &Bytes, target: &Target) -> Result<Completed, UpstreamFailure> {
        let not_json = || UpstreamFailure::unavailable("The upstream's answer is not a JSON object.");
        let scan = CompletionScan::scan(body).map_err(|_| not_json())?;
        if scan.error {
            return Err(classify_error_object(body, &target.upstream));
        }
        if let (Shape::Conformant, Some(model), Some((_, usage)), 1, 0, true) =
            (scan.shape, &scan.model, &scan.usage, self.wanted.choices, scan.max_index, scan.output)
        {
            target.learned.usage_reported(true);
            let mut out = BytesMut::with_capacity(body.len() + self.wanted.model.len());
            out.extend_from_slice(&body[..model.start]);
            out.extend_from_slice(&self.wanted.model);
            out.extend_from_slice(&body[model.end..]);
            return Ok(Completed { body: out.freeze(), usage: *usage, estimated: false });
        }
        let completion = ChatCompletion::parse(body).map_err(|_| not_json())?;
        let mut events = Vec::new();
        Normalizer::completion(completion, self.wanted.seed, &mut events);
        let mut answer = Gathered::default();
        for event in events {
            answer.add(event, self.wanted.choices);
        }
        self.finish(answer, target)
    }

    /// Asked for one piece, it streamed.
    fn fold_stream(&self, body: Bytes, target: &Target) -> Result<Completed, UpstreamFailure> {
        let broken = || RelayError::NotJson.into_failure(&target.upstream);
        let mut decoder = SseDecoder::new(self.call.settings.max_frame_bytes);
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
            normalizer.chunk(chunk, self.wanted.seed, &mut events);
            for event in events.drain(..) {
                answer.add(event, self.wanted.choices);
            }
        }
        self.finish(answer, target)
    }

    fn finish(&self, answer: Gathered, target: &Target) -> Result<Completed, UpstreamFailure> {
        let estimated = answer.usage.is_none();
        target.learned.usage_reported(!estimated);
        let usage =
            answer.usage.unwrap_or_else(|| Usage::new(self.prompt_estimate(target), answer.counter.tokens()));
        if !answer.output && usage.completion_tokens == 0 && !answer.filtered {
            return Err(RelayError::Empty.into_failure(&target.upstream));
        }
        let head = Head {
            id: answer.id.unwrap_or_else(|| format!("chatcmpl-{}", self.wanted.seed)),
            created: answer.created.unwrap_or(self.wanted.created),
            model: self.wanted.model.clone(),
        };
        match answer.fold.completion(&head, &encode::usage_json(&usage)) {
            Some(json) => Ok(Completed { body: json.into(), usage, estimated }),
            None => Err(RelayError::Unfinished.into_failure(&target.upstream)),
        }
    }
}

/// An answer under construction from events.
#[derive(Default)]
struct Gathered {
    fold: Fold,
    id: Option<String>,
    created: Option<u64>,
    usage: Option<Usage>,
    counter: estimate::TokenCounter,
    output: bool,
    filtered: bool,
}

impl Gathered {
    fn add(&mut self, event: crate::event::ChatEvent, choices: u64) {
        use crate::event::ChatEvent as E;
        match &event {
            E::Start { id, created } => {
                self.id.clone_from(id);
                self.created = *created;
            }
            E::Usage(usage) => self.usage = Some(*usage),
            E::Finish { choice, .. }
            | E::Text { choice, .. }
            | E::Reasoning { choice, .. }
            | E::ToolCallStart { choice, .. }
            | E::ToolCallArguments { choice, .. }
                if u64::from(*choice) >= choices =>
            {
                return;
            }
            E::Finish { reason, .. } => self.filtered |= *reason == openai_wire::FinishReason::ContentFilter,
            written => {
                self.output = true;
                self.counter.add_text(written.text().unwrap_or_default());
            }
        }
        self.fold.add(event);
    }
}

/// Makes a finished stream of an answer that came in one piece.
fn one_piece(
    body: &Bytes,
    target: &Arc<Target>,
    mut relay: ChunkRelay,
    host: Arc<dyn Host>,
) -> Result<Live, UpstreamFailure> {
    let not_json = || UpstreamFailure::unavailable("The upstream's answer is not a JSON object.");
    if CompletionScan::scan(body).map_err(|_| not_json())?.error {
        return Err(classify_error_object(body, &target.upstream));
    }
    let completion = ChatCompletion::parse(body).map_err(|_| not_json())?;
    let mut events = Vec::new();
    Normalizer::completion(completion, relay.seed(), &mut events);
    let mut out = BytesMut::new();
    for event in events {
        relay.event(&event, &mut out);
    }
    let summary: Summary = relay.end(&mut out).map_err(|error| error.into_failure(&target.upstream))?;
    Ok(Live::ended(target.clone(), relay, out, summary, host))
}

pub(crate) struct EmbeddingsCall {
    pub call: Call,
    pub scan: EmbeddingsScan,
}

impl EmbeddingsCall {
    pub(crate) async fn embed(&self, target: &Arc<Target>) -> Result<Completed, UpstreamFailure> {
        let begun = self.call.host.monotonic();
        let body = self.scan.rewrite(&target.model.upstream_id);
        let response =
            self.call.post(&target.upstream, &target.upstream.embeddings, body, "application/json").await?;
        kind_of(&response)?;
        let body = self.call.read(response, target, begun).await?;
        let estimate = || estimate::prompt_tokens(&self.call.body);
        match embeddings::convert(&body, &self.scan.model, self.scan.encoding_format, estimate) {
            Some((body, usage, estimated)) => Ok(Completed { body, usage, estimated }),
            None if UpstreamErrorBody::parse(&body).is_some() => {
                Err(classify_error_object(&body, &target.upstream))
            }
            None => Err(UpstreamFailure::unavailable("The upstream's answer holds no embeddings.")),
        }
    }
}

impl Call {
    async fn post(
        &self,
        upstream: &Upstream,
        uri: &Uri,
        body: Vec<Bytes>,
        accept: &'static str,
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
        headers.insert(CLIENT_REQUEST_ID, self.request_id.clone());
        for name in FORWARDED.iter().chain(&upstream.forward_headers) {
            if let Some(value) = self.headers.get(name) {
                headers.insert(name, value.clone());
            }
        }
        send(request, upstream, &*self.host).await
    }

    /// Reads an answer in one piece. The clock has been running since `begun`.
    async fn read(
        &self,
        response: http::Response<Body>,
        target: &Target,
        begun: Duration,
    ) -> Result<Bytes, UpstreamFailure> {
        let timeouts = target.upstream.timeouts;
        let gone = self.host.monotonic().saturating_sub(begun);
        let timeouts = ReadTimeouts { idle: timeouts.idle, total: timeouts.total.saturating_sub(gone) };
        let mut body = response.into_body();
        collect(&mut body, self.settings.max_response_bytes, timeouts, &*self.host)
            .await
            .map_err(read_failure)
    }
}

/// Adds the credential, sends, and turns everything but success into a failure.
async fn send(
    mut request: http::Request<Body>,
    upstream: &Upstream,
    host: &dyn Host,
) -> Result<http::Response<Body>, UpstreamFailure> {
    // Compressed answers could not be relayed as they come.
    request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(authorization) = &upstream.authorization {
        request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
    }
    let deadline = host.monotonic() + upstream.timeouts.first_byte;
    let mut calling = host.call(request, upstream.timeouts.connect);
    let mut timer = LazyTimer::default();
    let answered = poll_fn(|cx| match calling.as_mut().poll(cx) {
        std::task::Poll::Ready(result) => std::task::Poll::Ready(Some(result)),
        std::task::Poll::Pending => timer.poll(deadline, host.monotonic(), host, cx).map(|()| None),
    })
    .await;
    let response = match answered {
        Some(Ok(response)) => response,
        Some(Err(error)) => return Err(call_failure(error)),
        None => {
            return Err(UpstreamFailure::new(
                FailureClass::Timeout,
                "The upstream did not begin to answer in time.",
            ));
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
    let body = collect(&mut body, MAX_ERROR_BODY_BYTES, timeouts, host).await.unwrap_or_default();
    Err(classify_response(parts.status, &parts.headers, &body, upstream))
}

/// `GET /models` of an upstream.
pub(crate) async fn list_models(
    upstream: &Upstream,
    host: &dyn Host,
) -> Result<UpstreamModels, UpstreamFailure> {
    let mut request = http::Request::new(crate::host::full(Bytes::new()));
    *request.uri_mut() = upstream.models.clone();
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let response = send(request, upstream, host).await?;
    let timeouts = ReadTimeouts { idle: upstream.timeouts.idle, total: Duration::from_secs(30) };
    let mut body = response.into_body();
    let body = collect(&mut body, MAX_MODEL_LIST_BYTES, timeouts, host).await.map_err(read_failure)?;
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

fn call_failure(error: CallError) -> UpstreamFailure {
    match error {
        CallError::ConnectTimeout => {
            UpstreamFailure::new(FailureClass::Timeout, "Connecting to the upstream took too long.")
        }
        CallError::Connect => UpstreamFailure::unavailable("The upstream cannot be reached."),
        CallError::Tls => {
            UpstreamFailure::unavailable("The upstream's TLS certificate or handshake was not accepted.")
        }
        CallError::Closed => UpstreamFailure::closed(),
        CallError::Protocol => UpstreamFailure::unavailable("The upstream does not answer in HTTP."),
    }
}

fn read_failure(error: ReadError) -> UpstreamFailure {
    match error {
        ReadError::TooLong => UpstreamFailure::unavailable("The upstream's answer is longer than the limit."),
        ReadError::TimedOut => UpstreamFailure::new(
            FailureClass::Timeout,
            "The upstream stopped in the middle of its answer and was given up.",
        ),
        ReadError::Broken => {
            UpstreamFailure::unavailable("The upstream's connection broke before the answer was complete.")
        }
    }
}
