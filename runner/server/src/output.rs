//! What commands print: for people, or as JSON lines for programs.

use std::io::{self, Write as _};

use serde::Serialize;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// One line for people; programs do not get it.
    pub(crate) fn say(self, line: impl AsRef<str>) {
        if !self.json {
            // Whoever read it may have gone (`| head`); the command does its work all the same.
            let _ = write_line(line.as_ref());
        }
    }

    /// One line for people on standard error, beside what a script reads.
    pub(crate) fn remark(self, line: &str) {
        if !self.json {
            let _ = writeln!(anstream::stderr(), "{line}");
        }
    }

    /// One object for programs; people do not get it.
    pub(crate) fn object(self, value: &impl Serialize) {
        if self.json {
            let _ = write_line(&json(value));
        }
    }

    /// What went wrong, on standard error.
    pub(crate) fn errors(self, kind: &str, lines: &[String]) {
        let mut stderr = anstream::stderr();
        if self.json {
            let _ = writeln!(stderr, "{}", serde_json::json!({"error": kind, "messages": lines}));
        } else {
            for line in lines {
                let _ = writeln!(stderr, "error: {line}");
            }
        }
    }
}

fn write_line(line: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("these types have string keys only")
}
