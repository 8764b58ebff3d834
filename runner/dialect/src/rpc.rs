//! JSON-RPC 2.0, a message a line, as far as the session protocols use it.
//!
//! Each protocol makes each of its calls once, so a call's id is a constant of its dialect.

use serde_json::{Value, json};

use crate::Action;

/// What the process said.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// To our call `id`: its result, or its error.
    Answer {
        id: u64,
        result: Result<Value, Value>,
    },
    /// It waits for an answer.
    Call {
        id: Value,
        method: String,
        params: Value,
    },
    Notification {
        method: String,
        params: Value,
    },
}

/// None: not a message of the protocol.
pub(crate) fn parse(mut message: Value) -> Option<Incoming> {
    let members = message.as_object_mut()?;
    let id = members.remove("id").filter(|id| !id.is_null());
    let Some(method) = members.remove("method") else {
        let result = match members.remove("error") {
            Some(error) => Err(error),
            None => Ok(members.remove("result")?),
        };
        return Some(Incoming::Answer { id: id?.as_u64()?, result });
    };
    let Value::String(method) = method else { return None };
    let params = members.remove("params").unwrap_or_default();
    Some(match id {
        Some(id) => Incoming::Call { id, method, params },
        None => Incoming::Notification { method, params },
    })
}

pub(crate) fn call(id: u64, method: &str, params: Value, out: &mut Vec<Action>) {
    let mut message = json!({"jsonrpc": "2.0", "id": id, "method": method});
    message["params"] = params;
    write_line(&message, out);
}

pub(crate) fn notify(method: &str, params: Value, out: &mut Vec<Action>) {
    let mut message = json!({"jsonrpc": "2.0", "method": method});
    if !params.is_null() {
        message["params"] = params;
    }
    write_line(&message, out);
}

pub(crate) fn answer(id: &Value, result: &Value, out: &mut Vec<Action>) {
    write_line(&json!({"jsonrpc": "2.0", "id": id, "result": result}), out);
}

/// Says that there is no such method, so that the process does not wait for it.
pub(crate) fn refuse(id: &Value, method: &str, out: &mut Vec<Action>) {
    let error = json!({"code": -32601, "message": "Method not found", "data": {"method": method}});
    write_line(&json!({"jsonrpc": "2.0", "id": id, "error": error}), out);
}

/// A JSON text on a line of its own. The separators that some readers of lines take for the end of one are escaped:
/// inside a JSON text they can stand only in strings.
pub(crate) fn write_line(message: &Value, out: &mut Vec<Action>) {
    let mut line = message.to_string();
    if line.contains(['\u{2028}', '\u{2029}']) {
        line = line.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    }
    line.push('\n');
    out.push(Action::Write(line.into_bytes()));
}
