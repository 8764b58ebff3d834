//! Each target in turn until one commits. Up to there the client has seen nothing, so failing over is silent.

use std::sync::Arc;

use crate::adapter::{Call, ChatCall, Completed, Corrections, EmbeddingsCall};
use crate::classify::taught;
use crate::error::{FailureClass, Scope, UpstreamFailure};
use crate::host::BoxFuture;
use crate::routes::{Lesson, Target};
use crate::stream::Live;

/// Corrections of one request by what its upstream refused: each of the three lessons once.
const MAX_LESSONS: usize = 3;

/// A request that can be tried on a target.
pub(crate) trait Attempt: Send + Sync {
    type Answer;

    /// `corrections`: what the target has refused of this very request.
    fn attempt<'a>(
        &'a self,
        target: &'a Arc<Target>,
        corrections: &'a Corrections,
    ) -> BoxFuture<'a, Result<Self::Answer, UpstreamFailure>>;

    fn call(&self) -> &Call;

    /// Whether what goes to the target has what the lesson is about, so that sending it again is another request.
    fn is_changed_by(&self, target: &Target, lesson: Lesson) -> bool;
}

pub(crate) struct Streamed(pub ChatCall);
pub(crate) struct Whole(pub ChatCall);

impl Attempt for Streamed {
    type Answer = Live;

    fn attempt<'a>(
        &'a self,
        target: &'a Arc<Target>,
        corrections: &'a Corrections,
    ) -> BoxFuture<'a, Result<Live, UpstreamFailure>> {
        Box::pin(self.0.stream(target, corrections))
    }

    fn call(&self) -> &Call {
        &self.0.call
    }

    fn is_changed_by(&self, target: &Target, lesson: Lesson) -> bool {
        self.0.is_changed_by(target, lesson)
    }
}

impl Attempt for Whole {
    type Answer = Completed;

    fn attempt<'a>(
        &'a self,
        target: &'a Arc<Target>,
        corrections: &'a Corrections,
    ) -> BoxFuture<'a, Result<Completed, UpstreamFailure>> {
        Box::pin(self.0.complete(target, corrections))
    }

    fn call(&self) -> &Call {
        &self.0.call
    }

    fn is_changed_by(&self, target: &Target, lesson: Lesson) -> bool {
        self.0.is_changed_by(target, lesson)
    }
}

impl Attempt for EmbeddingsCall {
    type Answer = Completed;

    fn attempt<'a>(
        &'a self,
        target: &'a Arc<Target>,
        corrections: &'a Corrections,
    ) -> BoxFuture<'a, Result<Completed, UpstreamFailure>> {
        Box::pin(self.embed(target, corrections))
    }

    fn call(&self) -> &Call {
        &self.call
    }

    fn is_changed_by(&self, _: &Target, _: Lesson) -> bool {
        false
    }
}

/// What an upstream refuses for a reason that can be put right is sent to it again, corrected. A connection that was
/// closed before it answered, as a kept one that went stale is, is tried anew once. Where a credential was rotated, the one
/// before it is tried once while the two overlap.
pub(crate) async fn try_targets<A: Attempt>(
    request: &A,
    targets: &[Arc<Target>],
) -> Result<(A::Answer, Arc<Target>), UpstreamFailure> {
    let request_id = request.call().request_id.to_str().unwrap_or_default();
    let mut last: Option<UpstreamFailure> = None;
    let mut may_have_worked = false;
    for target in targets {
        let (provider, model) = (target.upstream.slug.as_str(), target.model.upstream_id.as_str());
        let series = target.series.get(target);
        if last.is_some() {
            series.fallback();
        }
        let mut corrections = Corrections::default();
        let mut reconnected = false;
        let failure = loop {
            tracing::debug!(request_id, provider, model, "an upstream is asked");
            let failure = match request.attempt(target, &corrections).await {
                Ok(answer) => {
                    tracing::debug!(request_id, provider, model, "the upstream answers");
                    series.call_committed();
                    return Ok((answer, target.clone()));
                }
                Err(failure) => failure,
            };
            series.call_failed(failure.class);
            may_have_worked |= failure.may_have_worked;
            let new = taught(&failure).filter(|taught| {
                request.is_changed_by(target, taught.lesson) && !corrections.lessons.contains(&taught.lesson)
            });
            if let Some(new) = new
                && corrections.lessons.len() < MAX_LESSONS
            {
                if new.lasting {
                    tracing::info!(
                        provider,
                        model,
                        lesson = ?new.lesson,
                        "the upstream refused a field; from now on it is sent without"
                    );
                    target.learned.learn(new.lesson);
                }
                corrections.lessons.push(new.lesson);
                series.corrected();
                continue;
            }
            if failure.class == FailureClass::Auth
                && !corrections.previous_credential
                && request
                    .call()
                    .overlap_at_ms
                    .is_some_and(|at_ms| target.upstream.has_previous_credential(at_ms))
            {
                tracing::info!(
                    request_id,
                    provider,
                    model,
                    "the upstream refused the credential; the one before it is tried"
                );
                corrections.previous_credential = true;
                series.fell_back_to_previous_credential();
                continue;
            }
            if failure.stale_connection && !reconnected {
                reconnected = true;
                series.reconnected();
                continue;
            }
            break failure;
        };
        tracing::warn!(
            request_id,
            provider,
            model,
            class = failure.class.as_str(),
            "an upstream failed: {}",
            // The upstream's own words may quote the request, which is nothing for the log.
            if failure.class.is_callers_fault() { "it refused the request" } else { &failure.message },
        );
        if failure.scope == Scope::Request {
            return Err(UpstreamFailure { may_have_worked, ..failure });
        }
        // Who cannot do it at all says less than who could have.
        if last.is_none() || !failure.class.is_callers_fault() {
            last = Some(failure);
        }
    }
    let last = last.unwrap_or_else(|| UpstreamFailure::unavailable("No upstream serves this model."));
    Err(UpstreamFailure { may_have_worked, ..last })
}
