//! The store's clock, which is the fleet's: read off the `Date` header of every answer.
//!
//! Instances whose clocks differ would count in different windows, and take each other's slots for expired. All of
//! them talk to the same store, so they go by its clock. A header tells full seconds: what comes out is right within
//! half a second and half of the round trip. An engine in this process sends no such header, and needs none.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use crate::sdk::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, HttpRequest, RuntimeComponents,
    SharedHttpClient, SharedHttpConnector, SharedTimeSource, TimeSource,
};

/// Differences below it, to the host's clock and to what was known before, are within what the header can tell, or
/// nothing to worry about.
const TOLERATED_MS: u64 = 2_000;
/// An answer that took longer says too little of when it was given.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(4);

#[derive(Clone, Debug)]
pub(crate) struct FleetClock {
    own: SharedTimeSource,
    offset_ms: Arc<AtomicI64>,
}

impl FleetClock {
    pub(crate) fn new(own: SharedTimeSource) -> Self {
        Self { own, offset_ms: Arc::default() }
    }

    /// What to add to the host's clock; 0 until an answer has come.
    pub(crate) fn offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::Relaxed)
    }

    /// The client, with its answers looked at.
    pub(crate) fn watch(&self, client: SharedHttpClient) -> SharedHttpClient {
        SharedHttpClient::new(WatchedClient { client, clock: self.clone() })
    }

    fn learn(&self, date: &str, asked: SystemTime, answered: SystemTime) {
        let Ok(round_trip) = answered.duration_since(asked) else { return };
        let Ok(date) = DateTime::from_str(date, Format::HttpDate) else { return };
        let (Ok(date_ms), true) = (date.to_millis(), round_trip <= MAX_ROUND_TRIP) else { return };
        let Ok(own) = (asked + round_trip / 2).duration_since(UNIX_EPOCH) else { return };
        let Ok(own_ms) = i64::try_from(own.as_millis()) else { return };
        // The middle of the second that it names.
        let offset_ms = date_ms.saturating_add(500).saturating_sub(own_ms);
        let offset_ms = if offset_ms.unsigned_abs() < TOLERATED_MS { 0 } else { offset_ms };
        // Windows would begin and end with every answer anew.
        let is_near = |known: i64| known.abs_diff(offset_ms) <= TOLERATED_MS;
        // It fails where what is known is as good.
        let _ = self.offset_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| {
            (!is_near(known)).then_some(offset_ms)
        });
    }
}

/// For signatures, which the store accepts within minutes of its own time only.
impl TimeSource for FleetClock {
    fn now(&self) -> SystemTime {
        let offset_ms = self.offset_ms();
        let offset = Duration::from_millis(offset_ms.unsigned_abs());
        let own = self.own.now();
        let corrected = if offset_ms < 0 { own.checked_sub(offset) } else { own.checked_add(offset) };
        corrected.unwrap_or(own)
    }
}

#[derive(Debug)]
struct WatchedClient {
    client: SharedHttpClient,
    clock: FleetClock,
}

impl HttpClient for WatchedClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let connector = self.client.http_connector(settings, components);
        SharedHttpConnector::new(WatchedConnector { connector, clock: self.clock.clone() })
    }
}

#[derive(Debug)]
struct WatchedConnector {
    connector: SharedHttpConnector,
    clock: FleetClock,
}

impl HttpConnector for WatchedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let clock = self.clock.clone();
        let asked = clock.own.now();
        let call = self.connector.call(request);
        HttpConnectorFuture::new(async move {
            let response = call.await?;
            if let Some(date) = response.headers().get("date") {
                clock.learn(date, asked, clock.own.now());
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(SystemTime);

    impl TimeSource for Fixed {
        fn now(&self) -> SystemTime {
            self.0
        }
    }

    /// Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's example.
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const DATE_MS: u64 = 784_111_777_000;

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    /// The offset after an answer with this date, asked and answered at these times.
    fn learned(date: &str, asked_ms: u64, answered_ms: u64) -> i64 {
        let clock = FleetClock::new(SharedTimeSource::new(Fixed(at(asked_ms))));
        clock.learn(date, at(asked_ms), at(answered_ms));
        clock.offset_ms()
    }

    #[test]
    fn the_middle_of_the_round_trip_saw_the_middle_of_the_second() {
        let five_minutes = 300_000;
        assert_eq!(learned(DATE, DATE_MS - five_minutes, DATE_MS - five_minutes + 200), 300_400);
        assert_eq!(learned(DATE, DATE_MS + five_minutes, DATE_MS + five_minutes + 200), -299_600);
        // All that a right clock can see, and what is close enough.
        for asked_ms in [DATE_MS - 1_000, DATE_MS, DATE_MS + 999, DATE_MS + 2_000] {
            assert_eq!(learned(DATE, asked_ms, asked_ms + 100), 0, "{asked_ms}");
        }
    }

    #[test]
    fn what_is_known_holds_until_it_is_quite_wrong() {
        let asked_ms = DATE_MS - 300_000;
        let clock = FleetClock::new(SharedTimeSource::new(Fixed(at(asked_ms))));
        for (later_ms, expected) in [(0, 300_500), (1_900, 300_500), (-1_900, 300_500), (-2_100, 302_600)] {
            let asked = at(asked_ms.saturating_add_signed(later_ms));
            clock.learn(DATE, asked, asked);
            assert_eq!(clock.offset_ms(), expected, "{later_ms}");
        }
    }

    #[test]
    fn what_says_nothing_is_passed_over() {
        let asked_ms = DATE_MS - 300_000;
        assert_eq!(learned("yesterday", asked_ms, asked_ms), 0);
        assert_eq!(learned("", asked_ms, asked_ms), 0);
        assert_eq!(learned(DATE, asked_ms, asked_ms + 4_001), 0, "too slow");
        assert_eq!(learned(DATE, asked_ms, asked_ms - 1), 0, "the clock was set back meanwhile");
    }

    #[test]
    fn signatures_go_by_the_fleets_clock() {
        for (own_ms, expected_ms) in [(DATE_MS - 300_000, DATE_MS + 500), (DATE_MS + 300_000, DATE_MS + 500)]
        {
            let clock = FleetClock::new(SharedTimeSource::new(Fixed(at(own_ms))));
            assert_eq!(clock.now(), at(own_ms));
            clock.learn(DATE, at(own_ms), at(own_ms));
            assert_eq!(clock.now(), at(expected_ms));
        }
    }
}
