//! Each target in turn until one commits. Up to there the client has seen nothing, so failing over is silent.

use std::sync::Arc;

use crate::adapter::{ChatCall, Completed, EmbeddingsCall};
use crate::classify::lesson;
use crate::error::UpstreamFailure;
use crate::host::BoxFuture;
use crate::routes::{Lesson, Target};
use crate::stream::Live;

/// Corrections of one request by what its upstream refused: each of the three lessons once.
const MAX_LESSONS: usize = 3;

/// A request that can be tried on a target.
pub(crate) trait Attempt: Send + Sync {
    type Answer;

    fn attempt<'a>(&'a self, target: &'a Arc<Target>)
    -> BoxFuture<'a, Result<Self::Answer, UpstreamFailure>>;

    /// Whether the request has what the lesson is about, so that sending it again is another request.
    fn is_changed_by(&self, lesson: Lesson) -> bool;
}

pub(crate) struct Streamed(pub ChatCall);
pub(crate) struct Whole(pub ChatCall);

impl Attempt for Streamed {
    type Answer = Live;

    fn attempt<'a>(&'a self, target: &'a Arc<Target>) -> BoxFuture<'a, Result<Live, UpstreamFailure>> {
        Box::pin(self.0.stream(target))
    }

    fn is_changed_by(&self, lesson: Lesson) -> bool {
        self.0.is_changed_by(lesson)
    }
}

impl Attempt for Whole {
    type Answer = Completed;

    fn attempt<'a>(&'a self, target: &'a Arc<Target>) -> BoxFuture<'a, Result<Completed, UpstreamFailure>> {
        Box::pin(self.0.complete(target))
    }

    fn is_changed_by(&self, lesson: Lesson) -> bool {
        self.0.is_changed_by(lesson)
    }
}

impl Attempt for EmbeddingsCall {
    type Answer = Completed;

    fn attempt<'a>(&'a self, target: &'a Arc<Target>) -> BoxFuture<'a, Result<Completed, UpstreamFailure>> {
        Box::pin(self.embed(target))
    }

    fn is_changed_by(&self, _: Lesson) -> bool {
        false
    }
}

/// What an upstream refuses for a reason that can be put right is sent to it again, corrected. A connection that was
/// closed before it answered, as a kept one that went stale is, is tried anew once.
pub(crate) async fn try_targets<A: Attempt>(
    request: &A,
    targets: &[Arc<Target>],
) -> Result<(A::Answer, Arc<Target>), UpstreamFailure> {
    let mut last = UpstreamFailure::unavailable("No upstream serves this model.");
    for target in targets {
        let mut taught: Vec<Lesson> = Vec::new();
        let mut reconnected = false;
        let failure = loop {
            let failure = match request.attempt(target).await {
                Ok(answer) => return Ok((answer, target.clone())),
                Err(failure) => failure,
            };
            if let Some(lesson) =
                lesson(&failure).filter(|l| request.is_changed_by(*l) && !taught.contains(l))
                && taught.len() < MAX_LESSONS
            {
                tracing::info!(
                    provider = target.upstream.slug.as_str(),
                    model = target.model.upstream_id,
                    ?lesson,
                    "the upstream refused a field; from now on it is sent without"
                );
                target.learned.learn(lesson);
                taught.push(lesson);
                continue;
            }
            if failure.stale_connection && !reconnected {
                reconnected = true;
                continue;
            }
            break failure;
        };
        tracing::warn!(
            provider = target.upstream.slug.as_str(),
            model = target.model.upstream_id,
            class = failure.class.as_str(),
            "an upstream failed: {}",
            // The upstream's own words may quote the request, which is nothing for the log.
            if failure.class.may_fall_back() { &failure.message } else { "it refused the request" },
        );
        if !failure.class.may_fall_back() {
            return Err(failure);
        }
        last = failure;
    }
    Err(last)
}
