//! Durations, counted by how long they are, without a lock.

use std::time::Duration;

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

use super::Count;

#[derive(Debug)]
pub(super) struct Histogram {
    /// Ascending; each belongs to its own bucket.
    bounds: &'static [Duration],
    /// One for each bound, and one for what is longer than all.
    buckets: Box<[Count]>,
    sum_us: Count,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [Duration]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Count::default()).collect();
        Self { bounds, buckets, sum_us: Count::default() }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < duration);
        self.buckets[bucket].add(1);
        self.sum_us.add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.get() == 0)
    }

    /// In seconds.
    pub(super) fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let bounds = self.bounds.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(Count::get)).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_micros(self.sum_us.get()).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}
