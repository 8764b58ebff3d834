use catalog::{ApiKey, UsageKey, UsageStore as _};
use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::testing::{NOW_MS, Reply, TestApp, request, with_header};

fn key(seed: u8) -> ApiKeyId {
    ApiKey::from_random(&[seed; 32]).id().clone()
}

/// 2027-01-15, which is the day of [`NOW_MS`].
fn today() -> Day {
    Day::of_ms(NOW_MS)
}

async fn add(app: &TestApp, ago: u32, seed: u8, provider: &str, model: &str, requests: u64) {
    let row = UsageRow {
        of: UsageKey {
            day: Day(today().0 - ago),
            key: key(seed),
            provider: ProviderSlug::parse(provider).unwrap(),
            model: model.to_owned(),
        },
        counts: UsageCounts {
            requests,
            failed: 1,
            prompt_tokens: 10 * requests,
            completion_tokens: 100 * requests,
            estimated: 0,
        },
        last_at_ms: NOW_MS,
    };
    app.store.add_usage(&row).await.unwrap();
}

async fn used() -> TestApp {
    let app = TestApp::new();
    add(&app, 0, 1, "a", "m", 1).await;
    add(&app, 0, 1, "a", "n", 2).await;
    add(&app, 0, 2, "b", "m", 4).await;
    add(&app, 1, 1, "a", "m", 8).await;
    add(&app, 29, 1, "a", "m", 16).await;
    add(&app, 30, 1, "a", "m", 32).await;
    add(&app, 365, 1, "a", "m", 64).await;
    add(&app, 366, 1, "a", "m", 128).await;
    app
}

fn requests(reply: &Reply) -> Vec<u64> {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body["data"].as_array().unwrap().iter().map(|row| row["requests"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn rows_are_shown_for_the_last_thirty_days() {
    let app = used().await;
    let reply = app.get("/admin/usage").await;
    let mut of_today = vec![(key(1), 1), (key(1), 2), (key(2), 4)];
    of_today.sort();
    let expected: Vec<_> =
        [16, 8].into_iter().chain(of_today.into_iter().map(|(_, requests)| requests)).collect();
    assert_eq!(requests(&reply), expected);
    let row = json!({
        "day": "2026-12-17", "key": key(1), "provider": "a", "model": "m", "requests": 16, "failed": 1,
        "promptTokens": 160, "completionTokens": 1_600, "estimated": 0,
    });
    assert_eq!(reply.body["data"][0], row);
    assert_eq!((&reply.body["object"], &reply.body["nextCursor"]), (&json!("list"), &Value::Null));
}

#[tokio::test]
async fn days_and_filters_choose_rows() {
    let app = used().await;
    let key = key(2);
    for (query, expected) in [
        ("from=2027-01-15", 7),
        ("until=2027-01-14", 8 + 16 + 32),
        ("from=2027-01-14&until=2027-01-14", 8),
        ("from=2026-01-15", 127),
        ("from=2026-01-14&until=2027-01-14", 8 + 16 + 32 + 64 + 128),
        ("from=2030-01-01&until=2030-12-31", 0),
        ("provider=a", 1 + 2 + 8 + 16),
        ("provider=unknown", 0),
        ("model=n", 2),
        ("model=m&provider=b", 4),
        (&*format!("key={key}"), 4),
    ] {
        let reply = app.get(&format!("/admin/usage?{query}")).await;
        assert_eq!(requests(&reply).iter().sum::<u64>(), expected, "{query}");
    }
}

#[tokio::test]
async fn what_is_not_told_apart_is_added_up() {
    let app = used().await;
    let reply = app.get("/admin/usage?groupBy=model").await;
    let row = |model: &str, requests: u64, failed: u64| {
        json!({
            "day": null, "key": null, "provider": null, "model": model, "requests": requests, "failed": failed,
            "promptTokens": 10 * requests, "completionTokens": 100 * requests, "estimated": 0,
        })
    };
    assert_eq!(reply.body["data"], json!([row("m", 29, 4), row("n", 2, 1)]));
    assert_eq!(requests(&app.get("/admin/usage?groupBy=day").await), [16, 8, 7]);
    assert_eq!(requests(&app.get("/admin/usage?groupBy=model,day").await), [16, 8, 5, 2]);
}

#[tokio::test]
async fn mistakes_in_a_query_are_named() {
    let app = TestApp::new();
    let reply = app
        .get("/admin/usage?from=2027-1-15&until=2027-W02-5&key=short&provider=No%20Slug&groupBy=day,hour&format=xml&sort=up")
        .await;
    assert_eq!((reply.status.as_u16(), reply.code()), (400, "invalid_request"));
    assert_eq!(reply.pointers(), ["/format", "/until", "/from", "/key", "/provider", "/groupBy", "/sort"]);
    for (query, pointer) in [
        ("from=2027-01-16", "/from"),
        ("from=2026-01-14&until=2027-01-15", "/from"),
        ("from=1969-12-31&until=1970-01-01", "/from"),
        ("until=2027-02-29", "/until"),
        ("until=10000-01-01", "/until"),
        ("until=%C3%A9", "/until"),
        ("groupBy=", "/groupBy"),
        ("groupBy=day,day", "/groupBy"),
    ] {
        let reply = app.get(&format!("/admin/usage?{query}")).await;
        assert_eq!((reply.status.as_u16(), reply.pointers()), (400, vec![pointer]), "{query}");
    }
    for query in ["until=1970-01-01", "from=9999-12-31&until=9999-12-31"] {
        assert_eq!(app.get(&format!("/admin/usage?{query}")).await.status, 200, "{query}");
    }
}

/// A spreadsheet that opens the file must run nothing of it: clients choose the names of models.
#[tokio::test]
async fn a_table_runs_nothing() {
    let app = TestApp::new();
    for model in [
        "=1+1",
        "+1",
        "-1",
        "@x",
        "\t=1",
        "\r=1",
        "a,b",
        "say \"hi\"",
        "two\nlines",
        "=\"a\"",
        "plain",
        "a=b",
    ] {
        add(&app, 0, 1, "a", model, 1).await;
    }
    let reply = app.get("/admin/usage?groupBy=model&format=csv").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(
        reply.header("content-disposition"),
        "attachment; filename=\"usage-2026-12-17-2027-01-15.csv\""
    );
    let counts = ",1,1,10,100,0\r\n";
    let cells = [
        "\"'\t=1\"",
        "\"'\r=1\"",
        "\"'+1\"",
        "\"'-1\"",
        "\"'=\"\"a\"\"\"",
        "\"'=1+1\"",
        "\"'@x\"",
        "\"a,b\"",
        "a=b",
        "plain",
        "\"say \"\"hi\"\"\"",
        "\"two\nlines\"",
    ];
    let rows = cells.map(|cell| format!(",,,{cell}{counts}")).concat();
    let header = "day,key,provider,model,requests,failed,promptTokens,completionTokens,estimated\r\n";
    assert_eq!(String::from_utf8(reply.bytes.to_vec()).unwrap(), format!("{header}{rows}"));
}

#[tokio::test]
async fn the_client_says_which_form_it_takes() {
    let app = used().await;
    for (accept, query, is_csv) in [
        ("text/csv", "", true),
        ("text/html, TEXT/CSV;q=0.9, application/json;q=0.1", "", true),
        ("application/json, text/csv", "", false),
        ("*/*", "", false),
        ("text/csv", "?format=json", false),
        ("application/json", "?format=csv", true),
    ] {
        let get = request(Method::GET, &format!("/admin/usage{query}"), Value::Null);
        let reply = app.send(with_header(get, "accept", accept)).await;
        assert_eq!(reply.header("content-type").starts_with("text/csv"), is_csv, "{accept} {query}");
        assert_eq!(reply.bytes.starts_with(b"day,key,provider,model"), is_csv);
    }
}

#[tokio::test]
async fn an_answer_has_an_end() {
    let app = TestApp::new();
    for index in 0..=MAX_ROWS {
        add(&app, 0, 1, "a", &format!("m{index}"), 1).await;
    }
    let reply = app.get("/admin/usage").await;
    assert_eq!((reply.status.as_u16(), reply.pointers()), (400, vec!["/groupBy"]));
    assert_eq!(requests(&app.get("/admin/usage?groupBy=provider").await), [MAX_ROWS as u64 + 1]);
}
