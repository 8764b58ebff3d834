//! What is taken from the limits that all instances share.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use catalog::{Ask, BoxFuture, Counter, Hold, LimitStore, Period, Quantity, StoreError, Taken};
use futures_util::future::{Either, select};

use super::{Count, Metrics, StoreCall};
use crate::host::Host;

/// For stores without a deadline of their own, which is shorter where there is one. Requests do not wait for so long.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// In the order of their discriminants.
pub(super) const QUANTITIES: [(Quantity, &str); 2] =
    [(Quantity::Requests, "requests"), (Quantity::Tokens, "tokens")];
pub(super) const PERIODS: [(Period, &str); 3] =
    [(Period::Minute, "minute"), (Period::Day, "day"), (Period::Month, "month")];

/// The counters' kinds, each by quantity and period.
#[derive(Debug, Default)]
pub(super) struct LimitUnits {
    pub(super) granted: ByCounter,
    /// Counted, and granted to nobody: what a request for more than was left costs.
    pub(super) wasted: ByCounter,
    /// Used beyond what had been granted.
    pub(super) charged: ByCounter,
    pub(super) given_back: ByCounter,
}

#[derive(Debug, Default)]
pub(super) struct ByCounter([[Count; PERIODS.len()]; QUANTITIES.len()]);

impl ByCounter {
    fn add(&self, counter: &Counter, amount: u64) {
        self.get(counter.quantity, counter.period).add(amount);
    }

    pub(super) fn get(&self, quantity: Quantity, period: Period) -> &Count {
        &self.0[quantity as usize][period as usize]
    }
}

/// A limit store whose calls are counted.
pub(crate) struct CountedLimits {
    pub(crate) limits: Arc<dyn LimitStore>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) metrics: Arc<Metrics>,
}

impl CountedLimits {
    async fn call<T>(
        &self,
        call: StoreCall,
        future: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.host.sleep(CALL_LIMIT);
        let limited = async {
            match select(pin!(future), limit).await {
                Either::Left((answered, _)) => answered,
                Either::Right(_) => {
                    Err(StoreError::Unavailable { reason: format!("no answer within {CALL_LIMIT:?}") })
                }
            }
        };
        self.metrics.store_call(call, &*self.host, limited).await
    }
}

impl LimitStore for CountedLimits {
    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        ask: Ask,
        limit: u64,
    ) -> BoxFuture<'a, Result<Taken, StoreError>> {
        Box::pin(async move {
            let taken = self.call(StoreCall::LimitTake, self.limits.take(counter, ask, limit)).await?;
            let units = &self.metrics.limit_units;
            units.granted.add(counter, taken.granted);
            units.wasted.add(counter, taken.counted.saturating_sub(taken.granted));
            Ok(taken)
        })
    }

    fn charge<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.call(StoreCall::LimitCharge, self.limits.charge(counter, amount)).await?;
            self.metrics.limit_units.charged.add(counter, amount);
            Ok(())
        })
    }

    fn give_back<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.call(StoreCall::LimitGiveBack, self.limits.give_back(counter, amount)).await?;
            self.metrics.limit_units.given_back.add(counter, amount);
            Ok(())
        })
    }

    fn hold<'a>(&'a self, hold: Hold<'a>) -> BoxFuture<'a, Result<u32, StoreError>> {
        Box::pin(self.call(StoreCall::LimitHold, self.limits.hold(hold)))
    }

    fn clock_offset_ms(&self) -> i64 {
        self.limits.clock_offset_ms()
    }
}
