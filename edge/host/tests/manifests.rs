//! The manifests at the repository's root give an edge every variable that it reads.

use std::cell::RefCell;
use std::collections::BTreeSet;

use edge_host::Deployment;
use gateway::Settings;
use toml::{Table, Value};

/// What a deployment asks for.
fn variables() -> BTreeSet<String> {
    let asked = RefCell::default();
    let get = |name: &str| {
        BTreeSet::insert(&mut asked.borrow_mut(), name.to_owned());
        None
    };
    let _ = Deployment::from_variables(get, Settings::default());
    asked.into_inner()
}

fn text(name: &str) -> String {
    let path = format!("{}/../../{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the repository has it")
}

fn manifest(name: &str) -> Table {
    text(name).parse().expect("it is TOML")
}

#[test]
fn spin_toml_has_every_variable() {
    let manifest = manifest("spin.toml");
    let component = &manifest["component"]["gateway"];
    assert!(variables().len() > 10);
    for name in variables() {
        let name = name.to_ascii_lowercase();
        let declared = manifest["variables"].get(&name).unwrap_or_else(|| panic!("{name} is not declared"));
        let secret = declared.get("secret").and_then(Value::as_bool).unwrap_or_default();
        assert_eq!(
            secret,
            ["secret", "token", "master_keys"].iter().any(|word| name.contains(word)),
            "{name}"
        );
        let given = component["variables"].get(&name).and_then(Value::as_str);
        assert_eq!(given, Some(&*format!("{{{{ {name} }}}}")), "the component's variable {name}");
    }
}

/// What is secret has no value in a file that is committed.
#[test]
fn spin_toml_has_no_secret() {
    for (name, variable) in manifest("spin.toml")["variables"].as_table().unwrap() {
        if variable.get("secret").is_some() {
            let default = variable.get("default").and_then(Value::as_str);
            assert_eq!(default.unwrap_or_default(), "", "{name}");
        }
    }
}

#[test]
fn wrangler_toml_names_every_variable() {
    let text = text("wrangler.toml");
    for name in variables() {
        let named = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == name);
        assert!(named, "{name}");
    }
}

#[test]
fn wrangler_toml_has_no_secret_and_requires_them() {
    let manifest = manifest("wrangler.toml");
    let environments = manifest["env"].as_table().unwrap();
    assert!(environments.contains_key("staging") && environments.contains_key("production"));
    for environment in environments.values().chain([&Value::Table(manifest.clone())]) {
        for name in environment["vars"].as_table().unwrap().keys() {
            assert!(variables().contains(name), "{name} is read by nobody");
            assert!(
                !["SECRET", "TOKEN", "ACCESS_KEY", "MASTER_KEYS"].iter().any(|word| name.contains(word)),
                "{name}"
            );
        }
    }
    for environment in environments.values() {
        let required = environment["secrets"]["required"].as_array().unwrap();
        for name in ["DYAD_KEY_SECRET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            assert!(required.iter().any(|secret| secret.as_str() == Some(name)), "{name}");
        }
    }
}
