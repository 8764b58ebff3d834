//! Anthropic's Messages API, streamed.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Ending, Scene};

pub(super) fn answer(scene: Scene, body: &str) -> Answer {
    if let Scene::Status(status) = scene {
        return Answer::Json(status, error(status));
    }
    let request: Value = serde_json::from_str(body).expect("the CLI sends JSON");
    let mut events = vec![event(&json!({"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": request["model"], "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 25, "output_tokens": 1}}}))];
    let asks_tool = scene == Scene::Tool && !body.contains("\"tool_result\"");
    if asks_tool {
        events.extend([
            event(&json!({"type": "content_block_start", "index": 0, "content_block":
                {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}}})),
            event(&json!({"type": "content_block_delta", "index": 0, "delta":
                {"type": "input_json_delta", "partial_json": "{\"command\":\"echo hi\"}"}})),
            event(&json!({"type": "content_block_stop", "index": 0})),
        ]);
    } else {
        events.push(event(&json!({"type": "content_block_start", "index": 0, "content_block":
            {"type": "text", "text": ""}})));
        events.extend(scene.pieces().iter().map(|piece| {
            event(&json!({"type": "content_block_delta", "index": 0, "delta":
                {"type": "text_delta", "text": piece}}))
        }));
    }
    match scene {
        Scene::Stall => return Answer::Events(events, Ending::Never),
        Scene::Drop => return Answer::Events(events, Ending::Cut),
        _ => {}
    }
    let stop_reason = match scene {
        _ if asks_tool => "tool_use",
        Scene::Length => "max_tokens",
        Scene::Refusal => "refusal",
        _ => "end_turn",
    };
    if !asks_tool {
        events.push(event(&json!({"type": "content_block_stop", "index": 0})));
    }
    events.push(event(&json!({"type": "message_delta", "delta":
        {"stop_reason": stop_reason, "stop_sequence": null}, "usage": {"output_tokens": 12}})));
    events.push(event(&json!({"type": "message_stop"})));
    Answer::Events(events, Ending::Clean)
}

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().expect("every event has a type"))
}

fn error(status: StatusCode) -> Value {
    let kind = match status.as_u16() {
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": format!("the vendor says {status}")}})
}
