//! `dyad-sandbox-init`: what a sandbox starts, and what then becomes the CLI.
//!
//! ```text
//! dyad-sandbox-init run [--relay PORT=SOCKET] [--files] -- PROGRAM [ARGUMENT]...
//! dyad-sandbox-init echo
//! ```
//!
//! `run` opens the way out (`--relay`: 127.0.0.1:PORT leads to a Unix socket), reads the files that precede the CLI's
//! own input (`--files`, see [`files`]), and then *becomes* PROGRAM, so that signals, the exit code and the rest of
//! stdin are the CLI's without anybody between. Orphans are reaped by the engine's init, which is process 1.
//!
//! `echo` prints its stdin: the CLI of the built-in model.
//!
//! Nothing but the standard library, linked statically: it has to run in any image, an empty one included.

mod files;
mod relay;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Where a CLI was not started, the exit code tells why, as `env` and `docker run` have it.
const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let outcome = match arguments.next().as_deref().and_then(OsStr::to_str) {
        Some("run") => RunOptions::parse(arguments).and_then(|options| run(&options)),
        Some("echo") => echo(),
        // The next two are how `run` starts its relay.
        Some(relay::LAUNCH) => relay::launch(arguments.next()),
        Some(relay::SERVE) => relay::serve(arguments.next()),
        _ => Err(Failure::new("usage: dyad-sandbox-init run [--relay PORT=SOCKET] [--files] -- PROGRAM...")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(io::stderr(), "dyad-sandbox-init: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Why this program ends without having become the CLI.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }
}

/// For `map_err`: an I/O error, with what was being done.
fn during(what: &str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::new(format!("{what}: {error}"))
}

#[derive(Debug, PartialEq, Eq)]
struct RunOptions {
    /// A port of 127.0.0.1, and the path of the socket that it leads to.
    relay: Option<(u16, OsString)>,
    /// Files precede the CLI's input.
    files: bool,
    program: OsString,
    arguments: Vec<OsString>,
}

impl RunOptions {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let mut relay = None;
        let mut files = false;
        loop {
            let argument = arguments.next().ok_or_else(|| Failure::new("run: no program after --"))?;
            match argument.to_str() {
                Some("--") => break,
                Some("--files") => files = true,
                Some("--relay") => {
                    let value = arguments.next().and_then(|value| value.into_string().ok());
                    relay = value.as_deref().and_then(|value| value.split_once('=')).and_then(
                        |(port, socket)| Some((port.parse().ok().filter(|port| *port > 0)?, socket.into())),
                    );
                    if relay.is_none() {
                        return Err(Failure::new("run: --relay wants PORT=SOCKET"));
                    }
                }
                _ => return Err(Failure::new(format!("run: unknown option {}", argument.display()))),
            }
        }
        let program = arguments.next().ok_or_else(|| Failure::new("run: no program after --"))?;
        Ok(Self { relay, files, program, arguments: arguments.collect() })
    }
}

/// Returns only if the CLI could not be started.
fn run(options: &RunOptions) -> Result<(), Failure> {
    // First: the CLI may call its vendor as soon as it runs.
    if let Some((port, socket)) = &options.relay {
        relay::start(*port, socket)?;
    }
    if options.files {
        files::unpack(&mut unbuffered_stdin()?, Path::new(".")).map_err(during("reading files"))?;
    }
    let error = Command::new(&options.program).args(&options.arguments).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    Err(Failure { code, message: format!("{}: {error}", options.program.display()) })
}

/// Prints stdin as it comes.
fn echo() -> Result<(), Failure> {
    let mut input = unbuffered_stdin()?;
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(during("stdout"))?);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => output.write_all(&buffer[..count]).map_err(during("stdout"))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(during("stdin")(error)),
        }
    }
}

/// The standard library's own stdin reads ahead: what it took would be lost to the CLI.
fn unbuffered_stdin() -> Result<File, Failure> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(during("stdin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<RunOptions, String> {
        RunOptions::parse(arguments.iter().map(OsString::from)).map_err(|failure| failure.message)
    }

    #[test]
    fn options_end_at_the_double_dash() {
        let options =
            parse(&["--relay", "8080=/egress.sock", "--files", "--", "cli", "--files", "--"]).unwrap();
        assert_eq!(options.relay, Some((8080, "/egress.sock".into())));
        assert!(options.files);
        assert_eq!(options.program, "cli");
        assert_eq!(options.arguments, ["--files", "--"]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in [
            &[][..],
            &["--"],
            &["cli"],
            &["--relay", "--", "cli"],
            &["--relay", "0=/s", "--", "cli"],
            &["--relay", "65536=/s", "--", "cli"],
            &["--relay", "80", "--", "cli"],
            &["--unknown", "--", "cli"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
