//! Log lines go to the console, from where `wrangler tail` and the platform's logs have them.

use std::cell::Cell;
use std::panic;
use std::sync::Arc;

use edge_host::{start_log, variables};
use tracing::Level;
use wasm_bindgen::JsValue;
use web_sys::console;

use crate::host::WorkerHost;

thread_local! {
    static STARTED: Cell<bool> = const { Cell::new(false) };
}

/// Starts logging at the isolate's first request.
pub(crate) fn start(host: &Arc<WorkerHost>) {
    if STARTED.replace(true) {
        return;
    }
    start_log(host.variable(variables::LOG).as_deref(), host.clone(), write);
    // A panic ends all requests of the isolate; the next one finds a new instance.
    let former = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string);
        tracing::error!(target: "edge_worker", location, "panicked");
        former(info);
    }));
}

fn write(level: Level, line: &str) {
    let line = JsValue::from_str(line);
    match level {
        Level::ERROR => console::error_1(&line),
        Level::WARN => console::warn_1(&line),
        _ => console::log_1(&line),
    }
}
