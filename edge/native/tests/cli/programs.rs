//! What programs read: `--json` everywhere, completion scripts, exit codes of `doctor`.

use super::support::{Place, Upstream};

#[test]
fn every_command_prints_json_lines() {
    let place = Place::new();
    let upstream = Upstream::start(None);
    let id = place.run(&["keys", "create", "--json"]).expect(0).json()[0]["id"].as_str().unwrap().to_owned();
    let providers = ["--upstream", &upstream.base_url, "--no-discovery", "--json"];
    for arguments in [
        &["keys", "list", "--json"][..],
        &["keys", "revoke", &id, "--json"],
        &[&["providers", "list"][..], &providers].concat(),
        &[&["providers", "check"][..], &providers].concat(),
        &[&["doctor"][..], &providers].concat(),
    ] {
        let ran = place.run(arguments).expect(0);
        assert!(!ran.json().is_empty(), "{arguments:?}: {ran:#?}");
        assert_eq!(ran.stderr, "", "{arguments:?}");
    }
    for (arguments, code, kind) in [
        (&["keys", "revoke", "AAAAAAAAAAAA", "--json"][..], 1, "failed"),
        (&["keys", "revoke", "x", "--json"], 2, "configuration"),
        (
            &["providers", "check", "--no-discovery", "--upstream", "http://127.0.0.1:1/v1", "--json"],
            1,
            "failed",
        ),
        (&["up", "--upstream", "nonsense", "--json"], 2, "configuration"),
        (&["doctor", "--no-discovery", "--json"], 1, "failed"),
    ] {
        let ran = place.run(arguments).expect(code);
        ran.json();
        let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
        assert_eq!(error["error"], kind, "{arguments:?}");
        assert!(!error["messages"].as_array().unwrap().is_empty(), "{arguments:?}");
    }
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let place = Place::new();
    let ran = place.run(&["doctor", "--no-discovery"]).expect(1);
    assert!(ran.stdout.contains("FAIL  no model is served"), "{ran:#?}");
    assert!(ran.stdout.contains("there is no API key") && ran.stdout.contains("--upstream"), "{ran:#?}");

    let upstream = Upstream::start(None);
    place.run(&["keys", "create"]).expect(0);
    let ran = place.run(&["doctor", "--no-discovery", "--upstream", &upstream.base_url]).expect(0);
    assert!(ran.stdout.contains("2 models") && ran.stdout.contains("1 API key\n"), "{ran:#?}");
    assert!(!ran.stdout.contains("FAIL"), "{ran:#?}");

    let file = place.write("file", "");
    let ran = place.run(&["doctor", "--no-discovery", "--data-dir", &file]).expect(1);
    assert!(ran.stdout.contains(&file) && ran.stdout.contains("--data-dir"), "{ran:#?}");
}

#[test]
fn providers_are_listed_with_their_models() {
    let mut place = Place::new();
    let upstream = Upstream::start(Some("sk-vendor"));
    place.set("OPENAI_API_KEY", "sk-vendor");
    place.set("OPENAI_BASE_URL", &upstream.base_url);
    let listed = place.run(&["providers", "list", "--json"]).expect(0).json();
    let vendor = listed.iter().find(|provider| provider["slug"] == "openai").unwrap();
    assert_eq!(vendor["models"], serde_json::json!(["tiny", "large"]));
    let table = place.run(&["providers", "list"]).expect(0);
    assert!(table.stdout.contains("tiny, large") && !table.all_output().contains("sk-vendor"), "{table:#?}");
}

#[test]
fn completion_scripts_know_the_commands() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.run(&["completions", shell]).expect(0).stdout;
        assert!(script.contains("dyad-gateway") && script.contains("revoke"), "{shell}");
    }
}

#[test]
fn help_explains_every_option_and_shows_no_secret() {
    let mut place = Place::new();
    place.set("OPENAI_API_KEY", "sk-in-the-environment");
    place.set("DYAD_ADMIN_TOKEN", "sk-in-the-environment");
    for command in [
        &[][..],
        &["up"],
        &["keys", "create"],
        &["keys", "list"],
        &["keys", "show"],
        &["keys", "update"],
        &["keys", "rotate"],
        &["keys", "revoke"],
        &["providers", "check"],
        &["providers", "list"],
        &["providers", "show"],
        &["providers", "add"],
        &["providers", "edit"],
        &["providers", "test"],
        &["providers", "rotate"],
        &["providers", "enable"],
        &["providers", "apply"],
        &["providers", "remove"],
        &["secrets", "list"],
        &["secrets", "rewrap"],
        &["audit", "list"],
        &["audit", "verify"],
        &["usage"],
        &["explain"],
        &["runners", "list"],
        &["runners", "drain"],
        &["store", "init"],
        &["store", "serve"],
        &["clis", "add"],
        &["clis", "list"],
        &["clis", "remove"],
        &["ca", "init"],
        &["ca", "issue"],
        &["ca", "revoke"],
        &["ca", "crl"],
        &["ca", "list"],
        &["doctor"],
        &["completions"],
    ] {
        let help = place.run(&[command, &["--help"]].concat()).expect(0).stdout;
        assert!(!help.contains("sk-in-the-environment") && !help.contains('\u{1b}'), "{help}");
        let options = help.split("Options:\n").nth(1).unwrap().split("\nExample").next().unwrap();
        // An option's name with nothing after it, and no text in the next line either.
        let lines: Vec<&str> = options.lines().collect();
        for pair in lines.windows(2) {
            let bare = pair[0].trim_start().starts_with("--") && !pair[0].trim().contains("  ");
            assert!(!bare || pair[1].starts_with("          "), "{:?} is not explained", pair[0]);
        }
    }
}
