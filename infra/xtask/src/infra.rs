//! What is neither Rust nor run by a test: Terraform, IAM policies, compose, images, units, alerts, the dashboard,
//! workflows and wrangler.toml, each held against its own tool. infra/README.md says what none of them sees.

mod images;
mod metrics;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    context::Context,
    edge,
    process::{Problem, Step},
    provision, say,
    tally::Tally,
};

const SHORT: Duration = Duration::from_secs(120);
const DASHBOARD: &str = "infra/compose/grafana/dashboards/dyad-cli-gateway.json";
const UNITS: [&str; 5] = [
    "dyad-gateway.service",
    "dyad-admin.service",
    "dyad-runner.service",
    "dyad-crl.service",
    "dyad-crl.timer",
];
/// `systemd-analyze security`: 0.0 is all that can be taken away, 10.0 nothing. Services that listen.
const EXPOSED: [&str; 3] = ["dyad-gateway.service", "dyad-admin.service", "dyad-runner.service"];
const MOST_EXPOSED: &str = "20";

/// Runs all of it. What a tool says is shown; whatever it complains of counts.
pub(crate) fn check(context: &Context) -> Result<Tally, Problem> {
    let scratch = tempfile::tempdir().map_err(|error| Problem(format!("no temporary directory: {error}")))?;
    let checks = [
        terraform(context, &scratch)?,
        policies(context)?,
        compose(context)?,
        prometheus(context, &scratch)?,
        dashboard(context)?,
        workflows(context)?,
        wrangler(context, &scratch)?,
        scripts(context)?,
        units(context, &scratch)?,
        images::check(context)?,
    ];
    Ok(checks.into_iter().sum())
}

/// One check: passed if it ends with 0.
fn passes(step: Step) -> Result<Tally, Problem> {
    Ok(Tally::one(step.run()?.status.success()))
}

/// Passed if it also has nothing to say: for tools that end with 0 after a warning.
fn is_silent(step: Step) -> Result<Tally, Problem> {
    let finished = step.run()?;
    let silent = finished.stdout.trim().is_empty() && finished.stderr.trim().is_empty();
    Ok(Tally::one(finished.status.success() && silent))
}

/// A program of infra/lint-python.
fn python(context: &Context, program: &str) -> Step {
    context.step(context.clients().join("lint-python/bin").join(program), SHORT)
}

/// A script of infra/lint-node, run where its packages are installed.
fn node(context: &Context, script: &str) -> Result<Step, Problem> {
    let installed = context.clients().join("lint-node").join(script);
    let written = context.root.join("infra/lint-node").join(script);
    fs::copy(&written, &installed).map_err(|error| no_access(&written, &error))?;
    Ok(context.step("node", SHORT).arg(installed))
}

fn terraform(context: &Context, scratch: &TempDir) -> Result<Tally, Problem> {
    let mut tally =
        passes(node(context, "hcl.mjs")?.args(files(context, "infra/terraform", &["tf", "hcl"])?))?;
    let here = context.step("terraform", SHORT).arg("version").works();
    if !here {
        say("Terraform is not here: its files were parsed, not validated");
        return Ok(tally);
    }
    let format = ["fmt", "-check", "-diff", "-recursive", "infra/terraform"];
    tally = tally + passes(context.step("terraform", SHORT).args(format))?;
    // On a copy, as it leaves files behind.
    let copy = scratch.path().join("terraform");
    context.step("cp", SHORT).arg("-R").arg(context.root.join("infra/terraform")).arg(&copy).succeed()?;
    for module in ["modules/store", "examples/one-region", "examples/two-regions"] {
        let directory = copy.join(module);
        let terraform = |args: &[&str]| context.step("terraform", SHORT).args(args).current_dir(&directory);
        if !terraform(&["init", "-backend=false", "-input=false", "-no-color"]).works() {
            say("Terraform's registry is out of reach: without the AWS provider nothing was validated");
            return Ok(tally);
        }
        tally = tally + passes(terraform(&["validate", "-no-color"]))?;
        if directory.join("tests").exists() {
            tally = tally + passes(terraform(&["test", "-no-color"]))?;
        }
    }
    Ok(tally)
}

/// That they allow what the store does, and nothing else, is tested by the crate `table-policies`.
fn policies(context: &Context) -> Result<Tally, Problem> {
    let policies = files(context, "infra/terraform/modules/store/policies", &["tftpl"])?;
    passes(python(context, "python").arg("infra/lint-python/policies.py").args(policies))
}

fn compose(context: &Context) -> Result<Tally, Problem> {
    let schema = ["--builtin-schema", "vendor.compose-spec", images::COMPOSE_FILE];
    let all = images::compose(context).args(["--profile", "runner", "config", "--quiet"]);
    Ok(passes(python(context, "check-jsonschema").args(schema))? + passes(all)?)
}

fn prometheus(context: &Context, scratch: &TempDir) -> Result<Tally, Problem> {
    let promtool = || provision::promtool(context);
    let directory = context.root.join("infra/compose/prometheus");
    let expressions = metrics::expressions(&read_json(context, DASHBOARD)?);
    let rules = scratch.path().join("dashboard.yaml");
    fs::write(&rules, metrics::as_rules(&expressions)).map_err(|error| no_access(&rules, &error))?;
    let alerts = directory.join("alerts.yaml");
    let alerts = fs::read_to_string(&alerts).map_err(|error| no_access(&alerts, &error))?;
    let unknown = metrics::unknown(context, &(alerts + &expressions.join("\n")))?;
    for name in &unknown {
        say(&format!("nothing counts {name}"));
    }
    let config = ["check", "config", "--syntax-only", "prometheus.yaml"];
    Ok(passes(promtool()?.args(config).current_dir(&directory))?
        + passes(
            promtool()?.args(["check", "rules", "--lint-fatal", "alerts.yaml"]).current_dir(&directory),
        )?
        + passes(promtool()?.args(["test", "rules", "alerts.test.yaml"]).current_dir(&directory))?
        + passes(promtool()?.args(["check", "rules"]).arg(rules))?
        + Tally::one(unknown.is_empty()))
}

fn dashboard(context: &Context) -> Result<Tally, Problem> {
    passes(python(context, "python").arg("infra/lint-python/dashboard.py").arg(DASHBOARD))
}

fn workflows(context: &Context) -> Result<Tally, Problem> {
    let files = files(context, ".github/workflows", &["yml"])?;
    let schema = python(context, "check-jsonschema").args(["--builtin-schema", "vendor.github-workflows"]);
    // Offline: it would ask GitHub which commit a tag is otherwise.
    let zizmor = python(context, "zizmor").args(["--offline", "--no-progress", "--color", "never"]);
    Ok(passes(schema.args(&files))?
        + passes(node(context, "workflows.mjs")?.args(&files))?
        + passes(zizmor.args(&files))?)
}

/// Whether wrangler takes wrangler.toml, for each environment and without a warning. Beside a Worker that is none: that
/// the real one can be built is told by others, and takes minutes.
fn wrangler(context: &Context, scratch: &TempDir) -> Result<Tally, Problem> {
    let directory = scratch.path().join("worker");
    let built = directory.join("edge/worker/build");
    fs::create_dir_all(&built).map_err(|error| no_access(&built, &error))?;
    let module = built.join("index.js");
    fs::write(&module, "export default { fetch: () => new Response() };")
        .map_err(|error| no_access(&module, &error))?;
    for file in ["wrangler.toml", "edge/worker/build.sh"] {
        let from = context.root.join(file);
        fs::copy(&from, directory.join(file)).map_err(|error| no_access(&from, &error))?;
    }
    let mut tally = Tally::default();
    for environment in ["", "staging", "production"] {
        let environment = format!("--env={environment}");
        let deploy = edge::wrangler(context, SHORT)?
            .args(["deploy", "--dry-run", &environment])
            .env("WORKER_IS_BUILT", "1")
            .current_dir(&directory);
        let finished = deploy.run()?;
        let warned = [&finished.stdout, &finished.stderr].iter().any(|said| said.contains("WARNING"));
        tally = tally + Tally::one(finished.status.success() && !warned);
    }
    Ok(tally)
}

fn scripts(context: &Context) -> Result<Tally, Problem> {
    let dockerfile = passes(python(context, "hadolint").arg(images::DOCKERFILE))?;
    let scripts = [".ci/run", "infra/compose/certificates.sh", "edge/worker/build.sh"];
    Ok(dockerfile + passes(context.step("shellcheck", SHORT).args(scripts))?)
}

/// In a root of their own, where the programs that they start are.
fn units(context: &Context, scratch: &TempDir) -> Result<Tally, Problem> {
    let root = scratch.path().join("root");
    let make = "mkdir -p \"$1/etc/systemd/system\" \"$1/usr/lib/systemd\" \"$1/usr/local/bin\" \"$1/etc/dyad-gateway\"
        cp -R /lib/systemd/system \"$1/usr/lib/systemd/\"
        cp infra/systemd/*.service infra/systemd/*.timer \"$1/etc/systemd/system/\"
        printf '[Service]\\nExecStart=/usr/local/bin/dockerd\\n' > \"$1/etc/systemd/system/docker.service\"
        for file in usr/local/bin/dyad-gateway usr/local/bin/dyad-admin usr/local/bin/dyad-runner usr/local/bin/dockerd \
          etc/dyad-gateway/distribute-crl
        do install -m 755 /dev/null \"$1/$file\"; done";
    context.step("sh", SHORT).args(["-euc", make, "units"]).arg(&root).quiet().succeed()?;
    let analyze = |verb: &str| {
        let mut root_argument = std::ffi::OsString::from("--root=");
        root_argument.push(&root);
        context.step("systemd-analyze", SHORT).arg(verb).arg(root_argument)
    };
    let mut tally = is_silent(analyze("verify").arg("--man=no").args(UNITS))?;
    for unit in EXPOSED {
        let security =
            analyze("security").args(["--offline=true", "--no-pager", "--threshold", MOST_EXPOSED]);
        let finished = security.arg(unit).quiet().run()?;
        // The last line has the figure; those above say what could be taken away still.
        say(finished.stdout.lines().last().unwrap_or("systemd-analyze says nothing"));
        tally = tally + Tally::one(finished.status.success());
    }
    // It reads all of it, and says what it would do.
    let users = context.root.join("infra/systemd/dyad.sysusers.conf");
    Ok(tally + passes(context.step("systemd-sysusers", SHORT).arg("--dry-run").arg(users))?)
}

/// The files below a directory that end so.
fn files(context: &Context, directory: &str, extensions: &[&str]) -> Result<Vec<PathBuf>, Problem> {
    let mut found = Vec::new();
    let mut directories = vec![context.root.join(directory)];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).map_err(|error| no_access(&directory, &error))?;
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            if path.is_dir() {
                // Terraform's own directory of modules and providers.
                if !path.ends_with(".terraform") {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|is| extensions.iter().any(|extension| is == *extension)) {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        return Err(Problem(format!("{directory} has no files that end in {}", extensions.join(" or "))));
    }
    found.sort();
    Ok(found)
}

fn read_json(context: &Context, path: &str) -> Result<Value, Problem> {
    let path = context.root.join(path);
    let text = fs::read_to_string(&path).map_err(|error| no_access(&path, &error))?;
    serde_json::from_str(&text).map_err(|error| Problem(format!("{}: {error}", path.display())))
}

fn no_access(path: &Path, error: &std::io::Error) -> Problem {
    Problem(format!("{}: {error}", path.display()))
}
