//! Upstream credentials: where they may come from, what is said when they do not, and where they never appear.

use std::fs;

use super::support::{Place, Upstream, provider};

const KEY: &str = "sk-upstream==secret";

#[test]
fn a_key_on_the_command_line_is_used_and_never_shown() {
    let place = Place::new();
    let upstream = Upstream::start(Some(KEY));
    let argument = format!("{}={KEY}", upstream.base_url);
    let arguments = ["--upstream", &argument, "--no-discovery"];
    for command in [&["providers", "list"][..], &["providers", "check"], &["doctor"]] {
        for json in [&[][..], &["--json"]] {
            let ran = place.run(&[command, &arguments, json].concat()).expect(0);
            assert!(!ran.all_output().contains(KEY), "{ran:#?}");
        }
    }
    let gateway = place.up(&["--upstream", &argument, "--log", "trace"]);
    assert_eq!(gateway.ready["models"][0]["id"], "tiny");
    assert_eq!(gateway.get("/v1/models", gateway.first_key()), 200);
    assert!(!gateway.ready.to_string().contains(KEY));
    let log = gateway.stop();
    assert!(!log.contains(KEY), "{log}");
}

#[test]
fn up_is_the_default_command() {
    let place = Place::new();
    let upstream = Upstream::start(None);
    let gateway = place.up(&["--upstream", &upstream.base_url]);
    assert_eq!(gateway.ready["models"].as_array().unwrap().len(), 2);
    drop(gateway);
    let ran = place.run(&["--upstream", "nonsense"]).expect(2);
    assert!(ran.stderr.contains("--upstream (number 1): the URL"), "{ran:#?}");
}

#[test]
fn a_key_can_be_referred_to_so_that_the_process_list_does_not_have_it() {
    let mut place = Place::new();
    place.set("UPSTREAM_KEY", KEY);
    let upstream = Upstream::start(Some(KEY));
    let file = place.write("key", &format!("{KEY}\n"));
    for reference in ["env:UPSTREAM_KEY".to_owned(), format!("file:{file}")] {
        let gateway = place.up(&["--upstream", &format!("{}={reference}", upstream.base_url)]);
        assert_eq!(gateway.ready["models"].as_array().unwrap().len(), 2, "{reference}");
        let command_line = fs::read(format!("/proc/{}/cmdline", gateway.id())).unwrap();
        assert!(!String::from_utf8(command_line).unwrap().contains(KEY));
    }
    let missing = format!("{}=env:NO_SUCH_VARIABLE", upstream.base_url);
    let ran = place.run(&["--upstream", &missing]).expect(2);
    assert!(ran.stderr.contains("NO_SUCH_VARIABLE is not set"), "{ran:#?}");
}

#[test]
fn a_wrong_key_is_told_from_an_upstream_that_is_not_there() {
    let place = Place::new();
    let upstream = Upstream::start(Some(KEY));
    let check = |argument: &str| {
        let ran = place.run(&["providers", "check", "--no-discovery", "--upstream", argument]).expect(1);
        assert!(ran.stderr.contains("1 of 1 provider cannot be used"), "{ran:#?}");
        ran.stdout
    };
    let refused = check(&format!("{}=wrong", upstream.base_url));
    let unreachable = check("http://127.0.0.1:1/v1");
    assert_ne!(refused.split("  ").last(), unreachable.split("  ").last());
    assert!(unreachable.contains("cannot be reached"), "{unreachable}");
}

#[test]
fn a_credential_that_cannot_be_read_is_named_everywhere_and_the_rest_serves() {
    let place = Place::new();
    let upstream = Upstream::start(None);
    let empty = place.write("empty", "\n");
    let config = [
        provider("good", &upstream.base_url, ""),
        provider("no-variable", &upstream.base_url, "credential = \"env:NO_SUCH_VARIABLE\""),
        provider(
            "listed",
            &upstream.base_url,
            "credential = \"file:/no/such/file\"\nmodels = [{ id = \"x\" }]",
        ),
        provider("empty", &upstream.base_url, &format!("credential = \"file:{empty}\"")),
        provider("off", &upstream.base_url, "credential = \"env:NOT_WANTED\"\nenabled = false"),
    ];
    let config = place.write("config.toml", &config.concat());
    let reasons = ["NO_SUCH_VARIABLE is not set", "/no/such/file cannot be read", "/empty is empty"];

    for command in [&["providers", "check"][..], &["doctor"]] {
        let ran = place.run(&[command, &["--config", &config, "--no-discovery"]].concat()).expect(1);
        for reason in reasons {
            assert!(ran.stdout.contains(reason), "{reason}: {ran:#?}");
        }
        assert!(!ran.stdout.contains("NOT_WANTED"), "{ran:#?}");
    }
    let list = place.run(&["providers", "list", "--config", &config, "--no-discovery"]).expect(0);
    assert!(list.stdout.contains("tiny") && list.stdout.contains(reasons[0]), "{list:#?}");

    let gateway = place.up(&["--config", &config]);
    let unusable = gateway.ready["unusable_providers"].to_string();
    for reason in reasons {
        assert!(unusable.contains(reason), "{reason}: {unusable}");
    }
    assert_eq!(gateway.ready["unusable_providers"].as_array().unwrap().len(), 3, "{unusable}");
    assert_eq!(gateway.ready["models"].as_array().unwrap().len(), 2, "{}", gateway.ready);
}
