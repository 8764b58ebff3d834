//! Requests the size and shape of Dyad's: its agent turns send 35 tools of some 49 KB of JSON
//! Schema, a codebase in one user message, and a history of tool calls with reasoning.

use serde_json::{Value, json};

/// Number of tools of an agent turn.
pub const TOOL_COUNT: usize = 35;

/// Thirty-five tools, with every JSON Schema keyword that Dyad uses.
pub fn tools() -> Value {
    let description = "Reads, writes or searches the files of the app that is being built. ".repeat(12);
    let tool = |number: usize| {
        json!({"type": "function", "function": {
            "name": format!("tool_{number:02}"),
            "description": description,
            "parameters": {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "path": {"type": "string", "description": "A path in the app", "minLength": 1, "maxLength": 4096, "pattern": "^[^\\u0000]+$"},
                    "mode": {"type": "string", "const": "read", "default": "read"},
                    "lines": {"type": "array", "items": {"type": "integer", "exclusiveMinimum": 0}, "minItems": 1, "maxItems": 64},
                    "range": {"type": "object", "properties": {"from": {"type": "integer"}, "to": {"type": "integer"}}, "additionalProperties": false}
                },
                "required": ["path"]
            }
        }})
    };
    (0..TOOL_COUNT).map(tool).collect()
}

/// A codebase of `bytes` in one text, with quotes, backslashes and multibyte characters.
pub fn codebase(bytes: usize) -> String {
    let line = "<dyad-file path=\"src/Näme.tsx\">export const s = \"a\\n\\u00e9 → 🦀\";</dyad-file>\n";
    line.repeat(bytes.div_ceil(line.len()))
}

/// An agent turn: system prompt, codebase, history with tool calls and reasoning, an image.
pub fn agent_turn(model: &str, codebase_bytes: usize) -> Value {
    json!({
        "model": model,
        "messages": [
            {"role": "system", "content": "You are Dyad, an AI editor that builds web applications."},
            {"role": "user", "content": codebase(codebase_bytes)},
            {"role": "assistant", "content": "", "reasoning_content": "I need the file first.", "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "tool_00", "arguments": "{\"path\":\"src/App.tsx\"}"}},
                {"id": "call_2", "type": "function", "function": {"name": "tool_01", "arguments": "{\"path\":\"src/main.tsx\"}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "export default App"},
            {"role": "tool", "tool_call_id": "call_2", "content": "render(<App/>)"},
            {"role": "user", "content": [
                {"type": "text", "text": "Make it look like this."},
                {"type": "image_url", "image_url": {"url": PIXEL}}]}
        ],
        "reasoning_effort": "medium",
        "tools": tools(),
        "tool_choice": "auto"
    })
}

/// A PNG of one pixel as a data URI.
pub const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

#[cfg(test)]
mod tests {
    #[test]
    fn the_tools_are_as_large_as_dyads() {
        let bytes = super::tools().to_string().len();
        assert!((40_000..60_000).contains(&bytes), "{bytes}");
    }
}
