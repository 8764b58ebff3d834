//! The application's variables (`spin.toml`), by the names that every host uses for them.

use spin_sdk::variables::{self, Error};
use wit_bindgen::block_on;

/// Spin's name of a variable: the same in lower case.
pub(crate) fn spin_name(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// `None` if the application has no such variable; or if it cannot be read, which is logged.
///
/// Waits for the variables' provider, and nothing else happens in this instance meanwhile: call it where configuration is
/// read, not for each request.
pub(crate) fn get(name: &str) -> Option<String> {
    let name = spin_name(name);
    let reason = match block_on(variables::get(name.clone())) {
        Ok(value) => return Some(value),
        Err(Error::Undefined(_)) => return None,
        Err(Error::InvalidName(_)) => "Spin's variables cannot have this name",
        // What the provider said may be anything.
        Err(Error::Provider(_) | Error::Other(_)) => "the variables' provider failed",
    };
    tracing::error!(variable = name, reason, "a variable cannot be read");
    None
}
