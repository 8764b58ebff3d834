//! `dyad-runner check`: what works, what does not, what to do.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use url::Url;
use webpki::EndEntityCert;

use super::{ConfigArgs, Failure, LogArgs, block_on};
use crate::config::model::{Isolated, RunnerConfig, Tls};
use crate::egress::{EgressProxy, EgressTimeouts, SystemLookup};
use crate::error_chain::error_chain;
use crate::output::Output;
use crate::sandbox::{Engine, Progress, SandboxError};
use crate::tls::TlsIdentity;

/// Certificates and lists that end sooner deserve a word.
const ENDS_SOON_HOURS: i64 = 14 * 24;
/// For one vendor's host.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Args)]
pub(super) struct CheckArgs {
    /// Also connect to the hosts that CLIs may reach; nothing is sent
    #[arg(long)]
    reach: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Works,
    Hint,
    Fails,
}

struct Report {
    output: Output,
    failed: usize,
}

impl Report {
    /// `what` was found; `advice` says what to do about it.
    fn add(&mut self, verdict: Verdict, what: &str, advice: &str) {
        let (word, mark) = match verdict {
            Verdict::Works => ("works", "ok  "),
            Verdict::Hint => ("hint", "hint"),
            Verdict::Fails => ("fails", "FAIL"),
        };
        self.failed += usize::from(verdict == Verdict::Fails);
        self.output.object(&json!({"verdict": word, "what": what, "advice": advice}));
        self.output.say(format!("{mark}  {what}"));
        if !advice.is_empty() {
            self.output.say(format!("      {advice}"));
        }
    }

    fn works(&mut self, what: &str) {
        self.add(Verdict::Works, what, "");
    }
}

pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    args.log.start("warn")?;
    let mut report = Report { output: Output::new(args.config.json), failed: 0 };
    let shown = args.config.config.display();
    match RunnerConfig::read(&args.config.config) {
        Err(violations) => {
            for violation in violations {
                report.add(Verdict::Fails, &format!("{shown}: {violation}"), "");
            }
        }
        Ok(config) => {
            report.works(&format!("the configuration in {shown}"));
            block_on(async {
                examine(&config, args.reach, &mut report).await;
                Ok(())
            })?;
        }
    }
    match report.failed {
        0 => Ok(()),
        1 => Err(Failure::Failed(vec!["1 problem to mend; see the line marked FAIL".to_owned()])),
        failed => Err(Failure::Failed(vec![format!("{failed} problems to mend; see the lines marked FAIL")])),
    }
}

async fn examine(config: &RunnerConfig, reach: bool, report: &mut Report) {
    tls(config, report);
    credentials(config, report);
    listen(config.listen, report).await;
    memory(config, report);
    let egress = EgressProxy::new(
        &config.state_dir,
        &config.clis,
        EgressTimeouts::default(),
        std::sync::Arc::new(SystemLookup),
    );
    match egress {
        Ok(_) => report.works(&format!("the state directory {}", config.state_dir.display())),
        Err(faults) => faults.iter().for_each(|fault| report.add(Verdict::Fails, &error_chain(fault), "")),
    }
    engine(config, report).await;
    if reach {
        for (cli, host, port) in hosts(config) {
            let what = format!("{cli} reaches {host}:{port}");
            match timeout(REACH_TIMEOUT, TcpStream::connect((host.as_str(), port))).await {
                Ok(Ok(_)) => report.works(&what),
                Ok(Err(error)) => {
                    report.add(Verdict::Fails, &format!("{cli} does not reach {host}:{port}: {error}"), "");
                }
                Err(_) => {
                    report.add(Verdict::Fails, &format!("{cli} does not reach {host}:{port} in time"), "");
                }
            }
        }
    }
}

fn tls(config: &RunnerConfig, report: &mut Report) {
    let RunnerConfig { tls, node, .. } = config;
    let identity = match TlsIdentity::load(tls) {
        Ok(identity) => identity,
        Err(faults) => {
            let advice = "'dyad-gateway ca' makes certificates.";
            return faults.iter().for_each(|fault| report.add(Verdict::Fails, &error_chain(fault), advice));
        }
    };
    let facts = identity.facts();
    let names = facts.names.join(", ");
    if is_for(tls, &node.url) {
        report.works(&format!("the certificate for {names}"));
    } else {
        report.add(
            Verdict::Fails,
            &format!("the certificate is for {names}, and not for the host of node.url, {}", node.url),
            "No edge accepts it there: issue one for that host ('dyad-gateway ca issue … --san HOST'), or mend node.url.",
        );
    }
    if facts.key_is_readable_by_all {
        let what = format!("everybody on this host can read the key {}", tls.key.display());
        report.add(Verdict::Hint, &what, "Let only the runner's user read it: chmod 600.");
    }
    let mut ends = vec![
        ("the certificate", facts.certificate_hours_left),
        ("the authority of the clients", facts.client_ca_hours_left),
    ];
    match facts.revocation_list {
        Some(list) => {
            report.works(&format!("the revocation list, with {} certificates", list.revoked));
            ends.push(("the revocation list", list.hours_left));
        }
        None => report.add(
            Verdict::Hint,
            "there is no revocation list",
            "Without one, a client's certificate counts until it expires; see revocation_list.",
        ),
    }
    for (what, hours) in ends {
        if hours <= 0 {
            report.add(
                Verdict::Fails,
                &format!("{what} has expired"),
                "Nobody is let in until there is a new one.",
            );
        } else if hours < ENDS_SOON_HOURS {
            let what = format!("{what} expires in {} days", hours / 24);
            report.add(Verdict::Hint, &what, "A new file is read without a restart.");
        }
    }
}

/// Whether an edge that reaches the node by this URL would take the certificate for the node's.
fn is_for(tls: &Tls, url: &str) -> bool {
    let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    // An IPv6 address stands in brackets in a URL, and in no certificate.
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let certificate = CertificateDer::from_pem_file(&tls.certificate);
    let (Ok(name), Ok(certificate)) = (name, certificate) else { return false };
    EndEntityCert::try_from(&certificate)
        .is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

fn credentials(config: &RunnerConfig, report: &mut Report) {
    let missing = config.missing_credentials(None);
    for violation in &missing {
        report.add(Verdict::Fails, &violation.to_string(), "The runner does not start without it.");
    }
    if missing.is_empty() {
        report.works("the credentials that CLIs need");
    }
}

async fn listen(addr: SocketAddr, report: &mut Report) {
    match TcpListener::bind(addr).await {
        Ok(_) => report.works(&format!("the address {addr}")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            report.add(
                Verdict::Hint,
                &format!("{addr} is in use"),
                "By the runner itself, if it runs already.",
            );
        }
        Err(error) => {
            report.add(
                Verdict::Fails,
                &format!("{addr} cannot be listened on: {error}"),
                "Choose another 'listen'.",
            );
        }
    }
}

fn memory(config: &RunnerConfig, report: &mut Report) {
    let Some(total) = host_memory() else { return };
    if config.capacity.memory_bytes > total {
        let (wanted, total) = (config.capacity.memory_bytes >> 20, total >> 20);
        report.add(
            Verdict::Hint,
            &format!("sandboxes may take {wanted} MiB together, and this host has {total} MiB"),
            "Set memory in [capacity] to what the host can spare.",
        );
    }
}

/// `proc_meminfo(5)`.
fn host_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

async fn engine(config: &RunnerConfig, report: &mut Report) {
    // A name of its own: a runner that is at work must not lose its sandboxes to this one's sweeps.
    let mut config = config.clone();
    config.node.id.push_str(".check");
    let engine = match Engine::connect(&config).await {
        Ok(engine) => engine,
        Err(error) => return report.add(Verdict::Fails, &error_chain(&error), engine_advice(&error)),
    };
    report.works(&format!("the engine at {}", config.engine.socket.display()));
    for cli in &config.clis {
        let output = report.output;
        let mut progress = |step: Progress| {
            if step.bytes.is_none() {
                output.remark(&format!("      {}: {}", cli.name, step.message));
            }
        };
        match engine.prepare(&cli.isolated, &mut progress).await {
            Ok(prepared) => {
                report.works(&format!("{}: {}", cli.name, prepared.image_id().unwrap_or("a process")));
            }
            Err(error) => {
                let what = format!("{}: {}", cli.name, error_chain(&error));
                report.add(Verdict::Fails, &what, entry_advice(&error));
            }
        }
        if cli.isolated == Isolated::Process {
            let what = format!(
                "{} runs as a process, which is weaker than a container: it reads this host's files and reaches its Unix sockets, such as Docker's, with the rights of its user",
                cli.name
            );
            report.add(Verdict::Hint, &what, "For development only.");
        }
    }
}

fn engine_advice(error: &SandboxError) -> &'static str {
    match error {
        SandboxError::NoEngine { .. } | SandboxError::Docker { .. } | SandboxError::TimedOut { .. } => {
            "Start Docker, let the runner's user use its socket, or name another socket in [engine]."
        }
        SandboxError::Hangs { .. } => "Restart Docker: it takes connections and says nothing.",
        SandboxError::Unable { .. } => {
            "The kernel must offer the limit: see Docker's 'docker info' warnings."
        }
        SandboxError::Io { .. } => "See state_dir.",
        _ => "",
    }
}

fn entry_advice(error: &SandboxError) -> &'static str {
    match error {
        SandboxError::Runtime { .. } => {
            "See 'runtime' of its entry, and \"runtimes\" in Docker's daemon.json."
        }
        SandboxError::Process(_) => "See 'isolation' of its entry.",
        _ => "See 'image' of its entry.",
    }
}

/// Whom each CLI may reach.
fn hosts(config: &RunnerConfig) -> Vec<(&str, String, u16)> {
    let mut hosts = Vec::new();
    for cli in &config.clis {
        let Some(egress) = &cli.egress else { continue };
        for upstream in &egress.upstreams {
            let host = upstream.url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned());
            hosts.extend(
                host.zip(upstream.url.port_or_known_default())
                    .map(|(host, port)| (cli.name.as_str(), host, port)),
            );
        }
        for connect in &egress.connect {
            hosts.push((&cli.name, connect.host.trim_matches(['[', ']']).to_owned(), connect.port));
        }
    }
    hosts
}
