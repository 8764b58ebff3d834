//! Log lines go to the console, from where `wrangler tail` and the platform's logs have them.

use std::cell::Cell;
use std::panic;

use edge_host::JsonLog;
use tracing::Level;
use wasm_bindgen::JsValue;
use web_sys::console;

use crate::host::unix_ms;

thread_local! {
    static STARTED: Cell<bool> = const { Cell::new(false) };
}

/// Starts logging, once per isolate.
pub(crate) fn start() {
    if STARTED.replace(true) {
        return;
    }
    JsonLog { host: "worker", unix_ms, write }.start();
    // A panic ends all requests of the isolate; the next one finds a new instance.
    let former = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string);
        tracing::error!(location, "panicked");
        former(info);
    }));
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as the log has it")]
fn write(level: &Level, line: &str) {
    let line = JsValue::from_str(line);
    match *level {
        Level::ERROR => console::error_1(&line),
        Level::WARN => console::warn_1(&line),
        _ => console::log_1(&line),
    }
}
