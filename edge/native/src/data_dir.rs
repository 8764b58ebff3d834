//! The data directory: the store, and the secrets of whoever has it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use catalog::{ApiKeyHasher, Secret};

use crate::file;

const STORE_FILE: &str = "gateway.db";
const RUNNER_FILE: &str = "runner.toml";
const HASH_SECRET_FILE: &str = "key-hash.secret";
const MASTER_KEYS_FILE: &str = "master.keys";
const TOKEN_SECRET_FILE: &str = "admin-token.secret";

#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Where it is, whether it exists or not.
    pub(crate) fn locate(given: Option<&Path>) -> Self {
        Self(given.map_or_else(default_path, Path::to_owned))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn store_file(&self) -> PathBuf {
        self.0.join(STORE_FILE)
    }

    pub(crate) fn hash_secret_file(&self) -> PathBuf {
        self.0.join(HASH_SECRET_FILE)
    }

    /// The keys under which the store's credentials are sealed.
    pub(crate) fn master_keys_file(&self) -> PathBuf {
        self.0.join(MASTER_KEYS_FILE)
    }

    /// The file of the runner inside the gateway.
    pub(crate) fn runner_file(&self) -> PathBuf {
        self.0.join(RUNNER_FILE)
    }

    /// Makes the directory, for its owner only.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// The hasher of API keys. Its secret is made on first use, but not where the store has keys already: without the
    /// secret they were hashed under, none of them would be valid any more.
    pub(crate) fn hasher(&self, store_has_keys: bool) -> io::Result<ApiKeyHasher> {
        let path = self.hash_secret_file();
        if store_has_keys && !path.exists() {
            return Err(io::Error::other(format!(
                "{} is missing, and the store's API keys were hashed under it; put it back from a backup, or remove \
                 {STORE_FILE} as well to begin anew",
                path.display()
            )));
        }
        Ok(ApiKeyHasher::new(&own_secret(&path)?))
    }

    /// The secret under which the tokens of this directory's administrators are signed; made on first use. Without it
    /// they just need new ones.
    pub(crate) fn token_secret(&self) -> io::Result<Secret> {
        own_secret(&self.0.join(TOKEN_SECRET_FILE))
    }
}

/// 64 hexadecimal digits in a file, which is made if it is not there.
fn own_secret(path: &Path) -> io::Result<Secret> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = crate::random::hex::<32>()?;
            match file::write_new(path, &text, file::PRIVATE) {
                Ok(()) => text,
                // Another process was first: its secret is the one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(path)?,
                Err(error) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    match text.trim() {
        secret if secret.len() == 64 => Ok(Secret::new(secret)),
        _ => Err(io::Error::other(format!(
            "{} is damaged: it must hold 64 hexadecimal digits",
            path.display()
        ))),
    }
}

fn default_path() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map_or_else(|| PathBuf::from("dyad-gateway-data"), |base| base.join("dyad-gateway"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use catalog::ApiKey;

    use super::*;

    #[test]
    fn the_secret_stays_the_same_and_is_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = DataDir::locate(Some(&directory.path().join("a/b")));
        data_dir.create().unwrap();
        data_dir.create().unwrap();
        let key = ApiKey::from_random(&[7; 32]);
        let hash = data_dir.hasher(false).unwrap().hash(&key);
        assert_eq!(data_dir.hasher(false).unwrap().hash(&key), hash);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(data_dir.path()), 0o700);
        assert_eq!(mode(&data_dir.path().join(HASH_SECRET_FILE)), 0o600);
        let files = fs::read_dir(data_dir.path()).unwrap().count();
        assert_eq!(files, 1, "no draft is left behind");
    }

    #[test]
    fn a_lost_secret_is_not_replaced_where_keys_depend_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = DataDir::locate(Some(directory.path()));
        let error = data_dir.hasher(true).unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
        assert!(!directory.path().join(HASH_SECRET_FILE).exists());
        data_dir.hasher(false).unwrap();
        data_dir.hasher(true).unwrap();
    }

    #[test]
    fn a_damaged_secret_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(HASH_SECRET_FILE);
        fs::write(&path, "short").unwrap();
        let error = DataDir::locate(Some(directory.path())).hasher(false).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
    }
}
