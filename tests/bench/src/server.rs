//! The servers that are compared: the bare upstream, nginx in front of it, the gateway in front of it.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bench::{
    Fault, lines,
    part::start_upstream,
    process::Process,
    wire::{Behaviour, PATH},
};
use serde::Deserialize;
use tempfile::TempDir;

const START: Duration = Duration::from_secs(20);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bare,
    Nginx,
    Gateway,
}

impl Kind {
    /// The name by which its clients ask for a behaviour: only the gateway translates.
    pub(crate) fn model(self, behaviour: Behaviour) -> &'static str {
        match self {
            Self::Gateway => behaviour.public_name(),
            Self::Bare | Self::Nginx => behaviour.upstream_name(),
        }
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) api_key: Option<String>,
    pub(crate) process: Process,
    /// Removed after the process has ended: fields are dropped in order.
    _dir: Option<TempDir>,
}

impl Server {
    /// Starts the bare upstream.
    pub(crate) fn bare() -> Result<Self, Fault> {
        let (process, address) = start_upstream()?;
        Ok(Self { address, api_key: None, process, _dir: None })
    }

    /// Starts nginx as a plain reverse proxy, as many workers as cores.
    pub(crate) fn nginx(upstream: SocketAddr) -> Result<Self, Fault> {
        let dir = tempfile::tempdir()?;
        // nginx cannot choose a port itself. Should another process be quicker, nginx says so and ends.
        let port = TcpListener::bind(loopback(0))?.local_addr()?.port();
        let file = dir.path().join("nginx.conf");
        fs::write(&file, nginx_conf(dir.path(), port, upstream))?;
        let child = Command::new(nginx_binary()?)
            .args(["-e", "stderr", "-c"])
            .arg(&file)
            .arg("-p")
            .arg(dir.path())
            .stdin(Stdio::null())
            .spawn()?;
        let server =
            Self { address: loopback(port), api_key: None, process: Process::new(child), _dir: Some(dir) };
        let started = Instant::now();
        while TcpStream::connect(server.address).is_err() {
            if started.elapsed() > START {
                return Err("nginx does not listen".into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Starts the gateway with the upstream as its one provider.
    pub(crate) fn gateway(binary: &Path, upstream: SocketAddr) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Ready {
            event: String,
            base_url: Option<String>,
            api_key: Option<String>,
        }

        let dir = tempfile::tempdir()?;
        let file = dir.path().join("config.toml");
        fs::write(&file, gateway_config(upstream))?;
        let mut child = Command::new(binary)
            .args(["up", "--listen", "127.0.0.1:0", "--json", "--data-dir"])
            .arg(dir.path().join("data"))
            .arg("--config")
            .arg(&file)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let lines = lines(&mut child)?;
        let process = Process::new(child);
        let until = Instant::now() + START;
        loop {
            let line = lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
                .map_err(|_| "the gateway ended, or waited, without saying that it is ready")?;
            let Ok(Ready { event, base_url: Some(base_url), api_key }) = serde_json::from_str(&line) else {
                continue;
            };
            if event == "ready" {
                let port =
                    base_url.parse::<http::Uri>()?.port_u16().ok_or("the gateway's base URL has no port")?;
                return Ok(Self { address: loopback(port), api_key, process, _dir: Some(dir) });
            }
        }
    }
}

/// The gateway to measure: `DYAD_GATEWAY_BIN`, or the release build of this workspace.
pub(crate) fn gateway_binary() -> Result<PathBuf, Fault> {
    #[derive(Deserialize)]
    struct Artifact {
        executable: Option<PathBuf>,
    }

    if let Some(path) = env::var_os("DYAD_GATEWAY_BIN") {
        return Ok(path.into());
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--package", "dyad-gateway", "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    let artifacts =
        built.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let binary = artifacts.filter_map(|Artifact { executable }| executable).next_back();
    binary.filter(|_| built.status.success()).ok_or_else(|| "the gateway does not build".into())
}

fn nginx_binary() -> Result<PathBuf, Fault> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian puts it where only root looks.
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = dirs.map(|dir| dir.join("nginx")).find(|path| path.exists());
    found.ok_or_else(|| "nginx is not installed (Debian: apt-get install nginx)".into())
}

fn nginx_conf(dir: &Path, port: u16, upstream: SocketAddr) -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let dir = dir.display();
    format!(
        "daemon off;
pid {dir}/nginx.pid;
error_log stderr warn;
worker_processes {cores};
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    # No request goes through a file.
    client_body_buffer_size 1m;
    client_max_body_size 64m;
    keepalive_requests 100000000;
    upstream bare {{
        server {upstream};
        keepalive 256;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location {PATH} {{
            proxy_pass http://bare;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"
    )
}

fn gateway_config(upstream: SocketAddr) -> String {
    let models = Behaviour::ALL.map(|behaviour| {
        let (id, upstream_id) = (behaviour.public_name(), behaviour.upstream_name());
        format!("\n[[provider.models]]\nid = \"{id}\"\nupstream_id = \"{upstream_id}\"\n")
    });
    format!(
        "[[provider]]\nname = \"Bench\"\nslug = \"bench\"\ntype = \"proxy\"\n\
         base_url = \"http://{upstream}/v1\"\n{}",
        models.concat()
    )
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
