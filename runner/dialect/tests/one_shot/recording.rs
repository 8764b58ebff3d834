use std::fs;
use std::path::{Path, PathBuf};

use cli_dialect::{Action, Dialect, Exit, JsonlPaths, Kind, Limit, Observed, Settings};
use runner_api::{FinishReason, Message, Part, Role, RunEvent, RunRequest, RunUsage};
use serde_json::Value;

pub(crate) const KINDS: [Kind; 8] =
    [Kind::Text, Kind::Claude, Kind::Gemini, Kind::Codex, Kind::Opencode, Kind::Qwen, Kind::Llm, Kind::Jsonl];

/// One run of a CLI against a stand-in of its vendor.
#[derive(Clone)]
pub(crate) struct Recording {
    /// `CLI/CASE.FORMAT[.VARIANT]`
    pub(crate) name: String,
    path: PathBuf,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    meta: Value,
}

pub(crate) fn request(text: &str) -> RunRequest {
    RunRequest {
        id: "run".to_owned(),
        cli: "cli".to_owned(),
        parameters: [].into(),
        caller: "key".to_owned(),
        timeout_ms: None,
        system: None,
        messages: vec![Message { role: Role::User, parts: vec![Part::Text { text: text.to_owned() }] }],
    }
}

pub(crate) fn settings() -> Settings {
    let at = |path: &str| Some(path.to_owned());
    let jsonl = JsonlPaths {
        text: "/part/text".to_owned(),
        reasoning: None,
        input_tokens: at("/part/tokens/input"),
        output_tokens: at("/part/tokens/output"),
        error: at("/error/data/message"),
        finish: at("/part/reason"),
    };
    Settings { jsonl: Some(jsonl), ..Settings::default() }
}

pub(crate) fn dialect(kind: Kind) -> Box<dyn Dialect> {
    cli_dialect::dialect(kind, &settings())
}

pub(crate) fn begin(dialect: &mut dyn Dialect) -> Vec<Action> {
    let mut out = Vec::new();
    dialect.boot(&mut out);
    dialect.begin(&request("say hi"), &mut out).unwrap();
    out
}

/// Whether its stdout is the answer's bytes.
pub(crate) fn is_plain(kind: Kind) -> bool {
    matches!(kind, Kind::Text | Kind::Llm)
}

pub(crate) fn events(actions: &[Action]) -> Vec<RunEvent> {
    let events = actions.iter().filter_map(|action| match action {
        Action::Event(event) => Some(event.clone()),
        _ => None,
    });
    events.collect()
}

/// Texts that follow each other as one.
pub(crate) fn merged(events: Vec<RunEvent>) -> Vec<RunEvent> {
    let mut merged: Vec<RunEvent> = Vec::new();
    for event in events {
        match (merged.last_mut(), event) {
            (Some(RunEvent::Text { text }), RunEvent::Text { text: more }) => text.push_str(&more),
            (_, event) => merged.push(event),
        }
    }
    merged
}

/// All text of an answer.
pub(crate) fn text(events: &[RunEvent]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        RunEvent::Text { text } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

pub(crate) fn recordings() -> impl Iterator<Item = Recording> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/one-shot");
    let mut paths: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .flat_map(|cli| fs::read_dir(cli).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "stdout"))
        .map(|path| path.with_extension(""))
        .collect();
    paths.sort();
    paths.into_iter().map(move |path| Recording::read(&root, path))
}

pub(crate) fn recording(name: &str) -> Recording {
    recordings().find(|recording| recording.name == name).unwrap_or_else(|| panic!("no recording {name}"))
}

impl Recording {
    fn read(root: &Path, path: PathBuf) -> Self {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let part = |extension: &str| fs::read(format!("{}.{extension}", path.display())).unwrap();
        let (stdout, stderr) = (part("stdout"), part("stderr"));
        let meta = serde_json::from_slice(&part("meta.json")).unwrap();
        Self { name, path, stdout, stderr, meta }
    }

    /// The dialects that read it.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        match (self.meta["cli"].as_str().unwrap(), self.meta["format"].as_str().unwrap()) {
            ("claude", "stream-json") => vec![Kind::Claude],
            ("gemini", "stream-json") => vec![Kind::Gemini],
            ("qwen", "stream-json") => vec![Kind::Qwen],
            ("codex", "json") => vec![Kind::Codex],
            ("opencode", "json") => vec![Kind::Opencode, Kind::Jsonl],
            ("llm", "text") => vec![Kind::Llm],
            (_, "text") => vec![Kind::Text],
            other => panic!("no dialect for {other:?}"),
        }
    }

    pub(crate) fn golden(&self, kind: Kind) -> PathBuf {
        let also = if kind == Kind::Jsonl { ".jsonl" } else { "" };
        format!("{}{also}.events", self.path.display()).into()
    }

    pub(crate) fn exit(&self) -> Exit {
        let number = |name: &str| self.meta[name].as_i64().and_then(|number| i32::try_from(number).ok());
        let code = number("exit_code").or_else(|| Some(128 + number("signal")?));
        let limit = (self.meta["timed_out"] == true).then_some(Limit::WallTime);
        Exit { code, limit }
    }

    /// What an egress endpoint would have seen of the stand-in.
    pub(crate) fn observed(&self) -> Observed {
        let case = self.meta["case"].as_str().unwrap();
        let variant = self.meta["variant"].as_str().unwrap_or_default();
        let requests = self.meta["mock_requests"].as_array().unwrap();
        let calls = requests.iter().filter(|request| request["path"] != "/").count();
        let calls = u32::try_from(calls).unwrap();
        if variant.starts_with("refused") {
            return Observed { broken: true, ..Observed::default() };
        }
        if calls == 0 {
            return Observed::default();
        }
        if let Some(status) = case.strip_prefix('e').and_then(|status| status.parse().ok()) {
            let retry_after_ms = (status == 429).then_some(1000);
            let message = Some(format!("the vendor's message with {status}"));
            return Observed { calls, status: Some(status), message, retry_after_ms, ..Observed::default() };
        }
        // Claude Code's fallback is not cut off.
        let whole =
            matches!((case, self.meta["cli"].as_str(), variant), ("middrop" | "midfail", Some("claude"), ""));
        let answered = String::from_utf8_lossy(&self.stdout).contains(" model");
        let cut = matches!(case, "middrop" | "midfail") || case == "slow" && !answered;
        let broken = cut && !whole;
        let finish = match case {
            _ if broken => None,
            "maxtok" => Some(FinishReason::Length),
            "refusal" => Some(FinishReason::ContentFilter),
            _ => Some(FinishReason::Stop),
        };
        let interrupted = if broken || whole { calls - 1 } else { 0 };
        let complete = u64::from(calls - interrupted - u32::from(broken));
        let usage = (complete > 0).then(|| RunUsage {
            input_tokens: Some(11 * complete),
            output_tokens: Some(7 * complete),
            ..RunUsage::default()
        });
        Observed { calls, interrupted, status: Some(200), usage, finish, broken, ..Observed::default() }
    }

    pub(crate) fn run(&self, kind: Kind, observed: &Observed) -> Vec<RunEvent> {
        self.run_cut(kind, observed, |stdout| vec![stdout])
    }

    pub(crate) fn run_cut(
        &self,
        kind: Kind,
        observed: &Observed,
        cut: impl Fn(&[u8]) -> Vec<&[u8]>,
    ) -> Vec<RunEvent> {
        let mut dialect = dialect(kind);
        let mut out = begin(dialect.as_mut());
        for piece in cut(&self.stdout) {
            dialect.stdout(piece, &mut out);
        }
        for piece in cut(&self.stderr) {
            dialect.stderr(piece, &mut out);
        }
        dialect.end(Some(&self.exit()), observed, &mut out);
        events(&out)
    }
}
