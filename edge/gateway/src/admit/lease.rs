//! One counter's share on this instance: what the store has granted of a window, and what of that is spent. No I/O.
//!
//! # How much is taken at once
//!
//! A call to the store takes what requests need now, and a reserve, so that the next ones need no call. Let `s` be what
//! this instance has spent in this window and `p` what it spent in the one before: the reserve is `max(s, p/2) / 16`,
//! and at most half of what the window has left. When no more than half of a reserve is unspent, the next is fetched in
//! the background.
//!
//! **Nobody is refused early.** An instance has at most one and a half reserves unspent, `3/32 s + 3/64 p`. Where a
//! window of limit `L` has nothing left, `L` is what all instances have spent (`S`) and hold unspent; what they spent
//! in the window before was `L` at most. So `L <= S + 3/32 S + 3/64 L`, and `S >= 61/70 L`: **at least 87 % of a limit
//! are used** when a request is refused, even if every instance but one falls silent or crashes just after it fetched
//! its reserve. One that falls silent and lives gives its reserve back after two seconds.
//!
//! **Few calls.** At a steady rate the reserve is worth 1/32 to 1/16 of what the instance spends in a window: about 30
//! calls per window, whatever the rate. Where a window begins from nothing, each of the first 16 requests needs a call,
//! and from there on `s` grows by 1/16 with each.

use std::time::Duration;

use catalog::{Ask, Period, Taken, Window};

use super::PATIENCE;

/// The reserve's share of what is spent.
const RESERVE_SHARE: u64 = 16;
/// A window that had too little left is asked again after this time: others may have given something back.
const REFUSAL_HOLDS: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Lease {
    window: Window,
    /// What the counter has grown by for this instance; the difference to `granted` is of no use to anybody.
    counted: u64,
    granted: u64,
    /// What requests have used or reserved. More than was granted where a request used more than it reserved, or
    /// while the store was away: that is still to be charged.
    spent: u64,
    /// What was spent in the window before.
    previous: u64,
    /// What the window had left for anybody when the store last answered.
    left: Option<u64>,
    /// What requests need that wait for the call under way.
    waiting: u64,
    /// A call is under way. Whoever made it may be gone without a word, so it counts until this time.
    asking_until: Option<Duration>,
    refused_until: Duration,
    /// The store cannot count this, though it answers.
    failing_until: Duration,
    last_used: Duration,
    /// What of `spent` was used beyond what had been reserved, where the window after may have to answer for it.
    overrun: u64,
    limit: u64,
    /// What is still to be charged to a window that is over, and when that began.
    overdue: Option<(u64, u64)>,
    /// The last charge failed, and may have been made.
    is_doubtful: bool,
}

/// What a request is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Go on, in the window that begins then; and fetch a reserve in the background, if there is something to ask.
    Spent { start_ms: u64, refill: Option<Call> },
    /// The window has too little left.
    Refused,
    /// Ask the store, and say what came of it.
    Ask(Call),
    /// Another request is asking; look again shortly.
    Wait,
    /// The store is not to be asked now.
    Failing,
}

/// A call to the store that whoever was given it makes now, and ends with [`Lease::asked`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub begun: Duration,
    /// When the window begins.
    pub start_ms: u64,
    pub ask: Ask,
    pub limit: u64,
}

impl Call {
    /// When it is given up.
    fn until(&self) -> Duration {
        self.begun + PATIENCE
    }
}

/// The moment: the monotonic clock, and the window by the fleet's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub monotonic: Duration,
    pub window: Window,
}

impl Lease {
    /// Spends `need`, or says what has to happen before. `limit` is at least `need`.
    pub(super) fn step(&mut self, need: u64, limit: u64, now: Now, store_is_down: bool) -> Step {
        self.roll(now.window);
        self.last_used = now.monotonic;
        self.limit = limit;
        let unspent = self.unspent(limit);
        if need <= unspent {
            self.spent += need;
            let refill = self.refill(need, limit, now.monotonic, store_is_down);
            return Step::Spent { start_ms: self.window.start_ms, refill };
        }
        if self.is_asking(now.monotonic) {
            return Step::Wait;
        }
        let need = need - unspent;
        if now.monotonic < self.refused_until && self.left.is_some_and(|left| left < need) {
            return Step::Refused;
        }
        if store_is_down || now.monotonic < self.failing_until {
            return Step::Failing;
        }
        let extra = self.waiting.saturating_add(self.reserve(limit));
        Step::Ask(self.call(Ask { need, extra }, limit, now.monotonic))
    }

    fn call(&mut self, ask: Ask, limit: u64, now: Duration) -> Call {
        let call = Call { begun: now, start_ms: self.window.start_ms, ask, limit };
        self.asking_until = Some(call.until());
        call
    }

    /// Asks for one request alone, though another is asking: it has waited long enough.
    pub(super) fn ask_anyway(&mut self, need: u64, limit: u64, now: Now) -> Call {
        self.roll(now.window);
        let need = need.saturating_sub(self.unspent(limit)).max(1);
        self.call(Ask { need, extra: 0 }, limit, now.monotonic)
    }

    /// Asks a store that did not answer once more: for as little as can be, because it may count it and not say so.
    pub(super) fn probe(&mut self, limit: u64, now: Now) -> Call {
        self.roll(now.window);
        self.call(Ask { need: 1, extra: 0 }, limit, now.monotonic)
    }

    /// Whether it is known that there is nothing left.
    pub(super) fn is_spent(&mut self, limit: u64, now: Now) -> bool {
        self.roll(now.window);
        self.left == Some(0) && self.unspent(limit) == 0 && now.monotonic < self.refused_until
    }

    /// Spends without having been granted anything, as far as this instance alone stays within the limit.
    /// Answers when the window begins.
    pub(super) fn spend_uncounted(&mut self, need: u64, limit: u64, now: Now) -> Option<u64> {
        self.roll(now.window);
        self.limit = limit;
        let spent = self.spent.checked_add(need).filter(|spent| *spent <= limit)?;
        self.spent = spent;
        Some(self.window.start_ms)
    }

    /// A window is left behind with all that was granted of it. What requests used beyond a minute's limit is not: it
    /// is spent of the minutes that follow, until it fits.
    fn roll(&mut self, window: Window) {
        // A clock that was set back a little does not bring the window before back.
        if window == self.window || window.end_ms == self.window.start_ms {
            return;
        }
        if is_quota(self.window) {
            self.owe(self.window.start_ms, self.spent.saturating_sub(self.granted));
        }
        let length_ms = window.end_ms.saturating_sub(window.start_ms).max(1);
        let passed = window.start_ms.saturating_sub(self.window.start_ms) / length_ms;
        let carried = self.spent.saturating_sub(self.limit.saturating_mul(passed)).min(self.overrun);
        let previous = if window.start_ms == self.window.end_ms { self.spent } else { 0 };
        *self = Self {
            window,
            previous,
            spent: carried,
            overrun: carried,
            waiting: self.waiting,
            asking_until: self.asking_until,
            failing_until: self.failing_until,
            last_used: self.last_used,
            limit: self.limit,
            overdue: self.overdue,
            is_doubtful: self.is_doubtful,
            ..Self::default()
        };
    }

    /// The limit may have been lowered since.
    fn unspent(&self, limit: u64) -> u64 {
        self.granted.min(limit).saturating_sub(self.spent)
    }

    fn reserve(&self, limit: u64) -> u64 {
        let pace = self.spent.max(self.previous.min(limit) / 2);
        (pace / RESERVE_SHARE).min(self.left.unwrap_or(limit) / 2)
    }

    /// A reserve that is too small for two requests like the last one saves no call.
    fn refill(&mut self, last: u64, limit: u64, now: Duration, store_is_down: bool) -> Option<Call> {
        let reserve = self.reserve(limit);
        let is_due = reserve >= last.saturating_mul(2).max(2) && self.unspent(limit) <= reserve / 2;
        let may_ask = !store_is_down && !self.is_asking(now) && now >= self.failing_until;
        (is_due && may_ask).then(|| self.call(Ask { need: 1, extra: reserve - 1 }, limit, now))
    }

    fn is_asking(&self, now: Duration) -> bool {
        self.asking_until.is_some_and(|until| now < until)
    }

    /// A call is over, whether it was answered, failed or was dropped.
    pub(super) fn asked(&mut self, call: &Call) {
        self.asking_until.take_if(|until| *until == call.until());
    }

    pub(super) fn answered(&mut self, call: &Call, taken: Taken, now: Duration) {
        if call.start_ms != self.window.start_ms {
            return;
        }
        self.granted = self.granted.saturating_add(taken.granted);
        self.counted = self.counted.saturating_add(taken.counted);
        self.left = Some(taken.left);
        if taken.granted == 0 {
            self.refused_until = now + REFUSAL_HOLDS;
        }
    }

    /// The store answers, but not this.
    pub(super) fn failed(&mut self, until: Duration) {
        self.failing_until = until;
    }

    /// A request waits, or no longer waits, for the call under way.
    pub(super) fn waits(&mut self, need: u64) {
        self.waiting = self.waiting.saturating_add(need);
    }

    pub(super) fn waited(&mut self, need: u64) {
        self.waiting = self.waiting.saturating_sub(need);
    }

    /// A request that had reserved this much in the window that began at `start_ms` has used that much. If that window
    /// is over, what it used beyond its reservation still counts: in a quota there, and in a minute, which is to limit
    /// a rate, now.
    pub(super) fn settle(&mut self, start_ms: u64, reserved: u64, used: u64, now: Now) {
        self.roll(now.window);
        let overrun = used.saturating_sub(reserved);
        if start_ms == self.window.start_ms {
            self.spent = self.spent.saturating_sub(reserved).saturating_add(used);
            self.last_used = now.monotonic;
        } else if is_quota(self.window) {
            return self.owe(start_ms, overrun);
        } else {
            self.spent = self.spent.saturating_add(overrun);
        }
        if !is_quota(self.window) {
            self.overrun = self.overrun.saturating_add(overrun);
        }
    }

    /// To a window that is over. There is one such at a time: quotas last days.
    fn owe(&mut self, start_ms: u64, amount: u64) {
        let owed = self.overdue.map_or(0, |(_, owed)| owed).saturating_add(amount);
        self.overdue = (owed > 0).then_some((start_ms, owed));
    }

    /// What was spent without having been granted, which the caller now charges.
    pub(super) fn take_debt(&mut self) -> Option<(u64, u64)> {
        if let Some(overdue) = self.overdue.take() {
            return Some(overdue);
        }
        let debt = self.spent.saturating_sub(self.granted);
        self.granted += debt;
        self.counted += debt;
        (debt > 0).then_some((self.window.start_ms, debt))
    }

    /// The charge could not be made; or it may have been, and then it is made once more and no further time.
    pub(super) fn keep_debt(&mut self, start_ms: u64, debt: u64, may_count: bool) {
        if may_count && std::mem::replace(&mut self.is_doubtful, true) {
            return;
        }
        if start_ms == self.window.start_ms {
            self.granted = self.granted.saturating_sub(debt);
            self.counted = self.counted.saturating_sub(debt);
        } else if is_quota(self.window) {
            self.owe(start_ms, debt);
        }
    }

    /// A charge was made.
    pub(super) fn charged(&mut self) {
        self.is_doubtful = false;
    }

    pub(super) fn owes(&self) -> bool {
        self.overdue.is_some() || self.spent > self.granted
    }

    /// Whether there is anything to give back or to charge.
    pub(super) fn is_open(&self, window: Window) -> bool {
        self.overdue.is_some() || self.window.start_ms >= window.start_ms && self.counted != self.spent
    }

    /// What is unspent and not needed since `used_before`, which the caller now gives back: the window's begin and the
    /// amount.
    pub(super) fn take_rest(&mut self, now: Now, used_before: Duration) -> Option<(u64, u64)> {
        let is_in_use = self.last_used > used_before || self.is_asking(now.monotonic);
        if self.window != now.window || is_in_use {
            return None;
        }
        let rest = self.counted.saturating_sub(self.spent);
        self.counted -= rest;
        self.granted = self.granted.min(self.counted);
        self.left = self.left.map(|left| left.saturating_add(rest));
        (rest > 0).then_some((self.window.start_ms, rest))
    }

    /// What can still be spent in this window, as far as is known here.
    pub(super) fn remaining(&mut self, limit: u64, window: Window) -> u64 {
        self.roll(window);
        let free = self.unspent(limit).saturating_add(self.left.unwrap_or(limit));
        free.min(limit.saturating_sub(self.spent))
    }
}

/// Days and months are quotas; minutes limit a rate.
fn is_quota(window: Window) -> bool {
    Period::Minute.window(window.start_ms).end_ms < window.end_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 100_000;

    fn at(minute: u64, seconds: u64) -> Now {
        let start_ms = minute * 60_000;
        let window = Window { start_ms, end_ms: start_ms + 60_000 };
        Now { monotonic: Duration::from_secs(minute * 60 + seconds), window }
    }

    fn granted(lease: &mut Lease, call: &Call, now: Now) {
        let Ask { need, extra } = call.ask;
        let taken = Taken { granted: need + extra, counted: need + extra, left: LIMIT };
        lease.answered(call, taken, now.monotonic);
        lease.asked(call);
    }

    /// Spends one at a time, with a store that grants all that is asked for; how often it was asked.
    fn spend(lease: &mut Lease, count: u64, now: Now) -> usize {
        let mut calls = 0;
        for _ in 0..count {
            let mut step = lease.step(1, LIMIT, now, false);
            if let Step::Ask(call) = step {
                calls += 1;
                granted(lease, &call, now);
                step = lease.step(1, LIMIT, now, false);
            }
            let Step::Spent { refill, .. } = step else { panic!("{step:?}") };
            if let Some(call) = refill {
                calls += 1;
                granted(lease, &call, now);
            }
            let pace = lease.spent.max(lease.previous / 2);
            assert!(2 * RESERVE_SHARE * (lease.granted - lease.spent) <= 3 * pace, "{lease:?}");
        }
        calls
    }

    /// The numbers in this module's documentation.
    #[test]
    fn calls_are_few_and_reserves_are_small() {
        let mut lease = Lease::default();
        assert_eq!(spend(&mut lease, 16, at(1, 0)), 16);
        assert!(spend(&mut lease, 10_000 - 16, at(1, 30)) <= 110);
        for minute in 2..5 {
            let calls = spend(&mut lease, 10_000, at(minute, 0));
            assert!((20..=32).contains(&calls), "{calls}");
        }
        assert!(spend(&mut lease, 10, at(9, 0)) > 1, "what was long ago says nothing");
    }

    #[test]
    fn a_refusal_holds_for_a_second() {
        let mut lease = Lease::default();
        let now = at(1, 0);
        let Step::Ask(call) = lease.step(5, LIMIT, now, false) else { panic!("{lease:?}") };
        lease.answered(&call, Taken { granted: 0, counted: 0, left: 4 }, now.monotonic);
        lease.asked(&call);
        assert_eq!(lease.step(5, LIMIT, now, false), Step::Refused);
        assert!(matches!(lease.step(4, LIMIT, now, false), Step::Ask(_)), "so much is there");
        lease.asked(&call);
        assert!(matches!(lease.step(5, LIMIT, at(1, 1), false), Step::Ask(_)));
    }

    #[test]
    fn an_answer_for_another_window_changes_nothing() {
        let mut lease = Lease::default();
        let Step::Ask(call) = lease.step(5, LIMIT, at(1, 59), false) else { panic!("{lease:?}") };
        lease.asked(&call);
        lease.step(5, LIMIT, at(2, 0), true);
        granted(&mut lease, &call, at(2, 0));
        assert_eq!((lease.granted, lease.spent, lease.take_debt()), (0, 0, None));
    }

    #[test]
    fn a_minute_answers_for_what_the_one_before_used_too_much() {
        let mut lease = Lease::default();
        let Step::Ask(call) = lease.step(5, 10, at(1, 0), false) else { panic!("{lease:?}") };
        granted(&mut lease, &call, at(1, 0));
        lease.step(5, 10, at(1, 0), false);
        // Used in the second minute: that and the third are full, and the fourth has five left.
        lease.settle(60_000, 5, 30, at(2, 0));
        assert_eq!((lease.spent, lease.take_debt()), (25, Some((120_000, 25))));
        assert_eq!(lease.remaining(10, at(3, 0).window), 0);
        assert_eq!((lease.spent, lease.take_debt()), (15, Some((180_000, 15))));
        assert_eq!(lease.remaining(10, at(4, 0).window), 5);
        assert_eq!(lease.take_debt(), Some((240_000, 5)));
        assert_eq!(lease.remaining(10, at(5, 0).window), 10);
        assert_eq!(lease.take_debt(), None);
    }

    #[test]
    fn a_quota_is_charged_where_the_request_began() {
        let day = |day: u64| {
            let window = Period::Day.window(day * 86_400_000);
            Now { monotonic: Duration::from_secs(day * 86_400), window }
        };
        let mut lease = Lease::default();
        assert_eq!(lease.spend_uncounted(5, LIMIT, day(1)), Some(86_400_000));
        let (one, two) = (day(1).window.start_ms, day(2));
        // Nobody has heard of the five, and nothing of them is spent of the next day.
        lease.settle(one, 5, 4, two);
        lease.settle(one, 5, 30, two);
        lease.settle(one, 5, 6, two);
        assert!(lease.is_open(two.window));
        assert_eq!((lease.spent, lease.take_debt(), lease.take_debt()), (0, Some((one, 31)), None));
        lease.keep_debt(one, 31, false);
        assert_eq!(lease.take_debt(), Some((one, 31)));
        assert!(!lease.is_open(two.window));
    }

    #[test]
    fn a_clock_that_is_set_back_a_little_brings_no_window_back() {
        let mut lease = Lease::default();
        let Step::Ask(call) = lease.step(5, LIMIT, at(2, 0), false) else { panic!("{lease:?}") };
        granted(&mut lease, &call, at(2, 0));
        let spent = lease.step(5, LIMIT, at(1, 59), false);
        assert!(matches!(spent, Step::Spent { start_ms: 120_000, .. }), "{spent:?}");
        assert!(matches!(lease.step(5, LIMIT, at(0, 59), false), Step::Ask(_)), "it was quite wrong");
    }

    #[test]
    fn a_debt_is_charged_once_and_kept_if_it_cannot_be() {
        let mut lease = Lease::default();
        let now = at(1, 0);
        assert!(lease.spend_uncounted(7, 10, now).is_some());
        assert!(lease.spend_uncounted(4, 10, now).is_none());
        assert_eq!(lease.take_debt(), Some((60_000, 7)));
        assert_eq!(lease.take_debt(), None);
        for may_count in [false, false, true] {
            lease.keep_debt(60_000, 7, may_count);
            assert_eq!(lease.take_debt(), Some((60_000, 7)));
        }
        lease.keep_debt(60_000, 7, true);
        assert_eq!(lease.take_debt(), None, "it was perhaps made twice");
        lease.charged();
        assert!(!lease.is_open(now.window));
    }
}
