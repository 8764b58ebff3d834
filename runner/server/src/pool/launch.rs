//! Sandboxes for real: the egress endpoint is opened, argv and environment are filled in, the engine starts the CLI.

use std::collections::BTreeMap;

use cli_dialect::{Dialect, Exit, Observed, WorkspaceFile};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Variant;
use super::place::{Hold, Place, Sandboxes, StartError};
use crate::config::model::{Mode, Piece, Template};
use crate::egress::{EgressProxy, Endpoint};
use crate::error_chain::error_chain;
use crate::sandbox::{EgressSocket, Engine, Lifeline, Prepared, Sandbox, SandboxSpec, files_header};

/// Makes sandboxes of the CLIs of the operator's file.
pub struct Launcher {
    engine: Engine,
    egress: EgressProxy,
    /// By the CLI's name.
    prepared: BTreeMap<String, Prepared>,
}

impl Launcher {
    /// `prepared` has what [`Engine::prepare`] gave for each CLI, by its name.
    pub fn new(engine: Engine, egress: EgressProxy, prepared: BTreeMap<String, Prepared>) -> Self {
        Self { engine, egress, prepared }
    }

    async fn launch(&self, variant: &Variant) -> Result<Place, StartError> {
        let cli = &variant.cli;
        let prepared = self
            .prepared
            .get(&cli.name)
            .ok_or_else(|| StartError(format!("the image of {} has not been prepared", cli.name)))?;
        let endpoint = self.egress.open(cli).map_err(|error| StartError(error_chain(&error)))?;
        let fill = |template: &Template| fill(template, variant, endpoint.as_ref());
        let spec = SandboxSpec {
            cli: cli.name.clone(),
            prepared: prepared.clone(),
            limits: cli.limits.clone(),
            argv: cli.argv.iter().map(fill).collect(),
            environment: cli.environment.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            egress: endpoint
                .as_ref()
                .zip(cli.egress.as_ref())
                .map(|(endpoint, egress)| EgressSocket { path: endpoint.socket_path(), port: egress.port }),
            waits_for_files: cli.mode == Mode::OneShot,
        };
        let started = self.engine.start(spec).await;
        let Sandbox { stdin, output, lifeline, .. } =
            started.map_err(|error| StartError(error_chain(&error)))?;
        let hold = Box::new(Held { lifeline, endpoint });
        Ok(Place { stdin: Box::new(stdin), output, hold })
    }
}

impl Sandboxes for Launcher {
    fn start<'a>(&'a self, variant: &'a Variant) -> BoxFuture<'a, Result<Place, StartError>> {
        self.launch(variant).boxed()
    }

    fn dialect(&self, variant: &Variant) -> Box<dyn Dialect> {
        cli_dialect::dialect(variant.cli.dialect, &variant.cli.settings)
    }

    fn files_header(&self, files: &[WorkspaceFile]) -> Result<Vec<u8>, StartError> {
        files_header(files).map_err(|error| StartError(error.to_string()))
    }
}

/// The operator's text with the run's values in it. That each piece has one was checked with the operator's file.
fn fill(template: &Template, variant: &Variant, endpoint: Option<&Endpoint>) -> String {
    let mut text = String::new();
    for piece in &template.0 {
        match piece {
            Piece::Literal(literal) => text.push_str(literal),
            Piece::Parameter(name) => text.push_str(variant.arguments.get(name).map_or("", String::as_str)),
            Piece::EgressToken => text.push_str(endpoint.map_or("", |endpoint| endpoint.token().expose())),
            Piece::EgressUrl(name) => text.push_str(&endpoint.map_or_else(String::new, |e| e.base_url(name))),
        }
    }
    text
}

struct Held {
    lifeline: Lifeline,
    endpoint: Option<Endpoint>,
}

impl Hold for Held {
    fn exit(&mut self) -> BoxFuture<'_, Exit> {
        self.lifeline.exit().boxed()
    }

    fn observed(&self) -> Observed {
        self.endpoint.as_ref().map(Endpoint::observed).unwrap_or_default()
    }

    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        let Self { lifeline, endpoint } = *self;
        // Calls to the vendor end at once, before the container does.
        drop(endpoint);
        lifeline.cut().boxed()
    }
}
