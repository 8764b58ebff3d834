//! The images, of the programs that were built here, and the compose set-up with them.

use std::{fs, time::Duration};

use super::{SHORT, no_access, passes};
use crate::{
    context::Context,
    process::{Problem, Step},
    provision, say,
    tally::Tally,
};

pub(super) const DOCKERFILE: &str = "infra/docker/Dockerfile";
pub(super) const COMPOSE_FILE: &str = "infra/compose/compose.yaml";

const TARGETS: [&str; 2] = ["gateway", "runner"];
/// The Dockerfile's own base.
const BASE: &str = "docker.io/library/debian:bookworm-slim";
/// The same, made of Debian's packages where no registry can be reached.
const MADE_BASE: &str = "dyad-infra-base:bookworm";
const BASE_LIMIT: Duration = Duration::from_secs(600);
const IMAGE: Duration = Duration::from_secs(300);
/// What compose calls containers, networks and volumes here.
const PROJECT: &str = "dyad-infra-check";
/// Until a container is healthy: the compose file's own patience.
const HEALTHY: &str = "until [ \"$(docker inspect --format '{{.State.Health.Status}}' \"$1\")\" = healthy ]; do sleep 0.2; done";

/// `docker compose`, or its predecessor where Docker has no such plugin, with everything set that must be.
pub(super) fn compose(context: &Context) -> Step {
    let is_plugin = context.step("docker", SHORT).args(["compose", "version"]).works();
    let step = if is_plugin {
        context.step("docker", IMAGE).arg("compose")
    } else {
        context.step("docker-compose", IMAGE)
    };
    step.args(["--project-name", PROJECT, "--file", COMPOSE_FILE])
        .env("DYAD_KEY_SECRET", "for this check alone, of 32 bytes and more")
        .env("GRAFANA_PASSWORD", "for this check alone")
        // Any that is free.
        .env("GATEWAY_PORT", "0")
}

/// Both images start; the gateway of the compose set-up, with its table and its certificates, serves.
pub(super) fn check(context: &Context) -> Result<Tally, Problem> {
    let Some(docker) = with_buildkit(context) else {
        return Err(Problem("no docker here builds with BuildKit: install docker-buildx".into()));
    };
    let base = base(context)?;
    let dist = context.root.join("dist");
    fs::create_dir_all(&dist).map_err(|error| no_access(&dist, &error))?;
    let gateway = context.gateway_binary()?;
    // Of the same package.
    let admin = gateway.with_file_name("dyad-admin");
    for binary in [gateway, admin, context.runner_binary()?] {
        // Without symbols, as a release: they are most of it.
        context
            .step("strip", SHORT)
            .arg("-o")
            .arg(dist.join(binary.file_name().unwrap_or_default()))
            .arg(binary)
            .succeed()?;
    }
    let mut tally = Tally::default();
    for target in TARGETS {
        let image = format!("dyad-{target}:local");
        let build = context
            .step(docker, IMAGE)
            .args(["build", "--network", "host", "--quiet"])
            .env("DOCKER_BUILDKIT", "1");
        let build = build.args(["--file", DOCKERFILE, "--target", target, "--tag", &image]);
        let build = build.args([
            "--build-arg",
            "BINARIES=prebuilt",
            "--build-arg",
            &format!("BASE_IMAGE={base}"),
            ".",
        ]);
        tally = tally + passes(build)?;
        let run =
            ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none", &image, "--version"];
        tally = tally + passes(context.step("docker", SHORT).args(run))?;
        let user = ["inspect", "--format", "{{.Config.User}}", &image];
        let user = context.step("docker", SHORT).args(user).quiet().succeed()?.stdout;
        tally = tally + Tally::one(user == "65532:65532");
    }
    let admin = [
        "run",
        "--rm",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--network",
        "none",
        "--entrypoint",
        "dyad-admin",
        "dyad-gateway:local",
        "--version",
    ];
    tally = tally + passes(context.step("docker", SHORT).args(admin))?;
    let served = serves(context);
    // Whatever came of it.
    compose(context).args(["down", "--volumes"]).quiet().succeed()?;
    fs::remove_dir_all(&dist).map_err(|error| no_access(&dist, &error))?;
    Ok(tally + served?)
}

/// Everything that needs no image from elsewhere, and no place on this machine: the runner has its folder there.
fn serves(context: &Context) -> Result<Tally, Problem> {
    let up = ["up", "--detach", "--no-build", "store", "table", "certificates", "gateway"];
    if !compose(context).args(up).run()?.status.success() {
        compose(context).arg("logs").run()?;
        return Ok(Tally::one(false));
    }
    let id = compose(context).args(["ps", "--quiet", "gateway"]).quiet().succeed()?.stdout;
    let healthy = passes(context.step("bash", SHORT).args(["-c", HEALTHY, "healthy", id.trim()]))?;
    let key = ["run", "--rm", "-T", "gateway", "keys", "create", "--label", "check", "--json"];
    let key = compose(context).args(key).quiet().succeed()?.stdout;
    // It has an API key in it: no more than that it is there is said.
    let made = Tally::one(key.contains("dgw_"));
    Ok(healthy + made)
}

/// A Docker client that can build with `BuildKit`, which newer ones do by a plugin that may not be there.
fn with_buildkit(context: &Context) -> Option<&'static str> {
    ["docker", "/usr/bin/docker"].into_iter().find(|client| {
        context.step(client, SHORT).args(["build", "--help"]).env("DOCKER_BUILDKIT", "1").works()
    })
}

fn base(context: &Context) -> Result<&'static str, Problem> {
    let docker = |args: &[&str]| context.step("docker", SHORT).args(args);
    if docker(&["image", "inspect", BASE]).works() || docker(&["pull", "--quiet", BASE]).works() {
        return Ok(BASE);
    }
    if docker(&["image", "inspect", MADE_BASE]).works() {
        return Ok(MADE_BASE);
    }
    say("debian:bookworm-slim cannot be pulled: making the like of it from Debian's packages (once)");
    if !context.step("debootstrap", SHORT).arg("--version").works() {
        provision::install_debian(context, &["debootstrap"])?;
    }
    let directory =
        tempfile::tempdir().map_err(|error| Problem(format!("no temporary directory: {error}")))?;
    let root = directory.path().join("root");
    let make = "debootstrap --variant=minbase bookworm \"$1\"
        rm -rf \"$1\"/var/cache/apt/archives/*.deb \"$1\"/var/lib/apt/lists/*
        tar -C \"$1\" -c . | docker import - \"$2\"";
    let make = ["-euc", make, "base"];
    context.step("sh", BASE_LIMIT).args(make).arg(&root).arg(MADE_BASE).quiet().succeed()?;
    Ok(MADE_BASE)
}
