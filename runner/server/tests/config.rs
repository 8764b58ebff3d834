//! The operator's file: what holds without being said, and what is refused, each with its place.

#![expect(clippy::unwrap_used, reason = "a file that is no TOML ends its test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use cli_dialect::{Kind, SystemPrompt};
use dyad_runner::config::model::{
    Allowed, CredentialRef, ECHO_ARGV, HostPort, Image, Isolated, Mode, Piece, RunnerConfig, Template, Vendor,
};
use proptest::prelude::*;

const HEAD: &str = r#"
listen = "127.0.0.1:7443"
node = { id = "n1" }
tls = { certificate = "c.pem", key = "k.pem", client_ca = "ca.pem", allowed_clients = ["edge.example.com"] }
"#;

const ECHO: &str = r#"
[[cli]]
name = "cli-echo"
dialect = "text"
image = { builtin = "echo" }
"#;

const EXAMPLE: &str = include_str!("../runner.example.toml");

fn read(text: &str) -> Result<RunnerConfig, Vec<String>> {
    RunnerConfig::from_table(&text.parse().unwrap(), Path::new("/etc/dyad"))
        .map_err(|violations| violations.iter().map(ToString::to_string).collect())
}

fn accepted(text: &str) -> RunnerConfig {
    read(text).unwrap_or_else(|violations| panic!("{violations:#?}"))
}

/// The one violation of a file.
#[track_caller]
fn refused(text: &str) -> String {
    let violations = read(text).expect_err("this is not a configuration");
    assert_eq!(violations.len(), 1, "one mistake, one violation: {violations:#?}");
    violations.into_iter().next().unwrap()
}

/// A file with one CLI, which has a name, a dialect, an image and argv where the entry has none.
fn with_cli(entry: &str) -> String {
    let given = |key: &str| {
        entry
            .lines()
            .take_while(|line| !line.starts_with('['))
            .any(|line| line.starts_with(&format!("{key} =")))
    };
    let defaults = [
        ("name", r#""a""#),
        ("image", r#"{ local = "a:1" }"#),
        ("argv", r#"["a"]"#),
        ("dialect", r#""text""#),
    ];
    let defaults =
        defaults.iter().filter(|(key, _)| !given(key)).map(|(key, value)| format!("{key} = {value}\n"));
    format!("{HEAD}\n[[cli]]\n{}{entry}", defaults.collect::<String>())
}

fn literal(text: &str) -> Template {
    Template(vec![Piece::Literal(text.to_owned())])
}

#[test]
fn a_short_file_has_sane_defaults() {
    let config = accepted(&format!("{HEAD}{ECHO}"));
    assert_eq!(config.node.url, "https://127.0.0.1:7443");
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/dyad-runner"));
    assert_eq!(config.metrics_listen, None);
    assert_eq!(
        config.tls.certificate,
        PathBuf::from("/etc/dyad/c.pem"),
        "paths count from the file's folder"
    );
    assert_eq!(config.tls.revocation_list, None);
    assert_eq!(config.engine.socket, PathBuf::from("/var/run/docker.sock"));
    assert!(!config.engine.allow_process);
    let capacity = &config.capacity;
    assert_eq!((capacity.runs, capacity.queue, capacity.queue_per_caller, capacity.starts), (8, 64, 16, 4));
    assert_eq!(capacity.memory_bytes, 8 << 30, "eight runs of 1 GiB");
    assert_eq!(capacity.drain_grace, Duration::from_secs(60));
    let cli = &config.clis[0];
    assert_eq!(cli.isolated, Isolated::Container { image: Image::Echo, runtime: None });
    assert_eq!(cli.mode, Mode::OneShot);
    assert_eq!(cli.argv, ECHO_ARGV.map(literal));
    assert_eq!((cli.pool.min, cli.pool.max), (0, 0));
    assert!(cli.egress.is_none() && !cli.images && cli.environment.is_empty());
    let limits = &cli.limits;
    assert_eq!((limits.memory_bytes, limits.cpu_milli, limits.pids), (1 << 30, 1000, 256));
    assert_eq!((limits.open_files, limits.file_bytes, limits.output_bytes), (1024, 64 << 20, 64 << 20));
    assert_eq!((limits.tmpfs_bytes, limits.tmpfs_inodes), (256 << 20, 16_384));
    let times = [limits.wall_time, limits.idle_time, limits.boot_time].map(|time| time.as_secs());
    assert_eq!(times, [600, 120, 30]);
}

#[test]
fn the_example_says_what_it_says() {
    let config = accepted(EXAMPLE);
    let names: Vec<_> = config.clis.iter().map(|cli| cli.name.as_str()).collect();
    assert_eq!(names, ["claude", "cli-echo", "my-agent"]);
    let claude = &config.clis[0];
    assert_eq!((claude.dialect, claude.mode, claude.images), (Kind::ClaudeStreamJson, Mode::Parked, true));
    assert_eq!((claude.pool.min, claude.pool.max, claude.pool.max_age), (1, 4, Duration::from_secs(1800)));
    assert!(claude.argv.contains(&Template(vec![Piece::Parameter("model".to_owned())])));
    assert!(claude.argv.contains(&Template(Vec::new())), "an empty argument is an argument");
    let key = ("ANTHROPIC_API_KEY".to_owned(), Template(vec![Piece::EgressToken]));
    assert!(claude.environment.contains(&key), "{:?}", claude.environment);
    let egress = claude.egress.as_ref().unwrap();
    assert_eq!((egress.port, egress.max_bytes, egress.connect.len()), (8080, 256 << 20, 0));
    let upstream = &egress.upstreams[0];
    assert_eq!((upstream.url.as_str(), upstream.vendor), ("https://api.anthropic.com/", Vendor::Anthropic));
    assert_eq!(upstream.credential, Some(CredentialRef::Env("ANTHROPIC_API_KEY".to_owned())));
    assert_eq!(config.clis[1].limits.tmpfs_bytes, 16 << 20, "a quarter of a small memory");
    let agent = &config.clis[2];
    assert_eq!(agent.parameters["effort"].allowed, Allowed::Integer { min: 1, max: 5 });
    assert_eq!(agent.parameters["effort"].default.as_deref(), Some("3"));
    assert_eq!(agent.settings.system, SystemPrompt::File);
    assert_eq!(agent.settings.jsonl.as_ref().unwrap().text, "/delta/text");
    let built = Image::Build {
        context: PathBuf::from("/etc/dyad/images/my-agent"),
        tag: "dyad-runner/my-agent:local".to_owned(),
    };
    assert_eq!(agent.isolated, Isolated::Container { image: built, runtime: None });
}

/// What the example has as comments are the defaults: with them in place it means the same.
#[test]
fn the_example_tells_the_defaults() {
    let is_setting = |line: &str| {
        line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    // A runtime, an authority and an endpoint have no default but the engine's, the system's and AWS's.
    let has_default =
        |line: &str| !["#runtime", "#ca ", "#endpoint"].iter().any(|name| line.starts_with(name));
    let lines =
        EXAMPLE.lines().map(|line| if is_setting(line) && has_default(line) { &line[1..] } else { line });
    let spelled_out = lines.collect::<Vec<_>>().join("\n");
    assert!(spelled_out.contains("\nruns = 8\n") && spelled_out.contains("\nmax_bytes = \"256MiB\"\n"));
    assert_eq!(format!("{:#?}", accepted(&spelled_out)), format!("{:#?}", accepted(EXAMPLE)));
}

#[test]
fn everything_wrong_is_told_at_once_with_its_path() {
    let found = read(
        r#"
        listen = "7443"
        colour = "red"
        metrics_listen = "0.0.0.0:1"
        state_dir = "/a/very/long/path/that/leaves/no/room/for/a/socket/in/it"
        [node]
        id = "a b"
        url = "http://a.example"
        [tls]
        key = 1
        allowed_clients = ["*.example.com"]
        [capacity]
        runs = 0
        memory = "8"
        drain_grace = 60
        [engine]
        allow_process = "yes"
        [[cli]]
        name = "A"
        dialect = "basic"
        image = "claude:latest"
        argv = []
        [cli.limits]
        pids = 16
        cpu = 1
        [[cli]]
        name = "b"
        dialect = "jsonl"
        image = { build = "x", local = "y" }
        argv = ["b", "{model}", "{egress.token}", "{"]
        [cli.environment]
        "A=B" = "x"
        [cli.parameters.level]
        values = ["-x"]
        [cli.egress]
        connect = ["example.com"]
        [[cli.egress.upstream]]
        name = "token"
        url = "http://example.com"
        credential = "sk-secret"
        "#,
    )
    .unwrap_err();
    let mut paths: Vec<_> = found.iter().map(|line| line.split_once(": ").unwrap().0).collect();
    paths.sort_unstable();
    let expected = [
        "capacity.drain_grace",
        "capacity.memory",
        "capacity.runs",
        "cli[0].argv",
        "cli[0].dialect",
        "cli[0].image",
        "cli[0].limits.cpu",
        "cli[0].limits.pids",
        "cli[0].name",
        "cli[1].argv[2]",
        "cli[1].argv[3]",
        "cli[1].egress.connect[0]",
        "cli[1].egress.upstream[0].credential",
        "cli[1].egress.upstream[0].name",
        "cli[1].egress.upstream[0].url",
        "cli[1].egress.upstream[0].vendor",
        "cli[1].environment.A=B",
        "cli[1].image",
        "cli[1].jsonl",
        "cli[1].parameters.level.values[0]",
        "colour",
        "engine.allow_process",
        "listen",
        "metrics_listen",
        "node.id",
        "node.url",
        "state_dir",
        "tls.allowed_clients[0]",
        "tls.certificate",
        "tls.client_ca",
        "tls.key",
    ];
    assert_eq!(paths, expected, "{found:#?}");
    assert!(!found.iter().any(|line| line.contains("sk-secret")), "{found:#?}");
}

#[test]
fn a_mutable_tag_is_refused_with_advice() {
    for image in ["claude", "claude:2.1", "registry.example.com/claude:latest"] {
        let line = refused(&with_cli(&format!("image = \"{image}\"\n")));
        assert!(line.starts_with("cli[0].image: must be a digest") && line.contains("local ="), "{line}");
    }
    for wrong in [
        r#"{ local = "A B" }"#,
        r#"{ builtin = "cat" }"#,
        r#"{ local = "a", tag = "b" }"#,
        "{}",
        "1",
        r#"{ build = "x", tag = "a@b" }"#,
    ] {
        let violations = read(&with_cli(&format!("image = {wrong}\n"))).unwrap_err();
        assert!(violations.iter().all(|line| line.starts_with("cli[0].image")), "{wrong}: {violations:#?}");
    }
}

#[test]
fn parameters_are_declared_and_used_and_never_reach_a_shell() {
    let argv = |entry: &str| format!("argv = [\"a\", \"{{m}}\"]\n[cli.parameters.m]\n{entry}");
    for (entry, path, words) in [
        ("argv = [\"a\", \"{model}\"]".to_owned(), "argv[1]", "[cli.parameters.model]"),
        ("[cli.parameters.model]\nvalues = [\"x\"]".to_owned(), "parameters.model", "used nowhere"),
        ("argv = [\"{m}\"]\n[cli.parameters.m]\nvalues = [\"x\"]".to_owned(), "argv[0]", "the program"),
        (
            "argv = [\"/bin/sh\", \"-c\", \"a {m}\"]\n[cli.parameters.m]\nvalues = [\"x\"]".to_owned(),
            "argv[2]",
            "shell",
        ),
        (argv(""), "parameters.m", "values"),
        (argv("values = []"), "parameters.m.values", "at least one"),
        (argv("values = [\"x\"]\nmin = 1\nmax = 2"), "parameters.m", "either"),
        (argv("min = 1"), "parameters.m", "both"),
        (argv("min = 3\nmax = 2"), "parameters.m.max", "at least 3"),
        (argv("min = 3\nmax = 4\ndefault = 5"), "parameters.m.default", "allowed"),
        (argv("values = [\"x\"]\ndefault = \"y\""), "parameters.m.default", "allowed"),
        (argv("values = [\"--x\"]"), "parameters.m.values[0]", "option"),
        (argv("values = [\"x\\ny\"]"), "parameters.m.values[0]", "control"),
        (argv("values = [\"x\"]\n[cli.environment]\nM = \"{m}\""), "environment.M", "argv"),
        ("[cli.parameters.\"M M\"]\nvalues = [\"x\"]".to_owned(), "parameters.M M", "a-z"),
        ("argv = [\"a\", \"\\u0000\"]".to_owned(), "argv[1]", "NUL"),
        ("argv = [\"\"]".to_owned(), "argv[0]", "program"),
    ] {
        let line = refused(&with_cli(&entry));
        assert!(line.starts_with(&format!("cli[0].{path}: ")) && line.contains(words), "{entry}: {line}");
    }
    // Some protocols have a word for the model, and for how much it is to think: they need not be in argv.
    for (dialect, parameter, is_taken) in [
        ("codex-app-server", "model", true),
        ("claude-stream-json", "reasoning_effort", true),
        ("acp", "model", true),
        ("acp", "reasoning_effort", false),
        ("codex", "model", false),
    ] {
        let entry = format!("dialect = \"{dialect}\"\n[cli.parameters.{parameter}]\nvalues = [\"x\"]");
        assert_eq!(read(&with_cli(&entry)).is_ok(), is_taken, "{dialect} {parameter}");
    }
}

#[test]
fn whole_numbers_are_written_in_one_way() {
    let range = Allowed::Integer { min: -1, max: 12 };
    for value in ["12", "-1", "0"] {
        assert!(range.contains(value), "{value}");
    }
    for value in ["13", "-2", "+1", "01", "-0", "1.0", "", " 1"] {
        assert!(!range.contains(value), "{value}");
    }
}

#[test]
fn what_makes_no_sense_together_is_refused() {
    for (entry, path) in [
        ("dialect = \"jsonl\"", "jsonl"),
        ("[cli.jsonl]\ntext = \"/a\"", "jsonl"),
        ("dialect = \"jsonl\"\n[cli.jsonl]\ntext = \"a\"", "jsonl.text"),
        ("dialect = \"jsonl\"\n[cli.jsonl]\ntext = \"/a~2\"", "jsonl.text"),
        ("dialect = \"acp\"\nsystem_prompt = \"inline\"", "system_prompt"),
        ("argv = [\"a\", \"system.md\"]\nmode = \"parked\"\nsystem_prompt = \"file\"", "system_prompt"),
        ("system_prompt = \"file\"", "system_prompt"),
        ("images = true", "images"),
        ("dialect = \"claude\"\nimages = true", "images"),
        ("dialect = \"codex\"\nimages = true", "images"),
        ("dialect = \"opencode\"\nimages = true", "images"),
        ("dialect = \"qwen\"\nimages = true", "images"),
        ("dialect = \"gemini\"\nmode = \"parked\"\nimages = true", "images"),
        ("mode = \"parked\"\n[cli.pool]\nmax = 0", "pool.max"),
        ("[cli.pool]\nmin = 3\nmax = 2", "pool.max"),
        ("[cli.limits]\nmemory = \"64MiB\"\ntmpfs = \"65MiB\"", "limits.tmpfs"),
        ("[cli.limits]\npids = 31", "limits.pids"),
        ("[cli.limits]\nopen_files = 127", "limits.open_files"),
        ("[cli.limits]\ncpus = nan", "limits.cpus"),
        ("argv = [\"a\", \"{egress.token}\"]", "argv[1]"),
        ("argv = [\"a\", \"{egress.token}\"]\n[cli.egress]\nconnect = [\"a.example:1\"]", "argv[1]"),
        ("[cli.environment]\nT = \"{egress.token}\"", "environment.T"),
        ("[cli.environment]\nU = \"{egress.b}\"\n[cli.egress]\nconnect = [\"a.example:1\"]", "environment.U"),
        ("[cli.egress]", "egress"),
        ("image = { builtin = \"echo\" }", "argv"),
        ("runtime = \"run sc\"", "runtime"),
    ] {
        let line = refused(&with_cli(entry));
        assert!(line.starts_with(&format!("cli[0].{path}: ")), "{entry}: {line}");
    }
    let twice = format!("{HEAD}{ECHO}{ECHO}");
    assert!(refused(&twice).starts_with("cli[1].name: "));
    assert!(refused(HEAD).starts_with("cli: "), "a runner without a CLI");
}

#[test]
fn processes_only_where_the_engine_table_says_so() {
    let entry = format!(
        "{HEAD}\n[engine]\nallow_process = true\n[[cli]]\nname = \"a\"\ndialect = \"text\"\nargv = [\"cat\"]\nisolation = \"process\"\n"
    );
    assert_eq!(accepted(&entry).clis[0].isolated, Isolated::Process);
    assert!(refused(&entry.replace("= true", "= false")).starts_with("cli[0].isolation: "));
    assert!(refused(&format!("{entry}image = \"x\"")).starts_with("cli[0].image: "));
}

#[test]
fn the_capacity_fits_what_the_clis_and_their_pools_need() {
    let file = |memory: &str, min: usize| {
        let pool = format!("mode = \"parked\"\n[cli.pool]\nmin = {min}\nmax = 9");
        with_cli(&format!("{pool}\n[cli.limits]\nmemory = \"2GiB\"\n[capacity]\nmemory = \"{memory}\""))
    };
    assert_eq!(accepted(&file("8GiB", 4)).capacity.memory_bytes, 8 << 30);
    let line = refused(&file("8GiB", 5));
    assert!(line.starts_with("capacity.memory: must be at least 10GiB"), "{line}");
    let line = refused(&file("1GiB", 0));
    assert!(line.starts_with("capacity.memory: must be at least 2GiB"), "{line}");
    let starts = |max: usize| with_cli(&format!("[cli.pool]\nmax = {max}\n[capacity]\nstarts = 1"));
    assert!(refused(&starts(1)).starts_with("capacity.starts: must be at least 2"));
    assert_eq!(accepted(&starts(0)).capacity.starts, 1);
    let line = refused(&format!("{HEAD}{ECHO}\n[capacity]\nqueue = 4\nqueue_per_caller = 5"));
    assert!(line.starts_with("capacity.queue_per_caller: "), "{line}");
    assert_eq!(accepted(&format!("{HEAD}{ECHO}\n[capacity]\nqueue = 4")).capacity.queue_per_caller, 4);
}

#[test]
fn an_address_that_nobody_can_reach_needs_a_url() {
    for listen in ["0.0.0.0:7443", "[::]:7443", "127.0.0.1:0"] {
        let file = format!("{HEAD}{ECHO}").replace("127.0.0.1:7443", listen);
        assert!(refused(&file).starts_with("node.url: is missing"), "{listen}");
        let file = file.replace("id = \"n1\"", "id = \"n1\", url = \"https://n1.example.com:7443/\"");
        assert_eq!(accepted(&file).node.url, "https://n1.example.com:7443");
    }
}

#[test]
fn clients_are_named_exactly() {
    let clients = |list: &str| read(&format!("{HEAD}{ECHO}").replace("[\"edge.example.com\"]", list));
    let names = clients(r#"["Edge.Example.com", "spiffe://example.com/edge"]"#).unwrap().tls.allowed_clients;
    assert_eq!(names, ["edge.example.com", "spiffe://example.com/edge"]);
    for list in ["[]", r#"["*.example.com"]"#, r#"["a b"]"#, r#"["a..b"]"#, r#"[""]"#, r#"["spiffe://a/*"]"#]
    {
        assert!(clients(list).unwrap_err()[0].starts_with("tls.allowed_clients"), "{list}");
    }
}

#[test]
fn hosts_of_connect_are_compared_in_one_form() {
    let egress = "[cli.egress]\nport = 9000\nmax_bytes = \"1MiB\"\nconnect = [\"API.example.com:443\"]";
    let config = accepted(&with_cli(egress));
    let egress = config.clis[0].egress.as_ref().unwrap();
    assert_eq!((egress.port, egress.max_bytes), (9000, 1 << 20));
    assert_eq!(egress.connect, [HostPort { host: "api.example.com".to_owned(), port: 443 }]);
}

#[test]
fn missing_credentials_are_named() {
    let upstream = |name: &str, credential: &str| {
        format!(
            "[[cli.egress.upstream]]\nname = \"{name}\"\nurl = \"https://v.example\"\nvendor = \"openai\"\ncredential = \"{credential}\"\n"
        )
    };
    let upstreams = upstream("v", "file:none") + &upstream("w", "env:DYAD_RUNNER_NO_SUCH_VARIABLE");
    let config = accepted(&with_cli(&format!("[cli.egress]\n{upstreams}")));
    let missing: Vec<_> = config.missing_credentials(None).iter().map(ToString::to_string).collect();
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(missing[0].starts_with("cli[0].egress.upstream[0].credential: "), "{missing:?}");
    assert!(missing[0].contains("/etc/dyad/none"), "{missing:?}");
    assert!(missing[1].contains("DYAD_RUNNER_NO_SUCH_VARIABLE"), "{missing:?}");
    assert_eq!(config.missing_credentials(Some("a")).len(), 2);
    assert!(config.missing_credentials(Some("another")).is_empty());
}

#[test]
fn a_file_is_read_with_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runner.toml");
    std::fs::write(&path, format!("{HEAD}{ECHO}")).unwrap();
    assert_eq!(RunnerConfig::read(&path).unwrap().tls.key, folder.path().join("k.pem"));
    let failure = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        RunnerConfig::read(&path).unwrap_err()[0].to_string()
    };
    assert!(failure(b"listen = ").contains("line 1"));
    assert!(failure(b"listen = \"\xff\"").contains("UTF-8"));
    std::fs::File::create(&path).unwrap().set_len((4 << 20) + 1).unwrap();
    assert!(RunnerConfig::read(&path).unwrap_err()[0].to_string().contains("longer than"));
    assert!(RunnerConfig::read(folder.path()).is_err());
}

/// A TOML value of any kind, of a size that still says something.
fn any_value() -> impl Strategy<Value = toml::Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(toml::Value::from),
        any::<i64>().prop_map(toml::Value::from),
        any::<f64>().prop_map(toml::Value::from),
        "[a-z0-9{}:/.\\PC]{0,12}".prop_map(toml::Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(toml::Value::Array),
            prop::collection::btree_map("[a-z_.]{1,8}", inner, 0..3)
                .prop_map(|table| toml::Value::Table(table.into_iter().collect())),
        ]
    })
}

/// Puts `new` in the place of the value number `at`, counted as they stand, a table before its members. The number of
/// values that were passed.
fn replace(value: &mut toml::Value, at: usize, new: &toml::Value) -> usize {
    if at == 0 {
        *value = new.clone();
        return 1;
    }
    let mut passed = 1;
    let mut below = |value: &mut toml::Value| {
        if passed <= at {
            passed += replace(value, at - passed, new);
        }
    };
    match value {
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| below(value)),
        toml::Value::Array(list) => list.iter_mut().for_each(below),
        _ => {}
    }
    passed
}

proptest! {
    /// Whatever stands in the place of a value of a good file: it is read, or refused with a reason.
    #[test]
    fn any_value_anywhere_is_read_or_refused(at in 1_usize..110, new in any_value()) {
        let mut file = toml::Value::Table(EXAMPLE.parse().unwrap());
        prop_assert_eq!(replace(&mut file, at, &new) > 0, true);
        let result = RunnerConfig::from_table(file.as_table().unwrap(), Path::new("/etc/dyad"));
        if let Err(violations) = result {
            prop_assert!(!violations.is_empty(), "refused without a reason");
            prop_assert!(violations.iter().all(|violation| !violation.message.is_empty()));
        }
    }
}
