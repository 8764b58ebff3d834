//! What administrators ask of a provider: a chat of a few tokens, and whether it can be reached, which costs none. Both
//! go the way of every request from the adapters on, without an API key, its limits and its usage.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catalog::{
    CheckReport, Failure, Model, Provider, ProviderKind, TestReport, TestRequest, TestTiming, TestUsage,
};
use http::HeaderMap;
use openai_wire::request::ChatScan;
use openai_wire::sse::{self, SseDecoder};
use openai_wire::{ChatChunk, ChatCompletion, Usage};
use serde_json::json;

use crate::Gateway;
use crate::adapter::{Call, ChatCall, read_conversation, until};
use crate::attempt::{Streamed, Whole, try_targets};
use crate::classify::safe_text;
use crate::error::{ApiError, FailureClass, UpstreamFailure};
use crate::event::ChatEvent;
use crate::host::{CallTrace, Origin};
use crate::metrics::{Metrics, TargetSeries};
use crate::normalize::{Normalizer, Seed};
use crate::pipeline::json_string;
use crate::relay::Wanted;
use crate::routes::{Learned, Target};

const TEST_TIMEOUT: Duration = Duration::from_secs(60);
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
const PROMPT: &str = "Say OK";
const MAX_TOKENS: u32 = 16;
const MAX_ANSWER_CHARS: usize = 200;
/// What is kept of a streamed answer; one of so few tokens is far shorter.
const MAX_KEPT_BYTES: usize = 64 * 1024;
/// On whose behalf runners run it.
const CALLER: &str = "provider-test";
/// In the names of models that do not chat, as those that list their models list them all.
const OTHER_MODELS: [&str; 7] = ["embed", "whisper", "tts", "dall-e", "image", "moderation", "rerank"];

/// What has been found out in the course of a test.
struct Progress {
    begun: Duration,
    trace: Arc<CallTrace>,
    model: String,
    first_token: Option<Duration>,
}

/// What a model said, and what it cost.
struct Said {
    text: String,
    usage: Usage,
    estimated: bool,
}

impl Gateway {
    /// A chat of at most sixteen tokens with the provider, by the adapter that serves it. One that is not among the
    /// providers that this gateway was given is held to what is stored. Answers within 60 seconds; when it is dropped,
    /// the upstream call ends.
    pub async fn test(&self, test: TestRequest) -> TestReport {
        let host = &*self.0.host;
        let at_ms = host.unix_ms();
        let begun = host.monotonic();
        let mut progress = Progress {
            begun,
            trace: Arc::default(),
            model: test.model.clone().unwrap_or_default(),
            first_token: None,
        };
        let chat = Box::pin(self.chat_with(&test, &mut progress));
        let outcome = until(host, begun + TEST_TIMEOUT, chat).await.unwrap_or_else(|| {
            let message = format!("The test took longer than {} seconds.", TEST_TIMEOUT.as_secs());
            Err(explained(UpstreamFailure::new(FailureClass::Timeout, message), test.provider.kind()))
        });
        let timing = progress.timing(host.monotonic());
        let report =
            TestReport { at_ms, model: progress.model, stream: test.stream, timing, ..TestReport::default() };
        let report = match outcome {
            Ok(Said { text, usage, estimated }) => {
                let usage = TestUsage {
                    prompt_tokens: usage.prompt_tokens,
                    completion_tokens: usage.completion_tokens,
                    estimated,
                };
                let answer = text.chars().take(MAX_ANSWER_CHARS).collect::<String>();
                let answer = Some(answer).filter(|answer| !answer.is_empty());
                TestReport { ok: true, usage: Some(usage), answer, ..report }
            }
            Err(failure) => TestReport { failure: Some(failure), ..report },
        };
        tracing::info!(
            provider = %test.provider.slug,
            model = report.model,
            outcome = report.failure.as_ref().map_or("ok", |failure| &failure.class),
            duration_ms = report.timing.end_ms,
            "a provider was tested"
        );
        report
    }

    async fn chat_with(&self, test: &TestRequest, progress: &mut Progress) -> Result<Said, Failure> {
        let provider = &test.provider;
        let kind = provider.kind();
        let failed = |failure: UpstreamFailure| explained(failure, kind);
        let upstream = self
            .0
            .config
            .upstream(provider, self.0.config.origin(provider))
            .map_err(|reason| unusable(&reason))?;
        let upstream = Arc::new(upstream);
        let wanted = test.model.as_deref();
        let model = match choose(&provider.models, wanted) {
            Some(model) => Some(model.clone()),
            None if provider.adapter.discovers_models() => {
                let listed = self.list(&upstream).await.map_err(failed)?;
                choose(&listed, wanted).cloned()
            }
            None => None,
        };
        let Some(model) = model else {
            let message = "The provider has no such model, or none that chats.";
            return Err(failed(UpstreamFailure::new(FailureClass::NotFound, message)));
        };
        progress.model.clone_from(&model.id);
        // Its list is no part of the chat.
        progress.begun = self.0.host.monotonic();
        let mut targets = vec![Arc::new(Target {
            upstream,
            model,
            learned: Learned::default(),
            // Clients' requests are what the gateway's metrics are about.
            series: TargetSeries::new(Arc::new(Metrics::default())),
        })];
        let chat = self
            .tiny_chat(test.stream, &mut targets, progress)
            .map_err(|error| failed(UpstreamFailure::new(FailureClass::InvalidRequest, error.message)))?;
        let seed = chat.wanted.seed;
        if test.stream {
            let max_frame_bytes = self.0.settings.max_frame_bytes;
            let (mut live, _) = try_targets(&Streamed(chat), &targets).await.map_err(failed)?;
            progress.first_token = Some(self.0.host.monotonic());
            let mut kept = Vec::new();
            let take = |piece: &[u8]| {
                let room = MAX_KEPT_BYTES - kept.len();
                kept.extend_from_slice(&piece[..piece.len().min(room)]);
            };
            let summary = live.read_to_end(take).await.map_err(failed)?;
            let text = without_secrets(&text_of_stream(kept, max_frame_bytes, seed), &targets);
            Ok(Said { text, usage: summary.usage, estimated: summary.estimated })
        } else {
            let (completed, _) = try_targets(&Whole(chat), &targets).await.map_err(failed)?;
            let text = without_secrets(&text_of_completion(&completed.body, seed), &targets);
            Ok(Said { text, usage: completed.usage, estimated: completed.estimated })
        }
    }

    fn tiny_chat(
        &self,
        stream: bool,
        targets: &mut Vec<Arc<Target>>,
        progress: &Progress,
    ) -> Result<ChatCall, ApiError> {
        let body = json!({
            "model": progress.model,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": MAX_TOKENS,
            "stream": stream,
        });
        let body = Bytes::from(body.to_string());
        let scan = ChatScan::scan(&body)?;
        let conversation = read_conversation(&scan, &body, targets)?;
        let wanted = Wanted {
            model: json_string(&progress.model),
            include_usage: true,
            choices: 1,
            seed: self.seed(),
            created: self.0.host.unix_ms() / 1000,
        };
        let call = Call {
            host: self.0.host.clone(),
            settings: self.0.settings.clone(),
            memory: self.0.memory.clone(),
            headers: HeaderMap::new(),
            request_id: self.request_id(&HeaderMap::new()),
            overlap_at_ms: None,
            caller: CALLER.to_owned(),
            body,
            trace: Some(progress.trace.clone()),
        };
        Ok(ChatCall { call, scan, wanted, conversation, nodes: self.0.nodes.clone() })
    }

    /// Whether the provider can be reached and takes its credential, without a token spent; of a CLI, whether a runner
    /// that is up has it. As [`test`](Self::test), it need not be stored. Answers within 30 seconds.
    pub async fn check(&self, provider: &Provider) -> CheckReport {
        self.check_of(provider, self.0.config.origin(provider)).await
    }

    pub(crate) async fn check_of(&self, provider: &Provider, origin: Origin) -> CheckReport {
        let host = &*self.0.host;
        let (at_ms, begun) = (host.unix_ms(), host.monotonic());
        let reached = until(host, begun + CHECK_TIMEOUT, Box::pin(self.reach(provider, origin))).await;
        let outcome = reached.unwrap_or_else(|| {
            let message = format!("The check took longer than {} seconds.", CHECK_TIMEOUT.as_secs());
            Err(explained(UpstreamFailure::new(FailureClass::Timeout, message), provider.kind()))
        });
        CheckReport { at_ms, duration_ms: millis(host.monotonic().saturating_sub(begun)), outcome }
    }
}

impl Progress {
    fn timing(&self, end: Duration) -> TestTiming {
        let after = |moment: Duration| millis(moment.saturating_sub(self.begun));
        let [resolved, connected, answered] = self.trace.moments();
        TestTiming {
            resolved_ms: resolved.map(after),
            connected_ms: connected.map(after),
            first_byte_ms: answered.map(after),
            first_token_ms: self.first_token.map(after),
            end_ms: after(end),
        }
    }
}

/// The model of that public id, or the first that seems to chat.
fn choose<'a>(models: &'a [Model], wanted: Option<&str>) -> Option<&'a Model> {
    let seems_to_chat = |model: &&Model| {
        let id = model.id.to_ascii_lowercase();
        model.capabilities.chat.unwrap_or_else(|| !OTHER_MODELS.iter().any(|other| id.contains(other)))
    };
    match wanted {
        Some(id) => models.iter().find(|model| model.id == id),
        None => models.iter().find(seems_to_chat),
    }
}

/// An upstream may quote what it was sent, and the answer is kept and shown.
fn without_secrets(text: &str, targets: &[Arc<Target>]) -> String {
    safe_text(text, targets.iter().flat_map(|target| target.upstream.secrets()))
}

fn text_of_stream(kept: Vec<u8>, max_frame_bytes: usize, seed: Seed) -> String {
    let mut decoder = SseDecoder::new(max_frame_bytes);
    decoder.push(kept.into());
    let mut normalizer = Normalizer::default();
    let mut events = Vec::new();
    // The last one may be cut off.
    while let Some(Ok(event)) = decoder.next_event() {
        let data = event.data;
        if let Some(chunk) = Some(&data).filter(|data| data.trim_ascii() != sse::DONE)
            && let Ok(chunk) = ChatChunk::parse(chunk)
        {
            normalizer.chunk(chunk, seed, &mut events);
        }
    }
    text(&events)
}

fn text_of_completion(body: &Bytes, seed: Seed) -> String {
    let mut events = Vec::new();
    if let Ok(completion) = ChatCompletion::parse(body) {
        Normalizer::completion(completion, seed, &mut events);
    }
    text(&events)
}

fn text(events: &[ChatEvent]) -> String {
    let said = events.iter().filter_map(|event| match event {
        ChatEvent::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    said.collect()
}

/// What an administrator is told of a failure.
pub(crate) fn explained(failure: UpstreamFailure, kind: ProviderKind) -> Failure {
    Failure {
        class: failure.class.as_str().to_owned(),
        advice: advice(failure.class, kind).to_owned(),
        status: failure.status.map(|status| status.as_u16()),
        message: failure.message.into_owned(),
    }
}

/// Of a provider that cannot be called; `reason` goes on from its name.
pub(crate) fn unusable(reason: &str) -> Failure {
    Failure {
        class: FailureClass::Unusable.as_str().to_owned(),
        message: format!("The provider cannot be called: {reason}."),
        advice: "Put right what the message names, in the provider or where the gateway runs.".to_owned(),
        status: None,
    }
}

fn advice(class: FailureClass, kind: ProviderKind) -> &'static str {
    let is_cli = kind == ProviderKind::SpawnCli;
    match class {
        FailureClass::Auth if is_cli => {
            "The credential of a CLI is its runner's: the runner's operator has to renew it, or to let this gateway's certificate in."
        }
        FailureClass::Auth => {
            "Set a credential that the upstream accepts, and check that it may use the model."
        }
        FailureClass::RateLimited => {
            "Wait a moment and test again; if it stays so, raise the account's rate limit."
        }
        FailureClass::QuotaExhausted => {
            "Top up the account at the vendor, raise its quota, or set another account's credential."
        }
        FailureClass::Overloaded if is_cli => "All runners are busy or draining: wait, or add runners.",
        FailureClass::Overloaded => "Wait a moment and test again; the upstream has too much to do.",
        FailureClass::Timeout => {
            "Check that the upstream is up and can be reached from here, and raise the provider's timeouts if it is only slow."
        }
        FailureClass::InvalidRequest => {
            "Check the model's name at the upstream, and that it takes chats; the message is the upstream's own."
        }
        FailureClass::NotFound => {
            "Check the model's name at the upstream (adapterModelId), and that the account may use it."
        }
        FailureClass::ContentFilter => {
            "The upstream's filter refuses even a harmless prompt: look at its settings there."
        }
        FailureClass::Unusable => {
            "If the upstream is meant to be in a private network, whoever runs the gateway allows its host: private_upstream_hosts (DYAD_PRIVATE_UPSTREAM_HOSTS)."
        }
        FailureClass::Unavailable if is_cli => {
            "Check that a runner that is up has this CLI and these parameters, and that the gateway may use it."
        }
        FailureClass::Unavailable => {
            "Check the base URL (it mostly ends in /v1), that the upstream is up, and its certificate."
        }
        FailureClass::Internal => {
            "The upstream itself failed: test again, and look into its own log or status page."
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
