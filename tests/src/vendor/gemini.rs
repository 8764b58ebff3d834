//! Google's Gemini API, `generateContent` streamed and not.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Ending, Scene};

pub(super) fn answer(scene: Scene, stream: bool, body: &str) -> Answer {
    if let Scene::Status(status) = scene {
        return Answer::Json(status, error(status));
    }
    let asks_tool = scene == Scene::Tool && !body.contains("\"functionResponse\"");
    let mut parts: Vec<Value> = if asks_tool {
        vec![json!({"functionCall": {"name": "run_shell_command", "args": {"command": "echo hi"}}})]
    } else {
        scene.pieces().iter().map(|piece| json!({"text": piece})).collect()
    };
    let finish = match scene {
        Scene::Length => "MAX_TOKENS",
        Scene::Refusal => "SAFETY",
        _ => "STOP",
    };
    if !stream {
        return Answer::Json(StatusCode::OK, chunk(&parts, Some(finish)));
    }
    let last = parts.pop();
    let mut events: Vec<String> = parts.into_iter().map(|part| event(&chunk(&[part], None))).collect();
    let (finish, ending) = match scene {
        Scene::Stall => (None, Ending::Never),
        Scene::Drop => (None, Ending::Cut),
        _ => (Some(finish), Ending::Clean),
    };
    events.push(event(&chunk(last.as_slice(), finish)));
    Answer::Events(events, ending)
}

fn chunk(parts: &[Value], finish: Option<&str>) -> Value {
    let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
    if let Some(finish) = finish {
        candidate["finishReason"] = finish.into();
    }
    json!({"candidates": [candidate], "modelVersion": "mock", "usageMetadata":
        {"promptTokenCount": 25, "candidatesTokenCount": 12, "totalTokenCount": 37}})
}

fn event(data: &Value) -> String {
    format!("data: {data}\r\n\r\n")
}

fn error(status: StatusCode) -> Value {
    let name = match status.as_u16() {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    json!({"error": {"code": status.as_u16(), "message": format!("the vendor says {status}"), "status": name}})
}
