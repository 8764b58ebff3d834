//! The administration: who is let in, and what changes while the gateway serves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{Administrator, Chats, Place, Served, eventually, mode};

const FAST: &str = "DYAD_CONFIG_REFRESH_MS";

/// A place whose gateways learn of changes soon.
fn place() -> Place {
    let mut place = Place::new();
    place.set(FAST, "50");
    place
}

fn provider(chats: &Chats, key: &str) -> Value {
    json!({
        "slug": "up", "name": "Upstream", "type": "local", "adapterConfig": {"baseUrl": chats.base_url},
        "models": [{"dyadModelId": "m"}], "credentials": {"apiKey": key},
    })
}

/// A gateway with one stored provider, whose administrator is there too.
fn with_provider(place: &Place, chats: &Chats, key: &str) -> (Served, Administrator) {
    let gateway = place.up(&[]);
    let admin = place.administrator(&gateway, &[]);
    let made = admin.call("POST", "/admin/providers", Some(&provider(chats, key)));
    assert_eq!(made.status, 201, "{}", made.body);
    eventually("the provider serves", || (chat_status(&gateway) == 200).then_some(()));
    (gateway, admin)
}

fn chat_status(gateway: &Served) -> u16 {
    gateway.chat(gateway.first_key(), "m").finish().status
}

#[test]
fn a_token_is_what_the_administration_asks_for() {
    let place = place();
    let gateway = place.up(&[]);
    assert!(gateway.ready["console_url"].as_str().unwrap().ends_with("/console"));
    let admin = place.administrator(&gateway, &["--actor", "ada", "--valid-for", "30m"]);
    let who = admin.call("GET", "/admin/whoami", None);
    assert_eq!((who.status, &who.body["actor"], &who.body["role"]), (200, &json!("ada"), &json!("admin")));
    let viewer = place.administrator(&gateway, &["--role", "viewer"]);
    assert_eq!(viewer.call("GET", "/admin/keys", None).status, 200);
    assert_eq!(viewer.call("POST", "/admin/keys", Some(&json!({"label": "a"}))).status, 403);
    let past = place.administrator(&gateway, &["--valid-for", "1s"]);
    // An expired one is refused when the leeway is over, which no test waits for; one of another directory is at once.
    assert_eq!(past.call("GET", "/admin/whoami", None).status, 200);
    let elsewhere = Place::new();
    let token = elsewhere.run(&["admin", "token"]).expect(0).stdout;
    let stranger = Administrator { token: token.trim().to_owned(), ..admin };
    assert_eq!(stranger.call("GET", "/admin/whoami", None).status, 401);
    assert_eq!(mode(&place.data_dir().join("admin-token.secret")), 0o600);
    assert_eq!(mode(&place.data_dir().join("master.keys")), 0o600);
}

#[test]
fn a_token_is_refused_before_it_is_made_where_it_would_be_none() {
    let mut place = place();
    for (arguments, words) in [
        (&["--actor", ""][..], "--actor"),
        (&["--actor", "a\nb"], "--actor"),
        (&["--actor", "program:x"], "--actor"),
        (&["--valid-for", "400d"], "--valid-for"),
        (&["--role", "root"], "--role"),
    ] {
        let ran = place.run(&[&["admin", "token"][..], arguments].concat()).expect(2);
        assert!(ran.stderr.contains(words) && ran.stdout.is_empty(), "{ran:#?}");
    }
    place.set("DYAD_ADMIN_JWKS", "https://id.example/keys");
    place.set("DYAD_ADMIN_JWT_ALGORITHM", "ES256");
    place.set("DYAD_ADMIN_AUDIENCE", "dyad");
    let ran = place.run(&["admin", "token"]).expect(2);
    assert!(ran.stderr.contains("DYAD_ADMIN_JWKS has public keys only"), "{ran:#?}");
    let table = Place::with_engine();
    let ran = table.run(&["admin", "token"]).expect(2);
    assert!(ran.stderr.contains("DYAD_ADMIN_JWT_SECRET"), "{ran:#?}");
}

/// Every route of both, as the document has them: nothing is served to somebody who is not known but what is named here.
#[test]
fn no_route_is_served_without_credentials() {
    let place = place();
    let gateway = place.up(&[]);
    let nobody = Administrator { address: gateway.address(), token: String::new() };
    let document = nobody.call("GET", "/openapi.json", None);
    assert_eq!(document.status, 200);
    let mut walked = 0;
    for (path, operations) in document.body["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "x").replace("{model}", "x");
        assert!(!path.contains('{'), "{path}");
        for method in operations.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            if !["GET", "PUT", "POST", "PATCH", "DELETE"].contains(&method.as_str()) {
                continue;
            }
            let answer = nobody.call(&method, &path, (method != "GET").then_some(&json!({})));
            let is_open = ["/healthz", "/ready", "/openapi.json", "/openapi"].contains(&path.as_str());
            assert_eq!(answer.status, if is_open { 200 } else { 401 }, "{method} {path}: {}", answer.body);
            assert!(answer.head.contains("x-request-id: "), "{method} {path}: {}", answer.head);
            walked += 1;
        }
    }
    assert!(walked > 20, "{walked} routes");
    for path in [
        "/admin",
        "/admin/",
        "/admin/nothing",
        "/admin/../admin/keys",
        "/admin%2fkeys",
        "/v1/chat/completions",
    ] {
        let answer = nobody.call("GET", path, None);
        assert!([401, 404, 405].contains(&answer.status), "{path}: {}", answer.body);
    }
    for path in ["/console", "/openapi"] {
        assert!(matches!(nobody.call("GET", path, None).status, 200 | 301..=308), "{path}");
    }
}

#[test]
fn the_administration_can_be_left_out() {
    let place = place();
    let gateway = place.up(&["--no-admin"]);
    assert!(gateway.ready.get("console_url").is_none());
    let admin = place.administrator(&gateway, &[]);
    for path in ["/admin/whoami", "/console", "/openapi.json"] {
        assert_eq!(admin.call("GET", path, None).status, 404, "{path}");
    }
    let mut off = place.beside();
    off.set("DYAD_ADMIN_ENABLED", "false");
    assert!(off.up(&[]).ready.get("console_url").is_none());
}

#[test]
fn what_is_wrong_with_whose_tokens_count_is_said_at_once_and_without_the_secret() {
    let mut place = place();
    let file = place.write(
        "a.toml",
        "[admin]\njwt_secret = \"hunter2\"\ncolour = 1\nleeway_s = \"5\"\n[store]\nmaster_keys = \"k:hunter2\"\n",
    );
    let ran = place.run(&["up", "--config", &file]).expect(2);
    for name in ["admin.jwt_secret", "admin.colour", "admin.leeway_s", "store.master_keys"] {
        assert!(ran.stderr.contains(name), "{name}: {ran:#?}");
    }
    assert!(!ran.stderr.contains("hunter2"), "{ran:#?}");
    for (variables, words) in [
        (&[("DYAD_ADMIN_JWT_SECRET", "hunter2")][..], "DYAD_ADMIN_JWT_SECRET: "),
        (&[("DYAD_ADMIN_JWKS", "http://id.example/keys")], "DYAD_ADMIN_JWT_ALGORITHM"),
        (&[("DYAD_ADMIN_ENABLED", "hunter2")], "DYAD_ADMIN_ENABLED"),
        (
            &[("DYAD_ADMIN_JWT_PUBLIC_KEY", "/no/such.pem"), ("DYAD_ADMIN_JWT_ALGORITHM", "EdDSA")],
            "DYAD_ADMIN_JWT_PUBLIC_KEY: /no/such.pem",
        ),
    ] {
        let mut place = place.beside();
        for (name, value) in variables {
            place.set(name, value);
        }
        let ran = place.run(&["up"]).expect(2);
        assert!(ran.stderr.contains(words) && !ran.stderr.contains("hunter2"), "{ran:#?}");
    }
    place.set("DYAD_ADMIN_JWT_SECRET", "");
    place.up(&[]);
}

#[test]
fn on_a_table_nobody_is_let_in_until_it_is_said_whose_tokens_count() {
    let mut place = Place::on_table();
    let gateway = place.up(&[]);
    assert!(gateway.ready.get("console_url").is_none(), "{}", gateway.ready);
    let nobody = Administrator { address: gateway.address(), token: "x".to_owned() };
    let answer = nobody.call("GET", "/admin/providers", None);
    assert_eq!((answer.status, &answer.body["error"]["code"]), (404, &json!("not_set_up")));
    assert!(answer.body["error"]["message"].as_str().unwrap().contains("DYAD_ADMIN_JWT_SECRET"));
    assert!(answer.head.contains("x-request-id: req_"), "{}", answer.head);
    assert!(!place.data_dir().join("admin-token.secret").exists());

    place.set("DYAD_ADMIN_JWT_SECRET", "a secret that is long enough for tokens");
    place.set("DYAD_ADMIN_ISSUER", "us");
    place.set("DYAD_ADMIN_AUDIENCE", "dyad");
    let gateway = place.up(&[]);
    let admin = place.administrator(&gateway, &[]);
    assert_eq!(admin.call("GET", "/admin/whoami", None).status, 200);
    let mut stranger = place.beside();
    stranger.set("DYAD_ADMIN_AUDIENCE", "others");
    assert_eq!(stranger.administrator(&gateway, &[]).call("GET", "/admin/whoami", None).status, 401);
}

#[test]
fn a_tables_administration_is_served_by_itself() {
    let mut place = Place::on_table();
    place.set(FAST, "50");
    let ran = place.run_admin(&[]).expect(2);
    assert!(ran.stderr.contains("nothing says whose tokens count"), "{ran:#?}");
    place.set("DYAD_ADMIN_JWT_SECRET", "a secret that is long enough for tokens");
    let none = Place::new();
    assert!(none.run_admin(&[]).expect(2).stderr.contains("no table is named"));
    let keys = place.path("master.keys");
    let keys = keys.to_str().unwrap();
    place.run(&["secrets", "new-key", "--file", keys]).expect(0);
    place.set("DYAD_MASTER_KEYS_FILE", keys);

    let gateway = place.up(&[]);
    let served = place.serve_admin(&[]);
    let admin = place.administrator(&served, &[]);
    // Only how it stands is the gateway's there.
    assert_eq!(admin.call("GET", "/healthz", None).status, 200);
    assert_eq!(admin.call("GET", "/ready", None).status, 200);
    for path in ["/v1/models", "/v1/chat/completions", "/"] {
        assert_eq!(admin.call("GET", path, None).status, 404, "{path}");
    }
    let chats = Chats::start(&["sk-1"]);
    let made = admin.call("POST", "/admin/providers", Some(&provider(&chats, "sk-1")));
    assert_eq!(made.status, 201, "{}", made.body);
    let tested = admin.call("POST", "/admin/providers/up/test", Some(&json!({})));
    assert_eq!((tested.status, &tested.body["ok"]), (200, &json!(true)), "{}", tested.body);
    eventually("the gateway serves it", || (chat_status(&gateway) == 200).then_some(()));
    assert_eq!(chats.authorized_by().last().unwrap(), "sk-1");
    let log = served.stop();
    assert!(log.contains("drained") && !log.contains("sk-1"), "{log}");
}

#[test]
fn a_provider_that_is_deleted_finishes_what_it_has_begun() {
    let place = place();
    let chats = Chats::start(&["sk-1"]);
    let (gateway, admin) = with_provider(&place, &chats, "sk-1");
    chats.hold();
    let mut stream = gateway.chat(gateway.first_key(), "m");
    stream.read_until("first");
    chats.hold_no_more();
    assert_eq!(admin.call("DELETE", "/admin/providers/up", None).status, 204);
    eventually("nobody else is served", || (chat_status(&gateway) == 404).then_some(()));
    chats.release();
    let ended = stream.finish();
    assert!(ended.body.contains("second") && ended.body.contains("[DONE]"), "{}", ended.body);
}

#[test]
fn a_credential_is_rotated_while_a_stream_runs() {
    let place = place();
    let chats = Chats::start(&["sk-old", "sk-new"]);
    let (gateway, admin) = with_provider(&place, &chats, "sk-old");
    chats.hold();
    let mut stream = gateway.chat(gateway.first_key(), "m");
    stream.read_until("first");
    chats.hold_no_more();
    let bad = admin.call("POST", "/admin/providers/up/credentials", Some(&json!({"apiKey": "sk-bad"})));
    assert_eq!((bad.status, &bad.body["error"]["code"]), (422, &json!("test_failed")), "{}", bad.body);
    let new = admin.call("POST", "/admin/providers/up/credentials", Some(&json!({"apiKey": "sk-new"})));
    assert_eq!((new.status, &new.body["credentials"]["apiKey"]["version"]), (200, &json!(2)), "{}", new.body);
    eventually("the new one is sent", || {
        assert_eq!(chat_status(&gateway), 200);
        (chats.authorized_by().last().unwrap() == "sk-new").then_some(())
    });
    chats.release();
    let ended = stream.finish();
    assert!(ended.body.contains("[DONE]"), "{}", ended.body);
    let audit = admin.call("GET", "/admin/audit", None).body.to_string();
    assert!(audit.contains("\"rotate\""), "{audit}");
    let providers = admin.call("GET", "/admin/providers", None).body.to_string();
    let log = gateway.stop();
    let files = std::fs::read_dir(place.data_dir()).unwrap();
    let kept: Vec<u8> = files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!kept.is_empty());
    for secret in ["sk-old", "sk-new", "sk-bad"] {
        for (place, shown) in [("log", &log), ("audit", &audit), ("answers", &providers)] {
            assert!(!shown.contains(secret), "{place}: {shown}");
        }
        assert!(
            !kept.windows(secret.len()).any(|part| part == secret.as_bytes()),
            "{secret} is in the store"
        );
    }
}

/// 200 requests in a second, from four clients, while everything secret changes several times.
#[test]
fn no_request_fails_while_credentials_and_master_keys_rotate() {
    const CLIENTS: u32 = 4;
    const PACE: Duration = Duration::from_millis(20);
    const LEAST_REQUESTS: usize = 400;
    let place = place();
    let chats = Chats::start(&["sk-0"]);
    let (gateway, admin) = with_provider(&place, &chats, "sk-0");
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let begun = Instant::now();
    let client = |stagger: u32| {
        let mut next = begun + PACE * stagger / CLIENTS;
        while !is_over.load(Ordering::Relaxed) || answered.load(Ordering::Relaxed) < LEAST_REQUESTS {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            next += PACE;
            let answer = gateway.chat(gateway.first_key(), "m").finish();
            assert!(answer.status == 200 && answer.body.contains("[DONE]"), "{}", answer.body);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        // However it ends, the clients do.
        let over = SetWhenDropped(&is_over);
        for round in 1..=3 {
            let new = format!("sk-{round}");
            chats.accept(&[&format!("sk-{}", round.max(2) - 2), &format!("sk-{}", round - 1), &new]);
            let rotated =
                admin.call("POST", "/admin/providers/up/credentials", Some(&json!({"apiKey": new})));
            assert_eq!(rotated.status, 200, "{}", rotated.body);
            let id = place.run(&["secrets", "new-key", "--json"]).expect(0).json()[0]["key_id"].clone();
            let rewrapped = admin.call("POST", "/admin/secrets/rewrap", Some(&json!({})));
            assert_eq!((rewrapped.status, &rewrapped.body["activeKeyId"]), (200, &id), "{}", rewrapped.body);
            assert_eq!(rewrapped.body["failed"], json!([]));
            eventually("the new credential is sent", || {
                (chats.authorized_by().last() == Some(&new)).then_some(())
            });
        }
        drop(over);
        for client in clients {
            client.join().unwrap();
        }
    });
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_api_key_that_is_revoked_is_refused_within_the_bound() {
    let place = Place::new();
    let gateway = place.up(&[]);
    let admin = place.administrator(&gateway, &[]);
    let made = admin.call("POST", "/admin/keys", Some(&json!({"label": "a"})));
    assert_eq!(made.status, 201, "{}", made.body);
    let (id, key) = (made.body["id"].as_str().unwrap(), made.body["key"].as_str().unwrap());
    assert_eq!(gateway.get("/v1/models", key), 200);
    assert_eq!(admin.call("DELETE", &format!("/admin/keys/{id}"), None).status, 200);
    let revoked = Instant::now();
    eventually("the key is refused", || (gateway.get("/v1/models", key) == 401).then_some(()));
    assert!(revoked.elapsed() < Duration::from_secs(10), "{:?}", revoked.elapsed());
}

#[test]
fn a_master_key_is_added_and_the_old_one_taken_away_while_a_gateway_serves() {
    let place = place();
    let chats = Chats::start(&["sk-1"]);
    let (gateway, admin) = with_provider(&place, &chats, "sk-1");
    let added = place.run(&["secrets", "new-key", "--json"]).expect(0);
    let id = added.json()[0]["key_id"].as_str().unwrap().to_owned();
    let keys = place.data_dir().join("master.keys");
    let text = std::fs::read_to_string(&keys).unwrap();
    for line in text.lines() {
        let (_, key) = line.split_once(':').unwrap();
        assert!(!added.all_output().contains(key));
    }
    let rewrapped = admin.call("POST", "/admin/secrets/rewrap", Some(&json!({})));
    assert_eq!(
        (rewrapped.status, &rewrapped.body["activeKeyId"], &rewrapped.body["rewrapped"]),
        (200, &json!(id), &json!(1)),
        "{}",
        rewrapped.body
    );
    let new_alone = text.lines().next().unwrap();
    assert!(new_alone.starts_with(&id));
    std::fs::write(&keys, format!("{new_alone}\n")).unwrap();
    // It is tested with what was sealed under the new one, which is the only one that is left.
    let tested = admin.call("POST", "/admin/providers/up/test", Some(&json!({})));
    assert_eq!((tested.status, &tested.body["ok"]), (200, &json!(true)), "{}", tested.body);
    assert_eq!(chat_status(&gateway), 200);
    gateway.stop();
    let restarted = place.up(&[]);
    let key =
        place.run(&["keys", "create", "--json"]).expect(0).json()[0]["api_key"].as_str().unwrap().to_owned();
    assert_eq!(restarted.chat(&key, "m").finish().status, 200);
}

#[test]
fn what_was_used_is_in_the_store_when_the_gateway_has_stopped() {
    let place = place();
    let chats = Chats::start(&["sk-1"]);
    let (gateway, _) = with_provider(&place, &chats, "sk-1");
    let before = chats.authorized_by().len();
    gateway.stop();
    let gateway = place.up(&[]);
    let admin = place.administrator(&gateway, &[]);
    let usage = admin.call("GET", "/admin/usage?groupBy=model", None);
    assert_eq!(usage.status, 200, "{}", usage.body);
    let rows = usage.body["data"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{}", usage.body);
    assert_eq!((&rows[0]["model"], &rows[0]["requests"]), (&json!("m"), &json!(before)), "{}", usage.body);
}
