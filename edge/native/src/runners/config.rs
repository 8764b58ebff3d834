//! `[runners]` of the configuration file.

use std::path::PathBuf;

use catalog::{Violation, Violations};
use http::Uri;
use toml::{Table, Value};

use super::identity::Identity;

const MAX_NODES: usize = 1_000;
/// `hosts` is a setting of the gateway, and read with those.
const KNOWN: [&str; 6] = ["client_cert", "client_key", "ca", "crl", "hosts", "node"];

/// The runners' nodes and how they know this gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnersConfig {
    pub identity: RunnerIdentity,
    pub nodes: RunnerNodes,
}

/// From where the nodes are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunnerNodes {
    /// They are asked every few seconds what they run. `https://HOST[:PORT]`, without a slash at the end; the host is
    /// what the node's certificate must be for.
    Listed(Vec<String>),
    /// They announce themselves in the store.
    InStore,
}

/// PEM files, read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerIdentity {
    /// The chain of the certificate by which nodes know this gateway.
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
    /// Issues the nodes' certificates; no other authority counts.
    pub ca: PathBuf,
    /// The authority's revocation lists. A node that is on one is not spoken to, and no node once a list is stale.
    pub crl: Option<PathBuf>,
}

/// The checked form; `None` if violations were noted. The files are looked into as well.
pub(crate) fn check(value: Value, violations: &mut Violations) -> Option<RunnersConfig> {
    let mut note = |path: &str, message: &str| {
        violations.0.push(Violation { path: path.to_owned(), message: message.to_owned() });
    };
    let Value::Table(mut table) = value else {
        note("runners", "must be a table: write [runners]");
        return None;
    };
    let mut file = |name: &str, is_required: bool| match table.remove(name) {
        Some(Value::String(path)) if !path.is_empty() => Some(PathBuf::from(path)),
        Some(_) => {
            note(&format!("runners.{name}"), "must be the path of a PEM file");
            None
        }
        None => {
            if is_required {
                note(&format!("runners.{name}"), "is required");
            }
            None
        }
    };
    let [client_cert, client_key, ca] = ["client_cert", "client_key", "ca"].map(|name| file(name, true));
    let crl = file("crl", false);
    let nodes = match table.remove("node") {
        Some(listed) => check_nodes(listed, &mut note).map(RunnerNodes::Listed),
        None => Some(RunnerNodes::InStore),
    };
    for name in table.keys() {
        note(&format!("runners.{name}"), &format!("unknown key; known are {}", KNOWN.join(", ")));
    }
    let identity = RunnerIdentity { client_cert: client_cert?, client_key: client_key?, ca: ca?, crl };
    if let Err(error) = Identity::read(&identity) {
        note("runners", &error.to_string());
        return None;
    }
    Some(RunnersConfig { identity, nodes: nodes? })
}

fn check_nodes(value: Value, note: &mut impl FnMut(&str, &str)) -> Option<Vec<String>> {
    let entries = match value {
        Value::Array(entries) if entries.len() <= MAX_NODES => entries,
        Value::Array(_) => {
            note("runners.node", &format!("has too many entries; at most {MAX_NODES} are allowed"));
            return None;
        }
        _ => {
            note("runners.node", "must be a list: write each node as [[runners.node]] with its url");
            return None;
        }
    };
    let mut nodes: Vec<String> = Vec::with_capacity(entries.len());
    let mut all_good = true;
    for (index, entry) in entries.into_iter().enumerate() {
        let path = format!("runners.node[{index}]");
        let result = node(entry)
            .and_then(|url| if nodes.contains(&url) { Err((".url", "is listed twice")) } else { Ok(url) });
        match result {
            Ok(url) => nodes.push(url),
            Err((member, message)) => {
                all_good = false;
                note(&format!("{path}{member}"), message);
            }
        }
    }
    all_good.then_some(nodes)
}

/// The node's URL, or which member is wrong, and how.
fn node(entry: Value) -> Result<String, (&'static str, &'static str)> {
    const FORM: &str = "must be https://HOST or https://HOST:PORT";
    let Value::Table(mut entry) = entry else { return Err(("", "must be a table with a url")) };
    let url = entry.remove("url").ok_or((".url", "is required"))?;
    if !Table::is_empty(&entry) {
        return Err(("", "has unknown keys; only url is known"));
    }
    let url: Uri = url.as_str().and_then(|url| url.parse().ok()).ok_or((".url", FORM))?;
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let has_host = url.host().is_some_and(|host| !host.is_empty()) && !authority.contains('@');
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
    if url.scheme_str() != Some("https") || !has_host || !is_bare {
        return Err((".url", FORM));
    }
    Ok(format!("https://{}", authority.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    fn checked(text: &str) -> Result<RunnersConfig, Vec<String>> {
        let table: Table = text.parse().unwrap();
        let mut violations = Violations(Vec::new());
        let config = check(table["runners"].clone(), &mut violations);
        config.ok_or_else(|| violations.0.iter().map(ToString::to_string).collect())
    }

    /// A directory with `a.crt`, `a.key` and `b.key`, and the table's lines for the first two.
    fn files() -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["a".to_owned()]).unwrap();
            std::fs::write(directory.path().join(format!("{name}.crt")), cert.pem()).unwrap();
            std::fs::write(directory.path().join(format!("{name}.key")), signing_key.serialize_pem())
                .unwrap();
        }
        std::fs::write(directory.path().join("empty"), "").unwrap();
        let path = directory.path().display();
        let lines =
            format!("client_cert = \"{path}/a.crt\"\nclient_key = \"{path}/a.key\"\nca = \"{path}/a.crt\"");
        (directory, lines)
    }

    #[test]
    fn nodes_and_files_are_taken() {
        let (directory, lines) = files();
        let config = checked(&format!(
            "[runners]\n{lines}\nnode = [{{ url = \"https://One.example:4200/\" }}, {{ url = \"https://[::1]\" }}]"
        ))
        .unwrap();
        let nodes = ["https://one.example:4200", "https://[::1]"].map(str::to_owned).to_vec();
        assert!(nodes.iter().all(|url| runner_api::is_node_url(url)));
        assert_eq!(config.nodes, RunnerNodes::Listed(nodes));
        assert_eq!(config.identity.client_key, directory.path().join("a.key"));
    }

    #[test]
    fn every_violation_is_reported_at_once() {
        let found = checked(
            r#"
            [runners]
            client_cert = 5
            client_key = ""
            crl = 7
            colour = "red"
            node = [
              { url = "http://a.example" }, { url = "https://a.example/path" }, { url = "https://a.example?x" },
              { url = "https://me@a.example" }, { url = 1 }, {}, 7, { url = "https://a.example", weight = 1 },
              { url = "https://b.example" }, { url = "https://B.example/" }, { url = "a.example:1" }, { url = "https://" },
            ]
            "#,
        )
        .unwrap_err();
        let form = "must be https://HOST or https://HOST:PORT";
        let mut expected = vec![
            "runners.client_cert: must be the path of a PEM file".to_owned(),
            "runners.client_key: must be the path of a PEM file".to_owned(),
            "runners.ca: is required".to_owned(),
            "runners.crl: must be the path of a PEM file".to_owned(),
        ];
        expected.extend((0..5).map(|index| format!("runners.node[{index}].url: {form}")));
        expected.extend([
            "runners.node[5].url: is required".to_owned(),
            "runners.node[6]: must be a table with a url".to_owned(),
            "runners.node[7]: has unknown keys; only url is known".to_owned(),
            "runners.node[9].url: is listed twice".to_owned(),
            format!("runners.node[10].url: {form}"),
            format!("runners.node[11].url: {form}"),
            "runners.colour: unknown key; known are client_cert, client_key, ca, crl, hosts, node".to_owned(),
        ]);
        assert_eq!(found, expected);
        assert_eq!(checked("runners = 5").unwrap_err(), ["runners: must be a table: write [runners]"]);
        let (_directory, lines) = files();
        let found = checked(&format!("[runners]\n{lines}\nnode = 5")).unwrap_err();
        assert!(found.len() == 1 && found[0].starts_with("runners.node: "), "{found:?}");
        let without_list = checked(&format!("[runners]\n{lines}")).unwrap();
        assert_eq!(without_list.nodes, RunnerNodes::InStore);
    }

    #[test]
    fn files_are_looked_into() {
        let (directory, lines) = files();
        let path = |name: &str| directory.path().join(name).display().to_string();
        for (wrong, reason) in [
            (lines.replace("a.key", "b.key"), "do not go together"),
            (lines.replace("a.key", "a.crt"), "a.crt: "),
            (lines.replace("client_cert = \"", "client_cert = \"/no/such"), "/no/such"),
            (
                lines.replace(&format!("ca = \"{}\"", path("a.crt")), &format!("ca = \"{}\"", path("empty"))),
                "no certificate",
            ),
            (format!("{lines}\ncrl = \"{}\"", path("empty")), "there is no revocation list in it"),
            (format!("{lines}\ncrl = \"/no/such.crl\""), "/no/such.crl"),
        ] {
            let found = checked(&format!("[runners]\n{wrong}\nnode = []")).unwrap_err();
            assert!(found.len() == 1 && found[0].contains(reason), "{reason}: {found:?}");
            assert!(!found[0].contains("PRIVATE KEY"), "{found:?}");
        }
    }
}
