//! Wrong words and wrong configuration, before anything is done.

use super::support::{ECHO, Place};

const BAD: &str = r#"
[[cli]]
name = "A"
dialect = "basic"
image = "claude:latest"
argv = []
"#;

#[test]
fn every_violation_is_shown_before_anything_begins() {
    let place = Place::new("colour = \"red\"", BAD);
    for command in [&["serve"][..], &[], &["run", "A"], &["clis"]] {
        let ran = place.run(command).expect(2);
        for path in ["colour", "cli[0].name", "cli[0].dialect", "cli[0].image", "cli[0].argv"] {
            let is_named =
                |line: &str| line.starts_with("error: ") && line.contains(&format!("runner.toml: {path}: "));
            assert!(ran.stderr.lines().any(is_named), "{command:?}: {path} is not named: {ran:#?}");
        }
        assert!(!place.path("state").exists(), "{command:?} has begun something");
    }
    let ran = place.run(&["check"]).expect(1);
    assert_eq!(ran.stdout.lines().filter(|line| line.starts_with("FAIL")).count(), 5, "{ran:#?}");
    assert!(ran.stderr.contains("5 problems"), "{ran:#?}");
}

#[test]
fn missing_credentials_are_named_before_anything_begins() {
    let upstream = r#"
[cli.egress]
[[cli.egress.upstream]]
name = "v"
url = "https://api.example.com"
vendor = "openai"
credential = "env:TEST_VENDOR_KEY"
"#;
    let other = ECHO.replace("cli-echo", "other");
    let mut place = Place::new("", &format!("{ECHO}{upstream}{other}"));
    for command in [&["serve"][..], &["run", "cli-echo"]] {
        let ran = place.run(command).expect(2);
        assert!(ran.stderr.contains("cli[0].egress.upstream[0].credential"), "{ran:#?}");
        assert!(ran.stderr.contains("TEST_VENDOR_KEY is not set"), "{ran:#?}");
        assert!(!place.path("state").exists(), "{command:?} has begun something");
    }
    place.set("TEST_VENDOR_KEY", "sk-a-secret");
    let ran = place.run(&["clis"]).expect(0);
    assert!(ran.stdout.contains("api.example.com") && !ran.all_output().contains("sk-a-secret"), "{ran:#?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let place = Place::new("", ECHO);
    let broken = place.write("broken.toml", "listen = \n");
    for (path, word) in [("/no/such/file.toml", "No such file"), (&broken, "TOML"), ("/", "director")] {
        for command in ["serve", "run", "clis"] {
            let arguments =
                [&[command][..], if command == "run" { &["a"] } else { &[] }, &["--config", path]].concat();
            let ran = place.run(&arguments).expect(2);
            assert!(ran.stderr.contains(path), "{ran:#?}");
            assert!(ran.stderr.to_lowercase().contains(&word.to_lowercase()), "{ran:#?}");
        }
    }
}

#[test]
fn wrong_words_are_usage_errors_with_a_hint() {
    let place = Place::new("", ECHO);
    for (arguments, hint) in [
        (&["serv"][..], "'serve'"),
        (&["--confi", "x"], "--config"),
        (&["run"], "<CLI>"),
        (&["run", "cli-echo", "--param", "model"], "NAME=VALUE"),
        (&["run", "claude"], "cli-echo"),
        (&["completions", "fishy"], "fish"),
        (&["--log", "a=b=c"], "--log"),
        (&["--log-format", "xml"], "json"),
    ] {
        let ran = place.run(arguments).expect(2);
        assert!(ran.stderr.contains(hint), "{arguments:?}: {ran:#?}");
        assert!(!ran.all_output().contains('\u{1b}'), "no colours outside a terminal: {ran:#?}");
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    let place = Place::new("", ECHO);
    let ran = place.run(&["--help"]).expect(0);
    for words in ["Examples:", "dyad-runner check", "Exit codes:", "--config", "DYAD_RUNNER_CONFIG"] {
        assert!(ran.stdout.contains(words), "{words}: {ran:#?}");
    }
    let ran = place.run(&["run", "--help"]).expect(0);
    for words in ["Examples:", "rate_limited", "130"] {
        assert!(ran.stdout.contains(words), "{words}: {ran:#?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.run(&["completions", shell]).expect(0).stdout.contains("dyad-runner"));
    }
}

#[test]
fn clis_lists_what_the_file_has() {
    let parameters = "[cli.parameters.m]\nvalues = [\"a\", \"b\"]\ndefault = \"a\"\n[cli.parameters.n]\nmin = 1\nmax = 3\n";
    let cli = format!(
        "[[cli]]\nname = \"two\"\ndialect = \"text\"\nimage = {{ local = \"x:1\" }}\nargv = [\"x\", \"{{m}}\", \"{{n}}\"]\n{parameters}"
    );
    let place = Place::new("", &format!("{ECHO}{cli}"));
    let ran = place.run(&["clis"]).expect(0);
    for line in [
        "cli-echo (one-shot, container): reaches nothing",
        "  m: a, b [default: a]",
        "  n: 1 to 3 (must be given)",
    ] {
        assert!(ran.stdout.lines().any(|found| found == line), "{line} is missing: {ran:#?}");
    }
    let clis = place.run(&["clis", "--json"]).expect(0).json();
    assert_eq!((clis.len(), &clis[1]["name"]), (2, &serde_json::json!("two")));
    assert_eq!(clis[1]["parameters"]["m"]["values"], serde_json::json!(["a", "b"]));
}
