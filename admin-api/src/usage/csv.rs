//! Rows as CSV (RFC 4180).

use std::fmt::Write as _;

use super::ShownRow;

const HEADER: &str = "day,key,provider,model,requests,failed,promptTokens,completionTokens,estimated\r\n";

pub(super) fn table(rows: &[ShownRow]) -> String {
    let mut table = HEADER.to_owned();
    for row in rows {
        for text in [&row.day, &row.key, &row.provider, &row.model] {
            table.push_str(&cell(text.as_deref().unwrap_or_default()));
            table.push(',');
        }
        let ShownRow { requests, failed, prompt_tokens, completion_tokens, estimated, .. } = row;
        let _ = write!(table, "{requests},{failed},{prompt_tokens},{completion_tokens},{estimated}\r\n");
    }
    table
}

/// Whatever text it is, it is one cell, and none that a spreadsheet runs: a client may have asked for a model with any name.
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if is_formula || text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}
