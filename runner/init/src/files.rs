//! The files that precede a CLI's own input on stdin:
//!
//! ```text
//! dyad-files COUNT\n
//! NAME LENGTH\n      COUNT times, each followed by LENGTH bytes
//! ```
//!
//! Exactly that much is read, so that the CLI finds its own input next. The runner that writes it is trusted; it is
//! checked nevertheless, since what it holds came from a client.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const MAGIC: &str = "dyad-files";
const MAX_FILES: u64 = 64;
/// Of all files together.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
const MAX_NAME: usize = 128;
/// A name, a space, a length and the end of the line.
const MAX_LINE: usize = MAX_NAME + 24;

/// Writes the files into `directory`, where none of them may exist yet.
pub(crate) fn unpack(input: &mut impl Read, directory: &Path) -> io::Result<()> {
    let header = line(input)?;
    let (magic, count) = fields(&header)?;
    if magic != MAGIC || count > MAX_FILES {
        return Err(invalid("not a list of files, or too many"));
    }
    let mut left = MAX_BYTES;
    for _ in 0..count {
        let header = line(input)?;
        let (name, length) = fields(&header)?;
        if !is_plain(name) {
            return Err(invalid("a file's name is not plain"));
        }
        left = left.checked_sub(length).ok_or_else(|| invalid("too many bytes"))?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(name))?;
        if io::copy(&mut input.by_ref().take(length), &mut file)? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Letters, digits, `.`, `_` and `-`, no dot first: in one directory, on any file system.
fn is_plain(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// One line, read byte by byte: there must be no reading ahead.
fn line(input: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::with_capacity(MAX_LINE);
    loop {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return String::from_utf8(line).map_err(|_| invalid("a line is not text")),
            _ if line.len() == MAX_LINE => return Err(invalid("a line is too long")),
            byte => line.push(byte),
        }
    }
}

fn fields(line: &str) -> io::Result<(&str, u64)> {
    line.split_once(' ')
        .filter(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|(name, number)| Some((name, number.parse().ok()?)))
        .ok_or_else(|| invalid("a line is not NAME NUMBER"))
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A directory of its own, removed with it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("dyad-init-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn entries(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn files_are_written_and_the_rest_is_left() {
        let directory = Directory::new("rest");
        let mut input = &b"dyad-files 2\nsystem.md 6\nbe\nnicimage-0.png 3\n\0\xff\nrest"[..];
        unpack(&mut input, &directory.0).unwrap();
        assert_eq!(input, b"rest");
        assert_eq!(fs::read(directory.0.join("system.md")).unwrap(), b"be\nnic");
        assert_eq!(fs::read(directory.0.join("image-0.png")).unwrap(), b"\0\xff\n");
        let mode = fs::metadata(directory.0.join("system.md")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn no_files_are_a_header_too() {
        let directory = Directory::new("none");
        let mut input = &b"dyad-files 0\nprompt"[..];
        unpack(&mut input, &directory.0).unwrap();
        assert_eq!((input, directory.entries()), (&b"prompt"[..], 0));
    }

    #[test]
    fn what_is_not_a_plain_file_is_refused() {
        let long = "a".repeat(MAX_NAME + 1);
        let directory = Directory::new("refused");
        for name in ["", ".", "..", ".hidden", "../up", "a/b", "/etc/passwd", "a\0b", "é", &long] {
            let input = format!("dyad-files 1\n{name} 1\nx");
            assert!(unpack(&mut input.as_bytes(), &directory.0).is_err(), "{name:?}");
        }
        assert_eq!(directory.entries(), 0);
    }

    #[test]
    fn an_existing_file_is_not_touched() {
        let directory = Directory::new("existing");
        let twice = b"dyad-files 2\na 1\nxa 1\ny";
        let error = unpack(&mut &twice[..], &directory.0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(directory.0.join("a")).unwrap(), b"x");
    }

    #[test]
    fn headers_are_bounded() {
        let directory = Directory::new("bounded");
        let endless = "x".repeat(1 << 20);
        let wrong = [
            endless.as_str(),
            "dyad-files 65\n",
            "dyad-files -1\n",
            "dyad-files +1\n",
            "dyad-files\n",
            "other 0\n",
            "dyad-files 1\na 67108865\n",
            "dyad-files 1\na 18446744073709551616\n",
            "dyad-files 1\na 2\nx",
            "dyad-files 1\n",
            "",
        ];
        for input in wrong {
            assert!(unpack(&mut input.as_bytes(), &directory.0).is_err(), "{:?}", input.get(..40));
        }
    }
}
