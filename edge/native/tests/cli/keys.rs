//! API keys, from the first start to revocation, while a gateway runs and while none does.

#![expect(clippy::unwrap_used, reason = "an answer that cannot be read ends its test")]

use std::time::{Duration, Instant};

use super::support::{Place, mode};

#[test]
fn the_first_start_shows_a_key_once_and_later_ones_none() {
    for place in Place::on_each_store() {
        let first = place.up(&[]);
        let key = first.first_key().to_owned();
        assert_eq!(first.get("/v1/models", &key), 200);
        assert_eq!(first.get("/v1/models", "dgw_wrong"), 401);
        let log = first.stop();
        assert!(!log.contains(&key), "{log}");
        let second = place.up(&[]);
        assert!(second.ready.get("api_key").is_none(), "{}", second.ready);
        assert_eq!(second.get("/v1/models", &key), 200, "the key is still good");
    }
}

#[test]
fn of_several_that_start_at_once_one_makes_the_first_key() {
    for place in Place::on_each_store() {
        let gateways: Vec<_> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..4).map(|_| scope.spawn(|| place.up(&[]))).collect();
            starting.into_iter().map(|started| started.join().unwrap()).collect()
        });
        let keys: Vec<_> = gateways.iter().filter_map(|gateway| gateway.ready["api_key"].as_str()).collect();
        let [key] = keys[..] else { panic!("{} first keys", keys.len()) };
        for gateway in &gateways {
            assert_eq!(gateway.get("/v1/models", key), 200);
        }
        assert_eq!(place.run(&["keys", "list", "--json"]).expect(0).json().len(), 1);
    }
}

#[test]
fn keys_that_are_made_and_revoked_beside_a_running_gateway_count_within_seconds() {
    for place in Place::on_each_store() {
        made_and_revoked_beside_a_running_gateway(&place);
    }
}

fn made_and_revoked_beside_a_running_gateway(place: &Place) {
    let gateway = place.up(&[]);
    let created = place.run(&["keys", "create", "--label", "second", "--json"]).expect(0).json();
    let (id, key) = (created[0]["id"].as_str().unwrap(), created[0]["api_key"].as_str().unwrap());
    assert_eq!(gateway.get("/v1/models", key), 200, "a key that nobody has asked for yet is looked up");

    place.run(&["keys", "revoke", id]).expect(0);
    let revoked = Instant::now();
    while gateway.get("/v1/models", key) != 401 {
        assert!(revoked.elapsed() < Duration::from_secs(10), "the revoked key is still taken");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(gateway.get("/v1/models", gateway.first_key()), 200, "other keys are not touched");
}

#[test]
fn a_key_in_a_pipe_is_the_key_alone() {
    let place = Place::new();
    let ran = place.run(&["keys", "create"]).expect(0);
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:#?}");
    assert!(ran.stdout.starts_with("dgw_"), "{ran:#?}");
    assert!(ran.stderr.contains("cannot be shown again"), "{ran:#?}");
}

#[test]
fn a_key_that_cannot_be_shown_is_an_error() {
    let place = Place::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = place.command(&["keys", "create"]).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn lists_show_the_state_of_every_key_and_no_secret() {
    for place in Place::on_each_store() {
        list_of_keys(&place);
    }
}

fn list_of_keys(place: &Place) {
    assert!(place.run(&["keys", "list"]).expect(0).stdout.contains("keys create"));
    let json = |arguments: &[&str]| place.run(arguments).expect(0).json();
    let limited = &json(&[
        "keys",
        "create",
        "--json",
        "--label",
        "limited",
        "--models",
        "a,b/c:d",
        "--requests-per-minute",
        "60",
        "--concurrent-requests",
        "2",
        "--tokens-per-minute",
        "10000",
        "--tokens-per-day",
        "1000000",
        "--tokens-per-month",
        "20000000",
        "--expires-in",
        "90d",
    ])[0];
    let revoked = &json(&["keys", "create", "--json"])[0];
    assert_eq!(json(&["keys", "revoke", revoked["id"].as_str().unwrap(), "--json"])[0]["revoked"], true);
    place.run(&["keys", "revoke", revoked["id"].as_str().unwrap()]).expect(0);

    let listed = json(&["keys", "list", "--json"]);
    assert_eq!(listed.len(), 2);
    let of = |created: &serde_json::Value| listed.iter().find(|key| key["id"] == created["id"]).unwrap();
    assert_eq!(of(limited)["state"], "active");
    assert_eq!(of(limited)["models"], serde_json::json!(["a", "b/c:d"]));
    assert_eq!(of(limited)["requests_per_minute"], 60);
    assert_eq!(of(limited)["concurrent_requests"], 2);
    assert_eq!(of(limited)["tokens_per_minute"], 10_000);
    assert_eq!(of(limited)["tokens_per_day"], 1_000_000);
    assert_eq!(of(limited)["tokens_per_month"], 20_000_000);
    assert!(of(revoked)["tokens_per_month"].is_null());
    let life =
        of(limited)["expires_at_ms"].as_u64().unwrap() - of(limited)["created_at_ms"].as_u64().unwrap();
    let days_90: u64 = 90 * 86_400_000;
    assert!(life.abs_diff(days_90) < 60_000, "{life} ms");
    assert_eq!(of(revoked)["state"], "revoked");

    let table = place.run(&["keys", "list"]).expect(0).stdout;
    assert!(table.starts_with("ID ") && table.contains("limited"), "{table}");
    for created in [limited, revoked] {
        let secret = created["api_key"].as_str().unwrap();
        assert!(!table.contains(secret) && listed.iter().all(|key| !key.to_string().contains(secret)));
    }
    place.run(&["keys", "revoke", "AAAAAAAAAAAA"]).expect(1);
}

#[test]
fn a_lost_secret_is_an_error_where_keys_depend_on_it() {
    let place = Place::new();
    place.run(&["store", "init"]).expect(0);
    let secret = place.data_dir().join("key-hash.secret");
    std::fs::remove_file(&secret).unwrap();
    place.run(&["keys", "create"]).expect(0);
    std::fs::remove_file(&secret).unwrap();
    for arguments in [&["keys", "create"][..], &["up", "--listen", "127.0.0.1:0"]] {
        let ran = place.run(arguments).expect(1);
        assert!(ran.stderr.contains("key-hash.secret is missing"), "{ran:#?}");
    }
    assert!(!secret.exists());
}

#[test]
fn what_is_kept_is_for_its_owner_only() {
    let place = Place::new();
    let gateway = place.up(&[]);
    assert_eq!(mode(&place.data_dir()), 0o700);
    let files: Vec<_> =
        std::fs::read_dir(place.data_dir()).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        let content = std::fs::read(&file).unwrap();
        let secret = gateway.first_key().as_bytes();
        assert!(!content.windows(secret.len()).any(|window| window == secret), "{}", file.display());
    }
}
