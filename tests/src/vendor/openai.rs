//! OpenAI's Responses API, streamed.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Ending, Scene};

pub(super) fn answer(scene: Scene, body: &str) -> Answer {
    if let Scene::Status(status) = scene {
        return Answer::Json(status, error(status));
    }
    let mut events = vec![event(&json!({"type": "response.created", "response": {"id": "resp_1"}}))];
    if scene == Scene::Tool && !body.contains("\"function_call_output\"") {
        let call = json!({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "shell",
            "arguments": "{\"command\":[\"echo\",\"hi\"]}"});
        events.push(event(&json!({"type": "response.output_item.done", "output_index": 0, "item": call})));
        events.push(completed(&[call]));
        return Answer::Events(events, Ending::Clean);
    }
    let message = |status: &str, content: Value| json!({"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": content});
    events.push(event(&json!({"type": "response.output_item.added", "output_index": 0,
        "item": message("in_progress", json!([]))})));
    let pieces = scene.pieces();
    events.extend(pieces.iter().map(|piece| {
        event(&json!({"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0,
            "content_index": 0, "delta": piece}))
    }));
    match scene {
        Scene::Stall => return Answer::Events(events, Ending::Never),
        Scene::Drop => return Answer::Events(events, Ending::Cut),
        _ => {}
    }
    let content = json!([{"type": "output_text", "text": pieces.concat(), "annotations": []}]);
    let item = message("completed", content);
    events.push(event(&json!({"type": "response.output_item.done", "output_index": 0, "item": item})));
    let incomplete = match scene {
        Scene::Length => Some("max_output_tokens"),
        Scene::Refusal => Some("content_filter"),
        _ => None,
    };
    events.push(match incomplete {
        None => completed(&[item]),
        Some(reason) => event(&json!({"type": "response.incomplete", "response": {"id": "resp_1",
            "status": "incomplete", "incomplete_details": {"reason": reason}, "output": [item],
            "usage": usage()}})),
    });
    Answer::Events(events, Ending::Clean)
}

fn completed(output: &[Value]) -> String {
    event(&json!({"type": "response.completed", "response":
        {"id": "resp_1", "status": "completed", "output": output, "usage": usage()}}))
}

fn usage() -> Value {
    json!({"input_tokens": 25, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 37})
}

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().expect("every event has a type"))
}

fn error(status: StatusCode) -> Value {
    let code = match status.as_u16() {
        401 => "invalid_api_key",
        429 => "rate_limit_exceeded",
        _ => "server_error",
    };
    json!({"error": {"message": format!("the vendor says {status}"), "type": code, "code": code, "param": null}})
}
