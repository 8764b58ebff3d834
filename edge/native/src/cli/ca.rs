//! `dyad-gateway ca …`

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{CommonArgs, Failure};
use crate::ca::{
    CaError, CertificateAuthority, CertificateRequest, Issued, IssuedCertificate, MAX_DAYS,
    REVOCATION_LIST_DAYS, State, SubjectAltName, Usage,
};
use crate::data_dir::DataDir;
use crate::error_chain::error_chain;
use crate::file::{self, PRIVATE, PUBLIC};
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Make a certificate authority for a fleet; one that is there already is never touched
    Init {
        /// What certificates show as their issuer
        #[arg(long, default_value = "dyad-fleet")]
        name: String,
        /// How long it is good
        #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = days())]
        days: u32,
        #[command(flatten)]
        ca: CaArgs,
    },
    /// Issue a certificate with a new key to a node (--server) or an edge (--client)
    #[command(
        after_help = "Examples:\n  dyad-gateway ca issue runner-1 --server --san runner-1.example.com\n  dyad-gateway ca issue edge --client --san edge.example.com --out ./edge-files"
    )]
    Issue {
        /// Names the files, NAME.pem and NAME.key; identifies nobody
        name: String,
        /// By this its holder is known: a DNS name, an IP address or a URI; may be repeated
        #[arg(long = "san", value_name = "NAME", required = true)]
        names: Vec<SubjectAltName>,
        /// Its holder accepts connections: a runner's node. If neither this nor the next is said, both hold
        #[arg(long)]
        server: bool,
        /// Its holder makes connections: an edge
        #[arg(long)]
        client: bool,
        /// How long it is good; never longer than the authority
        #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = days())]
        days: u32,
        /// Where the files are written [default: 'issued' in the authority's directory]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Put them in the place of earlier ones, as for a renewal; the earlier certificate stays good until it expires
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        ca: CaArgs,
    },
    /// Revoke a certificate, or all with a name, and write the revocation list
    Revoke {
        /// As 'ca list' shows it
        #[arg(value_name = "SERIAL|NAME")]
        which: String,
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        ca: CaArgs,
    },
    /// Write the revocation list anew, which must happen before it is stale: nodes and gateways that have it then refuse everybody
    Crl {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        ca: CaArgs,
    },
    /// List what was issued
    List {
        #[command(flatten)]
        ca: CaArgs,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CaArgs {
    /// The authority's directory [default: 'ca' in the data directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// How long the revocation list holds
    #[arg(long, value_name = "DAYS", default_value_t = REVOCATION_LIST_DAYS, value_parser = days())]
    days: u32,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS))
}

impl CaArgs {
    fn directory(&self) -> PathBuf {
        let default = || DataDir::locate(self.common.data_dir.as_deref()).path().join("ca");
        self.dir.clone().unwrap_or_else(default)
    }
}

impl CaCommand {
    fn args(&self) -> &CaArgs {
        match self {
            Self::Init { ca, .. }
            | Self::Issue { ca, .. }
            | Self::Revoke { ca, .. }
            | Self::Crl { ca, .. }
            | Self::List { ca } => ca,
        }
    }

    pub(crate) fn common(&self) -> &CommonArgs {
        &self.args().common
    }
}

pub(crate) fn run(command: &CaCommand) -> Result<(), Failure> {
    let directory = command.args().directory();
    let output = Output::new(command.common().json);
    let now = SystemTime::now();
    match command {
        CaCommand::Init { name, days, .. } => {
            let authority = CertificateAuthority::create(&directory, name, *days, now)?;
            output.object(&json!({
                "authority": directory.join("ca.pem"), "revocation_list": authority.revocation_list_path(),
                "expires_at_ms": ms(authority.expires()),
            }));
            output.say(format!(
                "Made a certificate authority in {}, good until {}.",
                directory.display(),
                date(authority.expires())
            ));
            output.say("Nodes and edges need its ca.pem; keep its ca.key to yourself.");
        }
        CaCommand::Issue { name, names, server, client, days, out, replace, .. } => {
            let authority = CertificateAuthority::open(&directory)?;
            let usage = match (server, client) {
                (true, false) => Usage::Server,
                (false, true) => Usage::Client,
                _ => Usage::Both,
            };
            let request = CertificateRequest { name: name.clone(), names: names.clone(), usage, days: *days };
            let out = out.clone().unwrap_or_else(|| directory.join("issued"));
            let files = Files::plan(&out, &request, *replace)?;
            let issued = authority.issue(&request, now)?;
            files.write(&issued, *replace)?;
            output.object(&{
                let mut shown = shown(&issued.record, now);
                shown["certificate"] = json!(files.certificate);
                shown["key"] = json!(files.key);
                shown["authority"] = json!(directory.join("ca.pem"));
                shown
            });
            let expires = date(issued.record.expires());
            output.say(format!("Issued {name} ({}), good until {expires}:", issued.record.names.join(", ")));
            output.say(format!("  certificate  {}", files.certificate.display()));
            output.say(format!("  private key  {}", files.key.display()));
            output.say(format!("  authority    {}", directory.join("ca.pem").display()));
        }
        CaCommand::Revoke { which, list, .. } => {
            let authority = CertificateAuthority::open(&directory)?;
            let revoked = authority.revoke(which, list.days, now)?;
            for certificate in &revoked {
                output.object(&shown(certificate, now));
                output.say(format!("Revoked {} ({}).", certificate.name, certificate.serial));
            }
            if revoked.is_empty() {
                output.say(format!("{which} was revoked already, or has expired."));
            }
            say_revocation_list(output, &authority, list.days);
        }
        CaCommand::Crl { list, .. } => {
            let authority = CertificateAuthority::open(&directory)?;
            authority.renew_revocation_list(list.days, now)?;
            output.object(&json!({"revocation_list": authority.revocation_list_path(), "days": list.days}));
            say_revocation_list(output, &authority, list.days);
        }
        CaCommand::List { .. } => list(&CertificateAuthority::list(&directory)?, output, now),
    }
    Ok(())
}

fn say_revocation_list(output: Output, authority: &CertificateAuthority, days: u32) {
    let path = authority.revocation_list_path();
    output.say(format!(
        "The revocation list {} holds for {days} days. Until it is there, nothing has changed: bring it to every node (its \
         revocation_list) and every gateway (crl in [runners]), which read it again when it changes.",
        path.display()
    ));
}

fn list(certificates: &[IssuedCertificate], output: Output, now: SystemTime) {
    let header = ["SERIAL", "NAME", "KNOWN AS", "FOR", "EXPIRES", "STATE"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for certificate in certificates {
        output.object(&shown(certificate, now));
        rows.push(vec![
            certificate.serial.clone(),
            certificate.name.clone(),
            certificate.names.join(","),
            usage(certificate.usage).to_owned(),
            date(certificate.expires()),
            match certificate.state(now) {
                State::Good => "good",
                State::Revoked => "revoked",
                State::Expired => "expired",
            }
            .to_owned(),
        ]);
    }
    if certificates.is_empty() {
        output.say("Nothing was issued yet; 'dyad-gateway ca issue' issues a certificate.");
    } else {
        output.table(&rows);
    }
}

fn shown(certificate: &IssuedCertificate, now: SystemTime) -> Value {
    json!({
        "serial": certificate.serial, "name": certificate.name, "names": certificate.names,
        "usage": certificate.usage, "state": certificate.state(now),
        "issued_at_ms": certificate.issued_unix * 1000, "expires_at_ms": certificate.expires_unix * 1000,
        "revoked_at_ms": certificate.revoked_unix.map(|at| at * 1000),
    })
}

fn usage(usage: Usage) -> &'static str {
    match usage {
        Usage::Server => "server",
        Usage::Client => "client",
        Usage::Both => "server, client",
    }
}

/// The day, in UTC.
fn date(at: SystemTime) -> String {
    OffsetDateTime::from(at).date().to_string()
}

fn ms(at: SystemTime) -> i64 {
    OffsetDateTime::from(at).unix_timestamp() * 1000
}

/// Where an issued certificate goes.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    /// Refuses before anything is issued.
    fn plan(out: &Path, request: &CertificateRequest, replace: bool) -> Result<Self, Failure> {
        request.check()?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(out);
        made.map_err(|error| Failure::failed(&out.display().to_string(), &error))?;
        let file = |extension: &str| out.join(format!("{}.{extension}", request.name));
        let files = Self { certificate: file("pem"), key: file("key") };
        for path in [&files.certificate, &files.key] {
            if !replace && path.exists() {
                return Err(Failure::Failed(format!(
                    "{} is there already: give another --out, or --replace to renew it",
                    path.display()
                )));
            }
        }
        Ok(files)
    }

    fn write(&self, issued: &Issued, replace: bool) -> Result<(), Failure> {
        let write = if replace { file::replace } else { file::write_new };
        let key = issued.key_pem();
        for (path, text, mode) in
            [(&self.key, key.expose(), PRIVATE), (&self.certificate, issued.certificate_pem.as_str(), PUBLIC)]
        {
            write(path, text, mode).map_err(|error| Failure::failed(&path.display().to_string(), &error))?;
        }
        Ok(())
    }
}

impl From<CaError> for Failure {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Refused(line) => Self::Usage(vec![line]),
            error => Self::Failed(error_chain(&error)),
        }
    }
}
