//! What has changed in the store, by its counts.

use std::time::Duration;

use catalog::{ApiKeyId, ConfigVersion};

/// A write and its count become visible at about the same time, in either order: who reads a record just after its
/// count has moved may get the old one. So what was read when a count was first seen is read once more when the count
/// is seen again, this much later.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);

/// The counts as last seen.
#[derive(Default)]
pub(crate) struct Changes {
    providers: Count,
    keys: Vec<Count>,
}

/// One count. A record that was read under a generation is good while that generation lasts.
#[derive(Clone, Default)]
struct Count {
    generation: u64,
    seen: Option<u64>,
    unconfirmed_since: Option<Duration>,
}

impl Count {
    fn moves(&self, count: Option<u64>, now: Duration) -> bool {
        count.is_none()
            || count != self.seen
            || self.unconfirmed_since.is_some_and(|since| now >= since.saturating_add(CONFIRM_AFTER))
    }

    fn see(&mut self, count: Option<u64>, now: Duration) {
        if !self.moves(count, now) {
            return;
        }
        // What was read before the first look is as unconfirmed as what is read after it.
        let first_look = self.generation == 0 && self.seen.is_none() && self.unconfirmed_since.is_none();
        self.generation += u64::from(!first_look);
        self.unconfirmed_since = (count != self.seen || count.is_none()).then_some(now);
        self.seen = count;
    }
}

impl Changes {
    /// Whether the providers have to be read. `None`: the counts cannot be read, so everything may have changed.
    pub(crate) fn concern_providers(&self, version: Option<&ConfigVersion>, now: Duration) -> bool {
        self.providers.moves(version.map(|version| version.providers), now)
    }

    /// The providers of this version were read.
    pub(crate) fn see_providers(&mut self, version: Option<&ConfigVersion>, now: Duration) {
        self.providers.see(version.map(|version| version.providers), now);
    }

    /// `now`: when the reading of the counts began.
    pub(crate) fn see_keys(&mut self, version: Option<&ConfigVersion>, now: Duration) {
        self.keys.resize_with(ApiKeyId::GROUPS, Count::default);
        for (group, count) in self.keys.iter_mut().enumerate() {
            count.see(version.map(|version| version.keys[group]), now);
        }
    }

    /// By [`ApiKeyId::group`].
    pub(crate) fn key_generations(&self) -> impl Iterator<Item = u64> {
        self.keys.iter().map(|count| count.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_count_that_moves_is_followed_twice() {
        let mut count = Count::default();
        let mut generation_at = |seen, ms| {
            count.see(seen, at(ms));
            count.generation
        };
        assert_eq!(
            generation_at(Some(5), 0),
            0,
            "what was read beside the first look counts as read under it"
        );
        assert_eq!(generation_at(Some(5), 999), 0);
        assert_eq!(generation_at(Some(5), 1_000), 1, "confirmed");
        assert_eq!(generation_at(Some(5), 60_000), 1);
        assert_eq!(generation_at(Some(6), 61_000), 2);
        assert_eq!(generation_at(Some(7), 61_500), 3);
        assert_eq!(generation_at(Some(7), 62_000), 3, "confirmed from the last move on");
        assert_eq!(generation_at(Some(7), 62_500), 4);
        // Another table, or one that was put back.
        assert_eq!(generation_at(Some(2), 63_000), 5);
        assert_eq!(generation_at(Some(2), 64_000), 6);
    }

    #[test]
    fn counts_that_cannot_be_read_may_have_moved() {
        let mut count = Count::default();
        let mut generation_at = |seen, ms| {
            count.see(seen, at(ms));
            count.generation
        };
        assert_eq!(generation_at(None, 0), 0);
        assert_eq!(generation_at(None, 1), 1);
        assert_eq!(generation_at(None, 2), 2);
        assert_eq!(generation_at(Some(1), 3), 3);
        assert_eq!(generation_at(Some(1), 1_003), 4);
        assert_eq!(generation_at(Some(1), 9_000), 4);
    }

    #[test]
    fn a_change_of_a_key_concerns_its_group_alone() {
        let mut changes = Changes::default();
        let mut version = ConfigVersion { providers: 3, keys: [7; ApiKeyId::GROUPS] };
        changes.see_keys(Some(&version), at(0));
        changes.see_providers(Some(&version), at(0));
        changes.see_keys(Some(&version), at(2_000));
        changes.see_providers(Some(&version), at(2_000));
        let before: Vec<_> = changes.key_generations().collect();
        version.keys[4] += 1;
        assert!(!changes.concern_providers(Some(&version), at(3_000)));
        changes.see_keys(Some(&version), at(3_000));
        let moved: Vec<_> = changes
            .key_generations()
            .zip(before)
            .enumerate()
            .filter_map(|(group, (now, before))| (now != before).then_some(group))
            .collect();
        assert_eq!(moved, [4]);
        assert!(changes.concern_providers(None, at(4_000)));
    }
}
