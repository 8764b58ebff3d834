//! The load generator's process.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use crate::{
    Fault,
    load::{Load, Report},
};

/// A load generator: this program, once more. It ends with this value.
pub struct Generator {
    child: Child,
    what: String,
}

impl Generator {
    pub fn start(load: &Load) -> Result<Self, Fault> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("load").arg(serde_json::to_string(load)?).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self { child: command.spawn()?, what: format!("{}, {:?}", load.model, load.shape) })
    }

    /// Waits for the report. A wrong answer is why there is none; the generator has said which.
    pub fn report(&mut self) -> Result<Report, Fault> {
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().ok_or("stdout is not a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|_| format!("the load failed ({})", self.what).into())
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
