//! An upstream that can be held in the middle of its answers.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;

use super::{SOON, respond};

/// An upstream whose chats are streamed in two pieces; it can be held between them.
pub(crate) struct Chats {
    pub(crate) base_url: String,
    state: Arc<ChatsState>,
}

#[derive(Default)]
struct ChatsState {
    /// The credentials that are let in.
    keys: Mutex<Vec<String>>,
    gate: Mutex<Gate>,
    changed: Condvar,
    /// The credentials of the chats that were let in, in order.
    authorized_by: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Gate {
    /// Chats stop after their first piece while it is up.
    is_held: bool,
    /// Chats that stopped, by number; each goes on when it is taken out.
    waiting: Vec<usize>,
}

impl Chats {
    pub(crate) fn start(keys: &[&str]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let state = Arc::<ChatsState>::default();
        let shared = state.clone();
        // The threads end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                std::thread::spawn(move || state.answer(stream));
            }
        });
        let chats = Self { base_url, state };
        chats.accept(keys);
        chats
    }

    /// From now on these credentials are let in, and no others.
    pub(crate) fn accept(&self, keys: &[&str]) {
        *self.state.keys.lock().unwrap() = keys.iter().map(|&key| key.to_owned()).collect();
    }

    /// Chats that begin from now on wait after their first piece.
    pub(crate) fn hold(&self) {
        self.state.gate.lock().unwrap().is_held = true;
    }

    /// Those that begin from now on do not; those that wait go on waiting.
    pub(crate) fn hold_no_more(&self) {
        self.state.gate.lock().unwrap().is_held = false;
    }

    /// Those that wait go on.
    pub(crate) fn release(&self) {
        let mut gate = self.state.gate.lock().unwrap();
        (gate.is_held, gate.waiting) = (false, Vec::new());
        self.state.changed.notify_all();
    }

    pub(crate) fn authorized_by(&self) -> Vec<String> {
        self.state.authorized_by.lock().unwrap().clone()
    }
}

impl ChatsState {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(SOON))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let (mut line, mut length, mut key, mut path) = (String::new(), 0, String::new(), String::new());
        while reader.read_line(&mut line)? > 2 {
            if path.is_empty() {
                line.split(' ').nth(1).unwrap_or_default().clone_into(&mut path);
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "authorization" => value.trim().trim_start_matches("Bearer ").clone_into(&mut key),
                _ => {}
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if !self.keys.lock().unwrap().contains(&key) {
            return respond(&mut stream, "401 Unauthorized", r#"{"error":{"message":"wrong key"}}"#);
        }
        if !path.ends_with("/chat/completions") {
            return respond(
                &mut stream,
                "200 OK",
                r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#,
            );
        }
        let number = {
            let mut authorized_by = self.authorized_by.lock().unwrap();
            authorized_by.push(key);
            authorized_by.len()
        };
        let body: Value = serde_json::from_slice(&body).unwrap();
        if body["stream"] != true {
            return respond(
                &mut stream,
                "200 OK",
                r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"first second"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#,
            );
        }
        let piece = |delta: &str, finish: &str| {
            format!(
                "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
            )
        };
        let first = piece(r#"{"role":"assistant","content":"first"}"#, "null");
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{first}"
        )?;
        self.wait(number);
        let second = piece(r#"{"content":" second"}"#, "\"stop\"");
        write!(stream, "{second}data: [DONE]\n\n")
    }

    fn wait(&self, number: usize) {
        let mut gate = self.gate.lock().unwrap();
        if !gate.is_held {
            return;
        }
        gate.waiting.push(number);
        let (_gate, waited) =
            self.changed.wait_timeout_while(gate, SOON, |gate| gate.waiting.contains(&number)).unwrap();
        assert!(!waited.timed_out(), "the chat was never let go on");
    }
}
