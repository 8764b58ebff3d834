//! The body of a request → a checked provider, or everything that is wrong with it, each with its JSON pointer (RFC 6901).
//!
//! The catalog has the rules and speaks of the form that is stored; this is the translation, there and back.

use std::collections::HashSet;

use catalog::{CredentialRef, Provider, Secret};
use serde_json::{Map, Value};

use crate::error::{AdminError, Detail};

/// A provider that a request wrote, without its credential.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) provider: Provider,
    pub(crate) credential: WrittenCredential,
}

/// What a request says of the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WrittenCredential {
    /// Nothing: it stays as it is.
    Unsaid,
    /// There is to be none.
    Removed,
    /// `env:NAME` or `file:PATH`.
    Reference(CredentialRef),
    /// The credential itself.
    Given(Secret),
}

/// Members as requests write them, and as the catalog has them.
type Members = &'static [(&'static str, &'static str)];

pub(super) const PROVIDER: Members = &[
    ("name", "name"),
    ("slug", "slug"),
    ("type", "type"),
    ("description", "description"),
    ("enabled", "enabled"),
    ("rank", "rank"),
    ("models", "models"),
];
pub(super) const HTTP: Members = &[
    ("baseUrl", "base_url"),
    ("discoverModels", "discover_models"),
    ("forwardHeaders", "forward_headers"),
    ("timeouts", "timeouts"),
];
pub(super) const SPAWN_CLI: Members = &[
    ("cli", "cli"),
    ("modelParameter", "model_parameter"),
    ("parameters", "parameters"),
    ("timeouts", "timeouts"),
];
pub(super) const TIMEOUTS: Members = &[
    ("connectMs", "connect_ms"),
    ("firstByteMs", "first_byte_ms"),
    ("idleMs", "idle_ms"),
    ("totalMs", "total_ms"),
];
pub(super) const MODEL: Members = &[
    ("dyadModelId", "id"),
    ("adapterModelId", "upstream_id"),
    ("maxTokens", "max_tokens"),
    ("contextWindow", "context_window"),
    ("capabilities", "capabilities"),
    ("created", "created"),
    ("ownedBy", "owned_by"),
];
pub(super) const CAPABILITIES: Members =
    &[("chat", "chat"), ("embeddings", "embeddings"), ("reasoning", "reasoning"), ("images", "images")];
pub(super) const CREDENTIALS: Members = &[("apiKey", "apiKey")];

/// Of objects, not of what is written: what answers show beside it.
const READ_ONLY: &[&str] =
    &["id", "origin", "createdBy", "createdAt", "updatedAt", "version", "health", "lastTest", "warnings"];

/// Longest credential, in bytes: as much as goes into a header everywhere.
const MAX_CREDENTIAL_BYTES: usize = 8 * 1024;

/// Checks a provider as a request wrote it. `null` counts as absent, but for the credential.
pub(crate) fn provider(body: Value) -> Result<Written, AdminError> {
    let mut mistakes = Mistakes::default();
    let Value::Object(mut members) = body else {
        mistakes.add("", format!("must be an object, not {}", kind(&body)));
        return Err(mistakes.all());
    };
    let adapter = match members.get("type").and_then(Value::as_str) {
        Some("proxy" | "local") => Some(HTTP),
        Some("spawn-cli") => Some(SPAWN_CLI),
        // What it may have depends on its type, so there is no telling what else is wrong.
        _ => None,
    };
    let config = members.remove("adapterConfig");
    let credentials = members.remove("credentials");
    let mut raw = Map::new();
    if let Some(adapter) = adapter {
        match config {
            Some(Value::Object(config)) => {
                raw = rename(config, adapter, "/adapterConfig", &mut mistakes);
                if let Some(Value::Object(parameters)) = raw.get_mut("parameters") {
                    parameters.retain(|_, value| !value.is_null());
                }
                if let Some(timeouts) = raw.remove("timeouts") {
                    let pointer = "/adapterConfig/timeouts";
                    raw.insert("timeouts".to_owned(), renamed(timeouts, TIMEOUTS, pointer, &mut mistakes));
                }
            }
            None | Some(Value::Null) => mistakes.add("/adapterConfig", "is required".to_owned()),
            Some(other) => {
                mistakes.add("/adapterConfig", format!("must be an object, not {}", kind(&other)));
            }
        }
    }
    let mut credential = WrittenCredential::Unsaid;
    if let Some(credentials) = credentials {
        if credentials.is_null() {
            let message = "must not be null: {\"apiKey\": null} takes the key away, without it the key stays";
            mistakes.add("/credentials", message.to_owned());
        } else if adapter == Some(SPAWN_CLI) {
            let message = "a spawn-cli provider has none: the vendor's key of a CLI is in the file of the runners' operator";
            mistakes.add("/credentials", message.to_owned());
        } else {
            credential = read_credentials(credentials, &mut mistakes);
        }
    }
    raw.extend(rename(members, PROVIDER, "", &mut mistakes));
    if let Some(Value::Array(models)) = raw.get_mut("models") {
        for (index, model) in models.iter_mut().enumerate() {
            let pointer = format!("/models/{index}");
            let mut read = renamed(model.take(), MODEL, &pointer, &mut mistakes);
            if let Some(capabilities) = read.get_mut("capabilities") {
                let pointer = format!("{pointer}/capabilities");
                *capabilities = renamed(capabilities.take(), CAPABILITIES, &pointer, &mut mistakes);
            }
            *model = read;
        }
    }
    match Provider::check(&Value::Object(raw).into()) {
        Ok(provider) if mistakes.is_empty() => Ok(Written { provider, credential }),
        Ok(_) => Err(mistakes.all()),
        Err(violations) => {
            for violation in violations.0 {
                let pointer = pointer_of(&violation.path);
                if adapter.is_some() || !pointer.starts_with("/adapterConfig") {
                    mistakes.add(pointer, in_wire_names(&violation.message));
                }
            }
            Err(mistakes.all())
        }
    }
}

/// Checks `credentials` of a provider.
fn read_credentials(credentials: Value, mistakes: &mut Mistakes) -> WrittenCredential {
    let Value::Object(mut members) = credentials else {
        mistakes.add("/credentials", format!("must be an object, not {}", kind(&credentials)));
        return WrittenCredential::Unsaid;
    };
    let key = members.remove("apiKey");
    rename(members, CREDENTIALS, "/credentials", mistakes);
    match key {
        None => WrittenCredential::Unsaid,
        Some(Value::Null) => WrittenCredential::Removed,
        Some(Value::String(text)) => credential(Secret::new(text)).unwrap_or_else(|message| {
            mistakes.add("/credentials/apiKey", message.to_owned());
            WrittenCredential::Unsaid
        }),
        Some(other) => {
            let wanted = "the key itself, \"env:NAME\" or \"file:PATH\"; without credentials the one that there is stays";
            mistakes.add("/credentials/apiKey", format!("must be a string ({wanted}), not {}", kind(&other)));
            WrittenCredential::Unsaid
        }
    }
}

/// A credential itself, or where it is. `Err` says what is wrong without repeating it.
pub(crate) fn credential(text: Secret) -> Result<WrittenCredential, &'static str> {
    let written = text.expose();
    if written.len() > MAX_CREDENTIAL_BYTES {
        return Err("is too long: at most 8192 bytes are allowed");
    }
    if written.starts_with("env:") || written.starts_with("file:") {
        return CredentialRef::parse(written).map(WrittenCredential::Reference);
    }
    if written.starts_with("sealed:") {
        return Err("is a sealed value, which opens nowhere but in its record: give the key itself");
    }
    if written.is_empty() {
        return Err("must not be empty; null takes the credential away");
    }
    if written.trim() != written {
        return Err("must not begin or end with white space");
    }
    // It goes into a header.
    if !written.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("must be one line of ASCII characters");
    }
    Ok(WrittenCredential::Given(text))
}

/// As [`rename`], of anything: what is no object is left for the catalog to refuse.
fn renamed(value: Value, members: Members, pointer: &str, mistakes: &mut Mistakes) -> Value {
    match value {
        Value::Object(map) => Value::Object(rename(map, members, pointer, mistakes)),
        other => other,
    }
}

/// The members by their names in the catalog. Those that are not known are noted and left out.
fn rename(
    given: Map<String, Value>,
    members: Members,
    pointer: &str,
    mistakes: &mut Mistakes,
) -> Map<String, Value> {
    let mut named = Map::new();
    for (name, value) in given {
        match members.iter().find(|(wire, _)| *wire == name) {
            Some((_, own)) => drop(named.insert((*own).to_owned(), value)),
            None => {
                mistakes.add(format!("{pointer}/{}", pointer_part(&name)), refusal(&name, members, pointer));
            }
        }
    }
    named
}

/// Why a member that is not known is not taken.
fn refusal(name: &str, members: Members, pointer: &str) -> String {
    match name {
        "limits" if pointer.is_empty() => {
            "providers have no limits: give limits to API keys (PATCH /admin/keys/{id})".to_owned()
        }
        "fallbacks" if pointer.is_empty() => {
            "is not written here: providers that have the same model follow each other by rank".to_owned()
        }
        _ if pointer.is_empty() && READ_ONLY.contains(&name) => "cannot be written: leave it out".to_owned(),
        _ => {
            let mut known: Vec<_> = members.iter().map(|(wire, _)| *wire).collect();
            if pointer.is_empty() {
                known.extend(["adapterConfig", "credentials"]);
            }
            format!("unknown key; known are {}", known.join(", "))
        }
    }
}

/// Where requests have what the catalog calls `models[2].upstream_id`: `/models/2/adapterModelId`.
fn pointer_of(path: &str) -> String {
    if path == "credential" {
        return "/credentials/apiKey".to_owned();
    }
    // The names of parameters are somebody's choice, dots included.
    if let Some(name) = path.strip_prefix("parameters.") {
        return format!("/adapterConfig/parameters/{}", pointer_part(name));
    }
    let first = path.split(['.', '[']).next().unwrap_or_default();
    let of_adapter = HTTP.iter().chain(SPAWN_CLI).any(|(_, own)| *own == first);
    let mut pointer = String::from(if of_adapter { "/adapterConfig" } else { "" });
    for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
        pointer.push('/');
        pointer.push_str(part.strip_suffix(']').unwrap_or_else(|| wire_name(part)));
    }
    pointer
}

/// What requests call a member of the catalog's.
fn wire_name(own: &str) -> &str {
    let all = [PROVIDER, HTTP, SPAWN_CLI, TIMEOUTS, MODEL, CAPABILITIES];
    all.into_iter().flatten().find(|(_, name)| *name == own).map_or(own, |(wire, _)| *wire)
}

/// The catalog's messages name other members: those of several words, which no sentence has.
fn in_wire_names(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for piece in
        message.split_inclusive(|character: char| !character.is_ascii_lowercase() && character != '_')
    {
        let word =
            piece.trim_end_matches(|character: char| !character.is_ascii_lowercase() && character != '_');
        text.push_str(if word.contains('_') { wire_name(word) } else { word });
        text.push_str(&piece[word.len()..]);
    }
    text
}

/// A name in a pointer. It is somebody's input: escaped, and cut where no real name reaches.
fn pointer_part(name: &str) -> String {
    let name: String = name.chars().take(64).flat_map(char::escape_debug).collect();
    name.replace('~', "~0").replace('/', "~1")
}

/// What a value is; never its content, which may be a secret in the wrong place.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What was found, each place once: where something as a whole is wrong, nothing is said of its parts.
#[derive(Debug, Default)]
struct Mistakes {
    found: Vec<Detail>,
    pointers: HashSet<String>,
    more: usize,
}

impl Mistakes {
    /// A megabyte of unknown keys must not become many megabytes of answer.
    const MAX: usize = 100;

    fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    fn add(&mut self, pointer: impl Into<String>, message: String) {
        let pointer = pointer.into();
        let above = pointer.match_indices('/').map(|(index, _)| &pointer[..index]);
        if above.chain([pointer.as_str()]).any(|place| self.pointers.contains(place)) {
            return;
        }
        if self.found.len() == Self::MAX {
            self.more += 1;
            return;
        }
        self.pointers.insert(pointer.clone());
        self.found.push(Detail { pointer, message });
    }

    fn all(mut self) -> AdminError {
        if self.more > 0 {
            let message = format!("{} more mistakes are not listed", self.more);
            self.found.push(Detail::new("", message));
        }
        AdminError::Invalid(self.found)
    }
}

#[cfg(test)]
mod tests;
