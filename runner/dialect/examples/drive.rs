//! Drives a real CLI by its dialect, outside of any sandbox, and prints what a runner would tell:
//!
//! ```text
//! echo "say hi" | cargo run -p cli-dialect --example drive -- acp -- gemini --acp -m gemini-2.5-flash
//! cargo run -p cli-dialect --example drive -- codex-app-server request.json -- codex app-server
//! ```
//!
//! Without a file (a `RunRequest` as JSON) stdin is the user's message. `--cancel` cancels at the first text.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use cli_dialect::{Action, Dialect, Exit, Kind, Limit, Observed, Settings, dialect};
use runner_api::{Message, Part, Role, RunEvent, RunRequest};

/// A CLI that says nothing for so long is ended.
const IDLE_TIME: Duration = Duration::from_secs(30);

enum Said {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut parts = arguments.splitn(2, |argument| argument == "--");
    let (ours, argv) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let cancels = ours.iter().any(|argument| argument == "--cancel");
    let mut ours = ours.iter().filter(|argument| *argument != "--cancel");
    let kind = ours.next().and_then(|name| kind(name));
    let (Some(kind), [program, rest @ ..]) = (kind, argv) else {
        println!("drive KIND [--cancel] [REQUEST.json] -- PROGRAM [ARGUMENT]...");
        return ExitCode::from(2);
    };
    let request = match ours.next() {
        Some(path) => read_request(path),
        None => user_message(),
    };
    match request.and_then(|request| drive(kind, program, rest, &request, cancels)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

type Error = Box<dyn std::error::Error>;

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "text" => Kind::Text,
        "claude" => Kind::Claude,
        "gemini" => Kind::Gemini,
        "codex" => Kind::Codex,
        "opencode" => Kind::Opencode,
        "qwen" => Kind::Qwen,
        "llm" => Kind::Llm,
        "claude-stream-json" => Kind::ClaudeStreamJson,
        "codex-app-server" => Kind::CodexAppServer,
        "acp" => Kind::Acp,
        _ => return None,
    })
}

fn read_request(path: &str) -> Result<RunRequest, Error> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn user_message() -> Result<RunRequest, Error> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(RunRequest {
        id: "drive".to_owned(),
        cli: "drive".to_owned(),
        parameters: BTreeMap::new(),
        caller: "drive".to_owned(),
        timeout_ms: None,
        system: None,
        messages: vec![Message { role: Role::User, parts: vec![Part::Text { text }] }],
    })
}

fn drive(
    kind: Kind,
    program: &str,
    arguments: &[String],
    request: &RunRequest,
    cancels: bool,
) -> Result<(), Error> {
    let mut dialect = dialect(kind, &Settings::default());
    for file in dialect.files(request)? {
        std::fs::write(&file.name, &file.bytes)?;
    }
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take();
    let (sender, said) = sync_channel(16);
    let stderr = sender.clone();
    let stdout_of = child.stdout.take().ok_or("no stdout")?;
    let stderr_of = child.stderr.take().ok_or("no stderr")?;
    std::thread::spawn(move || forward(stdout_of, &sender, Said::Stdout));
    std::thread::spawn(move || forward(stderr_of, &stderr, Said::Stderr));

    let mut out = Vec::new();
    let mut limit = None;
    let mut cancelled = !cancels;
    dialect.boot(&mut out);
    loop {
        let ready = out.contains(&Action::Ready);
        let text = out.iter().any(|action| matches!(action, Action::Event(RunEvent::Text { .. })));
        perform(&mut out, &mut stdin, started)?;
        if ready {
            dialect.begin(request, &mut out)?;
            continue;
        }
        if text && !cancelled {
            cancelled = true;
            dialect.cancel(&mut out);
            continue;
        }
        if dialect.is_complete() {
            break;
        }
        match next(&said, &mut *dialect, &mut out) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                limit = Some(Limit::IdleTime);
                break;
            }
        }
    }
    let exit = if dialect.is_complete() || limit.is_some() {
        child.kill()?;
        child.wait()?;
        limit.map(|limit| Exit { code: None, limit: Some(limit) })
    } else {
        Some(Exit { code: child.wait()?.code(), limit: None })
    };
    dialect.end(exit.as_ref(), &Observed::default(), &mut out);
    perform(&mut out, &mut stdin, started)
}

fn forward(mut from: impl Read, to: &SyncSender<Said>, said: impl Fn(Vec<u8>) -> Said) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.send(said(buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}

fn next(
    said: &Receiver<Said>,
    dialect: &mut dyn Dialect,
    out: &mut Vec<Action>,
) -> Result<(), RecvTimeoutError> {
    match said.recv_timeout(IDLE_TIME)? {
        Said::Stdout(bytes) => dialect.stdout(&bytes, out),
        Said::Stderr(bytes) => dialect.stderr(&bytes, out),
    }
    Ok(())
}

fn perform(
    out: &mut Vec<Action>,
    stdin: &mut Option<std::process::ChildStdin>,
    started: Instant,
) -> Result<(), Error> {
    for action in out.drain(..) {
        let ms = started.elapsed().as_millis();
        match action {
            Action::Write(bytes) => {
                let shown: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
                println!("{ms:6} write {}", shown.trim_end());
                if let Some(stdin) = stdin {
                    stdin.write_all(&bytes)?;
                    stdin.flush()?;
                }
            }
            Action::CloseStdin => {
                println!("{ms:6} close stdin");
                *stdin = None;
            }
            Action::Ready => println!("{ms:6} ready"),
            Action::Event(event) => println!("{ms:6} event {}", serde_json::to_string(&event)?),
        }
    }
    Ok(())
}
