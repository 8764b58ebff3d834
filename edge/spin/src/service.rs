//! The gateway of this instance, as the application's variables describe it.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use catalog::Violations;
use edge_host::{Deployment, JsonLog};
use gateway::{Gateway, Settings};

use crate::host::{SpinHost, unix_ms};
use crate::variables;

/// Made by the first request that finds its variables; until then every request looks again. Reads no store: requests
/// do, as far as they need to.
pub(crate) fn gateway() -> Result<Gateway, Violations> {
    static GATEWAY: OnceLock<Gateway> = OnceLock::new();
    if let Some(gateway) = GATEWAY.get() {
        return Ok(gateway.clone());
    }
    JsonLog { host: "spin", unix_ms, write: |_, line| write_line(line) }.start();
    make().map(|gateway| GATEWAY.get_or_init(|| gateway).clone())
}

fn make() -> Result<Gateway, Violations> {
    let deployment =
        Deployment::from_variables(variables::get, Settings::default()).map_err(under_spins_names)?;
    Ok(deployment.into_gateway(Arc::new(SpinHost)))
}

fn under_spins_names(mut violations: Violations) -> Violations {
    for violation in &mut violations.0 {
        violation.path = variables::spin_name(&violation.path);
    }
    violations
}

fn write_line(line: &str) {
    // One write, so that lines do not mix; and if nobody takes it, nobody can be told.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
