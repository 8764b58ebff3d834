//! Run ids that were seen: each is accepted once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long an id is remembered. A request does not live as long.
const REMEMBERED_FOR: Duration = Duration::from_secs(60 * 60);
const MAX_REMEMBERED: usize = 100_000;

/// The ids of the last hour's runs, the latest 100,000 of them.
#[derive(Default)]
pub struct RunIds {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: HashSet<Arc<str>>,
    /// Oldest first.
    order: VecDeque<(Instant, Arc<str>)>,
}

impl RunIds {
    /// Takes the id. False: it was seen before.
    pub fn claim(&self, id: &str) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        while state.order.front().is_some_and(|(at, _)| now.duration_since(*at) >= REMEMBERED_FOR) {
            state.forget_oldest();
        }
        let id: Arc<str> = id.into();
        if !state.seen.insert(Arc::clone(&id)) {
            return false;
        }
        state.order.push_back((now, id));
        // Only now: repeating an id must not make the node forget others.
        if state.order.len() > MAX_REMEMBERED {
            state.forget_oldest();
        }
        true
    }

    /// Gives back the id of a request that was refused: it may be tried again.
    pub fn release(&self, id: &str) {
        let mut state = self.lock();
        state.seen.remove(id);
        // A refusal follows soon: the id is among the latest.
        if let Some(at) = state.order.iter().rposition(|(_, seen)| **seen == *id) {
            state.order.remove(at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_oldest(&mut self) {
        if let Some((_, oldest)) = self.order.pop_front() {
            self.seen.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_id_is_taken_once_within_an_hour() {
        let ids = RunIds::default();
        assert!(ids.claim("a"));
        assert!(!ids.claim("a"));
        tokio::time::advance(Duration::from_secs(3_599)).await;
        assert!(!ids.claim("a"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(ids.claim("a"), "an hour later it may come again");
        assert!(!ids.claim("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_that_was_given_back_may_come_again() {
        let ids = RunIds::default();
        assert!(ids.claim("a") && ids.claim("b"));
        ids.release("a");
        ids.release("never seen");
        assert!(ids.claim("a"));
        assert!(!ids.claim("a") && !ids.claim("b"));
        assert_eq!(ids.lock().order.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_the_bound() {
        let ids = RunIds::default();
        for id in 0..MAX_REMEMBERED {
            assert!(ids.claim(&id.to_string()));
        }
        assert!(!ids.claim("1"));
        assert!(!ids.claim("0"), "a repeated id makes none be forgotten");
        assert!(ids.claim("new"));
        assert_eq!(ids.lock().seen.len(), MAX_REMEMBERED);
        assert_eq!(ids.lock().order.len(), MAX_REMEMBERED);
        assert!(ids.claim("0"), "the oldest was forgotten");
    }
}
