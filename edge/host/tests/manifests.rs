//! The manifests at the repository's root give an edge every variable that it reads.

use std::cell::RefCell;
use std::collections::BTreeSet;

use edge_host::Deployment;
use gateway::Settings;
use toml::Table;

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

fn manifest(name: &str) -> Table {
    let path = format!("{}/../../{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the repository has it");
    text.parse().expect("it is TOML")
}

#[test]
fn spin_toml_has_every_variable() {
    let manifest = manifest("spin.toml");
    let component = &manifest["component"]["gateway"];
    assert!(variables().len() > 10);
    for name in variables() {
        let name = name.to_ascii_lowercase();
        let declared = manifest["variables"].get(&name).unwrap_or_else(|| panic!("{name} is not declared"));
        let secret = declared.get("secret").and_then(toml::Value::as_bool).unwrap_or_default();
        assert_eq!(secret, ["secret", "token"].iter().any(|word| name.contains(word)), "{name}");
        let given = component["variables"].get(&name).and_then(toml::Value::as_str);
        assert_eq!(given, Some(&*format!("{{{{ {name} }}}}")), "the component's variable {name}");
    }
}

/// What is secret has no value in a file that is committed.
#[test]
fn spin_toml_has_no_secret() {
    for (name, variable) in manifest("spin.toml")["variables"].as_table().unwrap() {
        if variable.get("secret").is_some() {
            let default = variable.get("default").and_then(toml::Value::as_str);
            assert_eq!(default.unwrap_or_default(), "", "{name}");
        }
    }
}
