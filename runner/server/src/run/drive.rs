//! One run, from the CLI having the request to its last event.

use std::time::Duration;

use cli_dialect::{Exit, Limit};
use runner_api::{ErrorClass, RunEvent};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::pool::{Heard, Lease};

/// For a CLI that was asked to stop to say that it has.
const CANCEL_GRACE: Duration = Duration::from_millis(100);
/// For the client to take the last events, if the run used up its own time.
const LAST_EVENTS_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct Run {
    pub(super) lease: Lease,
    /// Bounded: when the client does not read, the CLI is not read either.
    pub(super) events: mpsc::Sender<RunEvent>,
    pub(super) cancelled: CancellationToken,
    pub(super) deadline: Instant,
    pub(super) idle_time: Duration,
    /// When the request came.
    pub(super) arrived: Instant,
}

/// Why a run is over.
enum Over {
    /// The CLI said all of its answer.
    Complete,
    /// The dialect's last event is out.
    Told,
    Exited,
    Limit(Limit),
    Cancelled,
    /// Nobody is there to hear of anything.
    ClientGone,
}

impl Run {
    /// Sends exactly one last event, unless the client has gone. The sandbox is on its way out when this returns.
    pub(super) async fn drive(mut self) {
        let waited_ms = u64::try_from(self.arrived.elapsed().as_millis()).unwrap_or(u64::MAX);
        let started = RunEvent::Started { waited_ms, warm: self.lease.is_warm() };
        // The channel has room for it.
        if self.events.send(started).await.is_err() {
            return self.stop().await;
        }
        let exit = match self.attend().await {
            Over::Complete => None,
            Over::Exited => Some(self.lease.exit().await),
            Over::Limit(limit) => Some(Exit { code: None, limit: Some(limit) }),
            Over::Told => return,
            Over::ClientGone => return self.stop().await,
            Over::Cancelled => {
                self.stop().await;
                return self
                    .send(vec![RunEvent::error(ErrorClass::Cancelled, "the run was cancelled")])
                    .await;
            }
        };
        self.lease.end(exit.as_ref());
        let events = self.last_events();
        self.send(events).await;
    }

    /// Carries output to the client until the run is over.
    async fn attend(&mut self) -> Over {
        let Self { lease, events, cancelled, deadline, idle_time, .. } = self;
        let mut last_heard = Instant::now();
        loop {
            let has_events = lease.has_events();
            if !has_events && lease.is_complete() {
                return Over::Complete;
            }
            tokio::select! {
                () = cancelled.cancelled() => return Over::Cancelled,
                () = events.closed() => return Over::ClientGone,
                () = sleep_until(*deadline) => return Over::Limit(Limit::WallTime),
                // A CLI that is not read because the client does not read is not idle.
                () = sleep_until(last_heard + *idle_time), if !has_events => return Over::Limit(Limit::IdleTime),
                room = events.reserve(), if has_events => {
                    let (Ok(room), Some(event)) = (room, lease.next_event()) else { return Over::ClientGone };
                    let is_last = event.is_last();
                    room.send(event);
                    if is_last {
                        return Over::Told;
                    }
                    last_heard = Instant::now();
                }
                heard = lease.hear() => match heard {
                    Heard::Output => last_heard = Instant::now(),
                    Heard::End => return Over::Exited,
                }
            }
        }
    }

    /// What is left to be told, up to the last event.
    fn last_events(&mut self) -> Vec<RunEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.lease.next_event() {
            let is_last = event.is_last();
            events.push(event);
            if is_last {
                return events;
            }
        }
        events.push(RunEvent::error(ErrorClass::Internal, "the CLI's dialect did not say how the run ended"));
        events
    }

    /// The sandbox goes first: it has nothing more to do, and a client may take its time.
    async fn send(self, last_events: Vec<RunEvent>) {
        let Self { lease, events, deadline, .. } = self;
        drop(lease);
        let until = deadline.max(Instant::now() + LAST_EVENTS_WITHIN);
        let send = async {
            for event in last_events {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        };
        // A client that does not read for so long finds a run that was cut off.
        let _ = tokio::time::timeout_at(until, send).await;
    }

    /// Asks the CLI to stop, so that its vendor hears of it; in any case it is killed after a moment.
    async fn stop(&mut self) {
        if !self.lease.cancel() {
            return;
        }
        let lease = &mut self.lease;
        let stopped = async {
            while !lease.is_complete() && lease.hear().await == Heard::Output {
                lease.drop_events();
            }
        };
        let _ = timeout(CANCEL_GRACE, stopped).await;
    }
}
