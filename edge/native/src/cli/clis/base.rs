//! A base image made of this machine's own programs, for where none can be pulled: Node and npm from npm's registry, a
//! shell and what a build needs of the usual tools, and the libraries that they are linked with.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::process::Command;
use tokio::sync::mpsc;

use super::process::{on_path, run};

const NODE_VERSION: &str = "22.23.3";
const NPM_VERSION: &str = "10.9.9";
const INSTALL: Duration = Duration::from_secs(600);
const ASK: Duration = Duration::from_secs(60);
/// Pieces of the archive that wait for the engine.
const QUEUE: usize = 16;

/// Without these no image is built.
const TOOLS: &[&str] = &["sh", "cat", "chmod", "chown", "cp", "env", "ln", "ls", "mkdir", "mv", "rm"];
/// Agents like to have these.
const MORE_TOOLS: &[&str] = &[
    "bash", "basename", "cut", "dirname", "find", "grep", "head", "id", "readlink", "sed", "sleep", "sort",
    "tail", "touch", "tr", "uname", "wc",
];
/// Loaded by name at run time, so no program says that it needs them. Beside the C library.
const LOADED_LATER: &[&str] = &[
    "libanl.so.1",
    "libdl.so.2",
    "libm.so.6",
    "libnss_dns.so.2",
    "libnss_files.so.2",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libutil.so.1",
];
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The image's files, collected and ready to be packed.
pub(super) struct Base {
    /// Each with its place in the image.
    files: BTreeMap<PathBuf, PathBuf>,
    npm: PathBuf,
    /// What was fetched.
    _fetched: tempfile::TempDir,
}

impl Base {
    /// Fetches what is fetched and looks for the rest. An error says what this machine lacks.
    pub(super) async fn collect() -> io::Result<Self> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            other => return Err(io::Error::other(format!("there is no Node for {other} on npm"))),
        };
        if std::env::consts::OS != "linux" {
            return Err(io::Error::other("this machine does not run Linux, as the image does"));
        }
        let fetched = tempfile::tempdir()?;
        let node_package = format!("node-linux-{architecture}");
        let mut npm = Command::new("npm");
        npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]).arg(fetched.path());
        npm.args([format!("{node_package}@{NODE_VERSION}"), format!("npm@{NPM_VERSION}")]);
        run(&mut npm, INSTALL).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::other("this machine has no npm to fetch Node with"),
            _ => error,
        })?;
        let modules = fetched.path().join("node_modules");
        let node = modules.join(node_package).join("bin/node");
        run(Command::new(&node).arg("--version"), ASK)
            .await
            .map_err(|error| io::Error::other(format!("Node does not run on this machine: {error}")))?;

        let mut files = BTreeMap::new();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut linked = libraries(&node).await?;
        for (name, program) in tools(&path)? {
            linked.append(&mut libraries(&program).await?);
            files.insert(Path::new("usr/bin").join(name), program);
        }
        linked.append(&mut beside_the_c_library(&linked));
        for library in linked {
            // At the same place, where the loader looks for it.
            files.insert(library.strip_prefix("/").unwrap_or(&library).to_owned(), library);
        }
        files.insert("usr/local/bin/node".into(), node);
        if let Some(authorities) = AUTHORITIES.iter().map(Path::new).find(|file| file.exists()) {
            files.insert("etc/ssl/certs/ca-certificates.crt".into(), authorities.to_owned());
        }
        Ok(Self { files, npm: modules.join("npm"), _fetched: fetched })
    }

    /// The image's root as a tar, in pieces, while another thread packs it.
    pub(super) fn pack(self) -> mpsc::Receiver<io::Result<Bytes>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::task::spawn_blocking(move || {
            let packed = self.write(Pieces(sender.clone()));
            if let Err(error) = packed {
                // Who does not listen any more has an error of his own.
                let _ = sender.blocking_send(Err(error));
            }
        });
        receiver
    }

    fn write(&self, to: Pieces) -> io::Result<()> {
        let mut archive = tar::Builder::new(io::BufWriter::with_capacity(1 << 20, to));
        for (path, mode) in [("tmp", 0o1777), ("root", 0o700), ("etc", 0o755)] {
            let mut header = header(tar::EntryType::Directory, mode);
            archive.append_data(&mut header, path, io::empty())?;
        }
        let mut link = |path: &str, target: &str| {
            archive.append_link(&mut header(tar::EntryType::Symlink, 0o777), path, target)
        };
        link("bin", "usr/bin")?;
        link("usr/local/bin/npm", "../lib/node_modules/npm/bin/npm-cli.js")?;
        link("usr/local/bin/npx", "../lib/node_modules/npm/bin/npx-cli.js")?;
        let texts = [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("etc/group", "root:x:0:\n"),
            ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ];
        for (path, text) in texts {
            let mut header = header(tar::EntryType::Regular, 0o644);
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, path, text.as_bytes())?;
        }
        for (path, file) in &self.files {
            // Opened, so that a link gives what it leads to.
            let mut file = std::fs::File::open(file)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?;
            let mut header = header(tar::EntryType::Regular, 0o755);
            header.set_size(file.metadata()?.len());
            archive.append_data(&mut header, path, &mut file)?;
        }
        archive.append_dir_all("usr/local/lib/node_modules/npm", &self.npm)?;
        archive.into_inner()?.flush()
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}

/// The tools that are in the image, by name.
fn tools(path: &OsStr) -> io::Result<Vec<(&'static str, PathBuf)>> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for &name in TOOLS {
        match on_path(name, path) {
            Some(program) => found.push((name, program)),
            None => missing.push(name),
        }
    }
    if !missing.is_empty() {
        return Err(io::Error::other(format!("this machine lacks {}", missing.join(", "))));
    }
    found.extend(MORE_TOOLS.iter().filter_map(|&name| Some((name, on_path(name, path)?))));
    Ok(found)
}

/// The libraries that a program of this machine is linked with.
async fn libraries(program: &Path) -> io::Result<BTreeSet<PathBuf>> {
    // What it says is read.
    match run(Command::new("ldd").env("LC_ALL", "C").arg(program), ASK).await {
        Ok(text) => Ok(linked(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(io::Error::other("this machine has no ldd to find libraries with"))
        }
        // A script, or a program that is linked with nothing.
        Err(error) if error.to_string().contains("not a dynamic executable") => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// The paths in what `ldd` prints: `NAME => PATH (ADDRESS)`, or the loader's `PATH (ADDRESS)`.
fn linked(text: &str) -> BTreeSet<PathBuf> {
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn beside_the_c_library(linked: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let is_c_library = |file: &&PathBuf| file.file_name().is_some_and(|name| name == "libc.so.6");
    let directory = linked.iter().find(is_c_library).and_then(|file| file.parent());
    let all =
        directory.into_iter().flat_map(|directory| LOADED_LATER.iter().map(|name| directory.join(name)));
    all.filter(|file| file.exists()).collect()
}

/// Sends what is written.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_that_ldd_names() {
        let text = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \tlibgone.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(linked(text), paths.map(PathBuf::from).into());
    }

    #[test]
    fn what_the_machine_lacks_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = tools(directory.path().as_os_str()).unwrap_err().to_string();
        assert!(error.contains("lacks sh, cat"), "{error}");
        let found = tools(OsStr::new("/usr/bin:/bin")).unwrap();
        assert!(TOOLS.iter().all(|tool| found.iter().any(|(name, _)| name == tool)));
    }

    #[test]
    fn the_archive_is_the_root_of_a_system() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("npm")).unwrap();
        std::fs::write(directory.path().join("npm/package.json"), "{}").unwrap();
        std::fs::write(directory.path().join("node"), "program").unwrap();
        std::os::unix::fs::symlink("node", directory.path().join("link")).unwrap();
        let base = Base {
            files: [("usr/local/bin/node".into(), directory.path().join("link"))].into(),
            npm: directory.path().join("npm"),
            _fetched: directory,
        };
        let (sender, mut receiver) = mpsc::channel(64);
        base.write(Pieces(sender)).unwrap();
        let mut packed = Vec::new();
        while let Some(piece) = receiver.blocking_recv() {
            packed.extend_from_slice(&piece.unwrap());
        }
        let mut entries = BTreeMap::new();
        for entry in tar::Archive::new(packed.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            io::Read::read_to_string(&mut entry, &mut text).unwrap();
            let mode = entry.header().mode().unwrap();
            entries.insert(entry.path().unwrap().to_str().unwrap().to_owned(), (mode, text));
        }
        assert_eq!(entries["usr/local/bin/node"], (0o755, "program".to_owned()));
        assert_eq!(entries["tmp"].0, 0o1777);
        assert!(entries["etc/passwd"].1.starts_with("root:"));
        assert!(
            entries.contains_key("bin")
                && entries.contains_key("usr/local/lib/node_modules/npm/package.json")
        );
    }

    #[test]
    fn packing_stops_when_nobody_takes_the_pieces() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        assert_eq!(Pieces(sender).write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
