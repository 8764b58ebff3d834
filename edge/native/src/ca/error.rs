use std::io;
use std::path::{Path, PathBuf};

/// Why a certificate authority did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("{} is there already, and an authority is never overwritten: everything it issued would be void", .0.display())]
    Exists(PathBuf),
    #[error("there is no certificate authority in {}; 'dyad-gateway ca init' makes one", .0.display())]
    NoAuthority(PathBuf),
    #[error("somebody else is using the certificate authority in {}; try again in a moment", .0.display())]
    Busy(PathBuf),
    #[error("the certificate of the authority in {} has expired; make another one in a new directory", .0.display())]
    Expired(PathBuf),
    #[error("others on this machine may read {}; make it private (chmod 600), or begin anew if they may have", .0.display())]
    KeyIsOpen(PathBuf),
    #[error("there is no certificate with the name or serial number {0}; 'ca list' shows those there are")]
    Unknown(String),
    #[error("{0}")]
    Refused(String),
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the system has no randomness")]
    Randomness(#[from] getrandom::Error),
    #[error("the certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
}

impl CaError {
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
