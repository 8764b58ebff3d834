//! The port for limits that hold across instances: counters of windows, and slots of concurrent requests.
//!
//! An instance takes a slice of a window with one call, spends it without further calls, and gives back what it does
//! not need. What is granted never adds up to more than the limit, whoever crashes and whatever is sent twice.

use time::OffsetDateTime;
use time::util::days_in_month;

use crate::{ApiKeyId, BoxFuture, StoreError};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quantity {
    Requests,
    Tokens,
}

/// A span of time, aligned to UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    Minute,
    Day,
    /// A calendar month.
    Month,
}

/// A period in time: begin and end in Unix milliseconds, the end not part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub start_ms: u64,
    pub end_ms: u64,
}

impl Period {
    /// The window that a moment is in.
    pub fn window(self, at_ms: u64) -> Window {
        let (start_ms, length_ms) = match self {
            Self::Minute => (at_ms - at_ms % MINUTE_MS, MINUTE_MS),
            Self::Day => (at_ms - at_ms % DAY_MS, DAY_MS),
            Self::Month => {
                let seconds = i64::try_from(at_ms / 1_000).unwrap_or(i64::MAX);
                // A clock beyond the year 9999 counts months of its own, and breaks nothing.
                let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
                let days_before = u64::from(date.day() - 1);
                let days = u64::from(days_in_month(date.month(), date.year()));
                (at_ms - at_ms % DAY_MS - days_before * DAY_MS, days * DAY_MS)
            }
        };
        Window { start_ms, end_ms: start_ms.saturating_add(length_ms) }
    }
}

/// One counter: what a key has taken in one window.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counter {
    pub key: ApiKeyId,
    pub quantity: Quantity,
    pub period: Period,
    /// When the window begins, Unix milliseconds.
    pub start_ms: u64,
}

impl Counter {
    /// How long a counter is kept after its window, for instances whose clock is behind.
    pub const KEPT_MS: u64 = 60 * MINUTE_MS;

    pub fn end_ms(&self) -> u64 {
        self.period.window(self.start_ms).end_ms
    }
}

/// What is asked of [`LimitStore::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// At least 1. Where less is left, nothing is taken.
    pub need: u64,
    /// What would be welcome besides, in part or whole.
    pub extra: u64,
}

/// The answer to [`LimitStore::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// 0, or from `need` to `need + extra`.
    pub granted: u64,
    /// What the counter has grown by: more than `granted` where the end of the window was reached. What is not used
    /// of it may be given back, and if it never is, it is wasted.
    pub counted: u64,
    /// What the window has left for anybody, after this.
    pub left: u64,
}

impl Taken {
    /// What a counter that stood at `before` gives, and whether it grows. The rule of every implementation: it grows
    /// by all that was asked for as long as there was room for `need`, so that one conditional addition does it.
    pub fn from_counter(before: u64, ask: Ask, limit: u64) -> Self {
        let left = limit.saturating_sub(before);
        if left < ask.need.max(1) {
            return Self { granted: 0, counted: 0, left };
        }
        let counted = ask.need.saturating_add(ask.extra);
        let granted = counted.min(left);
        Self { granted, counted, left: left - granted }
    }
}

/// Slots of a key that an instance holds: as many of its requests may be under way at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub slots: u32,
    /// Until when, by the fleet's clock.
    pub until_ms: u64,
}

/// What is asked of [`LimitStore::hold`]. Times are those of the fleet's clock.
#[derive(Clone, Copy, Debug)]
pub struct Hold<'a> {
    pub key: &'a ApiKeyId,
    /// The instance, named at random when it began: 1 to 32 letters and digits.
    pub holder: &'a str,
    /// What it holds, as far as it knows. Where it is mistaken, the call takes one request more. It also keeps a
    /// request that is late from undoing what came after it.
    pub known: Held,
    /// What it needs, until when. No slots gives all of them back.
    pub wanted: Held,
    /// The slots that there are for all instances.
    pub limit: u32,
    pub now_ms: u64,
}

/// Counters and slots. Every call is one request to the store, except where it says otherwise.
pub trait LimitStore: Send + Sync {
    /// Takes a slice of what `limit` leaves in the window. A request that is repeated because its answer was lost
    /// may count twice, which wastes and never exceeds.
    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        ask: Ask,
        limit: u64,
    ) -> BoxFuture<'a, Result<Taken, StoreError>>;

    /// Counts what was used beyond what was taken, whatever the limit. Repeated as `take` is.
    fn charge<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Gives back what was taken and not used. Never repeated: given back twice, it could be taken twice. More than
    /// the counter holds is not taken from it.
    fn give_back<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Makes an instance the holder of as many slots as it wants, or of as many as are free: what others hold counts
    /// until its time has passed. What it holds already it may keep, though the limit be lower by now: its requests
    /// are running. Answers how many it holds now. Where others are in the way, this is a few requests.
    fn hold<'a>(&'a self, hold: Hold<'a>) -> BoxFuture<'a, Result<u32, StoreError>>;

    /// What to add to this instance's wall clock to get the store's, which is the fleet's: all instances must agree on
    /// when a window begins. 0 while it is not known.
    fn clock_offset_ms(&self) -> i64;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(period: Period, date: &str) -> (String, String) {
        let parse = |text: &str| {
            let numbers: Vec<i32> = text.split(['-', 'T', ':', '.']).map(|n| n.parse().unwrap()).collect();
            let month = u8::try_from(numbers[1]).unwrap().try_into().unwrap();
            let date =
                time::Date::from_calendar_date(numbers[0], month, u8::try_from(numbers[2]).unwrap()).unwrap();
            let [hour, minute, second] = [3, 4, 5].map(|at| u8::try_from(numbers[at]).unwrap());
            let at = date.with_hms(hour, minute, second).unwrap().assume_utc();
            u64::try_from(at.unix_timestamp()).unwrap() * 1_000 + u64::try_from(numbers[6]).unwrap()
        };
        let show = |ms: u64| {
            let at = OffsetDateTime::from_unix_timestamp(i64::try_from(ms / 1_000).unwrap()).unwrap();
            format!("{} {:02}:{:02}:{:02}", at.date(), at.hour(), at.minute(), at.second())
        };
        let Window { start_ms, end_ms } = period.window(parse(date));
        assert_eq!((start_ms % 1_000, end_ms % 1_000), (0, 0));
        (show(start_ms), show(end_ms))
    }

    #[test]
    fn windows_are_aligned_to_utc() {
        for (period, at, start, end) in [
            (Period::Minute, "2026-08-03T10:20:30.456", "2026-08-03 10:20:00", "2026-08-03 10:21:00"),
            (Period::Minute, "2026-08-03T10:20:00.000", "2026-08-03 10:20:00", "2026-08-03 10:21:00"),
            (Period::Day, "2026-12-31T23:59:59.999", "2026-12-31 00:00:00", "2027-01-01 00:00:00"),
            (Period::Month, "2026-08-03T10:20:30.456", "2026-08-01 00:00:00", "2026-09-01 00:00:00"),
            (Period::Month, "2028-02-29T23:59:59.999", "2028-02-01 00:00:00", "2028-03-01 00:00:00"),
            (Period::Month, "2027-02-28T23:59:59.999", "2027-02-01 00:00:00", "2027-03-01 00:00:00"),
            (Period::Month, "2026-12-01T00:00:00.000", "2026-12-01 00:00:00", "2027-01-01 00:00:00"),
        ] {
            assert_eq!(window(period, at), (start.to_owned(), end.to_owned()), "{period:?} of {at}");
        }
    }

    #[test]
    fn no_clock_is_too_far_off() {
        for period in [Period::Minute, Period::Day, Period::Month] {
            for at_ms in [0, 1, u64::MAX / 2, u64::MAX] {
                let Window { start_ms, end_ms } = period.window(at_ms);
                assert!(start_ms <= at_ms && at_ms <= end_ms && start_ms < end_ms, "{period:?} of {at_ms}");
            }
        }
    }

    #[test]
    fn a_counter_grants_what_it_has_left_and_counts_what_was_asked_for() {
        let ask = Ask { need: 2, extra: 3 };
        for (before, granted, counted, left) in [
            (0, 5, 5, 5),
            (5, 5, 5, 0),
            (7, 3, 5, 0),
            (8, 2, 5, 0),
            (9, 0, 0, 1),
            (10, 0, 0, 0),
            (99, 0, 0, 0),
        ] {
            assert_eq!(
                Taken::from_counter(before, ask, 10),
                Taken { granted, counted, left },
                "at {before} of 10"
            );
        }
    }
}
