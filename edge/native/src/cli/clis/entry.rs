//! `runner.toml` in the data directory: the CLIs that run on this machine. What else its owner wrote there stays as it is.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use crate::file::{self, PRIVATE};

const HEADER: &str = "# What runs in sandboxes on this machine. 'dyad-gateway clis' adds and removes entries; they may be edited.\n";

/// What an operator chooses about a known CLI. What is not said stays as the entry has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Choices {
    pub(super) base_url: Option<String>,
    /// `env:NAME` or `file:PATH`.
    pub(super) credential: String,
    /// The first is the default.
    pub(super) models: Vec<String>,
}

/// An entry, as lists show it.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Summary {
    pub(super) name: String,
    pub(super) image: Option<String>,
    pub(super) models: Vec<String>,
    pub(super) upstreams: Vec<String>,
    pub(super) credentials: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum EntryError {
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is not TOML: {reason}", path.display())]
    Syntax { path: PathBuf, reason: String },
    #[error("{}: 'cli' must be written as [[cli]] tables", .0.display())]
    Shape(PathBuf),
}

/// The entry of a known CLI as it is to be written.
///
/// `template` is one of `runner/images`, whose shape a test checks.
pub(super) fn fill(template: &str, choices: &Choices) -> Result<String, toml_edit::TomlError> {
    let mut document: DocumentMut = template.parse()?;
    let cli = &mut document["cli"][0];
    let upstream = &mut cli["egress"]["upstream"][0];
    upstream["credential"] = value(&choices.credential);
    if let Some(url) = &choices.base_url {
        upstream["url"] = value(url);
    }
    if let Some(first) = choices.models.first() {
        cli["parameters"]["model"]["values"] = value(choices.models.iter().collect::<Array>());
        cli["parameters"]["model"]["default"] = value(first);
    }
    Ok(document.to_string())
}

/// The tag of an entry's image, if it was built on this machine.
pub(super) fn local_image(template: &str) -> Option<String> {
    let document: DocumentMut = template.parse().ok()?;
    image(document.get("cli")?.as_array_of_tables()?.get(0)?)
}

/// The file, read and perhaps changed.
pub(super) struct RunnerFile {
    path: PathBuf,
    document: DocumentMut,
}

impl RunnerFile {
    /// One that is not there is empty.
    pub(super) fn read(path: &Path) -> Result<Self, EntryError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => HEADER.to_owned(),
            Err(source) => return Err(EntryError::File { path: path.to_owned(), source }),
        };
        let file = Self { path: path.to_owned(), document: parse(path, &text)? };
        let is_well_shaped = file.document.get("cli").is_none_or(|cli| cli.as_array_of_tables().is_some());
        if is_well_shaped { Ok(file) } else { Err(EntryError::Shape(path.to_owned())) }
    }

    /// Reads the file as it is now, changes it and writes it; no other command comes between. Its directory must be there.
    pub(super) fn change<T, E: From<EntryError>>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = lock(path)?;
        let mut file = Self::read(path)?;
        let changed = change(&mut file)?;
        file.write()?;
        Ok(changed)
    }

    pub(super) fn text(&self) -> String {
        self.document.to_string()
    }

    /// Adds an entry, in the place of one with the same name. Whether there was one.
    pub(super) fn put(&mut self, name: &str, entry: &str) -> Result<bool, EntryError> {
        let is_replaced = self.remove(name);
        // As text: tables of two documents have positions that would mingle.
        let mut text = self.document.to_string();
        if !text.is_empty() && !text.ends_with("\n\n") {
            text.push('\n');
        }
        self.document = parse(&self.path, &(text + entry))?;
        Ok(is_replaced)
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Some(clis) = self.document.get_mut("cli").and_then(Item::as_array_of_tables_mut) else {
            return false;
        };
        let before = clis.len();
        clis.retain(|cli| !is_called(cli, name));
        let is_removed = clis.len() < before;
        if clis.is_empty() {
            self.document.remove("cli");
        }
        is_removed
    }

    pub(super) fn list(&self) -> Vec<Summary> {
        self.clis().into_iter().flat_map(ArrayOfTables::iter).map(summary).collect()
    }

    /// Where the Docker engine listens, if the file says so.
    pub(super) fn engine_socket(&self) -> Option<PathBuf> {
        let socket = self.document.get("engine")?.get("socket")?.as_str()?;
        Some(self.path.parent().unwrap_or(Path::new("")).join(socket))
    }

    fn write(&self) -> Result<(), EntryError> {
        let written = file::replace(&self.path, &self.document.to_string(), PRIVATE);
        written.map_err(|source| EntryError::File { path: self.path.clone(), source })
    }

    fn clis(&self) -> Option<&ArrayOfTables> {
        self.document.get("cli")?.as_array_of_tables()
    }
}

/// Held until it is dropped. Its holder reads and writes a small file, so nobody waits long.
fn lock(path: &Path) -> Result<File, EntryError> {
    let path = path.with_extension("toml.lock");
    let locked = File::options().create(true).append(true).open(&path).and_then(|file| {
        file.lock()?;
        Ok(file)
    });
    locked.map_err(|source| EntryError::File { path, source })
}

fn parse(path: &Path, text: &str) -> Result<DocumentMut, EntryError> {
    text.parse().map_err(|error: toml_edit::TomlError| EntryError::Syntax {
        path: path.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    })
}

fn is_called(cli: &Table, name: &str) -> bool {
    cli.get("name").and_then(Item::as_str) == Some(name)
}

fn image(cli: &Table) -> Option<String> {
    cli.get("image")?.get("local")?.as_str().map(str::to_owned)
}

fn summary(cli: &Table) -> Summary {
    let models = cli
        .get("parameters")
        .and_then(|parameters| parameters.get("model")?.get("values")?.as_array())
        .into_iter()
        .flat_map(Array::iter)
        .filter_map(|model| model.as_str().map(str::to_owned));
    let upstreams = || {
        let upstreams = cli.get("egress").and_then(|egress| egress.get("upstream")?.as_array_of_tables());
        upstreams.into_iter().flat_map(ArrayOfTables::iter)
    };
    let of_upstreams = |key: &str| {
        upstreams().filter_map(|upstream| Some(upstream.get(key)?.as_str()?.to_owned())).collect()
    };
    Summary {
        name: cli.get("name").and_then(Item::as_str).unwrap_or_default().to_owned(),
        image: image(cli),
        models: models.collect(),
        upstreams: of_upstreams("url"),
        credentials: of_upstreams("credential"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dyad_runner::config::model::{Allowed, Image, Isolated, RunnerConfig};

    use clap::ValueEnum as _;

    use super::super::kit::Known;
    use super::*;

    /// What the runner makes of a file with these entries.
    fn checked(entries: &str) -> RunnerConfig {
        let rest = "listen = \"127.0.0.1:7443\"\n[node]\nid = \"n\"\nurl = \"https://localhost:7443\"\n\
                    [tls]\ncertificate = \"a\"\nkey = \"b\"\nclient_ca = \"c\"\nallowed_clients = [\"edge\"]\n";
        let table: toml::Table = format!("{rest}{entries}").parse().unwrap();
        RunnerConfig::from_table(&table, Path::new("/etc")).unwrap_or_else(|wrong| panic!("{wrong:?}"))
    }

    fn key() -> Choices {
        Choices { credential: "env:SOME_KEY".to_owned(), ..Choices::default() }
    }

    #[test]
    fn the_runner_takes_every_entry_and_it_names_the_image_that_is_built() {
        for known in Known::value_variants() {
            let kit = known.kit();
            let config = checked(&fill(kit.entry, &key()).unwrap());
            let cli = &config.clis[0];
            assert_eq!(cli.name, kit.name);
            let Isolated::Container { image: Image::Local(tag), .. } = &cli.isolated else {
                panic!("{:?}", cli.isolated);
            };
            assert_eq!(local_image(kit.entry).as_ref(), Some(tag));
            let dockerfile = kit.files.iter().find(|(name, _)| *name == "Dockerfile").unwrap().1;
            let version = dockerfile.lines().find_map(|line| line.strip_prefix("ARG VERSION=")).unwrap();
            assert_eq!(tag, &format!("dyad-cli-{}:{version}", kit.name));
            for copied in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")) {
                let file = copied.split(' ').next().unwrap();
                let is_there = kit.files.iter().any(|(name, _)| *name == file);
                assert!(is_there || file.starts_with("--from="), "{file}");
            }
        }
    }

    #[test]
    fn choices_are_filled_in_and_nothing_can_break_out_of_them() {
        let models = vec!["b\"\n[x]\n".to_owned(), "a".to_owned()];
        let choices = Choices {
            base_url: Some("http://127.0.0.1:9/v1".to_owned()),
            credential: "file:/a \"b\"/key".to_owned(),
            models: models.clone(),
        };
        for known in Known::value_variants() {
            let text = fill(known.kit().entry, &choices).unwrap();
            let table: toml::Table = text.parse().unwrap();
            assert_eq!(table.len(), 1, "{text}");
            let upstream = &table["cli"][0]["egress"]["upstream"][0];
            assert_eq!(upstream["url"].as_str(), Some("http://127.0.0.1:9/v1"));
            assert_eq!(upstream["credential"].as_str(), Some("file:/a \"b\"/key"));
            let choices = Choices { models: vec!["b".to_owned(), "a".to_owned()], ..choices.clone() };
            let config = checked(&fill(known.kit().entry, &choices).unwrap());
            let model = &config.clis[0].parameters["model"];
            assert_eq!(model.allowed, Allowed::OneOf(vec!["b".to_owned(), "a".to_owned()]));
            assert_eq!(model.default.as_deref(), Some("b"));
        }
    }

    #[test]
    fn what_the_owner_wrote_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runner.toml");
        let own = "# mine\n[capacity]\nruns = 2 # two\n\n[[cli]]\nname = \"my-agent\" # mine too\ndialect = \"text\"\n\
                   image = { builtin = \"echo\" }\n\n[engine]\nsocket = \"docker.sock\"\n";
        std::fs::write(&path, own).unwrap();
        let mut file = RunnerFile::read(&path).unwrap();
        assert_eq!(file.engine_socket(), Some(directory.path().join("docker.sock")));
        for known in Known::value_variants() {
            let kit = known.kit();
            file.put(kit.name, &fill(kit.entry, &key()).unwrap()).unwrap();
        }
        let other = Choices { models: vec!["new".to_owned()], ..key() };
        file.put("claude", &fill(Known::Claude.kit().entry, &other).unwrap()).unwrap();
        file.write().unwrap();

        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(own), "{text}");
        let file = RunnerFile::read(&path).unwrap();
        let models: BTreeMap<_, _> = file.list().into_iter().map(|it| (it.name, it.models)).collect();
        assert_eq!(models["claude"], ["new"]);
        assert_eq!(models.keys().collect::<Vec<_>>(), ["claude", "codex", "gemini", "my-agent"]);
        assert_eq!(checked(&text).clis.len(), 4);
    }

    #[test]
    fn what_was_added_can_be_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runner.toml");
        let mut file = RunnerFile::read(&path).unwrap();
        assert!(!file.remove("gemini"));
        file.put("gemini", &fill(Known::Gemini.kit().entry, &key()).unwrap()).unwrap();
        file.put("codex", &fill(Known::Codex.kit().entry, &key()).unwrap()).unwrap();
        file.write().unwrap();
        let mut file = RunnerFile::read(&path).unwrap();
        assert!(file.remove("gemini") && !file.remove("gemini"));
        let left: Vec<_> = file.list().into_iter().map(|it| it.name).collect();
        assert_eq!(left, ["codex"]);
        assert!(file.remove("codex"));
        file.write().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.parse::<toml::Table>().unwrap().is_empty(), "{text}");
    }

    #[test]
    fn changes_at_the_same_time_are_all_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runner.toml");
        let names: Vec<_> = (0..16).map(|number| format!("cli-{number:02}")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                let path = &path;
                scope.spawn(move || {
                    let entry = format!("[[cli]]\nname = \"{name}\"\n");
                    RunnerFile::change(path, |file| file.put(name, &entry)).unwrap();
                });
            }
        });
        let mut written: Vec<_> =
            RunnerFile::read(&path).unwrap().list().into_iter().map(|cli| cli.name).collect();
        written.sort();
        assert_eq!(written, names);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runner.toml");
        for (text, what) in
            [("[[cli", "is not TOML"), ("cli = 1", "[[cli]] tables"), ("cli = [{}]", "[[cli]] tables")]
        {
            std::fs::write(&path, text).unwrap();
            let error = RunnerFile::read(&path).err().unwrap().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
