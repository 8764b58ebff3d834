//! How many sandboxes should wait for requests, from how many were asked for lately.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::model::PoolSize;

/// What was asked for so long ago counts a third of what is asked for now.
const MEMORY: Duration = Duration::from_secs(60);
/// A start takes so long while none has been measured.
const ASSUMED_START: Duration = Duration::from_secs(1);
const WEIGHT_OF_LATEST: f64 = 0.3;
/// Requests do not come evenly.
const HEADROOM: f64 = 2.0;

#[derive(Debug)]
pub(super) struct Demand {
    /// Requests a second, as of `at`.
    rate: f64,
    /// The most sandboxes that were in use at once, fading, as of `at`.
    peak: f64,
    at: Instant,
    last_request: Option<Instant>,
    start_seconds: Option<f64>,
}

impl Demand {
    pub(super) fn new(now: Instant) -> Self {
        Self { rate: 0.0, peak: 0.0, at: now, last_request: None, start_seconds: None }
    }

    /// A request came; `in_use` sandboxes serve requests, its own included.
    pub(super) fn request(&mut self, now: Instant, in_use: usize) {
        let fade = self.fade(now);
        self.rate = self.rate * fade + 1.0 / MEMORY.as_secs_f64();
        self.peak = (self.peak * fade).max(count(in_use));
        self.at = now;
        self.last_request = Some(now);
    }

    pub(super) fn started(&mut self, took: Duration) {
        let latest = took.as_secs_f64();
        let mean = self.start_seconds.unwrap_or(latest);
        self.start_seconds = Some(mean + WEIGHT_OF_LATEST * (latest - mean));
    }

    /// As many as are asked for while one is being made, and as many as were in use at once; at least one as long as
    /// somebody asked within the time that a sandbox waits. `always`: the minimum is kept even if nobody asks.
    pub(super) fn desired(&self, now: Instant, size: &PoolSize, always: bool) -> usize {
        let recent = self.last_request.is_some_and(|at| now.duration_since(at) < size.max_age);
        if !recent {
            return if always { size.min } else { 0 };
        }
        let fade = self.fade(now);
        let start = self.start_seconds.unwrap_or(ASSUMED_START.as_secs_f64());
        let wanted = (self.rate * fade * start * HEADROOM).max(self.peak * fade).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
        let wanted = wanted as usize;
        wanted.max(size.min).max(1).min(size.max)
    }

    pub(super) fn last_request(&self) -> Option<Instant> {
        self.last_request
    }

    fn fade(&self, now: Instant) -> f64 {
        (-now.duration_since(self.at).as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of sandboxes")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: PoolSize = PoolSize { min: 2, max: 10, max_age: Duration::from_secs(600) };

    fn demand_of(requests: u32, every: Duration, in_use: usize) -> (Demand, Instant) {
        let mut now = Instant::now();
        let mut demand = Demand::new(now);
        for _ in 0..requests {
            now += every;
            demand.request(now, in_use);
        }
        (demand, now)
    }

    #[test]
    fn without_requests_it_is_the_minimum_where_that_is_always_kept() {
        let now = Instant::now();
        let demand = Demand::new(now);
        assert_eq!(demand.desired(now, &SIZE, true), 2);
        assert_eq!(demand.desired(now, &SIZE, false), 0);
    }

    #[test]
    fn a_request_keeps_one_waiting_for_the_next_as_long_as_it_may_wait() {
        let (demand, now) = demand_of(1, Duration::from_secs(1), 1);
        let size = PoolSize { min: 0, ..SIZE };
        assert_eq!(demand.desired(now, &size, false), 1);
        assert_eq!(demand.desired(now + Duration::from_secs(599), &size, false), 1);
        assert_eq!(demand.desired(now + Duration::from_secs(600), &size, false), 0);
    }

    #[test]
    fn a_rate_wants_what_is_asked_for_during_a_start() {
        // Two a second, one at a time, for five minutes; a start takes one and a half.
        let (mut demand, now) = demand_of(600, Duration::from_millis(500), 1);
        demand.started(Duration::from_millis(1500));
        assert_eq!(demand.desired(now, &SIZE, false), 6);
        demand.started(Duration::from_secs(60));
        assert_eq!(demand.desired(now, &SIZE, false), 10, "never more than the maximum");
    }

    #[test]
    fn a_burst_is_expected_again_and_then_forgotten() {
        let (demand, now) = demand_of(8, Duration::from_millis(1), 8);
        assert_eq!(demand.desired(now, &SIZE, false), 8);
        let later = now + MEMORY;
        assert_eq!(demand.desired(later, &SIZE, false), 3);
        assert_eq!(demand.desired(later + MEMORY, &SIZE, false), 2);
    }

    #[test]
    fn a_pool_of_none_stays_empty() {
        let (demand, now) = demand_of(100, Duration::from_millis(1), 50);
        let none = PoolSize { min: 0, max: 0, ..SIZE };
        assert_eq!(demand.desired(now, &none, true), 0);
    }
}
