//! Master keys, under which credentials are sealed: in a file that may change while the gateway serves, or in a variable.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catalog::{
    BoxFuture, CredentialRef, DataKey, KeyId, KeyRing, MasterKeys, SealContext, SealError, Secret,
};
use time::OffsetDateTime;

use crate::credential;
use crate::file::{self, PRIVATE};

/// The master keys that a reference names; without one there are none, and nothing can be sealed.
pub(crate) fn given(reference: &CredentialRef) -> Result<Arc<dyn MasterKeys>, String> {
    match reference {
        CredentialRef::None => Ok(Arc::new(KeyRing::default())),
        CredentialRef::File(path) => Ok(Arc::new(MasterKeyFile::open(Path::new(path))?)),
        CredentialRef::Env(name) => {
            let text = std::env::var(name).map(Secret::new);
            let text = text.map_err(|_| format!("the environment variable {name} is not set"))?;
            Ok(Arc::new(ring(&text).map_err(|wrong| format!("the environment variable {name}: {wrong}"))?))
        }
        CredentialRef::Inline(_) | CredentialRef::Sealed(_) => {
            Err("the master keys are a variable's or a file's".to_owned())
        }
    }
}

/// At least one key.
fn ring(text: &Secret) -> Result<KeyRing, String> {
    let ring = KeyRing::parse(text.expose())?;
    if ring.is_empty() { Err("there is no master key in it".to_owned()) } else { Ok(ring) }
}

/// A file of `ID:KEY` lines, the active key first. It is looked at before each use and read when it has changed, so that a
/// key that is added counts at once. While it is wrong or away, what was read last holds.
#[derive(Debug)]
pub(crate) struct MasterKeyFile {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    ring: Arc<KeyRing>,
    /// Of the file when it was last read, or found wrong.
    stamp: Stamp,
}

/// Tells one state of a file from another: inode, length, and time of its last change.
type Stamp = Option<(u64, u64, i64, i64)>;

impl MasterKeyFile {
    /// The file must be there and in order.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let stamp = stamp(path);
        let ring = Arc::new(read(path)?);
        Ok(Self { path: path.to_owned(), known: Mutex::new(Known { ring, stamp }) })
    }

    /// The same, of a file that is made with one key if it is not there.
    pub(crate) fn open_or_make(path: &Path) -> Result<Self, String> {
        if !path.exists() {
            let (_, line) = new_key().map_err(|error| error.to_string())?;
            match file::write_new(path, line.expose(), PRIVATE) {
                Ok(()) => {}
                // Another process was first: its key is the one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(format!("{}: {error}", path.display())),
            }
        }
        Self::open(path)
    }

    /// The keys as they are now.
    fn ring(&self) -> Arc<KeyRing> {
        // Whoever panicked while it was held had not begun to change it.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.path);
        if known.stamp != stamp {
            known.stamp = stamp;
            match read(&self.path) {
                Ok(ring) => {
                    tracing::info!(keys = ?ring, "the master keys were read anew");
                    known.ring = Arc::new(ring);
                }
                Err(reason) => tracing::error!(%reason, "the master keys stay those that were read before"),
            }
        }
        known.ring.clone()
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

fn read(path: &Path) -> Result<KeyRing, String> {
    let shown = path.display();
    let text = credential::read_file(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    ring(&Secret::new(text)).map_err(|wrong| format!("{shown}: {wrong}"))
}

impl MasterKeys for MasterKeyFile {
    fn active(&self) -> BoxFuture<'_, Result<KeyId, SealError>> {
        Box::pin(async { self.ring().active_id() })
    }

    fn wrap<'a>(
        &'a self,
        data_key: &'a DataKey,
        context: &'a SealContext,
        nonce: [u8; 24],
    ) -> BoxFuture<'a, Result<(KeyId, Vec<u8>), SealError>> {
        Box::pin(async move { self.ring().wrap_now(data_key, context, nonce) })
    }

    fn unwrap<'a>(
        &'a self,
        key_id: &'a KeyId,
        wrapped: &'a [u8],
        context: &'a SealContext,
    ) -> BoxFuture<'a, Result<DataKey, SealError>> {
        Box::pin(async move { self.ring().unwrap_now(key_id, wrapped, context) })
    }
}

/// Puts a new key before the others, so that it is the active one; makes the file if it is not there. Answers the id.
pub(crate) fn add_key(path: &Path) -> Result<KeyId, String> {
    let shown = path.display();
    let failed = |error: io::Error| format!("{shown}: {error}");
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Of two who add a key at once neither may lose the other's. Released when it is dropped.
    let lock = File::open(directory).map_err(failed)?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => format!("{shown} is just being changed; try again"),
        TryLockError::Error(error) => failed(error),
    })?;
    let (id, line) = new_key().map_err(failed)?;
    if !path.exists() {
        file::write_new(path, line.expose(), PRIVATE).map_err(failed)?;
        return Ok(id);
    }
    // What is wrong with it is not to be hidden behind a new key.
    read(path)?;
    let others = Secret::new(credential::read_file(path).map_err(failed)?);
    let all = Secret::new([line.expose(), others.expose()].concat());
    file::replace(path, all.expose(), PRIVATE).map_err(failed)?;
    Ok(id)
}

/// A random key with an id that tells its day, and its line of the file.
fn new_key() -> io::Result<(KeyId, Secret)> {
    let day = OffsetDateTime::now_utc().date();
    let id = format!("{day}-{}", crate::random::hex::<4>()?);
    let mut key = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(&mut *key).map_err(io::Error::other)?;
    let line = Secret::new(format!("{id}:{}\n", *zeroize::Zeroizing::new(URL_SAFE_NO_PAD.encode(*key))));
    Ok((KeyId::parse(&id).expect("digits and dashes"), line))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, Instant};

    use catalog::SealedSecret;

    use super::*;
    use crate::cli::block_on;

    fn fill(bytes: &mut [u8]) {
        getrandom::fill(bytes).unwrap();
    }

    fn context() -> SealContext {
        SealContext::answer(&[7; 32])
    }

    fn seal(keys: &dyn MasterKeys) -> SealedSecret {
        let secret = Secret::new("sk-1");
        block_on(SealedSecret::seal(&secret, &context(), keys, &fill)).unwrap().unwrap()
    }

    fn opens(sealed: &SealedSecret, keys: &dyn MasterKeys) -> bool {
        block_on(sealed.open(&context(), keys)).unwrap().is_ok_and(|secret| secret.expose() == "sk-1")
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.keys");
        let sealed = seal(&MasterKeyFile::open_or_make(&path).unwrap());
        assert!(opens(&sealed, &MasterKeyFile::open_or_make(&path).unwrap()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn a_key_that_is_added_is_the_active_one_at_once_and_the_others_still_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.keys");
        let running = MasterKeyFile::open_or_make(&path).unwrap();
        let before = seal(&running);
        let id = add_key(&path).unwrap();
        let after = seal(&running);
        assert_eq!(after.key_id(), &id);
        assert_ne!(before.key_id(), &id);
        let restarted = MasterKeyFile::open(&path).unwrap();
        for sealed in [before, after] {
            assert!(opens(&sealed, &running) && opens(&sealed, &restarted));
        }
    }

    #[test]
    fn while_the_file_is_wrong_or_away_what_was_read_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.keys");
        let running = MasterKeyFile::open_or_make(&path).unwrap();
        let sealed = seal(&running);
        let good = fs::read_to_string(&path).unwrap();
        for wrong in ["", "no key", "a:c2hvcnQ="] {
            fs::write(&path, wrong).unwrap();
            assert!(opens(&sealed, &running), "{wrong:?}");
            let error = add_key(&path).unwrap_err();
            assert!(error.contains("master.keys") && !error.contains("c2hvcnQ"), "{error}");
            assert!(MasterKeyFile::open_or_make(&path).is_err(), "it is not replaced");
        }
        fs::remove_file(&path).unwrap();
        assert!(opens(&sealed, &running));
        fs::write(&path, good).unwrap();
        assert!(opens(&sealed, &running));
    }

    #[test]
    fn of_two_who_add_a_key_neither_loses_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.keys");
        let deadline = Instant::now() + Duration::from_secs(20);
        let added: Vec<KeyId> = std::thread::scope(|scope| {
            let add = || loop {
                match add_key(&path) {
                    Ok(id) => return id,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
                std::thread::yield_now();
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(add)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let ring = read(&path).unwrap();
        assert_eq!(ring.ids().count(), 4);
        assert!(added.iter().all(|id| ring.ids().any(|known| known == id)));
    }

    #[test]
    fn without_a_reference_nothing_can_be_sealed() {
        let none = given(&CredentialRef::None).unwrap();
        assert_eq!(block_on(none.active()).unwrap(), Err(SealError::NoKey));
        let missing = given(&CredentialRef::Env("DYAD_NO_SUCH_VARIABLE".to_owned())).err().unwrap();
        assert!(missing.contains("DYAD_NO_SUCH_VARIABLE"), "{missing}");
        // A sealed value of another process's file does not open here.
        let directory = tempfile::tempdir().unwrap();
        let other = MasterKeyFile::open_or_make(&directory.path().join("other")).unwrap();
        assert!(!opens(&seal(&other), &*none));
    }
}
