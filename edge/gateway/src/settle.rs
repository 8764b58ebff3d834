//! The end of a request, whatever it was: the permit is given back and one log line is written. Exactly once, because
//! it happens when the settlement is dropped, and the response body owns it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use catalog::ApiKeyId;
use http_body::{Frame, SizeHint};
use openai_wire::Usage;

use crate::admit::Permit;
use crate::error::ApiError;
use crate::host::{BoxError, Host};
use crate::routes::Target;

/// The outcome of what is dropped before it has ended: the client left.
const GONE: &str = "client_gone";

pub(crate) struct Settlement {
    host: Arc<dyn Host>,
    request_id: Arc<str>,
    operation: &'static str,
    key_id: ApiKeyId,
    begun: Duration,
    first_output: Option<Duration>,
    model: String,
    target: Option<Arc<Target>>,
    stream: bool,
    usage: Option<Usage>,
    estimated: bool,
    outcome: &'static str,
    /// Tokens of the prompt, once it is on its way to an upstream.
    sent: Option<u64>,
    permit: Permit,
}

impl Settlement {
    pub(crate) fn new(
        host: Arc<dyn Host>,
        request_id: Arc<str>,
        operation: &'static str,
        key_id: ApiKeyId,
        permit: Permit,
    ) -> Self {
        let begun = host.monotonic();
        Self {
            host,
            request_id,
            operation,
            key_id,
            begun,
            first_output: None,
            model: String::new(),
            target: None,
            stream: false,
            usage: None,
            estimated: false,
            outcome: GONE,
            sent: None,
            permit,
        }
    }

    pub(crate) fn permit(&mut self) -> &mut Permit {
        &mut self.permit
    }

    /// From here on, a client that leaves has cost something.
    pub(crate) fn sends(&mut self, prompt_tokens: u64) {
        self.sent = Some(prompt_tokens);
    }

    pub(crate) fn model(&mut self, model: &str, stream: bool) {
        model.clone_into(&mut self.model);
        self.stream = stream;
    }

    pub(crate) fn target(&mut self, target: Arc<Target>) {
        self.target = Some(target);
    }

    /// The first content is on its way to the client.
    pub(crate) fn first_output(&mut self) {
        if self.first_output.is_none() {
            self.first_output = Some(self.host.monotonic());
        }
    }

    pub(crate) fn usage(&mut self, usage: Usage, estimated: bool) {
        self.usage = Some(usage);
        self.estimated = estimated;
    }

    pub(crate) fn refused(&mut self, error: &ApiError) {
        self.outcome = error.kind;
    }

    /// Tokens that were reserved and not used are free again.
    fn settle(&mut self) {
        if let Some(usage) = self.usage {
            return self.permit.settle(usage.total_tokens);
        }
        let Some(prompt) = self.sent.filter(|_| self.outcome == GONE) else { return self.permit.settle(0) };
        self.usage(Usage::new(prompt, 0), true);
        // How long an answer in one piece had become by then, nobody knows.
        let reserved = self.permit.reserved().tokens();
        self.permit.settle(if self.stream { prompt } else { reserved.max(prompt) });
    }

    /// `ok`, or a class or code of the failure.
    pub(crate) fn outcome(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        self.settle();
        if !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let usage = self.usage.unwrap_or_default();
        tracing::info!(
            request_id = &*self.request_id,
            key_id = self.key_id.as_str(),
            model = self.model,
            provider = self.target.as_ref().map(|t| t.upstream.slug.as_str()),
            stream = self.stream,
            outcome = self.outcome,
            duration_ms = ms(self.host.monotonic().saturating_sub(self.begun)),
            ttft_ms = self.first_output.map(|at| ms(at.saturating_sub(self.begun))),
            prompt_tokens = usage.prompt_tokens,
            completion_tokens = usage.completion_tokens,
            usage_estimated = self.estimated,
            "{}",
            self.operation,
        );
    }
}

/// A body that is known in full, and that settles its request once it is taken or dropped.
pub(crate) struct Answer {
    bytes: Option<Bytes>,
    settlement: Settlement,
}

impl Answer {
    pub(crate) fn new(bytes: Bytes, settlement: Settlement) -> Self {
        Self { bytes: Some(bytes), settlement }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        self.settlement.outcome("ok");
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |b| b.len() as u64))
    }
}
