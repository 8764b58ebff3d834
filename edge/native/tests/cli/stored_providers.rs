//! Providers in the store: written from a file, listed, removed, and served by every gateway on the store.

#![expect(clippy::unwrap_used, reason = "an answer that cannot be read ends its test")]

use serde_json::{Value, json};

use super::support::{Place, Served, Upstream, eventually, provider};

/// Slug and action, line by line.
fn applied(place: &Place, arguments: &[&str]) -> Vec<(String, String)> {
    let arguments = [&["providers", "apply"][..], arguments, &["--json"]].concat();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let lines = place.run(&arguments).expect(0).json();
    lines.iter().map(|line| (text(&line["slug"]), text(&line["action"]))).collect()
}

fn stored(place: &Place) -> Vec<Value> {
    place.run(&["providers", "list", "--stored", "--json"]).expect(0).json()
}

fn slugs(place: &Place) -> Vec<String> {
    stored(place).iter().map(|provider| provider["slug"].as_str().unwrap().to_owned()).collect()
}

fn pairs(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(slug, action)| (slug.as_str(), action.as_str())).collect()
}

#[test]
fn a_file_says_what_is_to_be_in_the_store() {
    for place in Place::on_each_store() {
        assert!(place.run(&["providers", "list", "--stored"]).expect(0).stdout.contains("providers apply"));
        let one = provider("one", "http://127.0.0.1:1/v1", "models = [{ id = \"m\" }]");
        let two = provider("two", "http://127.0.0.1:2/v1", "credential = \"env:TWO\"");
        let file = place.write("a.toml", &format!("{one}{two}"));
        let dry = applied(&place, &[&file, "--dry-run"]);
        assert_eq!(pairs(&dry), [("one", "created"), ("two", "created")]);
        assert!(stored(&place).is_empty(), "a dry run writes nothing");
        assert_eq!(applied(&place, &[&file]), dry);
        assert_eq!(pairs(&applied(&place, &[&file])), [("one", "unchanged"), ("two", "unchanged")]);
        let listed = stored(&place);
        assert_eq!((&listed[0]["slug"], &listed[0]["version"]), (&json!("one"), &json!(1)));
        assert_eq!(listed[0]["models"], json!(["m"]));

        let changed = provider("one", "http://127.0.0.1:3/v1", "");
        let file = place.write("b.toml", &changed);
        assert_eq!(pairs(&applied(&place, &[&file])), [("one", "changed")]);
        assert_eq!(slugs(&place), ["one", "two"], "what the file does not have stays");
        let dry = applied(&place, &[&file, "--prune", "--dry-run"]);
        assert_eq!(pairs(&dry), [("one", "unchanged"), ("two", "removed")]);
        assert_eq!(slugs(&place), ["one", "two"]);
        assert_eq!(applied(&place, &[&file, "--prune"]), dry);
        assert_eq!(slugs(&place), ["one"]);

        place.run(&["providers", "remove", "one"]).expect(0);
        assert!(slugs(&place).is_empty());
        place.run_with_input(&["providers", "apply", "-"], &changed).expect(0);
        place.run(&["providers", "remove", "one"]).expect(0);
        let gone = place.run(&["providers", "remove", "one"]).expect(1);
        assert!(gone.stderr.contains("there is no provider one"), "{gone:#?}");
    }
}

#[test]
fn a_file_that_is_wrong_changes_nothing() {
    for place in Place::on_each_store() {
        let good = provider("good", "http://127.0.0.1:1/v1", "");
        let bad = provider("bad", "ftp://127.0.0.1", "colour = \"red\"");
        let file = place.write("a.toml", &format!("{good}{bad}"));
        let ran = place.run(&["providers", "apply", &file]).expect(2);
        assert!(
            ran.stderr.contains("provider[1].base_url") && ran.stderr.contains("provider[1].colour"),
            "{ran:#?}"
        );
        let empty = place.write("b.toml", "keepalive_ms = 300\n");
        let ran = place.run(&["providers", "apply", &empty]).expect(2);
        assert!(ran.stderr.contains("no [[provider]]"), "{ran:#?}");
        assert!(slugs(&place).is_empty());
    }
}

#[test]
fn several_that_write_at_once_lose_nothing() {
    for place in Place::on_each_store() {
        let file = |port: u16| {
            let providers: String = ["a", "b", "c"]
                .map(|slug| provider(slug, &format!("http://127.0.0.1:{port}/v1"), ""))
                .concat();
            place.write(&format!("{port}.toml"), &providers)
        };
        let files = [1, 2, 3, 4].map(file);
        std::thread::scope(|scope| {
            for file in &files {
                scope.spawn(|| place.run(&["providers", "apply", file]).expect(0));
            }
        });
        let versions: Vec<u64> =
            stored(&place).iter().map(|provider| provider["version"].as_u64().unwrap()).collect();
        // Each that did not find its own values there has written them once.
        assert!(
            versions.len() == 3 && versions.iter().all(|version| (1..=4).contains(version)),
            "{versions:?}"
        );
    }
}

/// Waits until a gateway serves this model, or does no more.
fn until_served(gateway: &Served, key: &str, model: &str, is_served: bool) {
    let wanted = if is_served { 200 } else { 404 };
    let path = format!("/v1/models/{model}");
    eventually("the change counts", || (gateway.get(&path, key) == wanted).then_some(()));
}

#[test]
fn every_gateway_on_a_table_serves_what_it_has() {
    let place = Place::on_table();
    let (one, other) = (place.up(&[]), place.beside().up(&[]));
    let key = one.first_key().to_owned();
    let upstream = Upstream::start(None);
    let file = place.write("a.toml", &provider("up", &upstream.base_url, "models = [{ id = \"m\" }]"));
    place.run(&["providers", "apply", &file]).expect(0);
    for gateway in [&one, &other] {
        until_served(gateway, &key, "m", true);
    }
    place.run(&["providers", "remove", "up"]).expect(0);
    for gateway in [&one, &other] {
        until_served(gateway, &key, "m", false);
    }
}

/// Whoever may write to the store must not have this machine's files sent to a host of their choice.
#[test]
fn a_stored_provider_reads_files_of_one_directory_only() {
    let mut place = Place::new();
    let upstream = Upstream::start(Some("sk-secret"));
    let key = place.write("key", "sk-secret\n");
    let directory = std::path::Path::new(&key).parent().unwrap().to_str().unwrap().to_owned();
    let named = provider("up", &upstream.base_url, &format!("credential = \"file:{key}\""));
    let file = place.write("a.toml", &named);
    place.run(&["providers", "check", "--no-discovery", "--config", &file]).expect(0);
    place.run(&["providers", "apply", &file]).expect(0);
    let refused = place.run(&["providers", "check", "--no-discovery"]).expect(1);
    assert!(refused.stdout.contains("DYAD_CREDENTIAL_DIR"), "{refused:#?}");
    let settings = place.write("settings.toml", "credential_dir = \"/var/empty\"");
    let elsewhere = place.run(&["providers", "check", "--no-discovery", "--config", &settings]).expect(1);
    assert!(elsewhere.stdout.contains(&key), "{elsewhere:#?}");
    place.set("DYAD_CREDENTIAL_DIR", &directory);
    place.run(&["providers", "check", "--no-discovery", "--config", &settings]).expect(0);
}
