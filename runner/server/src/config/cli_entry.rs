//! `[[cli]]`: one CLI that may run here.

mod parameters;

use std::time::Duration;

use cli_dialect::{JsonlPaths, Kind, Settings, SystemPrompt, ToolsAs};
use toml::Value;

use super::Fields;
use super::credential::is_variable_name;
use super::egress::egress;
use super::fields::{shown, text};
use super::image::image;
use super::model::{
    Cli, ECHO_ARGV, Egress, Engine, Image, Isolated, Limits, Mode, Piece, PoolSize, Template,
};

const MAX_ARGUMENTS: usize = 256;
const MAX_VARIABLES: usize = 128;
const MIB: u64 = 1 << 20;

const DEFAULT_MEMORY: u64 = 1 << 30;
const DEFAULT_TMPFS: u64 = 256 * MIB;
const DEFAULT_FILE: u64 = 64 * MIB;
const DEFAULT_OUTPUT: u64 = 64 * MIB;
const DEFAULT_INODES: u64 = 16_384;
const DEFAULT_OPEN_FILES: u64 = 1024;
const DEFAULT_PIDS: u32 = 256;
const DEFAULT_WALL_TIME: Duration = Duration::from_secs(600);
const DEFAULT_IDLE_TIME: Duration = Duration::from_secs(120);
const DEFAULT_BOOT_TIME: Duration = Duration::from_secs(30);
const DEFAULT_POOL_AGE: Duration = Duration::from_secs(1800);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

const DIALECTS: &[(&str, Kind)] = &[
    ("text", Kind::Text),
    ("claude", Kind::Claude),
    ("gemini", Kind::Gemini),
    ("codex", Kind::Codex),
    ("opencode", Kind::Opencode),
    ("qwen", Kind::Qwen),
    ("llm", Kind::Llm),
    ("jsonl", Kind::Jsonl),
    ("claude-stream-json", Kind::ClaudeStreamJson),
    ("codex-app-server", Kind::CodexAppServer),
    ("acp", Kind::Acp),
];

/// Whether it is a session protocol: the CLI gets requests as messages, not as its stdin.
fn is_session(kind: Kind) -> bool {
    matches!(kind, Kind::ClaudeStreamJson | Kind::CodexAppServer | Kind::Acp)
}

pub(super) fn cli(fields: &mut Fields<'_>, engine: Option<&Engine>) -> Option<Cli> {
    let name = fields.required("name", "what requests call this CLI", |value| cli_name(text(value)?));
    if !fields.has("dialect") {
        fields.violation(
            "dialect",
            "is missing: what this CLI speaks, such as \"claude-stream-json\" or \"text\"",
        );
    }
    let dialect = fields.word("dialect", DIALECTS);
    let default_mode = if dialect.is_some_and(is_session) { Mode::Parked } else { Mode::OneShot };
    let mode =
        fields.word("mode", &[("parked", Mode::Parked), ("one-shot", Mode::OneShot)]).unwrap_or(default_mode);
    let isolated = isolated(fields, engine, name.as_deref());
    let is_echo = matches!(&isolated, Some(Isolated::Container { image: Image::Echo, .. }));
    let argv = argv(fields, is_echo);
    let parameters = fields.table_or_empty("parameters", parameters::parameters).flatten();
    let environment = fields.table_or_empty("environment", environment).flatten();
    let settings = settings(fields, dialect, mode);
    let limits = fields.table_or_empty("limits", limits);
    let egress = fields.table("egress", egress).flatten();
    let pool = fields.table_or_empty("pool", |fields| pool(fields, mode));
    let images = images(fields, dialect, mode);
    // What is wrong by itself need not fit the rest.
    if let (Some(argv), Some(parameters)) = (&argv, &parameters) {
        parameters::check_uses(fields, argv, parameters, dialect);
    }
    if let (Some(argv), Some(environment)) = (&argv, &environment) {
        if egress.is_some() || !fields.has("egress") {
            check_templates(fields, argv, environment, egress.as_ref());
        }
        if settings.system == SystemPrompt::File && !names_system_file(argv, environment) {
            fields.violation(
                "system_prompt",
                "\"file\" needs an argument or a variable that names the file, system.md in the working directory",
            );
        }
    }
    Some(Cli {
        name: name?,
        isolated: isolated?,
        mode,
        argv: argv?,
        parameters: parameters?,
        dialect: dialect?,
        settings,
        environment: environment?,
        limits: limits?,
        egress,
        pool: pool?,
        images,
    })
}

fn cli_name(name: &str) -> Result<String, String> {
    let is_name = name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    let rule = "must be at most 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first";
    if is_name { Ok(name.to_owned()) } else { Err(rule.to_owned()) }
}

fn isolated(fields: &mut Fields<'_>, engine: Option<&Engine>, name: Option<&str>) -> Option<Isolated> {
    let is_process = fields.word("isolation", &[("container", false), ("process", true)]).unwrap_or(false);
    if !is_process {
        let image = image(fields, name);
        let runtime = fields.parsed("runtime", |value| {
            let runtime = text(value)?;
            let is_name = runtime.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            let rule = "must be the name of a runtime that the Docker engine knows, such as \"runsc\"";
            if is_name { Ok(runtime.to_owned()) } else { Err(rule.to_owned()) }
        });
        return image.map(|image| Isolated::Container { image, runtime });
    }
    if engine.is_some_and(|engine| !engine.allow_process) {
        fields.violation(
            "isolation",
            "\"process\" is weaker than a container, for development only: it needs allow_process = true in [engine]",
        );
    }
    for name in ["image", "runtime"] {
        fields.misplaced(name, "is for containers; this entry has isolation = \"process\"");
    }
    Some(Isolated::Process)
}

fn argv(fields: &mut Fields<'_>, is_echo: bool) -> Option<Vec<Template>> {
    if is_echo {
        fields.misplaced("argv", "is not for the built-in echo, which has its own program");
        let literal = |argument: &str| Template(vec![Piece::Literal(argument.to_owned())]);
        return Some(ECHO_ARGV.map(literal).to_vec());
    }
    let is_listed = fields.has("argv");
    let argv = fields.list("argv", MAX_ARGUMENTS, argument);
    if !is_listed || argv.as_ref().is_some_and(Vec::is_empty) {
        fields
            .violation("argv", "must have the CLI's program and its arguments, such as [\"claude\", \"-p\"]");
    }
    if argv.as_ref().and_then(|argv| argv.first()).is_some_and(|program| program.0.is_empty()) {
        fields.violation("argv[0]", "must name the CLI's program");
    }
    argv
}

fn argument(value: &Value) -> Result<Template, String> {
    let template = template(value)?;
    if template.0.contains(&Piece::EgressToken) {
        return Err(
            "must not have {egress.token}: everybody on a host can read a process's arguments; give it in [cli.environment]"
                .to_owned(),
        );
    }
    Ok(template)
}

fn template(value: &Value) -> Result<Template, String> {
    let text = value.as_str().ok_or("must be a string")?;
    if text.contains('\0') {
        return Err("must not have a NUL character".to_owned());
    }
    Template::parse(text)
}

fn environment(fields: &mut Fields<'_>) -> Option<Vec<(String, Template)>> {
    let names: Vec<_> = fields.names().collect();
    if names.len() > MAX_VARIABLES {
        fields.violation("", format!("has {} variables; at most {MAX_VARIABLES} are allowed", names.len()));
        return None;
    }
    let mut variables = Vec::with_capacity(names.len());
    for name in names {
        if !is_variable_name(name) {
            fields.violation(&shown(name), "is no name of an environment variable");
            continue;
        }
        if let Some(value) = fields.named(name, template) {
            if value.parameters().next().is_some() {
                fields.violation(name, "must not have parameters: they are for argv");
            }
            variables.push((name.clone(), value));
        }
    }
    Some(variables)
}

fn settings(fields: &mut Fields<'_>, dialect: Option<Kind>, mode: Mode) -> Settings {
    let tools = fields.word("tools_as", &[("notice", ToolsAs::Notice), ("reasoning", ToolsAs::Reasoning)]);
    let words = [("inline", SystemPrompt::Inline), ("file", SystemPrompt::File)];
    let system = fields.word("system_prompt", &words);
    if system.is_some() && dialect.is_some_and(is_session) {
        fields.violation("system_prompt", "is not for session protocols, which have their own way");
    }
    if system == Some(SystemPrompt::File) && mode == Mode::Parked {
        fields.violation(
            "system_prompt",
            "\"file\" needs mode = \"one-shot\": a parked CLI has started before there is a file",
        );
    }
    let jsonl = fields.table("jsonl", jsonl).flatten();
    match dialect {
        Some(Kind::Jsonl) if !fields.has("jsonl") => {
            fields.violation("jsonl", "is missing: the table [cli.jsonl] says where a line has its text");
        }
        Some(kind) if kind != Kind::Jsonl && fields.has("jsonl") => {
            fields.violation("jsonl", "is for dialect = \"jsonl\"");
        }
        _ => {}
    }
    Settings { tools: tools.unwrap_or_default(), system: system.unwrap_or_default(), jsonl }
}

fn jsonl(fields: &mut Fields<'_>) -> Option<JsonlPaths> {
    let text = fields.required(
        "text",
        "the JSON Pointer to a piece of the answer, such as \"/delta/text\"",
        pointer,
    );
    let reasoning = fields.parsed("reasoning", pointer);
    let input_tokens = fields.parsed("input_tokens", pointer);
    let output_tokens = fields.parsed("output_tokens", pointer);
    let error = fields.parsed("error", pointer);
    let finish = fields.parsed("finish", pointer);
    Some(JsonlPaths { text: text?, reasoning, input_tokens, output_tokens, error, finish })
}

/// RFC 6901, the whole document aside: a line is an object.
fn pointer(value: &Value) -> Result<String, String> {
    let pointer = text(value)?;
    let is_escaped = pointer.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if pointer.starts_with('/') && is_escaped {
        Ok(pointer.to_owned())
    } else {
        Err("must be a JSON Pointer (RFC 6901), such as \"/delta/text\"".to_owned())
    }
}

fn limits(fields: &mut Fields<'_>) -> Limits {
    let memory_bytes = fields.size("memory", 8 * MIB..=1 << 40).unwrap_or(DEFAULT_MEMORY);
    let cpu_milli = fields.parsed("cpus", cpu_milli).unwrap_or(1000);
    // An agent's runtime alone has a dozen threads; with fewer it dies in ways that say nothing.
    let pids = fields.number("pids", 32..=32_768).and_then(|pids| u32::try_from(pids).ok());
    let open_files = fields.number("open_files", 128..=1 << 20);
    let file_bytes = fields.size("file_size", 1 << 10..=1 << 40);
    let tmpfs = fields.size("tmpfs", 64 << 10..=1 << 40);
    if tmpfs.is_some_and(|tmpfs| tmpfs > memory_bytes) {
        fields.violation("tmpfs", "must be at most the memory: what lies in a tmpfs counts as memory");
    }
    let tmpfs_inodes = fields.number("tmpfs_files", 64..=1 << 24);
    let output_bytes = fields.size("output", 1 << 10..=1 << 34);
    let wall_time = fields.duration("wall_time", SECOND..=DAY);
    let idle_time = fields.duration("idle_time", SECOND..=DAY);
    let boot_time = fields.duration("boot_time", SECOND..=Duration::from_secs(600));
    Limits {
        memory_bytes,
        cpu_milli,
        pids: pids.unwrap_or(DEFAULT_PIDS),
        open_files: open_files.unwrap_or(DEFAULT_OPEN_FILES),
        file_bytes: file_bytes.unwrap_or(DEFAULT_FILE),
        // A small sandbox has a small tmpfs without being told.
        tmpfs_bytes: tmpfs.unwrap_or(DEFAULT_TMPFS.min(memory_bytes / 4)),
        tmpfs_inodes: tmpfs_inodes.unwrap_or(DEFAULT_INODES),
        output_bytes: output_bytes.unwrap_or(DEFAULT_OUTPUT),
        wall_time: wall_time.unwrap_or(DEFAULT_WALL_TIME),
        idle_time: idle_time.unwrap_or(DEFAULT_IDLE_TIME),
        boot_time: boot_time.unwrap_or(DEFAULT_BOOT_TIME),
    }
}

/// Cores, such as `0.5` or `2`, as thousandths.
fn cpu_milli(value: &Value) -> Result<u32, String> {
    #[expect(clippy::cast_precision_loss, reason = "larger numbers are out of range anyway")]
    let cores = value.as_float().or_else(|| value.as_integer().map(|cores| cores as f64));
    match cores {
        Some(cores) if (0.01..=1024.0).contains(&cores) => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is from 10 to 1,024,000"
            )]
            let milli = (cores * 1000.0).round() as u32;
            Ok(milli)
        }
        _ => Err("must be a number of cores from 0.01 to 1024, such as 0.5".to_owned()),
    }
}

fn pool(fields: &mut Fields<'_>, mode: Mode) -> PoolSize {
    let (default_min, default_max) = match mode {
        Mode::Parked => (1, 4),
        Mode::OneShot => (0, 0),
    };
    let given_min = fields.count("min", 0..=1024);
    let given_max = fields.count("max", 0..=1024);
    // One that is given alone takes the other along.
    let min = given_min.unwrap_or(given_max.map_or(default_min, |max| default_min.min(max)));
    let max = given_max.unwrap_or(default_max.max(min));
    if max < min {
        fields.violation("max", format!("must be at least {min}, which is min"));
    }
    if max == 0 && mode == Mode::Parked {
        fields
            .violation("max", "must be at least 1 for mode = \"parked\", which is about sandboxes that wait");
    }
    let max_age = fields.duration("max_age", SECOND..=DAY).unwrap_or(DEFAULT_POOL_AGE);
    PoolSize { min, max, max_age }
}

fn images(fields: &mut Fields<'_>, dialect: Option<Kind>, mode: Mode) -> bool {
    let images = fields.boolean("images").unwrap_or(false);
    if images && dialect.is_some_and(|dialect| !dialect.takes_images()) {
        fields.violation("images", "must be false: this dialect has no way to give a CLI images");
    } else if images && mode == Mode::Parked && dialect.is_some_and(|dialect| !is_session(dialect)) {
        fields.violation("images", "needs mode = \"one-shot\" or a session protocol: the images are files, and a parked CLI has started before there are any");
    }
    images
}

/// What templates say of the egress must be there.
fn check_templates(
    fields: &mut Fields<'_>,
    argv: &[Template],
    environment: &[(String, Template)],
    egress: Option<&Egress>,
) {
    let arguments = argv.iter().enumerate().map(|(index, template)| (format!("argv[{index}]"), template));
    let variables = environment.iter().map(|(name, template)| (format!("environment.{name}"), template));
    for (path, template) in arguments.chain(variables) {
        for piece in &template.0 {
            let missing = match piece {
                Piece::EgressToken if egress.is_none() => "{egress.token}".to_owned(),
                Piece::EgressUrl(name) if !has_upstream(egress, name) => {
                    format!("{{egress.{}}}", shown(name))
                }
                _ => continue,
            };
            fields.violation(
                &path,
                format!(
                    "has {missing}, for which there is no [cli.egress]{}",
                    match piece {
                        Piece::EgressUrl(_) => " with an upstream of this name",
                        _ => "",
                    }
                ),
            );
        }
    }
}

fn has_upstream(egress: Option<&Egress>, name: &str) -> bool {
    egress.is_some_and(|egress| egress.upstreams.iter().any(|upstream| upstream.name == name))
}

fn names_system_file(argv: &[Template], environment: &[(String, Template)]) -> bool {
    let names = |piece: &Piece| matches!(piece, Piece::Literal(text) if text.contains("system.md"));
    argv.iter().chain(environment.iter().map(|(_, value)| value)).any(|template| template.0.iter().any(names))
}
