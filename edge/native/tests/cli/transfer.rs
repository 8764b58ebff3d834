//! `dyad-gateway store export` and `store import`: from one store to another by way of a file.

#![expect(clippy::unwrap_used, reason = "an answer that cannot be read ends its test")]

use serde_json::json;

use super::support::{Place, TABLE, mode, provider};

/// With two providers and two API keys, of which one is revoked; the good one.
fn fill(place: &Place) -> String {
    let one = provider("one", "http://127.0.0.1:1/v1", "models = [{ id = \"m\" }]");
    let two = provider("two", "http://127.0.0.1:2/v1", "credential = \"env:TWO\"");
    place.run(&["providers", "apply", &place.write("providers.toml", &format!("{one}{two}"))]).expect(0);
    let revoked = &place.run(&["keys", "create", "--json"]).expect(0).json()[0];
    place.run(&["keys", "revoke", revoked["id"].as_str().unwrap()]).expect(0);
    place.run(&["keys", "create", "--label", "good", "--models", "m"]).expect(0).stdout.trim().to_owned()
}

#[test]
fn a_laptops_store_goes_on_as_a_table() {
    let laptop = Place::new();
    let key = fill(&laptop);
    let file = laptop.path("export.jsonl");
    let file = file.to_str().unwrap();
    let exported = &laptop.run(&["store", "export", file, "--json"]).expect(0).json()[0];
    assert_eq!((&exported["providers"], &exported["keys"]), (&json!(2), &json!(2)));
    assert_eq!(mode(file.as_ref()), 0o600);
    assert!(!std::fs::read_to_string(file).unwrap().contains(&key), "a key is exported as its hash");

    let mut fleet = Place::on_table();
    fleet.run(&["store", "init", "--new-key-secret", fleet.path("new").to_str().unwrap()]).expect(0);
    let refused = fleet.run(&["store", "import", file]).expect(1);
    assert!(refused.stderr.contains("hashed under another secret"), "{refused:#?}");
    let secret = std::fs::read_to_string(laptop.data_dir().join("key-hash.secret")).unwrap();
    fleet.set("DYAD_KEY_SECRET", &secret);
    fleet.run(&["store", "init", "--replace-key-secret"]).expect(0);
    let imported = &fleet.run(&["store", "import", file, "--json"]).expect(0).json()[0];
    assert_eq!(
        *imported,
        json!({"created": 4, "replaced": 0, "unchanged": 0, "kept_revoked": 0, "kept_rotated": 0})
    );
    let gateway = fleet.up(&[]);
    assert!(gateway.ready.get("api_key").is_none(), "there is a key: {}", gateway.ready);
    assert_eq!(gateway.get("/v1/models/m", &key), 200);
    let listed = |place: &Place| place.run(&["keys", "list"]).expect(0).stdout;
    assert_eq!(listed(&fleet), listed(&laptop));
}

#[test]
fn a_backup_can_be_put_back() {
    for place in Place::on_each_store() {
        fill(&place);
        let export = |place: &Place| place.run(&["store", "export"]).expect(0).stdout;
        let backup = export(&place);
        assert_eq!(backup.lines().count(), 7, "{backup}");
        let file = place.write("backup.jsonl", &backup);
        let kept = place.run(&["store", "export", &file]).expect(1);
        assert!(kept.stderr.contains("is there already"), "{kept:#?}");

        place.run(&["providers", "remove", "two"]).expect(0);
        let changed = provider("one", "http://127.0.0.1:3/v1", "");
        place.run(&["providers", "apply", &place.write("changed.toml", &changed)]).expect(0);
        let refused = place.run(&["store", "import", &file]).expect(1);
        assert!(
            refused.stderr.contains("provider one") && refused.stderr.contains("--replace"),
            "{refused:#?}"
        );
        let replaced = place.run(&["store", "import", &file, "--replace", "--json"]).expect(0).json();
        assert_eq!(
            replaced,
            [json!({"created": 1, "replaced": 1, "unchanged": 2, "kept_revoked": 0, "kept_rotated": 0})]
        );
        assert_eq!(export(&place), backup);
        let good = place.run(&["keys", "list", "--json"]).expect(0).json();
        let good = good.iter().find(|key| key["label"] == "good").unwrap()["id"].as_str().unwrap().to_owned();
        place.run(&["keys", "revoke", &good]).expect(0);
        let revoked = place.run(&["store", "import", &file, "--replace"]).expect(0);
        assert!(revoked.stdout.contains("1 API key of the file, revoked since"), "{revoked:#?}");
        let backup = export(&place);
        let again = place.run_with_input(&["store", "import", "-"], &backup).expect(0);
        assert!(again.stdout.contains("4 unchanged"), "{again:#?}");
    }
}

#[test]
fn a_backup_does_not_bring_revoked_keys_back() {
    for place in Place::on_each_store() {
        let id =
            place.run(&["keys", "create", "--json"]).expect(0).json()[0]["id"].as_str().unwrap().to_owned();
        let backup = place.run(&["store", "export"]).expect(0).stdout;
        place.run(&["keys", "revoke", &id]).expect(0);
        let imported = place.run_with_input(&["store", "import", "-", "--replace"], &backup).expect(0);
        assert!(
            imported.stdout.contains("1 API key of the file, revoked since, stayed revoked"),
            "{imported:#?}"
        );
        let after = place.run(&["store", "export"]).expect(0).stdout;
        assert!(!backup.contains("revoked_at_ms") && after.contains("revoked_at_ms"), "{after}");
    }
}

#[test]
fn a_file_that_is_damaged_is_not_imported() {
    let place = Place::new();
    fill(&place);
    let backup = place.run(&["store", "export"]).expect(0).stdout;
    let cut_off = place.write("cut-off.jsonl", backup.lines().next().unwrap());
    for other in Place::on_each_store() {
        let refused = other.run(&["store", "import", &cut_off]).expect(2);
        assert!(refused.stderr.contains("cut-off.jsonl: line 2: the file was cut off"), "{refused:#?}");
        other.run(&["store", "import", "no-such-file"]).expect(2);
        let nothing = other.run(&["store", "export"]).expect(0).stdout;
        assert_eq!(nothing.lines().last(), Some(r#"{"end":{"providers":0,"keys":0}}"#));
    }
}

#[test]
fn what_cannot_be_read_is_no_silent_gap_in_a_backup() {
    let place = Place::on_table();
    fill(&place);
    let bad = json!({"pk": {"S": "KEY#a"}, "sk": {"S": "a"}});
    place.engine_call("PutItem", &json!({"TableName": TABLE, "Item": bad}));
    let file = place.path("backup.jsonl");
    let ran = place.run(&["store", "export", file.to_str().unwrap()]).expect(1);
    assert!(ran.stderr.contains("lacks") && ran.stderr.contains("KEY#a/a"), "{ran:#?}");
    assert!(file.exists(), "what can be read is there");
}
