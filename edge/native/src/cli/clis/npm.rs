//! npm's settings on this machine, for the builds of images: they install from where the machine does.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::process;

const ASK: Duration = Duration::from_secs(60);
/// Where the build finds them (`runner/images`).
const CA_FILE: &str = "/tmp/build/ca.pem";
/// Never the keys of registries: those would lie in a layer while the image is built.
const PASSED_ON: [&str; 5] = ["registry", "proxy", "https-proxy", "noproxy", "strict-ssl"];
/// Docker knows these as build arguments and keeps them out of the image's history.
const PROXY_VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];

/// The files that a build context gets besides its own. None where there is no npm: Docker can pull its base then, and
/// npm in it has its own settings.
pub(super) async fn settings() -> io::Result<Vec<(&'static str, String)>> {
    let shown = match process::run(Command::new("npm").args(["config", "ls", "-l", "--json"]), ASK).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        shown => shown?,
    };
    let config = serde_json::from_str(&shown).map_err(io::Error::other)?;
    let mut files = vec![("npmrc", npmrc(&config))];
    if let Some(path) = config["cafile"].as_str().filter(|path| !path.is_empty()) {
        let authorities = std::fs::read_to_string(Path::new(path));
        let named = |error| io::Error::other(format!("npm's cafile {path}: {error}"));
        files.push(("ca.pem", authorities.map_err(named)?));
    }
    Ok(files)
}

/// The proxies of this process's environment, as build arguments.
pub(super) fn proxies() -> impl Iterator<Item = (&'static str, String)> {
    PROXY_VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)))
}

fn npmrc(config: &Value) -> String {
    let passed_on = PASSED_ON.into_iter().filter_map(|key| {
        let said = match &config[key] {
            Value::String(said) => said.clone(),
            Value::Bool(said) => said.to_string(),
            Value::Array(said) => said.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
            _ => return None,
        };
        // A line break would be another setting.
        (!said.is_empty() && !said.contains(['\n', '\r'])).then(|| format!("{key}={said}\n"))
    });
    let has_authorities = config["cafile"].as_str().is_some_and(|path| !path.is_empty());
    passed_on.chain(has_authorities.then(|| format!("cafile={CA_FILE}\n"))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_leads_to_the_registry_is_passed_on() {
        let config = json!({
            "registry": "https://npm.example.com/", "proxy": null, "https-proxy": "http://127.0.0.1:3128",
            "noproxy": ["a", "b"], "strict-ssl": true, "cafile": "/etc/ca.pem",
            "//npm.example.com/:_authToken": "secret", "prefix": "/usr", "script-shell": "/bin/evil",
        });
        assert_eq!(
            npmrc(&config),
            "registry=https://npm.example.com/\nhttps-proxy=http://127.0.0.1:3128\nnoproxy=a,b\nstrict-ssl=true\n\
             cafile=/tmp/build/ca.pem\n"
        );
        assert_eq!(npmrc(&json!({"registry": "https://a/\nscript-shell=/bin/evil", "noproxy": [""]})), "");
    }
}
