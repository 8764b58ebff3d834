//! What requests used, in the store.

use catalog::{ApiKey, Day, StoreError, UsageRow, UsageStore as _};
use http::StatusCode;
use serde_json::{Value, json};

use crate::metrics::Scrape;
use crate::support::{
    Feed, Mood, Reply, START_MS, Task, TestGateway, completion, ending, ready, secs, setup, text_chunk,
};

/// Of [`START_MS`].
const TODAY: Day = Day(19_675);

/// The rows of today, as `provider/model requests failed prompt+completion estimated`.
fn rows(test: &TestGateway) -> Vec<String> {
    let line = |UsageRow { of, counts, .. }| {
        format!(
            "{}/{} {} {} {}+{} {}",
            of.provider,
            of.model,
            counts.requests,
            counts.failed,
            counts.prompt_tokens,
            counts.completion_tokens,
            counts.estimated
        )
    };
    ready(test.store.inner.usage(TODAY)).unwrap().into_iter().map(line).collect()
}

/// A chat that is answered in full.
fn chat(test: &TestGateway, changes: &Value) {
    test.host.reply("alpha", Reply::json(200, &completion("ok")));
    let answer = test.chat(changes);
    assert_eq!(answer.status, StatusCode::OK);
    answer.text();
}

/// The interval passes.
fn interval(test: &TestGateway) {
    test.host.run_spawned();
    test.advance(secs(15));
}

fn alpha() -> TestGateway {
    setup().provider("alpha", &json!({"models": [{"id": "m"}, {"id": "n"}]})).build()
}

#[test]
fn requests_are_added_together_and_written_once_an_interval() {
    let test = alpha();
    assert_eq!(Day::of_ms(START_MS), TODAY);
    for _ in 0..20 {
        chat(&test, &json!({}));
    }
    chat(&test, &json!({"model": "n"}));
    chat(&test, &json!({"model": "alpha/m"}));
    test.host.run_spawned();
    test.advance(secs(14));
    assert_eq!(test.store.usage_writes(), 0);
    test.advance(secs(1));
    assert_eq!(rows(&test), ["alpha/alpha/m 1 0 5+2 0", "alpha/m 20 0 100+40 0", "alpha/n 1 0 5+2 0"]);
    assert_eq!(test.store.usage_writes(), 3);
    let key = ApiKey::parse(&test.key).unwrap().id().clone();
    assert_eq!(ready(test.store.inner.last_used()).unwrap(), [(key, START_MS)]);

    // Nobody asks, nothing is written, and nothing waits to be.
    interval(&test);
    assert_eq!((test.store.usage_writes(), test.host.run_spawned()), (3, 0));
    chat(&test, &json!({}));
    interval(&test);
    assert_eq!(rows(&test)[1], "alpha/m 21 0 105+42 0");
    assert_eq!(test.store.usage_writes(), 4);
}

#[test]
fn what_failed_counts_and_what_was_refused_does_not() {
    let test = setup()
        .provider("alpha", &json!({}))
        .limits(catalog::ApiKeyLimits { tokens_per_minute: Some(50), ..Default::default() })
        .build();
    // No model, no such model, too much for the key.
    for changes in [json!({"model": null}), json!({"model": "x"}), json!({"max_tokens": 1_000})] {
        assert!(test.chat(&changes).status.is_client_error());
    }
    interval(&test);
    assert!(rows(&test).is_empty());
    assert_eq!(test.store.usage_writes(), 0);

    test.host.reply("alpha", Reply::json(500, &json!({"error": {"message": "no"}})));
    assert_eq!(test.chat(&json!({"max_tokens": 5})).status, StatusCode::BAD_GATEWAY);
    interval(&test);
    assert_eq!(rows(&test), ["alpha/m 1 1 0+0 0"]);
    // A client that leaves has used what was sent for it, as far as that can be told.
    test.advance(secs(60));
    let feed = Feed::default();
    feed.push(text_chunk("a"));
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.chat(&json!({"stream": true, "max_tokens": 5}));
    answer.body.available();
    drop(answer);
    interval(&test);
    let [row] = &rows(&test)[..] else { panic!("one row") };
    assert!(row.starts_with("alpha/m 2 2 ") && row.ends_with(" 1"), "{row}");
}

#[test]
fn who_answered_in_the_end_has_it() {
    let test = setup().provider("alpha", &json!({"rank": 1})).provider("beta", &json!({"rank": 2})).build();
    test.host.reply("alpha", Reply::json(503, &json!({"error": {"message": "later"}})));
    test.host.reply("beta", Reply::json(200, &completion("ok")));
    test.chat(&json!({})).text();
    interval(&test);
    assert_eq!(rows(&test), ["beta/m 1 0 5+2 0"]);
}

#[test]
fn days_are_those_of_the_stores_clock() {
    let test = alpha();
    let feed = Feed::default();
    test.host.reply("alpha", Reply::feed(&feed));
    let mut answer = test.start_chat(&json!({"stream": true}));
    answer.must_wait();
    // Tomorrow by the store's clock alone. It counts where it ends.
    test.store.is_ahead_by_ms(86_400_000);
    feed.push(text_chunk("a"));
    feed.push(ending());
    feed.end();
    answer.finish().text();
    interval(&test);
    let tomorrow = ready(test.store.inner.usage(Day(TODAY.0 + 1))).unwrap();
    assert_eq!((rows(&test).len(), tomorrow.len()), (0, 1));
    assert_eq!(tomorrow[0].counts.requests, 1);
}

#[test]
fn what_the_store_does_not_take_is_kept() {
    let test = alpha();
    test.get("/ready");
    for mood in [Mood::Down, Mood::Hangs, Mood::Denied] {
        chat(&test, &json!({}));
        test.store.is(mood);
        interval(&test);
        // One that hangs is given up.
        test.advance(secs(10));
        assert_eq!(Scrape::of(&test).get("usage_pending_rows"), 1, "{mood:?}");
        test.store.is(Mood::Well);
        interval(&test);
        assert_eq!(Scrape::of(&test).get("usage_pending_rows"), 0, "{mood:?}");
    }
    assert_eq!(rows(&test), ["alpha/m 3 0 15+6 0"]);
    assert_eq!(Scrape::of(&test).get("usage_lost_requests_total"), 0);
    test.advance(secs(60));
    assert_eq!(test.host.run_spawned(), 0);
}

/// Where no request comes, it is not tried for ever: some hosts would live for it alone. The next request goes on.
#[test]
fn a_store_that_stays_away_is_asked_again_by_the_next_request() {
    let test = alpha();
    chat(&test, &json!({}));
    test.store.is(Mood::Down);
    for _ in 0..100 {
        interval(&test);
    }
    assert_eq!(test.host.run_spawned(), 0);
    assert!(test.store.usage_writes() <= 4, "{}", test.store.usage_writes());
    test.store.is(Mood::Well);
    chat(&test, &json!({}));
    interval(&test);
    assert_eq!(rows(&test), ["alpha/m 2 0 10+4 0"]);
}

#[test]
fn a_row_that_is_refused_holds_no_other_up_and_is_given_up_in_the_end() {
    let test = alpha();
    test.store.refuses_usage(|row| {
        (row.of.model == "n").then(|| StoreError::Refused { reason: "not this one".to_owned() })
    });
    for round in 1..=7 {
        chat(&test, &json!({}));
        chat(&test, &json!({"model": "n"}));
        interval(&test);
        assert_eq!(rows(&test), [format!("alpha/m {round} 0 {}+{} 0", round * 5, round * 2)]);
    }
    // Those of the first five rounds; the others are tried again.
    assert_eq!(Scrape::of(&test).get("usage_lost_requests_total"), 5);
    assert_eq!(Scrape::of(&test).get("usage_pending_rows"), 1);
}

#[test]
fn a_host_that_shuts_down_writes_all_of_it() {
    let test = alpha();
    for _ in 0..3 {
        chat(&test, &json!({}));
    }
    test.store.is(Mood::Down);
    assert_eq!(ready(test.gateway.flush_usage()), 1);
    test.store.is(Mood::Well);
    assert_eq!(ready(test.gateway.flush_usage()), 0);
    assert_eq!(rows(&test), ["alpha/m 3 0 15+6 0"]);
    interval(&test);
    assert_eq!(rows(&test), ["alpha/m 3 0 15+6 0"], "once");
}

/// A flush that somebody drops puts back what it has not written.
#[test]
fn a_flush_that_is_cut_off_loses_nothing() {
    let test = alpha();
    chat(&test, &json!({}));
    test.store.is(Mood::Hangs);
    let gateway = test.gateway.clone();
    let mut flush = Task::new(async move { gateway.flush_usage().await });
    flush.must_wait();
    drop(flush);
    test.store.is(Mood::Well);
    assert_eq!(ready(test.gateway.flush_usage()), 0);
    assert_eq!(rows(&test), ["alpha/m 1 0 5+2 0"]);
}

/// Whoever was to flush may vanish without a word, as on a Worker.
#[test]
fn a_flusher_that_vanished_is_replaced() {
    let test = alpha();
    chat(&test, &json!({}));
    test.host.forget_spawned();
    test.host.advance(secs(24));
    chat(&test, &json!({}));
    interval(&test);
    assert_eq!(test.store.usage_writes(), 0, "it may still be there");
    chat(&test, &json!({}));
    interval(&test);
    assert_eq!(rows(&test), ["alpha/m 3 0 15+6 0"]);
}

/// Rows are many only where keys are: a request makes at most one.
#[test]
fn many_rows_are_written_early_and_too_many_are_counted() {
    let models: Vec<_> = (0..4_200).map(|index| json!({"id": format!("m{index}")})).collect();
    let test = setup().provider("alpha", &json!({"models": models})).build();
    for index in 0..4_095 {
        chat(&test, &json!({"model": format!("m{index}")}));
    }
    test.host.run_spawned();
    assert_eq!(test.store.usage_writes(), 0);
    chat(&test, &json!({"model": "m4095"}));
    test.host.run_spawned();
    assert_eq!(test.store.usage_writes(), 4_096);

    test.store.is(Mood::Down);
    for (name, found) in [("", 4_200), ("alpha/", 3_992)] {
        for index in 0..found {
            chat(&test, &json!({"model": format!("{name}m{index}")}));
        }
    }
    let scrape = Scrape::of(&test);
    assert_eq!(scrape.get("usage_pending_rows"), 8_192);
    assert_eq!(scrape.get("usage_lost_requests_total"), 0);
    chat(&test, &json!({"model": "alpha/m4000"}));
    chat(&test, &json!({"model": "m7"}));
    let scrape = Scrape::of(&test);
    assert_eq!(scrape.get("usage_pending_rows"), 8_192);
    assert_eq!(scrape.get("usage_lost_requests_total"), 1, "what has a row is counted on");
}
