//! The slots of concurrent requests that this instance holds of a key. No I/O.
//!
//! They are held for [`HELD_FOR`] and held again every [`RENEWED_EVERY`] as long as a request runs, so an instance that
//! vanishes frees them by saying nothing. What requests no longer need is kept for a moment, for the next ones.

use std::time::Duration;

use catalog::Held;

use super::PATIENCE;

/// How long slots are held without another word.
pub(super) const HELD_FOR: Duration = Duration::from_secs(30);
const RENEWED_EVERY: Duration = Duration::from_secs(10);
/// A renewal that failed is tried again after this time.
const RENEWAL_RETRIED: Duration = Duration::from_secs(3);
/// Between two looks of who renews in the background.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Whoever renews and was not heard of for so long is gone: on some hosts it ends with the request that began it.
const RENEWER_GONE: Duration = Duration::from_secs(20);
/// Slots are no longer given to requests when so little of their time is left: clocks are never quite the same.
const MARGIN: Duration = Duration::from_secs(5);
/// When no slot was free, others may have become so after this time.
const REFUSAL_HOLDS: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(super) struct Slots {
    limit: u32,
    running: u32,
    /// What the store has said that it keeps for this instance.
    known: Held,
    /// What of that may be given to requests.
    usable: u32,
    usable_until: Duration,
    renew_at: Duration,
    /// Requests that wait for the call under way.
    waiting: u32,
    /// A call is under way. Whoever made it may be gone without a word, so it counts until this time.
    calling_until: Option<Duration>,
    refused_until: Duration,
    /// The store cannot keep this, though it answers.
    failing_until: Duration,
    /// The most requests at once since slots were last let go.
    peak: u32,
    /// Somebody renews in the background.
    renewer_until: Option<Duration>,
}

/// What a request is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Go on: it has a slot.
    Taken,
    Refused,
    /// Ask the store, and say what came of it.
    Hold(Call),
    /// Another request is asking; look again shortly.
    Wait,
    /// The store is not to be asked now.
    Failing,
}

/// A call to the store that whoever was given it makes now, and ends with [`Slots::called`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub begun: Duration,
    pub known: Held,
    pub wanted: u32,
    pub limit: u32,
}

impl Call {
    /// When it is given up.
    fn until(&self) -> Duration {
        self.begun + PATIENCE
    }
}

impl Slots {
    pub(super) fn step(&mut self, limit: u32, now: Duration, store_is_down: bool) -> Step {
        self.limit = limit;
        if self.running < self.usable.min(limit) && now + MARGIN < self.usable_until {
            self.begin();
            return Step::Taken;
        }
        // All there are, and all of them here.
        if self.running >= limit {
            return Step::Refused;
        }
        if self.is_calling(now) {
            return Step::Wait;
        }
        if now < self.refused_until {
            return Step::Refused;
        }
        if store_is_down || now < self.failing_until {
            return Step::Failing;
        }
        Step::Hold(self.call(self.running.saturating_add(1).saturating_add(self.waiting), now))
    }

    /// Takes a slot that the store knows nothing of, as far as this instance alone stays within the limit.
    pub(super) fn take_uncounted(&mut self) -> bool {
        let fits = self.running < self.limit;
        if fits {
            self.begin();
        }
        fits
    }

    fn begin(&mut self) {
        self.running += 1;
        self.peak = self.peak.max(self.running);
    }

    /// How many more requests may begin, if no other instance has any.
    pub(super) fn free(&self, limit: u32) -> u32 {
        limit.saturating_sub(self.running)
    }

    /// A request has ended.
    pub(super) fn release(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    fn is_calling(&self, now: Duration) -> bool {
        self.calling_until.is_some_and(|until| now < until)
    }

    fn call(&mut self, wanted: u32, now: Duration) -> Call {
        let call = Call { begun: now, known: self.known, wanted: wanted.min(self.limit), limit: self.limit };
        self.calling_until = Some(call.until());
        // Nobody else has to renew them meanwhile.
        self.renew_at = self.renew_at.max(call.until());
        call
    }

    /// Holds what is held for another while.
    pub(super) fn hold_again(&mut self, now: Duration) -> Call {
        self.call(self.usable.max(self.running), now)
    }

    /// The same, if it is time.
    pub(super) fn renew(&mut self, now: Duration) -> Option<Call> {
        let is_due = now >= self.renew_at && !self.is_calling(now);
        is_due.then(|| self.hold_again(now))
    }

    /// Whether the caller is to renew from now on, in the background.
    pub(super) fn begin_renewing(&mut self, now: Duration) -> bool {
        let begins = self.renewer_until.is_none_or(|until| until <= now);
        if begins {
            self.renewer_until = Some(now + RENEWER_GONE);
        }
        begins
    }

    /// Whether it is to go on: requests run.
    pub(super) fn goes_on_renewing(&mut self, now: Duration) -> bool {
        self.renewer_until = (self.running > 0).then(|| now + RENEWER_GONE);
        self.renewer_until.is_some()
    }

    /// When that is.
    pub(super) fn renew_at(&self) -> Duration {
        self.renew_at
    }

    /// Holds fewer from now on, if some were not needed since the last time.
    pub(super) fn let_go(&mut self, now: Duration) -> Option<Call> {
        let needed = std::mem::replace(&mut self.peak, self.running);
        if needed >= self.usable || self.is_calling(now) {
            return None;
        }
        // They are not given to requests any more, whether the store hears of it or not.
        self.usable = needed;
        Some(self.call(needed, now))
    }

    /// The store's answer. One that comes after another call was made says nothing of how things are now.
    pub(super) fn answered(&mut self, call: &Call, held: Held, now: Duration) {
        if self.calling_until != Some(call.until()) {
            return;
        }
        self.known = held;
        self.usable = held.slots;
        self.usable_until = call.begun + HELD_FOR;
        self.renew_at = call.begun + RENEWED_EVERY;
        if held.slots < call.wanted {
            self.refused_until = now + REFUSAL_HOLDS;
        }
    }

    /// The store did not answer; or, until some time, answers but not this.
    pub(super) fn failed(&mut self, now: Duration, failing_until: Option<Duration>) {
        self.renew_at = now + RENEWAL_RETRIED;
        self.failing_until = failing_until.unwrap_or(self.failing_until);
    }

    /// A call is over, whether it was answered, failed or was dropped.
    pub(super) fn called(&mut self, call: &Call) {
        self.calling_until.take_if(|until| *until == call.until());
    }

    /// A request waits, or no longer waits, for the call under way.
    pub(super) fn waits(&mut self) {
        self.waiting = self.waiting.saturating_add(1);
    }

    pub(super) fn waited(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Whether more is held than is needed.
    pub(super) fn is_open(&self) -> bool {
        self.usable > self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn held(slots: u32) -> Held {
        Held { slots, until_ms: 1 }
    }

    fn asked(step: Step) -> Call {
        let Step::Hold(call) = step else { panic!("{step:?}") };
        call
    }

    /// An instance that holds so many and runs as many.
    fn running(slots: u32, limit: u32) -> Slots {
        let mut one = Slots::default();
        for _ in 0..slots {
            let call = asked(one.step(limit, NOW, false));
            one.answered(&call, held(call.wanted), NOW);
            one.called(&call);
            assert_eq!(one.step(limit, NOW, false), Step::Taken);
        }
        one
    }

    /// The store may have heard of it, though no answer came.
    #[test]
    fn what_was_let_go_is_not_used_again() {
        let mut slots = running(3, 5);
        slots.release();
        slots.release();
        assert_eq!(slots.let_go(NOW), None, "they were needed a moment ago");
        let call = slots.let_go(NOW).unwrap();
        assert_eq!((call.known, call.wanted), (held(3), 1));
        slots.failed(NOW, None);
        slots.called(&call);
        assert_eq!(asked(slots.step(5, NOW, false)).known, held(3));
    }

    #[test]
    fn slots_whose_time_is_nearly_over_are_not_used() {
        let mut slots = running(1, 5);
        slots.release();
        let too_late = NOW + HELD_FOR.saturating_sub(MARGIN);
        let in_time = too_late.saturating_sub(Duration::from_millis(1));
        assert_eq!(slots.step(5, in_time, false), Step::Taken);
        slots.release();
        asked(slots.step(5, too_late, false));
    }

    #[test]
    fn one_asks_for_all_that_wait() {
        let mut slots = running(1, 5);
        let first = asked(slots.step(5, NOW, false));
        for _ in 0..2 {
            assert_eq!(slots.step(5, NOW, false), Step::Wait);
            slots.waits();
        }
        // Whoever asked is gone without a word.
        slots.called(&first);
        assert_eq!(asked(slots.step(5, NOW, false)).wanted, 4);
        assert_eq!(slots.step(5, NOW + PATIENCE / 2, false), Step::Wait);
        assert_eq!(asked(slots.step(5, NOW + PATIENCE, false)).wanted, 4, "even if nobody says that it is");
    }

    #[test]
    fn all_there_are_need_no_call() {
        let mut slots = running(2, 2);
        assert_eq!(slots.step(2, NOW, false), Step::Refused);
        assert_eq!(slots.step(1, NOW, true), Step::Refused, "a lowered limit");
    }
}
