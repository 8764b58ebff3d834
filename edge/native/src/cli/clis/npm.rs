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
/// npm in it has its own settings. `tell` hears what is left out.
pub(super) async fn settings(tell: &dyn Fn(&str)) -> io::Result<Vec<(&'static str, String)>> {
    let shown = match process::run(Command::new("npm").args(["config", "ls", "-l", "--json"]), ASK).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        shown => shown?,
    };
    let config = serde_json::from_str(&shown).map_err(io::Error::other)?;
    let mut files = vec![("npmrc", npmrc(&config, tell))];
    if let Some(path) = config["cafile"].as_str().filter(|path| !path.is_empty()) {
        let authorities = std::fs::read_to_string(Path::new(path));
        let named = |error| io::Error::other(format!("npm's cafile {path}: {error}"));
        files.push(("ca.pem", authorities.map_err(named)?));
    }
    Ok(files)
}

/// The proxies of this process's environment, as build arguments.
pub(super) fn proxies(tell: &dyn Fn(&str)) -> impl Iterator<Item = (&'static str, String)> {
    PROXY_VARIABLES.into_iter().filter_map(move |name| {
        let said = std::env::var(name).ok()?;
        Some((name, without_password(name, &said, tell)))
    })
}

/// A URL, or what stands for one, without `USER:PASSWORD@`: in a build's layers and log everybody can read it who may
/// use the engine.
fn without_password(name: &str, url: &str, tell: &dyn Fn(&str)) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = url.split_at(start);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some(at) = authority.rfind('@') else { return url.to_owned() };
    tell(&format!("The user and password in {name} are left out: a build must not know them"));
    format!("{scheme}{}", &rest[at + 1..])
}

fn npmrc(config: &Value, tell: &dyn Fn(&str)) -> String {
    let passed_on = PASSED_ON.into_iter().filter_map(|key| {
        let said = match &config[key] {
            Value::String(said) => said.clone(),
            Value::Bool(said) => said.to_string(),
            Value::Array(said) => said.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
            _ => return None,
        };
        // A line break would be another setting.
        let said = without_password(key, &said, tell);
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
            npmrc(&config, &|line| panic!("{line}")),
            "registry=https://npm.example.com/\nhttps-proxy=http://127.0.0.1:3128\nnoproxy=a,b\nstrict-ssl=true\n\
             cafile=/tmp/build/ca.pem\n"
        );
        assert_eq!(
            npmrc(&json!({"registry": "https://a/\nscript-shell=/bin/evil", "noproxy": [""]}), &|_| {}),
            ""
        );
    }

    #[test]
    fn passwords_in_urls_are_left_out_and_that_is_said() {
        let told = std::cell::RefCell::new(Vec::new());
        let tell = |line: &str| told.borrow_mut().push(line.to_owned());
        let config = json!({
            "registry": "https://me:s3cret@npm.example.com/@scope/", "https-proxy": "http://me:s3@cret@127.0.0.1:3128",
        });
        assert_eq!(
            npmrc(&config, &tell),
            "registry=https://npm.example.com/@scope/\nhttps-proxy=http://127.0.0.1:3128\n"
        );
        assert_eq!(without_password("http_proxy", "me:s3cret@proxy:3128", &tell), "proxy:3128");
        assert_eq!(told.borrow().len(), 3);
        assert!(told.borrow().iter().all(|line| !line.contains("cret")), "{told:?}");
        let plain = ["http://proxy:3128/", "proxy:3128", "", "https://a/?b=c@d", "a,.b,127.0.0.1"];
        assert!(plain.iter().all(|url| without_password("x", url, &tell) == **url));
        assert_eq!(told.borrow().len(), 3);
    }
}
