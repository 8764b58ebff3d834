//! Which crate of the workspace may know which, and that the host-free ones stay so (ARCHITECTURE).

use std::{collections::BTreeMap, time::Duration};

use cargo_metadata::Metadata;

use crate::{
    context::Context,
    process::{Finished, Problem},
    say,
    tally::Tally,
    wasm,
};

/// A crate of the workspace and the crates of the workspace that it may depend on, in any way.
struct Member {
    name: &'static str,
    may_know: &'static [&'static str],
    /// Builds for every host: no runtime, no socket, no clock, no entropy but through a port.
    host_free: bool,
}

const fn host_free(name: &'static str, may_know: &'static [&'static str]) -> Member {
    Member { name, may_know, host_free: true }
}

const fn native(name: &'static str, may_know: &'static [&'static str]) -> Member {
    Member { name, may_know, host_free: false }
}

const MEMBERS: &[Member] = &[
    host_free("openai-wire", &[]),
    host_free("catalog", &["openai-wire"]),
    host_free("runner-api", &[]),
    host_free("gateway", &["openai-wire", "catalog", "runner-api"]),
    host_free("store", &["catalog", "runner-api"]),
    host_free("edge-host", &["catalog", "gateway", "store", "runner-api"]),
    native("edge-worker", &["catalog", "edge-host", "gateway"]),
    native("edge-spin", &["catalog", "edge-host", "gateway"]),
    native("admin-api", &["catalog"]),
    host_free("cli-dialect", &["runner-api"]),
    native("dyad-sandbox-init", &[]),
    native("dyad-runner", &["runner-api", "cli-dialect", "store"]),
    native(
        "dyad-gateway",
        &[
            "openai-wire",
            "catalog",
            "edge-host",
            "gateway",
            "store",
            "runner-api",
            "admin-api",
            "dyad-runner",
        ],
    ),
    // Holds what the store sends against the policies of infra/terraform.
    native("table-policies", &["catalog", "store", "runner-api"]),
    // Tests see the product from outside.
    native("system-tests", &[]),
    native("bench", &["system-tests"]),
    native("xtask", &[]),
];

/// Crates that belong to a host. tokio is judged by its features instead: `sync` alone is channels.
const HOSTS_ONLY: &[&str] = &["hyper", "mio", "ring", "getrandom", "socket2", "rustls", "reqwest"];
const TOKIO_WITHOUT_RUNTIME: &[&str] = &["", "default", "sync"];

/// The crates that compile for every host.
pub(crate) fn host_free_members() -> impl Iterator<Item = &'static str> {
    MEMBERS.iter().filter(|member| member.host_free).map(|member| member.name)
}

/// Checks the workspace; one check for its arrows, and one per host-free crate and WASM target.
pub(crate) fn check(context: &Context) -> Result<Tally, Problem> {
    let mut tally = judge("the workspace", &wrong_arrows(&context.metadata()?));
    for name in host_free_members() {
        for target in wasm::TARGETS {
            let faults = host_crates(&tree(context, name, target)?.stdout);
            tally = tally + judge(&format!("{name} for {target}"), &faults);
        }
    }
    Ok(tally)
}

fn judge(subject: &str, faults: &[String]) -> Tally {
    for fault in faults {
        say(&format!("{subject}: {fault}"));
    }
    Tally::one(faults.is_empty())
}

/// What a crate depends on for a target: lines of `NAME vVERSION …|FEATURE,FEATURE`.
fn tree(context: &Context, name: &str, target: &str) -> Result<Finished, Problem> {
    // Not the metadata's graph: there the workspace's features are united, native hosts' included.
    let args = ["tree", "--locked", "--no-default-features", "--edges", "normal", "--prefix", "none"];
    let format = ["--format", "{p}|{f}", "--target", target, "-p", name];
    context.cargo(Duration::from_secs(120)).args(args).args(format).quiet().succeed()
}

/// Each arrow between members that [`MEMBERS`] does not allow, and each difference between the two lists.
fn wrong_arrows(metadata: &Metadata) -> Vec<String> {
    let mut listed: BTreeMap<_, _> = MEMBERS.iter().map(|member| (member.name, member.may_know)).collect();
    let packages = metadata.workspace_packages();
    let is_member = |name: &str| packages.iter().any(|package| package.name == name);
    let mut faults = Vec::new();
    for package in &packages {
        let name = package.name.as_str();
        let Some(may_know) = listed.remove(name) else {
            faults.push(format!("{name} is not listed: say in arrows.rs which crates it may know"));
            continue;
        };
        let known = package.dependencies.iter().map(|dependency| dependency.name.as_str());
        // A crate knows itself: its tests may turn on features of it.
        for other in known.filter(|other| is_member(other) && *other != name && !may_know.contains(other)) {
            faults.push(format!("{name} → {other} is an arrow that ARCHITECTURE does not allow"));
        }
    }
    faults.extend(listed.into_keys().map(|name| format!("{name} is listed but no member of the workspace")));
    faults
}

/// The crates of a dependency tree that only a host may have.
fn host_crates(tree: &str) -> Vec<String> {
    let mut faults: Vec<_> = tree.lines().filter_map(host_crate).collect();
    faults.sort_unstable();
    faults.dedup();
    faults
}

fn host_crate(line: &str) -> Option<String> {
    let (package, features) = line.split_once('|')?;
    let name = package.split(' ').next()?;
    // A subtree that was shown before ends in " (*)".
    let features = features.trim_end_matches(" (*)");
    if HOSTS_ONLY.contains(&name) {
        return Some(format!("depends on {name}"));
    }
    let has_runtime = || features.split(',').any(|feature| !TOKIO_WITHOUT_RUNTIME.contains(&feature));
    (name == "tokio" && has_runtime()).then(|| format!("depends on tokio with {features}"))
}

#[cfg(test)]
mod tests {
    use cargo_metadata::MetadataCommand;
    use serde_json::{Value, json};

    use super::*;

    /// Metadata of a workspace with these crates and what each depends on.
    fn workspace(members: &[(&str, &[&str])]) -> Metadata {
        let id = |name: &str| format!("path+file:///w/{name}#0.1.0");
        let dependency = |name: &&str| {
            json!({"name": name, "req": "*", "kind": "dev", "optional": false, "uses_default_features": true,
                   "features": [], "target": null, "source": null, "rename": null, "registry": null})
        };
        let package = |(name, dependencies): &(&str, &[&str])| {
            json!({"name": name, "version": "0.1.0", "id": id(name), "manifest_path": "/w/Cargo.toml",
                   "dependencies": dependencies.iter().map(dependency).collect::<Vec<Value>>(),
                   "targets": [], "features": {}})
        };
        let ids: Vec<_> = members.iter().map(|(name, _)| id(name)).collect();
        let metadata = json!({"packages": members.iter().map(package).collect::<Vec<Value>>(),
            "workspace_members": ids, "workspace_default_members": ids, "resolve": null,
            "workspace_root": "/w", "target_directory": "/w/target", "version": 1});
        MetadataCommand::parse(metadata.to_string()).unwrap()
    }

    fn allowed() -> Vec<(&'static str, &'static [&'static str])> {
        MEMBERS.iter().map(|member| (member.name, member.may_know)).collect()
    }

    #[test]
    fn the_architecture_is_allowed() {
        assert_eq!(wrong_arrows(&workspace(&allowed())), [""; 0]);
    }

    #[test]
    fn an_arrow_the_other_way_is_not() {
        let mut members = allowed();
        members[0] = ("openai-wire", &["serde", "gateway"]);
        let faults = wrong_arrows(&workspace(&members));
        assert_eq!(faults, ["openai-wire → gateway is an arrow that ARCHITECTURE does not allow"]);
    }

    #[test]
    fn members_and_list_agree() {
        let mut members = allowed();
        let gateway = members.iter_mut().find(|(name, _)| *name == "gateway").unwrap();
        *gateway = ("gateway-two", &["catalog"]);
        let faults = wrong_arrows(&workspace(&members));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("gateway-two is not listed"), "{faults:?}");
        assert!(faults[1].starts_with("gateway is listed but no member"), "{faults:?}");
    }

    #[test]
    fn listed_arrows_lead_to_members_and_only_down() {
        for (at, member) in MEMBERS.iter().enumerate() {
            for known in member.may_know {
                assert!(MEMBERS[..at].iter().any(|other| other.name == *known), "{} → {known}", member.name);
            }
        }
    }

    #[test]
    fn a_runtime_is_found_in_a_tree() {
        let tree = "store v0.1.0 (/w/edge/store)|default\n\
                    tokio v1.50.0|default,sync\n\
                    tokio v1.50.0|default,rt,sync (*)\n\
                    mio v1.0.0|\n\
                    mio v1.0.0| (*)\n\
                    hyper-util v0.1.0|";
        assert_eq!(host_crates(tree), ["depends on mio", "depends on tokio with default,rt,sync"]);
    }
}
