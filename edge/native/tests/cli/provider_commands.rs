//! Providers, one at a time: added, shown, edited, rotated, enabled and disabled; and what is said of all that in the audit
//! log.

use serde_json::{Value, json};

use super::support::{Chats, Place};

const BASE_URL: &str = "http://127.0.0.1:9/v1";
const ADD: [&str; 8] = ["providers", "add", "--name", "One", "--type", "local", "--base-url", BASE_URL];

fn json(place: &Place, arguments: &[&str]) -> Vec<Value> {
    place.run(&[arguments, &["--json"]].concat()).expect(0).json()
}

fn show(place: &Place) -> Value {
    json(place, &["providers", "show", "one"]).remove(0)
}

#[test]
fn a_provider_from_flags_is_shown_as_it_was_given() {
    for place in Place::on_each_store() {
        let models =
            ["--model", "a", "--model", "b=upstream-b", "--rank", "7", "--credential-env", "ONE_KEY"];
        let added = json(&place, &[&ADD[..], &models].concat());
        assert_eq!(added[0]["version"], 1);
        let shown = show(&place);
        assert_eq!(
            (&shown["slug"], &shown["rank"], &shown["enabled"]),
            (&json!("one"), &json!(7), &json!(true))
        );
        assert_eq!(shown["models"][1]["adapterModelId"], "upstream-b");
        assert_eq!(shown["credentials"]["apiKey"]["reference"], "env:ONE_KEY");
        let table = place.run(&["providers", "show", "one"]).expect(0).stdout;
        assert!(table.contains("env:ONE_KEY") && table.contains(BASE_URL), "{table}");
        let id = shown["id"].as_str().unwrap();
        assert_eq!(json(&place, &["providers", "show", id])[0]["slug"], "one");

        let again = place.run(&ADD).expect(1);
        assert!(again.stderr.contains("already"), "{again:#?}");
        let cli =
            json(&place, &["providers", "add", "--name", "Cli", "--cli", "claude", "--model", "c=sonnet"]);
        assert_eq!(
            (&cli[0]["type"], &cli[0]["adapterConfig"]["cli"]),
            (&json!("spawn-cli"), &json!("claude"))
        );
    }
}

#[test]
fn every_mistake_is_named_on_its_own_line() {
    let place = Place::new();
    let file = place.write(
        "a.json",
        r#"{"name": "", "slug": "a", "type": "local", "colour": "red", "rank": -1, "adapterConfig": {"baseUrl": "ftp://a"}}"#,
    );
    let ran = place.run(&["providers", "add", &file]).expect(2);
    for pointer in ["/name: ", "/colour: ", "/rank: ", "/adapterConfig/baseUrl: "] {
        assert!(
            ran.stderr.lines().any(|line| line.starts_with(&format!("error: {pointer}"))),
            "{pointer}: {ran:#?}"
        );
    }
    let ran = place.run(&["providers", "add", &file, "--json"]).expect(2);
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["messages"].as_array().unwrap().len(), 4, "{error}");
    for (content, words) in [("{", "not JSON"), ("[]", "object")] {
        let file = place.write("b.json", content);
        let ran = place.run(&["providers", "add", &file]).expect(2);
        assert!(ran.stderr.contains(words), "{ran:#?}");
    }
    assert!(json(&place, &["providers", "list", "--stored"]).is_empty());
}

#[test]
fn members_are_set_one_by_one() {
    let place = Place::new();
    place.run(&[&ADD[..], &["--model", "m"]].concat()).expect(0);
    let set = [
        "--set",
        "rank=5",
        "--set",
        "adapterConfig.timeouts.connectMs=100",
        "--set",
        "description=For tests",
    ];
    place.run(&[&["providers", "edit", "one"], &set[..]].concat()).expect(0);
    let shown = show(&place);
    assert_eq!((&shown["rank"], &shown["description"]), (&json!(5), &json!("For tests")));
    let timeouts = &shown["adapterConfig"]["timeouts"];
    assert_eq!((&timeouts["connectMs"], &timeouts["totalMs"]), (&json!(100), &json!(3_600_000)));
    place.run(&["providers", "edit", "one", "--set", "description=null"]).expect(0);
    assert_eq!(show(&place)["description"], "");

    for (set, words) in [
        ("rank=high", "/rank: "),
        ("slug=two", "/slug: "),
        ("colour=red", "/colour: "),
        ("credentials.apiKey=sk-argument", "rotate"),
    ] {
        let ran = place.run(&["providers", "edit", "one", "--set", set]).expect(2);
        assert!(ran.stderr.contains(words) && !ran.stderr.contains("sk-argument"), "{ran:#?}");
    }
    place.run(&["providers", "disable", "one"]).expect(0);
    assert_eq!(show(&place)["enabled"], false);
    place.run(&["providers", "enable", "one"]).expect(0);
    assert_eq!(show(&place)["enabled"], true);
    for command in ["show", "enable", "disable", "remove", "edit"] {
        let set: &[&str] = if command == "edit" { &["--set", "rank=1"] } else { &[] };
        let ran = place.run(&[&["providers", command, "none"], set].concat()).expect(1);
        assert!(ran.stderr.contains("there is no provider none"), "{ran:#?}");
        let ran = place.run(&[&["providers", command, "../one"], set].concat()).expect(2);
        assert!(ran.stderr.contains("slug"), "{ran:#?}");
    }
}

#[test]
fn what_is_shown_can_be_edited_and_given_back() {
    let place = Place::new();
    place.run(&[&ADD[..], &["--model", "m", "--credential-env", "ONE_KEY"]].concat()).expect(0);
    let shown = place.run(&["providers", "show", "one", "--json"]).expect(0).stdout;
    let edited = shown.replace("\"rank\":100", "\"rank\":3");
    let answer = place.run_with_input(&["providers", "edit", "one", "-", "--json"], &edited).expect(0).json();
    assert_eq!((&answer[0]["rank"], &answer[0]["version"]), (&json!(3), &json!(2)));
    assert_eq!(answer[0]["credentials"]["apiKey"]["reference"], "env:ONE_KEY", "it stays");

    let stale = place.run_with_input(&["providers", "edit", "one", "-"], &edited).expect(1);
    assert!(stale.stderr.contains("changed since"), "a file is for its version: {stale:#?}");
    let mut any: Value = serde_json::from_str(&edited).unwrap();
    any.as_object_mut().unwrap().remove("version");
    place.run_with_input(&["providers", "edit", "one", "-"], &any.to_string()).expect(0);
}

#[test]
fn an_editor_gets_the_provider_and_loses_nothing() {
    let mut place = Place::new();
    place.run(&[&ADD[..], &["--model", "m", "--credential-env", "ONE_KEY"]].concat()).expect(0);
    let temporary = place.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    place.set("TMPDIR", temporary.to_str().unwrap());
    place.set("PATH", &std::env::var("PATH").unwrap());
    let edit = |place: &mut Place, editor: &str, code| {
        place.set("EDITOR", editor);
        place.run(&["providers", "edit", "one"]).expect(code)
    };
    let left = || std::fs::read_dir(&temporary).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();

    edit(&mut place, "sed -i s/100,/4,/", 0);
    assert_eq!(show(&place)["rank"], 4);
    let same = edit(&mut place, "true", 0);
    assert!(same.stdout.contains("Nothing was changed") && show(&place)["version"] == 2, "{same:#?}");
    edit(&mut place, "false", 1);
    assert!(left().is_empty(), "{:?}", left());

    for (editor, words) in [("sed -i s/4,/-4,/", "/rank: "), ("sed -i s/4,/,/", "not JSON")] {
        let refused = edit(&mut place, editor, 2);
        assert!(refused.stderr.contains(words), "{refused:#?}");
        let kept = left();
        let [kept] = &kept[..] else { panic!("{kept:?}") };
        assert!(refused.stderr.contains(kept.to_str().unwrap()), "{refused:#?}");
        assert_eq!(super::support::mode(kept), 0o600);
        std::fs::remove_file(kept).unwrap();
    }
    place.unset("EDITOR");
    let without = place.run(&["providers", "edit", "one"]).expect(2);
    assert!(without.stderr.contains("--set"), "{without:#?}");
}

#[test]
fn a_credential_is_sealed_and_never_shown() {
    const FIRST: &str = "sk-canary-first";
    const SECOND: &str = "sk-canary-second";
    for place in [Place::new(), {
        let mut place = Place::on_table();
        place.set("DYAD_MASTER_KEYS_FILE", place.path("master.keys").to_str().unwrap());
        place.run(&["secrets", "new-key"]).expect(0);
        place
    }] {
        let mut said = Vec::new();
        let mut run = |arguments: &[&str], input: &str, code| {
            let ran = place.run_with_input(arguments, input).expect(code);
            said.push(ran.all_output());
            ran
        };
        run(
            &[&ADD[..], &["--model", "m", "--credential-stdin", "--json"]].concat(),
            &format!("{FIRST}\n"),
            0,
        );
        let rotate = ["providers", "rotate", "one", "--no-test", "--json"];
        let rotated =
            run(&[&rotate[..], &["--stdin", "--overlap", "2h"]].concat(), &format!("{SECOND}\n"), 0).json();
        let credential = &rotated[0]["credentials"]["apiKey"];
        assert_eq!((&credential["source"], &credential["version"]), (&json!("sealed"), &json!(2)));
        assert_eq!(credential["previous"]["version"], 1);
        for (input, words) in
            [("", "empty"), ("a\nb\n", "more than one line"), ("env:HOME\n", "--credential-env")]
        {
            let refused = run(&[&rotate[..], &["--stdin"]].concat(), input, 2);
            assert!(refused.stderr.contains(words), "{refused:#?}");
        }
        let asked = run(&rotate, "", 2);
        assert!(asked.stderr.contains("terminal"), "{asked:#?}");

        run(&["secrets", "new-key"], "", 0);
        let rewrapped = run(&["secrets", "rewrap", "--json"], "", 0).json();
        assert_eq!((&rewrapped[0]["rewrapped"], &rewrapped[0]["failed"]), (&json!(2), &json!([])));
        let listed = run(&["secrets", "list", "--json"], "", 0).json();
        assert_eq!(
            (&listed[0]["provider"], &listed[0]["sealedUnder"]),
            (&json!("one"), &rewrapped[0]["activeKeyId"])
        );
        for arguments in
            [&["providers", "show", "one"][..], &["audit", "list", "--json"], &["secrets", "list"]]
        {
            run(arguments, "", 0);
        }
        run(
            &["providers", "rotate", "one", "--no-test", "--credential-env", "ONE_KEY", "--overlap", "0"],
            "",
            0,
        );
        assert_eq!(show(&place)["credentials"]["apiKey"]["reference"], "env:ONE_KEY");
        for text in said {
            assert!(!text.contains("sk-canary"), "{text}");
        }
    }
}

/// A chat is had by this process on the store at hand, and by the gateway at a URL.
#[test]
fn providers_and_credentials_are_tested_with_a_chat() {
    for is_far in [false, true] {
        let home = Place::new();
        let gateway = is_far.then(|| home.up(&[]));
        let far = gateway.as_ref().map(|gateway| home.administrator_of(gateway, "admin"));
        let place = far.as_ref().unwrap_or(&home);
        let chats = Chats::start(&["sk-first", "sk-second"]);
        let base = ["providers", "add", "--name", "One", "--type", "local", "--base-url", &chats.base_url];
        let rest = ["--model", "m", "--credential-stdin"];
        let dry = place
            .run_with_input(&[&base[..], &rest, &["--dry-run", "--json"]].concat(), "sk-first")
            .expect(0)
            .json();
        assert_eq!((&dry[0]["valid"], &dry[0]["reachable"]["ok"]), (&json!(true), &json!(true)));
        assert!(json(place, &["providers", "list", "--stored"]).is_empty(), "a dry run writes nothing");
        let added = place.run_with_input(&[&base[..], &rest, &["--test"]].concat(), "sk-first").expect(0);
        assert!(added.stdout.contains("answer") && added.stdout.contains("first second"), "{added:#?}");

        let report = json(place, &["providers", "test", "one", "--model", "m", "--stream"]).remove(0);
        assert_eq!(
            (&report["ok"], &report["stream"], &report["model"]),
            (&json!(true), &json!(true), &json!("m"))
        );
        let table = place.run(&["providers", "test", "one"]).expect(0).stdout;
        assert!(table.contains(" ms") && table.contains("2 of the answer"), "{table}");
        assert_eq!(show(place)["lastTest"]["ok"], true);

        let rotate = ["providers", "rotate", "one", "--stdin"];
        let refused = place.run_with_input(&rotate, "sk-wrong").expect(1);
        assert!(refused.stderr.contains("auth") && refused.stderr.contains("still in use"), "{refused:#?}");
        assert_eq!(show(place)["credentials"]["apiKey"]["version"], 1);
        place.run_with_input(&rotate, "sk-second").expect(0);
        assert_eq!(show(place)["credentials"]["apiKey"]["version"], 2);
        assert_eq!(chats.authorized_by().last().unwrap(), "sk-second");
        place.run_with_input(&[&rotate[..], &["--no-test"]].concat(), "sk-wrong").expect(0);
        let failed = place.run(&["providers", "test", "one"]).expect(1);
        assert!(failed.stderr.contains("the test failed: auth"), "{failed:#?}");
        let dry = place.run(&["providers", "edit", "one", "--set", "rank=1", "--dry-run"]).expect(1);
        assert!(dry.stderr.contains("nothing was written") && show(place)["rank"] == 100, "{dry:#?}");
    }
}

#[test]
fn a_decision_is_explained() {
    let place = Place::new();
    place.run(&[&ADD[..], &["--model", "a=b"]].concat()).expect(0);
    let told = json(&place, &["explain", "--model", "a"]).remove(0);
    assert_eq!(
        (&told["targets"][0]["provider"], &told["targets"][0]["upstreamModel"]),
        (&json!("one"), &json!("b"))
    );
    let key = json(&place, &["keys", "create", "--models", "x", "--requests-per-minute", "5"]).remove(0);
    let file = place
        .write("request.json", r#"{"messages": [{"role": "user", "content": "Hello"}], "stream": true}"#);
    let lines =
        place.run(&["explain", "--model", "a", "--key", key["id"].as_str().unwrap(), &file]).expect(0).stdout;
    assert!(
        lines.contains("one (local)") && lines.contains("refused") && lines.contains("requestsPerMinute: 5"),
        "{lines}"
    );
    let unknown = place.run(&["explain", "--model", "nothing"]).expect(0).stdout;
    assert!(unknown.contains("refused      404"), "{unknown}");
    place.run(&["explain"]).expect(2);
}

#[test]
fn a_file_without_a_credential_leaves_the_sealed_one() {
    let place = Place::new();
    let add = [&ADD[..], &["--model", "m", "--credential-stdin"]].concat();
    place.run_with_input(&add, "sk-sealed\n").expect(0);
    let config = super::support::provider("one", BASE_URL, "rank = 9");
    let file = place.write("a.toml", &config);
    place.run(&["providers", "apply", &file]).expect(0);
    let shown = show(&place);
    assert_eq!((&shown["rank"], &shown["credentials"]["apiKey"]["source"]), (&json!(9), &json!("sealed")));
    let again = json(&place, &["providers", "apply", &file]);
    assert_eq!(again[0]["action"], "unchanged");
}

#[test]
fn the_audit_log_tells_who_did_what_and_is_whole() {
    for place in Place::on_each_store() {
        place.run(&[&ADD[..], &["--model", "m"]].concat()).expect(0);
        place.run(&["providers", "edit", "one", "--set", "rank=5"]).expect(0);
        place.run(&["providers", "remove", "one"]).expect(0);
        let entries = json(&place, &["audit", "list"]);
        let actions: Vec<&str> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["delete", "update", "create"]);
        assert!(
            entries.iter().all(|entry| entry["actor"].as_str().unwrap().starts_with("cli:")),
            "{entries:?}"
        );
        assert_eq!((&entries[1]["before"]["rank"], &entries[1]["after"]["rank"]), (&json!(100), &json!(5)));
        let table = place.run(&["audit", "list", "--action", "update", "--from", "1h"]).expect(0).stdout;
        assert!(table.contains("provider/one  rank"), "{table}");
        assert!(json(&place, &["audit", "list", "--until", "1h"]).is_empty());
        assert_eq!(json(&place, &["audit", "list", "--limit", "1"]).len(), 1);

        let whole = json(&place, &["audit", "verify"]).remove(0);
        assert_eq!((&whole["ok"], &whole["entries"]), (&json!(true), &json!(3)));
        let anchor = format!("{}:{}", whole["head"]["seq"], whole["head"]["hash"].as_str().unwrap());
        place.run(&["audit", "verify", "--anchor", &anchor]).expect(0);
        let other = format!("2:{}", "0".repeat(64));
        let broken = place.run(&["audit", "verify", "--anchor", &other]).expect(1);
        assert!(broken.stderr.contains("entry 2"), "{broken:#?}");
    }
}

#[test]
fn usage_is_listed_and_written_as_csv() {
    let place = Place::new();
    assert!(place.run(&["usage"]).expect(0).stdout.contains("no such usage"));
    assert!(json(&place, &["usage", "--group-by", "key,day"]).is_empty());
    let csv =
        place.run(&["usage", "--csv", "--from", "2026-11-01", "--until", "2026-11-30"]).expect(0).stdout;
    assert_eq!(csv.lines().count(), 1, "a head: {csv}");
    assert!(csv.contains("requests"), "{csv}");
    for wrong in
        [&["usage", "--from", "soon"][..], &["usage", "--group-by", "colour"], &["usage", "--csv", "--json"]]
    {
        place.run(wrong).expect(2);
    }
    let far = place.run(&["usage", "--from", "2024-01-01", "--until", "2026-01-01"]).expect(2);
    assert!(far.stderr.contains("366"), "{far:#?}");
}
