//! What commands print: for people, or as JSON lines for programs.

use serde::Serialize;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// One line for people; programs do not get it.
    pub(crate) fn say(self, line: impl AsRef<str>) {
        if !self.json {
            anstream::println!("{}", line.as_ref());
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
            let line = serde_json::to_string(value).expect("these types have string keys only");
            anstream::println!("{line}");
        }
    }

    /// What went wrong, on standard error.
    pub(crate) fn errors(self, kind: &str, lines: &[String]) {
        if self.json {
            anstream::eprintln!("{}", serde_json::json!({"error": kind, "messages": lines}));
        } else {
            for line in lines {
                anstream::eprintln!("error: {line}");
            }
        }
    }
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
