//! `dyad-admin`: the administration alone, for a table whose gateways are Workers, Spin components, or elsewhere.

use std::net::SocketAddr;
use std::process::ExitCode;

use catalog::CredentialRef;
use clap::Parser;
use edge_host::variables;
use serde_json::json;

use super::greeting::{console_url, metrics_url, origin};
use super::serving::{ServingArgs, Signals, bind, listen_address};
use super::{CommonArgs, Failure, ProviderArgs, StoreArgs, block_on, exit_code};
use crate::admin::{self, Access};
use crate::metrics;
use crate::output::Output;
use crate::providers::{Given, gather, open_gateway};
use crate::router::{GatewayServes, Site};
use crate::server::Server;
use crate::store_location::{MASTER_KEYS_FILE, StoreLocation};

/// The administration of a table's gateways: its API under /admin, its console under /console.
#[derive(Debug, Parser)]
#[command(
    name = "dyad-admin",
    version,
    after_help = "It takes a table (DYAD_TABLE, AWS_REGION), its key secret (DYAD_KEY_SECRET), master keys (DYAD_MASTER_KEYS_FILE), and whose tokens count (DYAD_ADMIN_JWT_SECRET, DYAD_ADMIN_JWT_PUBLIC_KEY or DYAD_ADMIN_JWKS); see the README. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub struct AdminCli {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4101", env = "DYAD_ADMIN_LISTEN", value_parser = listen_address)]
    listen: SocketAddr,
    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON, one object per line, for programs
    #[arg(long)]
    json: bool,
}

impl AdminCli {
    pub fn run(self) -> ExitCode {
        exit_code(self.json, self.serve())
    }

    fn serve(&self) -> Result<(), Failure> {
        // Everything that can be wrong is looked at before a port is bound.
        let given = self.gather()?;
        let options = self.serving.server_options()?;
        self.serving.start_logging(self.json)?;
        block_on(async {
            let mut signals = Signals::new()?;
            let listener = bind(self.listen, "--listen")?;
            let metrics = self.serving.bind_metrics()?;
            let has_master_keys =
                !matches!(given.location, StoreLocation::DynamoDb { master_keys: CredentialRef::None, .. });
            let location = given.location.to_string();
            let (opened, access) = open_gateway(given, None).await?;
            let gateway = opened.gateway();
            let (administration, _) = admin::routes(&opened, access)?;
            let site =
                Site { gateway: gateway.clone(), administration, gateway_serves: GatewayServes::Health };
            let server = Server::start(listener, &site, &options)
                .map_err(|error| Failure::failed("the server cannot start", &error))?;
            let metrics = metrics.map(|listener| metrics::serve(listener, gateway)).transpose();
            let metrics = metrics.map_err(|error| Failure::failed("the metrics cannot be served", &error))?;

            let url = origin(server.local_addr(), options.tls.is_some());
            let output = Output::new(self.json);
            let mut ready = json!({"event": "ready", "url": url, "console_url": console_url(&url)});
            if let Some(server) = &metrics {
                ready["metrics_url"] = metrics_url(server.local_addr()).into();
            }
            output.object(&ready);
            output.say(format!(
                "The administration of {location} is served at {url}/admin; its console is {}.",
                console_url(&url)
            ));
            if !has_master_keys {
                output.remark(&format!(
                    "There are no master keys ({MASTER_KEYS_FILE} or {}): credentials can only be references (env:NAME).",
                    variables::MASTER_KEYS
                ));
            }
            let health = tokio::spawn(admin::check_health(gateway.clone()));
            let signal = signals.next().await;
            health.abort();
            self.serving.drain(server, signal, &mut signals).await
        })?
    }

    fn gather(&self) -> Result<Given, Failure> {
        let providers = ProviderArgs { upstreams: Vec::new(), no_discovery: true, no_runner: true };
        let common = CommonArgs { data_dir: None, json: self.json };
        let given = gather(&providers, &self.store, &common)?;
        let mut problems = Vec::new();
        if let StoreLocation::DataDir(_) = given.location {
            problems.push("no table is named: add --table or DYAD_TABLE; a data directory is administered by 'dyad-gateway up' itself");
        }
        match given.access {
            Access::Tokens(_) => {}
            Access::Own => problems.push(
                "nothing says whose tokens count: set DYAD_ADMIN_JWT_SECRET, DYAD_ADMIN_JWT_PUBLIC_KEY or DYAD_ADMIN_JWKS, or the like in [admin]",
            ),
            Access::Off => problems.push(
                "the administration is turned off by DYAD_ADMIN_ENABLED or [admin] enabled, and nothing else is served here",
            ),
        }
        if problems.is_empty() {
            Ok(given)
        } else {
            Err(Failure::Usage(problems.into_iter().map(str::to_owned).collect()))
        }
    }
}
