//! Chat completions and embeddings: from a request with an API key to its answer.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use catalog::{ApiKeyLimits, Capabilities};
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use openai_wire::request::{ChatScan, EmbeddingsScan, MediaKind};

use crate::Gateway;
use crate::adapter::{ChatCall, Completed, EmbeddingsCall, read_conversation};
use crate::admit::{self, Estimate};
use crate::attempt::{Streamed, Whole, try_targets};
use crate::body::RequestBody;
use crate::config::CachedKey;
use crate::error::{ApiError, UpstreamFailure};
use crate::estimate;
use crate::host::{Body, BoxFuture, full};
use crate::pipeline::json_string;
use crate::relay::Wanted;
use crate::routes::Target;
use crate::settle::{Answer, Operation, Settlement};
use crate::stream::{ChatStream, Live, State};
use crate::timer::LazyTimer;

const USAGE_ESTIMATED: HeaderName = HeaderName::from_static("x-usage-estimated");
/// What is reserved for an answer whose length the client leaves open.
const USUAL_COMPLETION_TOKENS: u64 = 1_024;

impl Gateway {
    pub(crate) async fn chat_completions(
        &self,
        head: Parts,
        mut body: RequestBody,
        key: &CachedKey,
        id: &HeaderValue,
    ) -> Result<http::Response<Body>, ApiError> {
        // Refusals come before the body is read.
        let mut settlement = self.admit(key, Operation::ChatCompletion, id).await?;
        let body = self.read(&mut body, &mut settlement).await?;
        // One pass over the bytes: everything that decides is known after it.
        let scan = ChatScan::scan(&body).map_err(ApiError::from).inspect_err(|e| settlement.refused(e))?;
        settlement.model(&scan.model, scan.stream);
        let mut targets = self.resolve(&scan.model, key, &mut settlement)?;
        can_answer(&scan, &targets).inspect_err(|e| settlement.refused(e))?;
        let conversation =
            read_conversation(&scan, &body, &mut targets).inspect_err(|e| settlement.refused(e))?;
        let estimate = estimate_chat(&scan, &body, &targets, &key.record.limits);
        self.reserve(key, estimate, &mut settlement).await?;
        let wanted = Wanted {
            model: json_string(&scan.model),
            include_usage: scan.include_usage,
            choices: u64::from(scan.n),
            seed: self.seed(),
            created: self.0.host.unix_ms() / 1000,
        };
        let stream = scan.stream;
        let call = self.call(head, id, key, body);
        let chat = ChatCall { call, scan, wanted, conversation, nodes: self.0.nodes.clone() };
        if !stream {
            let answer = settlement.permit().keeping(try_targets(&Whole(chat), &targets)).await;
            return settled(answer, settlement);
        }
        let opening: BoxFuture<'static, _> =
            Box::pin(async move { try_targets(&Streamed(chat), &targets).await.map(|(live, _)| live) });
        // The status is kept open until the first content, but not longer than a client bears silence.
        let opened = settlement.permit().keeping(self.open_within_keepalive(opening)).await;
        let (state, live) = opened.map_err(|failure| given_up(failure, &mut settlement))?;
        settlement.begun_with(StatusCode::OK);
        let mut response = http::Response::new(full(Bytes::new()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // nginx in front of us must not gather the stream.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        if let Some(target) = live {
            settlement.target(target);
        }
        let stream = ChatStream::new(state, self.0.host.clone(), self.0.settings.keepalive, settlement);
        Ok(response.map(|_| stream.boxed_unsync()))
    }

    pub(crate) async fn embeddings(
        &self,
        head: Parts,
        mut body: RequestBody,
        key: &CachedKey,
        id: &HeaderValue,
    ) -> Result<http::Response<Body>, ApiError> {
        let mut settlement = self.admit(key, Operation::Embeddings, id).await?;
        let body = self.read(&mut body, &mut settlement).await?;
        let scan =
            EmbeddingsScan::scan(&body).map_err(ApiError::from).inspect_err(|e| settlement.refused(e))?;
        settlement.model(&scan.model, false);
        let mut targets = self.resolve(&scan.model, key, &mut settlement)?;
        targets.retain(|target| !target.is_cli() && target.model.capabilities.embeddings != Some(false));
        if targets.is_empty() {
            let error = ApiError::cannot_embed(&scan.model);
            settlement.refused(&error);
            return Err(error);
        }
        let estimate = Estimate { prompt: prompt_tokens(&body, &key.record.limits), ..Estimate::default() };
        self.reserve(key, estimate, &mut settlement).await?;
        let embed = EmbeddingsCall { call: self.call(head, id, key, body), scan };
        let answer = settlement.permit().keeping(try_targets(&embed, &targets)).await;
        settled(answer, settlement)
    }

    /// Model → ordered targets.
    fn resolve(
        &self,
        model: &str,
        key: &CachedKey,
        settlement: &mut Settlement,
    ) -> Result<Vec<Arc<Target>>, ApiError> {
        let routes = self.0.config.routes();
        let Some(targets @ [first, ..]) = routes.resolve(model, &key.record) else {
            return Err(ApiError::model_not_found(model)).inspect_err(|e| settlement.refused(e));
        };
        // Whose request it is until somebody answers.
        settlement.target(first.clone());
        Ok(targets.to_vec())
    }

    async fn open_within_keepalive(
        &self,
        mut opening: BoxFuture<'static, Result<Live, UpstreamFailure>>,
    ) -> Result<(State, Option<Arc<Target>>), UpstreamFailure> {
        let deadline = self.0.host.monotonic() + self.0.settings.keepalive;
        let mut timer = LazyTimer::default();
        let opened = poll_fn(|cx| match opening.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => timer.poll(deadline, self.0.host.monotonic(), &*self.0.host, cx).map(|()| None),
        })
        .await;
        match opened {
            Some(Ok(live)) => {
                let target = live.target().clone();
                Ok((State::Live(Box::new(live)), Some(target)))
            }
            Some(Err(failure)) => Err(failure),
            None => Ok((State::Opening(opening), None)),
        }
    }
}

/// Refuses what no target can do, as far as their providers say so; what they leave open is tried.
pub(crate) fn can_answer(scan: &ChatScan, targets: &[Arc<Target>]) -> Result<(), ApiError> {
    let none = |able: fn(&Capabilities) -> Option<bool>| {
        targets.iter().all(|target| able(&target.model.capabilities) == Some(false))
    };
    if none(|able| able.chat) {
        return Err(ApiError::cannot_chat(&scan.model));
    }
    match &scan.first_media {
        Some(part) if part.kind == MediaKind::Image && none(|able| able.images) => {
            Err(ApiError::cannot_see(&scan.model, &part.path))
        }
        _ => Ok(()),
    }
}

/// What a chat may use: the answer as long as the client allows, as the model gives, or as answers mostly are.
pub(crate) fn estimate_chat(
    scan: &ChatScan,
    body: &[u8],
    targets: &[Arc<Target>],
    limits: &ApiKeyLimits,
) -> Estimate {
    let asked = scan.max_completion_tokens.or(scan.max_tokens);
    // Some clients send -1 for "no limit".
    let asked = asked.and_then(|tokens| u64::try_from(tokens).ok()).filter(|tokens| *tokens > 0);
    // Unless one of them does not say.
    let longest = targets.iter().map(|target| target.model.max_tokens).collect::<Option<Vec<_>>>();
    let longest = longest.and_then(|all| all.into_iter().max()).map(u64::from);
    let choice = asked.or(longest).unwrap_or(USUAL_COMPLETION_TOKENS).min(longest.unwrap_or(u64::MAX));
    Estimate {
        prompt: prompt_tokens(body, limits),
        completion: choice.saturating_mul(scan.n.into()),
        completion_may_shrink: asked.is_none(),
    }
}

/// Counted with care where it counts.
fn prompt_tokens(body: &[u8], limits: &ApiKeyLimits) -> u64 {
    if admit::limits_tokens(limits) {
        estimate::prompt_tokens(body)
    } else {
        estimate::rough_prompt_tokens(body)
    }
}

/// No target has an answer.
fn given_up(failure: UpstreamFailure, settlement: &mut Settlement) -> ApiError {
    settlement.failed(&failure);
    let error = ApiError::from(failure);
    settlement.begun_with(error.status);
    error
}

fn settled(
    answer: Result<(Completed, Arc<Target>), UpstreamFailure>,
    mut settlement: Settlement,
) -> Result<http::Response<Body>, ApiError> {
    let (completed, target) = match answer {
        Ok(answer) => answer,
        Err(failure) => return Err(given_up(failure, &mut settlement)),
    };
    settlement.target(target);
    settlement.begun_with(StatusCode::OK);
    settlement.first_output();
    settlement.usage(completed.usage, completed.estimated);
    let mut response = http::Response::new(full(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if completed.estimated {
        headers.insert(USAGE_ESTIMATED, HeaderValue::from_static("true"));
    }
    Ok(response.map(|_| Answer::new(completed.body, settlement).boxed_unsync()))
}
