//! `spin.toml` and the runtime configuration, as far as they matter here.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use wasmtime::Result;
use wasmtime::error::{Context as _, bail, format_err};

/// An application with one HTTP component.
pub(crate) struct Application {
    pub(crate) component_id: String,
    directory: PathBuf,
    build: Option<String>,
    pub(crate) source: PathBuf,
    /// The component's, resolved.
    pub(crate) variables: HashMap<String, String>,
    pub(crate) allowed_outbound_hosts: Vec<String>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    variables: HashMap<String, Variable>,
    trigger: Triggers,
    component: HashMap<String, Component>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    default: Option<String>,
    #[serde(default)]
    required: bool,
    #[serde(default, rename = "secret")]
    _secret: bool,
}

#[derive(Deserialize)]
struct Triggers {
    http: Vec<Trigger>,
}

#[derive(Deserialize)]
struct Trigger {
    route: String,
    component: String,
}

#[derive(Deserialize)]
struct Component {
    source: PathBuf,
    build: Option<Build>,
    #[serde(default)]
    variables: HashMap<String, String>,
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
}

#[derive(Deserialize)]
struct Build {
    command: String,
}

impl Application {
    /// Variables given here go before those of the environment, and those before the manifest's defaults.
    pub(crate) fn read(path: &Path, given: &[String]) -> Result<Self> {
        let given = given_variables(given)?;
        let mut manifest: Manifest = read_toml(path)?;
        let [Trigger { route, component: id }] = &manifest.trigger.http[..] else {
            bail!("{}: one HTTP trigger is understood, no more and no less", path.display());
        };
        if route != "/..." {
            bail!("{}: the route \"/...\" is understood, and no other", path.display());
        }
        let component = manifest.component.remove(id);
        let component = component.with_context(|| format!("{}: no component {id}", path.display()))?;
        if let Some(name) = given.keys().find(|name| !manifest.variables.contains_key(*name)) {
            bail!("{}: the application has no variable {name}", path.display());
        }
        let mut values = HashMap::new();
        for (name, variable) in manifest.variables {
            let given = given.get(&name).cloned();
            let environment = || std::env::var(format!("SPIN_VARIABLE_{}", name.to_ascii_uppercase())).ok();
            match given.or_else(environment).or(variable.default) {
                Some(value) => {
                    values.insert(name, value);
                }
                None if variable.required => bail!("the variable {name} is required and not set"),
                None => {}
            }
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        let variables = component.variables.into_iter();
        let variables = variables.map(|(name, template)| Ok((name, fill_in(&template, &values)?)));
        let hosts = component.allowed_outbound_hosts.iter();
        Ok(Self {
            component_id: id.clone(),
            source: directory.join(component.source),
            directory: directory.to_owned(),
            build: component.build.map(|build| build.command),
            variables: variables.collect::<Result<_>>()?,
            allowed_outbound_hosts: hosts.map(|host| fill_in(host, &values)).collect::<Result<_>>()?,
        })
    }

    pub(crate) fn build(&self) -> Result<()> {
        let Some(command) = &self.build else { return Ok(()) };
        let mut shell = Command::new("sh");
        shell.args(["-c", command]);
        if !self.directory.as_os_str().is_empty() {
            shell.current_dir(&self.directory);
        }
        let status = shell.status().context("sh")?;
        if !status.success() {
            bail!("the build command ended with {status}");
        }
        Ok(())
    }
}

/// Of the command line: `NAME=VALUE`, or `@FILE` for a table of them. The last one counts.
fn given_variables(arguments: &[String]) -> Result<HashMap<String, String>> {
    let mut given = HashMap::new();
    for argument in arguments {
        if let Some(file) = argument.strip_prefix('@') {
            given.extend(read_toml::<HashMap<String, String>>(Path::new(file))?);
        } else if let Some((name, value)) = argument.split_once('=') {
            given.insert(name.to_owned(), value.to_owned());
        } else {
            bail!("--variable {argument}: write NAME=VALUE, or @FILE");
        }
    }
    Ok(given)
}

/// `{{ name }}` is the variable's value.
fn fill_in(template: &str, values: &HashMap<String, String>) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or_else(|| format_err!("{template}: no end"))?;
        let value = values.get(name.trim());
        text.push_str(before);
        text.push_str(value.ok_or_else(|| format_err!("{template}: no such variable"))?);
        rest = after;
    }
    Ok(text + rest)
}

/// What is not understood is refused: a test that passes without it would say nothing about Spin.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuntimeConfig {
    #[serde(default)]
    pub(crate) client_tls: Vec<ClientTls>,
}

/// Paths are relative to the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientTls {
    pub(crate) component_ids: Vec<String>,
    pub(crate) hosts: Vec<String>,
    pub(crate) ca_roots_file: PathBuf,
    pub(crate) client_cert_file: PathBuf,
    pub(crate) client_private_key_file: PathBuf,
}

impl RuntimeConfig {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut config: Self = read_toml(path)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        for tls in &mut config.client_tls {
            for file in [&mut tls.ca_roots_file, &mut tls.client_cert_file, &mut tls.client_private_key_file]
            {
                *file = directory.join(&file);
            }
        }
        Ok(config)
    }
}

fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_that_is_not_understood_is_refused() {
        for section in [
            "[outbound_networking]\nblock_networks = [\"private\"]",
            "[[variables_provider]]\ntype = \"vault\"",
        ] {
            let error = toml::from_str::<RuntimeConfig>(section).err().expect("it is refused");
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
        assert!(toml::from_str::<RuntimeConfig>("").is_ok());
    }
}
