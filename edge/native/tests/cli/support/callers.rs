//! Who calls a server: a client with an API key, and an administrator with a token.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::{SOON, exchange};

/// An answer that is on its way.
pub(crate) struct Stream {
    connection: TcpStream,
    read: String,
}

impl Stream {
    /// Asks for a chat.
    pub(crate) fn begin(address: SocketAddr, key: &str, model: &str) -> Self {
        let body = json!({
            "model": model, "stream": true, "messages": [{"role": "user", "content": "Hello"}],
        })
        .to_string();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut connection = TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(SOON)).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        Self { connection, read: String::new() }
    }

    pub(crate) fn read_until(&mut self, words: &str) {
        let mut buffer = [0; 4096];
        while !self.read.contains(words) {
            let length = self.connection.read(&mut buffer).unwrap();
            assert!(length > 0, "it ended without {words:?}: {}", self.read);
            self.read.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
    }

    pub(crate) fn finish(mut self) -> StreamedAnswer {
        self.connection.read_to_string(&mut self.read).unwrap();
        let status = self.read["HTTP/1.1 ".len()..][..3].parse().unwrap();
        StreamedAnswer { status, body: self.read }
    }
}

/// All of it, head and chunk sizes too.
pub(crate) struct StreamedAnswer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Somebody with a token.
pub(crate) struct Administrator {
    pub(crate) address: SocketAddr,
    /// None is sent if it is empty.
    pub(crate) token: String,
}

pub(crate) struct AdminAnswer {
    pub(crate) status: u16,
    /// In small letters.
    pub(crate) head: String,
    /// `Null` if it is not JSON.
    pub(crate) body: Value,
}

impl Administrator {
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> AdminAnswer {
        let authorization = match self.token.as_str() {
            "" => String::new(),
            token => format!("authorization: Bearer {token}\r\n"),
        };
        let content = match body {
            None => "\r\n".to_owned(),
            Some(body) => {
                let body = body.to_string();
                format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            }
        };
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{authorization}{content}");
        let answer = exchange(TcpStream::connect(self.address).unwrap(), request.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        AdminAnswer {
            status: head["HTTP/1.1 ".len()..][..3].parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: serde_json::from_str(body).unwrap_or_default(),
        }
    }
}
