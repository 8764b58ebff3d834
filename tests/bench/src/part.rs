//! What a benchmark is when it starts itself.

use std::{
    env,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use clap::Subcommand;

use crate::{Fault, lines, load, process::Process, upstream};

const START: Duration = Duration::from_secs(20);

#[derive(Subcommand)]
#[command(hide = true)]
pub enum Part {
    #[command(hide = true)]
    Upstream,
    #[command(hide = true)]
    Load { load: String },
}

impl Part {
    /// Does it, to its end.
    pub fn run(self) -> Result<(), Fault> {
        match self {
            Self::Upstream => {
                // The parent holds the other end for as long as it lives.
                thread::spawn(|| {
                    let _ = io::stdin().read_to_end(&mut Vec::new());
                    std::process::exit(0);
                });
                Ok(runtime()?.block_on(upstream::serve())?)
            }
            Self::Load { load } => runtime()?.block_on(load::run(serde_json::from_str(&load)?)),
        }
    }
}

/// One thread: cheap, and out of the way of what is measured.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Starts the bare upstream: this program, once more.
pub fn start_upstream() -> Result<(Process, SocketAddr), Fault> {
    let mut command = Command::new(env::current_exe()?);
    // It ends when its stdin does.
    let mut child = command.arg("upstream").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let lines = lines(&mut child)?;
    let process = Process::new(child);
    let port: u16 = lines.recv_timeout(START)?.parse()?;
    Ok((process, (Ipv4Addr::LOCALHOST, port).into()))
}
