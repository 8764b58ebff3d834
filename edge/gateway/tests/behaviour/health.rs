//! How providers stand, as checks in the background find it.

use std::time::Duration;

use catalog::{Health, HealthState};
use gateway::CallError;
use serde_json::json;

use crate::support::{
    Gate, Log, Reply, START_MS, Task, TestGateway, cli_provider, millis, node, provider, secs, setup,
};

fn fine() -> Reply {
    Reply::json(200, &json!({"object": "list", "data": [{"id": "x"}]}))
}

/// One turn of the loop that a host runs; gives how long it wants to wait.
fn turn(test: &TestGateway) -> Duration {
    begin(test).finish()
}

fn begin(test: &TestGateway) -> Task<Duration> {
    let gateway = test.gateway.clone();
    Task::new(async move { gateway.check_health().await })
}

fn health(test: &TestGateway, slug: &str) -> Health {
    let all = test.gateway.health();
    all.into_iter().find(|(known, _)| known.as_str() == slug).map(|(_, health)| health).unwrap_or_default()
}

fn state(test: &TestGateway, slug: &str) -> HealthState {
    health(test, slug).state
}

/// Lets the loop run until the provider is asked again, and gives how long that took.
fn until_checked(test: &TestGateway, reply: Reply) -> Duration {
    let before = test.host.calls().len();
    test.host.reply("alpha", reply);
    let mut waited = Duration::ZERO;
    while test.host.calls().len() == before {
        // The configuration is read anew in the background.
        let wait = turn(test);
        if test.host.calls().len() > before {
            break;
        }
        assert!(!wait.is_zero() && wait <= secs(2), "{wait:?}");
        test.advance(wait);
        waited += wait;
    }
    waited
}

#[test]
fn a_provider_goes_down_by_three_failures_and_up_by_one_success() {
    let test = setup().provider("alpha", &json!({})).build();
    let log = Log::start();
    assert_eq!(test.gateway.health(), []);
    assert_eq!(until_checked(&test, fine()), Duration::ZERO, "the first check is at once");
    let first = health(&test, "alpha");
    assert_eq!((first.state, first.failure), (HealthState::Healthy, None));
    assert_eq!((first.since_ms, first.checked_at_ms), (Some(START_MS), Some(START_MS)));

    let mut degraded_since = None;
    for (failures, expected) in
        [(1, HealthState::Degraded), (2, HealthState::Degraded), (3, HealthState::Down)]
    {
        until_checked(&test, Reply::Fail(CallError::Connect));
        let found = health(&test, "alpha");
        assert_eq!((found.state, found.failure.as_ref().unwrap().class.as_str()), (expected, "unavailable"));
        if expected == HealthState::Degraded {
            assert_eq!(found.since_ms, *degraded_since.get_or_insert(found.since_ms), "failure {failures}");
        } else {
            assert_eq!(found.since_ms, found.checked_at_ms);
        }
    }
    until_checked(&test, Reply::json(401, &json!({"error": {"message": "no"}})));
    let down = health(&test, "alpha");
    assert_eq!((down.state, down.failure.unwrap().status), (HealthState::Down, Some(401)));
    assert!(down.since_ms < down.checked_at_ms);

    until_checked(&test, fine());
    let up = health(&test, "alpha");
    assert_eq!((up.state, up.failure, up.since_ms), (HealthState::Healthy, None, up.checked_at_ms));
    let told = log.all().iter().filter(|line| line.contains("health check")).count();
    assert_eq!(told, 4, "a line for each change of state");
}

#[test]
fn every_check_has_its_own_time_and_what_is_down_is_left_in_peace() {
    let test = setup().provider("alpha", &json!({})).build();
    until_checked(&test, fine());
    let mut intervals: Vec<_> = (0..12).map(|_| until_checked(&test, fine())).collect();
    assert!(intervals.iter().all(|interval| (secs(48)..=secs(72)).contains(interval)), "{intervals:?}");
    intervals.dedup();
    assert!(intervals.len() > 6, "{intervals:?}");
    let mut failing = (0..8).map(|_| until_checked(&test, Reply::Fail(CallError::Connect)));
    // The first three count from the usual interval; then it is 120, 240 and 300 seconds.
    for usual in [60, 60, 60, 120, 240, 300, 300, 300] {
        let interval = failing.next().unwrap();
        let expected = millis(usual * 800)..=millis(usual * 1_200);
        assert!(expected.contains(&interval), "{usual}: {interval:?}");
    }
}

#[test]
fn only_a_few_are_checked_at_once_and_each_for_a_while() {
    let slugs = ["a", "b", "c", "d", "e", "f"];
    let test = slugs.iter().fold(setup(), |setup, slug| setup.provider(slug, &json!({}))).build();
    let gates: Vec<_> = slugs
        .map(|slug| {
            let gate = Gate::default();
            test.host.reply(slug, Reply::Later(gate.clone()));
            gate
        })
        .into();
    let mut task = begin(&test);
    task.must_wait();
    assert_eq!(test.host.calls().len(), 4);
    gates[0].open(fine());
    task.must_wait();
    assert_eq!(test.host.calls().len(), 5);
    for gate in &gates[1..5] {
        gate.open(fine());
    }
    task.must_wait();
    // The last one does not answer.
    test.advance(secs(10));
    assert!(task.step().is_some());
    assert!(gates[5].is_given_up());
    assert_eq!(health(&test, "f").failure.unwrap().class, "timeout");
    assert_eq!(state(&test, "a"), HealthState::Healthy);
}

#[test]
fn a_changed_provider_is_unknown_and_one_that_is_off_is_not_asked() {
    let test = setup().provider("alpha", &json!({})).build();
    until_checked(&test, fine());
    // Not what is checked: its models.
    test.put_provider(&provider("alpha", &json!({"models": [{"id": "n"}]})), Some(1));
    test.advance(secs(11));
    turn(&test);
    assert_eq!((test.host.calls().len(), state(&test, "alpha")), (1, HealthState::Healthy));

    test.put_provider(&provider("alpha", &json!({"credential": "env:KEY_OF_OTHER"})), Some(2));
    test.advance(secs(11));
    test.host.reply("alpha", Reply::Fail(CallError::Connect));
    turn(&test);
    assert_eq!((test.host.calls().len(), state(&test, "alpha")), (2, HealthState::Degraded));

    test.put_provider(&provider("alpha", &json!({"enabled": false})), Some(3));
    test.advance(secs(300));
    assert_eq!(turn(&test), secs(2));
    assert_eq!(test.gateway.health(), []);
}

#[test]
fn a_cli_is_as_well_as_its_runners() {
    let test = setup().build();
    test.gateway.set_providers(vec![cli_provider("claude", &json!({}))]);
    turn(&test);
    assert_eq!(state(&test, "claude"), HealthState::Degraded);
    test.announce(&node("n1", |record| record.expires_unix_ms += 3_600_000));
    test.advance(secs(72));
    turn(&test);
    assert_eq!(state(&test, "claude"), HealthState::Healthy);
    assert!(test.host.calls().is_empty(), "the registry knows");
}

#[test]
fn a_check_that_is_given_up_is_made_again() {
    let test = setup().provider("alpha", &json!({})).build();
    test.host.reply("alpha", Reply::Later(Gate::default()));
    let mut task = begin(&test);
    task.must_wait();
    drop(task);
    assert_eq!(state(&test, "alpha"), HealthState::Unknown);
    test.host.reply("alpha", fine());
    turn(&test);
    assert_eq!(state(&test, "alpha"), HealthState::Healthy);
}
