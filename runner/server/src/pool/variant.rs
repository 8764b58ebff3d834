//! What sandboxes are alike: the CLI, and the values of the parameters with which its process is started.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::config::model::{Cli, Template};

/// A sandbox of one variant serves any request for it.
#[derive(Clone, Debug)]
pub struct Variant {
    pub cli: Arc<Cli>,
    /// Values of the parameters in argv and in the environment.
    pub arguments: BTreeMap<String, String>,
}

impl Variant {
    /// `parameters` has a value for each of the CLI's, allowed by its entry.
    pub fn new(cli: &Arc<Cli>, parameters: &BTreeMap<String, String>) -> Self {
        let arguments =
            used(cli).filter_map(|name| Some((name.to_owned(), parameters.get(name)?.clone()))).collect();
        Self { cli: Arc::clone(cli), arguments }
    }

    /// What a request gets that names no parameter; None if it must name one.
    pub fn default_of(cli: &Arc<Cli>) -> Option<Self> {
        let arguments = used(cli)
            .map(|name| Some((name.to_owned(), cli.parameters.get(name)?.default.clone()?)))
            .collect::<Option<_>>()?;
        Some(Self { cli: Arc::clone(cli), arguments })
    }
}

fn used(cli: &Cli) -> impl Iterator<Item = &str> {
    let environment = cli.environment.iter().map(|(_, template)| template);
    cli.argv.iter().chain(environment).flat_map(Template::parameters)
}

impl PartialEq for Variant {
    fn eq(&self, other: &Self) -> bool {
        self.cli.name == other.cli.name && self.arguments == other.arguments
    }
}

impl Eq for Variant {}

impl Hash for Variant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.cli.name.hash(state);
        self.arguments.hash(state);
    }
}
