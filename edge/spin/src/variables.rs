//! The application's variables (`spin.toml`), by the names that every host uses for them.

use catalog::Secret;
use spin_sdk::variables::{self, Error};
use wit_bindgen::block_on;

/// Spin's name of a variable: the same in lower case.
pub(crate) fn spin_name(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// `None` if the application has no such variable. Waits for the variables' provider, and nothing else happens in this
/// instance meanwhile: it is asked when configuration is read, never per request.
pub(crate) fn read(name: &str) -> Result<Option<String>, String> {
    let name = spin_name(name);
    match block_on(async move { variables::get(name).await }) {
        Ok(value) => Ok(Some(value)),
        Err(Error::Undefined(_)) => Ok(None),
        Err(Error::InvalidName(reason)) => Err(format!("Spin has no variables of such a name: {reason}")),
        // What the provider says may be anything.
        Err(Error::Provider(_) | Error::Other(_)) => Err("the variables' provider failed".to_owned()),
    }
}

pub(crate) fn credential(name: &str) -> Result<Secret, String> {
    let variable = spin_name(name);
    let text = read(name).map_err(|reason| format!("the variable {variable}: {reason}"))?;
    let text = text.ok_or_else(|| format!("spin.toml gives the component no variable {variable}"))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("the variable {variable} is empty"));
    }
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(format!(
            "the variable {variable} has more than one line, or characters that no header may hold"
        ));
    }
    Ok(Secret::new(text))
}
