//! Where a gateway keeps everything: which of the two, and how it is opened.

use std::path::PathBuf;
use std::sync::Arc;

use catalog::{
    ApiKeyHasher, CredentialRef, KeyStore as _, MasterKeys, Secret, Store as _, StoreError, Violation,
    Violations,
};
use edge_host::variables;
use store::{AccessPart, DynamoStore, StoreAccess};
use toml::Value;

use crate::cli::{CommonArgs, StoreArgs};
use crate::config;
use crate::credential;
use crate::data_dir::DataDir;
use crate::embedded::OpenError;
use crate::master_keys::{self, MasterKeyFile};

const SECRET_RULE: &str = "must be \"env:NAME\" or \"file:PATH\": the secret itself does not belong here";
const KNOWN: [&str; 5] = ["table", "region", "endpoint", "key_secret", "master_keys"];

/// A file of the master keys, which may change while a gateway serves.
pub(crate) const MASTER_KEYS_FILE: &str = "DYAD_MASTER_KEYS_FILE";

/// Where a gateway keeps everything.
#[derive(Clone, Debug)]
pub enum StoreLocation {
    /// In a file of this directory (made, for its owner only, if it is not there), beside the secret under which API
    /// keys are hashed and the master keys under which credentials are sealed. For one machine.
    DataDir(PathBuf),
    /// In a `DynamoDB` table, for any number of instances.
    DynamoDb {
        access: StoreAccess,
        /// The secret under which API keys are hashed: at least 32 bytes, the same wherever the table is used.
        key_secret: CredentialRef,
        /// The master keys under which credentials are sealed, as [`catalog::KeyRing`] reads them; without them none is
        /// sealed or opened.
        master_keys: CredentialRef,
    },
}

/// A store that is open.
pub(crate) struct OpenedStore {
    pub(crate) store: Arc<DynamoStore>,
    location: StoreLocation,
}

impl StoreLocation {
    /// The store: in the data directory, made if need be; or on the table, which is not asked for anything yet.
    pub(crate) async fn open(&self) -> Result<OpenedStore, OpenError> {
        let store = match self {
            Self::DataDir(directory) => {
                let data_dir = DataDir::locate(Some(directory));
                data_dir.create().map_err(|source| OpenError::DataDir { path: directory.clone(), source })?;
                DynamoStore::open_embedded(data_dir.store_file()).await.map_err(|source| {
                    OpenError::Store { path: directory.clone(), source: Box::new(source) }
                })?
            }
            Self::DynamoDb { access, .. } => DynamoStore::connect(access).await?,
        };
        Ok(OpenedStore { store: Arc::new(store), location: self.clone() })
    }
}

/// For messages: `the store in DIRECTORY`, or `the table NAME in REGION`.
impl std::fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DataDir(directory) => write!(f, "the store in {}", directory.display()),
            Self::DynamoDb { access, .. } => access.fmt(f),
        }
    }
}

impl OpenedStore {
    /// The hasher of the API keys that this store has; an error if they were hashed under another secret.
    pub(crate) async fn hasher(&self) -> Result<ApiKeyHasher, OpenError> {
        let hasher = self.given_hasher().await?;
        match self.store.key_secret().await {
            Ok(Some(stored)) if stored.value != hasher.check() => {
                Err(OpenError::KeySecret(self.other_key_secret()))
            }
            // One that cannot be read is named where the configuration is read.
            Ok(_) | Err(StoreError::Unreadable(_)) => Ok(hasher),
            Err(error) => Err(self.error(error)),
        }
    }

    /// The hasher under the secret that is at hand, whatever the store says.
    pub(crate) async fn given_hasher(&self) -> Result<ApiKeyHasher, OpenError> {
        match &self.location {
            StoreLocation::DataDir(directory) => {
                let has_keys = self.has_keys().await.map_err(|error| self.error(error))?;
                DataDir::locate(Some(directory))
                    .hasher(has_keys)
                    .map_err(|source| OpenError::DataDir { path: directory.clone(), source })
            }
            StoreLocation::DynamoDb { key_secret, .. } => {
                table_hasher(key_secret).map_err(OpenError::KeySecret)
            }
        }
    }

    /// The master keys; a data directory's are made on first use. `Err` says what is wrong with them.
    pub(crate) fn master_keys(&self) -> Result<Arc<dyn MasterKeys>, String> {
        match &self.location {
            StoreLocation::DataDir(directory) => {
                let path = DataDir::locate(Some(directory)).master_keys_file();
                MasterKeyFile::open_or_make(&path).map(|file| Arc::new(file) as _)
            }
            StoreLocation::DynamoDb { master_keys, .. } => master_keys::given(master_keys),
        }
    }

    /// The secret under which administrators' tokens are signed, made on first use; a table has none.
    pub(crate) fn token_secret(&self) -> Result<Option<Secret>, OpenError> {
        match &self.location {
            StoreLocation::DataDir(directory) => {
                let secret = DataDir::locate(Some(directory)).token_secret();
                let failed = |source| OpenError::DataDir { path: directory.clone(), source };
                secret.map(Some).map_err(failed)
            }
            StoreLocation::DynamoDb { .. } => Ok(None),
        }
    }

    fn other_key_secret(&self) -> String {
        let (location, what) = (&self.location, "API keys were hashed under another secret than");
        match location {
            StoreLocation::DataDir(directory) => {
                let secret = DataDir::locate(Some(directory)).hash_secret_file();
                format!("{location}: its {what} the one in {}; put that back from a backup", secret.display())
            }
            StoreLocation::DynamoDb { key_secret, .. } => format!(
                "{location}: its {what} the given one ({}); give the one of the table's other users in {}, or begin with this one, under which no API key made so far is good: 'dyad-gateway store init --replace-key-secret'",
                source_of(key_secret),
                variables::KEY_SECRET
            ),
        }
    }

    /// Whether any API key was ever made: their writes are counted, and none is ever deleted.
    pub(crate) async fn has_keys(&self) -> Result<bool, StoreError> {
        match self.store.config_version().await {
            Ok(version) => Ok(version.keys.iter().any(|writes| *writes > 0)),
            Err(StoreError::Unreadable(_)) => Ok(!self.store.keys().await?.keys.is_empty()),
            Err(error) => Err(error),
        }
    }

    /// What failed at this store, with what to do about it where that is known.
    pub(crate) fn error(&self, error: StoreError) -> OpenError {
        let StoreLocation::DynamoDb { access, .. } = &self.location else { return OpenError::Load(error) };
        OpenError::Table { access: Box::new(access.clone()), advice: advice(&error, access), error }
    }
}

fn table_hasher(key_secret: &CredentialRef) -> Result<ApiKeyHasher, String> {
    let name = source_of(key_secret);
    let wrong = |reason: &str| {
        format!(
            "the secret under which API keys are hashed ({name}): {reason}; give the one of the table's other users in {}, or make one with 'dyad-gateway store init --new-key-secret FILE'",
            variables::KEY_SECRET
        )
    };
    let secret = credential::read(key_secret).map_err(|reason| wrong(&reason))?;
    let secret = secret.ok_or_else(|| wrong("there is none"))?;
    edge_host::key_hasher(secret.expose()).map_err(wrong)
}

fn source_of(key_secret: &CredentialRef) -> &str {
    match key_secret {
        CredentialRef::Env(name) => name,
        CredentialRef::File(path) => path,
        CredentialRef::Inline(_) | CredentialRef::Sealed(_) | CredentialRef::None => "the given one",
    }
}

/// What helps against a failure that does not pass by itself; the codes are DynamoDB's.
fn advice(error: &StoreError, access: &StoreAccess) -> String {
    let reason = match error {
        StoreError::NotSetUp { .. } => {
            let made =
                if access.is_aws() { "Terraform makes it" } else { "'dyad-gateway store init' makes it" };
            return format!("; check the table's name and its region, or {made}");
        }
        StoreError::Denied { reason } | StoreError::Unavailable { reason } => reason.as_str(),
        StoreError::Conflict { .. }
        | StoreError::Refused { .. }
        | StoreError::Unreadable(_)
        | StoreError::Broken { .. } => "",
    };
    let has = |codes: &[&str]| codes.iter().any(|code| reason.contains(code));
    let credentials = [
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "InvalidClientTokenId",
    ];
    if has(&credentials) {
        return "; check the credentials (AWS_ACCESS_KEY_ID and so on), that they are of this region's partition, and this machine's clock".to_owned();
    }
    if has(&["AccessDeniedException"]) {
        return "; the credentials are good, and may not do this: see the policies in infra/terraform"
            .to_owned();
    }
    if has(&["ExpiredTokenException"]) {
        return "; the credentials have expired".to_owned();
    }
    if has(&["no connection"]) {
        return format!("; check the region and {}", variables::ENDPOINT);
    }
    String::new()
}

/// `[store]` of the configuration file. Nothing of it is required there.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreSection {
    table: Option<String>,
    region: Option<String>,
    endpoint: Option<String>,
    key_secret: Option<CredentialRef>,
    master_keys: Option<CredentialRef>,
}

/// The checked form of `[store]`, as far as it is right by itself.
pub(crate) fn check(value: Value, violations: &mut Violations) -> StoreSection {
    let mut note =
        |path: String, message: &str| violations.0.push(Violation { path, message: message.to_owned() });
    let Value::Table(mut table) = value else {
        note("store".to_owned(), "must be a table: write [store]");
        return StoreSection::default();
    };
    let mut text = |name: &str, rule: &str| match table.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        Some(_) => {
            note(format!("store.{name}"), rule);
            None
        }
        None => None,
    };
    let section = StoreSection {
        table: text("table", "must be a table's name"),
        region: text("region", "must be an AWS region"),
        endpoint: text("endpoint", "must be a URL"),
        key_secret: None,
        master_keys: None,
    };
    let mut secret = |name: &str| {
        let reference = table.remove(name)?;
        let read = reference.as_str().and_then(secret_reference);
        if read.is_none() {
            violations.0.push(Violation { path: format!("store.{name}"), message: SECRET_RULE.to_owned() });
        }
        read
    };
    let (key_secret, master_keys) = (secret("key_secret"), secret("master_keys"));
    for name in table.keys() {
        let message = format!("unknown key; known are {}", KNOWN.join(", "));
        violations.0.push(Violation { path: format!("store.{name}"), message });
    }
    StoreSection { key_secret, master_keys, ..section }
}

/// `env:NAME` or `file:PATH`.
pub(crate) fn secret_reference(text: &str) -> Option<CredentialRef> {
    match text.split_once(':') {
        Some(("env", name)) if !name.is_empty() => Some(CredentialRef::Env(name.to_owned())),
        Some(("file", path)) if !path.is_empty() => Some(CredentialRef::File(path.to_owned())),
        _ => None,
    }
}

/// A value and what its giver calls it.
struct Named {
    value: String,
    name: &'static str,
}

/// Where the store of a command is: flag before variable before file. The error has a line for each thing to mend.
pub(crate) fn locate(
    args: &StoreArgs,
    section: &StoreSection,
    common: &CommonArgs,
    get: impl Fn(&str) -> Option<String>,
) -> Result<StoreLocation, Vec<String>> {
    let named = |name, value: Option<String>| {
        value.filter(|value| !value.is_empty()).map(|value| Named { value, name })
    };
    let first = |flag, given: &Option<String>, variable, in_file, of_file: &Option<String>| {
        named(flag, given.clone())
            .or_else(|| named(variable, get(variable)))
            .or_else(|| named(in_file, of_file.clone()))
    };
    let table = first("--table", &args.table, variables::TABLE, "[store] table", &section.table);
    let region = first("--region", &args.region, variables::REGION, "[store] region", &section.region);
    let endpoint =
        first("--endpoint", &args.endpoint, variables::ENDPOINT, "[store] endpoint", &section.endpoint);
    let Some(table) = table else {
        let in_vain = [("--region", &args.region), ("--endpoint", &args.endpoint)];
        let in_vain: Vec<_> = in_vain
            .iter()
            .filter(|(_, given)| given.is_some())
            .map(|(flag, _)| {
                format!(
                    "{flag}: it says where a table is, and no table is named: add --table or {}",
                    variables::TABLE
                )
            })
            .collect();
        let directory = DataDir::locate(common.data_dir.as_deref()).path().to_owned();
        return if in_vain.is_empty() { Ok(StoreLocation::DataDir(directory)) } else { Err(in_vain) };
    };
    let mut problems = Vec::new();
    if region.is_none() {
        problems.push(format!(
            "the table {} needs a region: add --region, {} or [store] region",
            table.value,
            variables::REGION
        ));
    }
    let value = |named: &Option<Named>| named.as_ref().map(|named| named.value.clone());
    let access = StoreAccess {
        table: table.value.clone(),
        region: value(&region).unwrap_or_default(),
        endpoint_url: value(&endpoint),
    };
    for (part, message) in access.violations() {
        let name = match part {
            AccessPart::Table => Some(&table),
            AccessPart::Region => region.as_ref(),
            AccessPart::Endpoint => endpoint.as_ref(),
        };
        problems.push(format!("{}: {message}", name.map_or("the table", |named| named.name)));
    }
    // As the others: what the environment says counts before the file.
    let key_secret = match &section.key_secret {
        Some(reference) if get(variables::KEY_SECRET).is_none_or(|secret| secret.is_empty()) => {
            reference.clone()
        }
        _ => CredentialRef::Env(variables::KEY_SECRET.to_owned()),
    };
    let given = |variable| get(variable).filter(|value| !value.is_empty());
    let master_keys = match (given(variables::MASTER_KEYS), given(MASTER_KEYS_FILE)) {
        (Some(_), Some(_)) => {
            problems.push(format!(
                "{} and {MASTER_KEYS_FILE} are both set: keep one of them",
                variables::MASTER_KEYS
            ));
            CredentialRef::None
        }
        (Some(_), None) => CredentialRef::Env(variables::MASTER_KEYS.to_owned()),
        (None, Some(path)) => CredentialRef::File(path),
        (None, None) => section.master_keys.clone().unwrap_or(CredentialRef::None),
    };
    if problems.is_empty() {
        Ok(StoreLocation::DynamoDb { access, key_secret, master_keys })
    } else {
        Err(problems)
    }
}

/// The same for a command that needs nothing else of the configuration file.
pub(crate) fn locate_for(args: &StoreArgs, common: &CommonArgs) -> Result<StoreLocation, Vec<String>> {
    let section = match &args.config {
        Some(path) => config::read_only(path, &["store"])?.store,
        None => StoreSection::default(),
    };
    locate(args, &section, common, variable)
}

/// A variable of the environment; none if it is not text.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
