//! The administration API of a gateway, as an administrator's program uses it.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::gateway::{Gateway, gateway_binary};
use crate::raw::{Connection, Request, Response};
use crate::{SOON, secrets, within};

/// An administrator of a native gateway on its own data directory.
#[derive(Debug)]
pub struct Admin<'a> {
    gateway: &'a Gateway,
    token: String,
}

impl<'a> Admin<'a> {
    /// With a token as `dyad-gateway admin token` prints it.
    pub async fn of(gateway: &'a Gateway) -> Self {
        Self::with_role(gateway, "admin").await
    }

    pub async fn with_role(gateway: &'a Gateway, role: &str) -> Self {
        let token = run(&gateway.data_dir(), &["admin", "token", "--role", role]).await;
        let token = token.trim().to_owned();
        secrets::register(&token);
        Self { gateway, token }
    }

    /// The `Authorization` value.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// One request, on a connection of its own, whatever comes of it.
    pub async fn send(&self, method: &str, target: &str, body: Option<&Value>) -> Response {
        self.request(self.prepare(method, target, body)).await
    }

    /// A request with this administrator's token, to be changed before it is sent.
    pub fn prepare(&self, method: &str, target: &str, body: Option<&Value>) -> Request {
        let request = Request::bare(method, target)
            .header("host", self.gateway.address())
            .header("authorization", self.authorization());
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    pub async fn request(&self, request: Request) -> Response {
        Connection::open(self.gateway).await.request(&request).await
    }

    /// The same, where it has to work; the answer's JSON, or null where there is none.
    pub async fn call(&self, method: &str, target: &str, body: Option<&Value>) -> Value {
        let response = self.send(method, target, body).await;
        let text = String::from_utf8_lossy(&response.body).into_owned();
        assert!((200..300).contains(&response.status), "{method} {target}: {} {text}", response.status);
        if response.body.is_empty() { Value::Null } else { response.json() }
    }

    pub async fn get(&self, target: &str) -> Value {
        self.call("GET", target, None).await
    }

    pub async fn post(&self, target: &str, body: &Value) -> Value {
        self.call("POST", target, Some(body)).await
    }

    /// Makes an API key with these members; the key itself.
    pub async fn make_key(&self, members: &Value) -> (String, Value) {
        let record = self.post("/admin/keys", members).await;
        let key = record["key"].as_str().expect("a new key is shown").to_owned();
        secrets::register(&key);
        (key, record)
    }
}

/// A proxy provider with a credential, at an upstream on this machine.
pub fn provider(slug: &str, base_url: &str, credential: &str, models: &[&str]) -> Value {
    let models: Vec<_> = models.iter().map(|id| json!({"dyadModelId": id})).collect();
    json!({"name": slug, "slug": slug, "type": "local", "models": models,
        "adapterConfig": {"baseUrl": base_url}, "credentials": {"apiKey": credential}})
}

/// What a command of the gateway's prints, on a data directory.
pub async fn run(data_dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(gateway_binary());
    command.args(arguments).arg("--data-dir").arg(data_dir).stdin(Stdio::null()).kill_on_drop(true);
    let output = within(SOON * 3, "the command ends", command.output()).await.expect("the binary is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} ended with {}:\n{said}", output.status);
    String::from_utf8(output.stdout).expect("commands print UTF-8")
}
