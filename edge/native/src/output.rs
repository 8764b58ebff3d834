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

    /// Rows in columns, for people.
    pub(crate) fn table(self, rows: &[Vec<String>]) {
        for line in table(rows) {
            self.say(line);
        }
    }

    /// One object for programs; people do not get it.
    pub(crate) fn object(self, value: &impl Serialize) {
        if self.json {
            let _ = write_line(&json(value));
        }
    }

    /// What must not get lost: a line for people, an object for programs.
    pub(crate) fn deliver(self, line: &str, value: &impl Serialize) -> io::Result<()> {
        if self.json { write_line(&json(value)) } else { write_line(line) }
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

/// `1 model`, `2 models`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// Rows in columns, two spaces apart.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|r| r.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(i, cell)| format!("{cell:<width$}", width = widths[i]));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = table(&rows(&[&["ID", "LABEL", "STATE"], &["1", "größe", "ok"], &["22", "", "failed"]]));
        assert_eq!(lines, ["ID  LABEL  STATE", "1   größe  ok", "22         failed"]);
    }

    #[test]
    fn rows_may_differ_in_length_and_there_may_be_none() {
        assert_eq!(table(&rows(&[&["a"], &["bb", "c"], &[]])), ["a", "bb  c", ""]);
        assert!(table(&[]).is_empty());
    }

    #[test]
    fn one_thing_is_no_things() {
        assert_eq!(
            [count(0, "model"), count(1, "model"), count(2, "model")],
            ["0 models", "1 model", "2 models"]
        );
    }
}
