use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Shape::{Conformant, Irregular},
    *,
};

const CHUNK: &str = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1753781234,"model":"gpt-4.1","service_tier":"default","choices":[{"index":0,"delta":{"content":" hel\nlo"},"logprobs":null,"finish_reason":null}],"usage":null}"#;

fn chunk(text: &str) -> ChunkScan<'_> {
    ChunkScan::scan(text.as_bytes()).unwrap()
}

/// The shape of [`CHUNK`] with `from` replaced.
fn shape_with(from: &str, to: &str) -> Shape {
    assert!(CHUNK.contains(from), "{from}");
    let text = CHUNK.replace(from, to);
    let scan = chunk(&text);
    assert_eq!(ChunkScanner::new().scan(text.as_bytes()).as_ref(), Ok(&scan));
    scan.shape
}

#[test]
fn a_chunk_tells_what_it_says_and_where() {
    let scan = chunk(CHUNK);
    assert_eq!(scan.shape, Conformant);
    assert_eq!(&CHUNK[scan.model.unwrap()], "\"gpt-4.1\"");
    assert_eq!(&CHUNK[scan.usage_null.unwrap()], "null");
    assert_eq!(scan.close, CHUNK.len() - 1);
    assert_eq!(scan.text.as_slice(), [r" hel\nlo"]);
    assert!(scan.output && !scan.finished && !scan.has_role && !scan.error && !scan.choices_empty);
    assert_eq!((scan.usage, scan.max_index), (None, 0));

    let text = CHUNK
        .replace(r#""content":" hel\nlo""#, r#""role":"assistant","content":"""#)
        .replace("\"finish_reason\":null", "\"finish_reason\":\"stop\"")
        .replace("\"index\":0", "\"index\":3")
        .replace(
            "\"usage\":null",
            r#""usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"x":{}} "#,
        );
    let scan = chunk(&text);
    let (span, usage) = scan.usage.unwrap();
    assert!(text[span].starts_with("{\"prompt_tokens\"") && text[..scan.close].ends_with("{}} "));
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (1, 2, 3));
    assert_eq!((scan.shape, scan.max_index, scan.usage_null), (Conformant, 3, None));
    assert!(!scan.output && scan.finished && scan.has_role);
}

#[test]
fn chunks_that_clients_understand_are_conformant() {
    for (from, to) in [
        ("\"index\":0", "\"index\" : 0"),
        ("\"usage\":null", "\"x\":[{}]"),
        (",\"usage\":null", ""),
        ("\"model\":\"gpt-4.1\"", "\"model\":\"\""),
        ("\"finish_reason\":null", "\"finish_reason\":\"tool_calls\""),
        ("{\"content\":\" hel\\nlo\"}", "{}"),
        (
            "{\"content\":\" hel\\nlo\"}",
            r#"{"role":"assistant","content":null,"refusal":null,"tool_calls":null}"#,
        ),
        ("{\"content\":\" hel\\nlo\"}", r#"{"reasoning_content":"x","reasoning":null}"#),
        ("\"service_tier\":\"default\"", "\"error\":null"),
    ] {
        assert_eq!(shape_with(from, to), Conformant, "{to}");
    }
    assert_eq!(
        chunk(r#"{"choices":[],"id":"x","object":"chat.completion.chunk","created":0,"model":"m"}"#).shape,
        Conformant
    );
}

#[test]
fn anything_else_is_irregular() {
    for (from, to) in [
        ("\"id\":\"chatcmpl-1\",", ""),
        ("\"id\":\"chatcmpl-1\"", "\"id\":\"\""),
        ("\"id\":\"chatcmpl-1\"", "\"id\":7"),
        ("\"id\":\"chatcmpl-1\"", "\"id\":null"),
        ("\"id\":\"chatcmpl-1\"", "\"\\u0069d\":\"chatcmpl-1\""),
        ("\"id\":\"chatcmpl-1\"", "\"id\":\"chatcmpl-1\",\"id\":\"y\""),
        ("\"id\":\"chatcmpl-1\"", "\"id\":\"chatcmpl-1\",\"\\u0069d\":\"y\""),
        ("chat.completion.chunk", "chat.completion"),
        ("chat.completion.chunk", "chat.completion\\u002echunk"),
        ("1753781234", "1753781234.5"),
        ("1753781234", "-1"),
        ("1753781234", "\"1\""),
        ("\"gpt-4.1\"", "null"),
        ("\"index\":0,", ""),
        ("\"index\":0", "\"index\":\"0\""),
        ("\"index\":0", "\"index\":0,\"index\":0"),
        ("\"delta\"", "\"message\""),
        ("{\"content\":\" hel\\nlo\"}", "null"),
        ("{\"content\":\" hel\\nlo\"}", "[]"),
        ("\"content\":\" hel\\nlo\"", "\"content\":[]"),
        ("\"content\":\" hel\\nlo\"", "\"content\":\"\",\"content\":\"\""),
        ("\"content\":\" hel\\nlo\"", "\"c\\u006fntent\":null"),
        ("\"content\":\" hel\\nlo\"", "\"role\":\"\""),
        ("\"content\":\" hel\\nlo\"", "\"role\":null"),
        ("\"content\":\" hel\\nlo\"", "\"role\":\"model\""),
        ("\"content\":\" hel\\nlo\"", "\"tool_calls\":[]"),
        ("\"content\":\" hel\\nlo\"", "\"refusal\":\"\""),
        ("\"content\":\" hel\\nlo\"", "\"reasoning\":\"x\""),
        ("\"content\":\" hel\\nlo\"", "\"other\":1"),
        ("\"finish_reason\":null", "\"finish_reason\":\"\""),
        ("\"finish_reason\":null", "\"finish_reason\":\"eos\""),
        ("\"finish_reason\":null", "\"finish_reason\":1"),
        ("\"usage\":null", "\"usage\":{}"),
        ("\"usage\":null", r#""usage":{"prompt_tokens":1,"completion_tokens":2}"#),
        ("\"usage\":null", r#""usage":{"prompt_tokens":1,"completion_tokens":"2","total_tokens":3}"#),
        ("\"usage\":null", r#""usage":{"prompt_tokens":1,"completion_tokens":2.0,"total_tokens":3}"#),
        (
            "\"usage\":null",
            r#""usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"total_tokens":3}"#,
        ),
        ("\"usage\":null", "\"usage\":1"),
        ("\"usage\":null", "\"usage\":null,\"usage\":null"),
        ("\"usage\":null", "\"choices\":[]"),
        ("\"usage\":null", "\"error\":{}"),
    ] {
        assert_eq!(shape_with(from, to), Irregular, "{to}");
    }
    for text in ["{}", r#"{"choices":null}"#, r#"{"choices":{}}"#, r#"{"choices":[1]}"#] {
        assert_eq!(chunk(text).shape, Irregular, "{text}");
    }
}

#[test]
fn facts_of_irregular_chunks_are_found() {
    let with = |choice: &str| format!(r#"{{"choices":[{choice}]}}"#);
    for (delta, output) in [
        (r#"{"tool_calls":[{"index":0}]}"#, true),
        (r#"{"tool_calls":[ ]}"#, false),
        (r#"{"function_call":{"name":"f"}}"#, true),
        (r#"{"refusal":"no"}"#, true),
        (r#"{"reasoning":"hm"}"#, true),
        (r#"{"content":[{"type":"text"}]}"#, true),
        (r#"{"content":[]}"#, false),
        (r#"{"content":"","reasoning_content":"","refusal":null}"#, false),
        (r#"{"other":"x"}"#, false),
    ] {
        assert_eq!(chunk(&with(&format!(r#"{{"delta":{delta}}}"#))).output, output, "{delta}");
    }
    let scan_text =
        with(r#"{"index":1,"finish_reason":"","delta":{"reasoning":"a","content":"b","refusal":"c"}},7"#);
    let scan = chunk(&scan_text);
    assert!(scan.finished);
    assert_eq!((scan.max_index, scan.text.as_slice()), (1, ["a", "b", "c"].as_slice()));
    assert!(chunk(r#"{"error":"x"}"#).error && !chunk(r#"{"error":null}"#).error);
    assert!(chunk(r#"{"choices":[ ]}"#).choices_empty && !chunk("{}").choices_empty);
    let usage = chunk(r#"{"usage":{"prompt_tokens":"4","completion_tokens":2.0}}"#).usage.unwrap().1;
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (4, 2, 6));
}

#[test]
fn what_is_no_json_object_is_an_error() {
    for text in
        ["", "[DONE]", "[]", "null", "{\"a\":1}x", "{\"choices\":[}", "{\"choices\":[{]}", "\u{feff}{}"]
    {
        let error = ChunkScan::scan(text.as_bytes()).expect_err(text);
        assert_eq!(ChunkScanner::new().scan(text.as_bytes()), Err(error), "{text}");
        assert!(CompletionScan::scan(text.as_bytes()).is_err(), "{text}");
    }
}

fn completion() -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": null,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "hi", "refusal": null, "annotations": []},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1}},
    })
}

fn completion_shape(pointer: &str, value: Value) -> Shape {
    let mut completion = completion();
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    completion.pointer_mut(parent).unwrap()[member] = value;
    CompletionScan::scan(completion.to_string().as_bytes()).unwrap().shape
}

#[test]
fn a_completion_tells_what_it_says_and_where() {
    let text = completion().to_string() + "\n";
    let scan = CompletionScan::scan(text.as_bytes()).unwrap();
    assert_eq!(scan.shape, Conformant);
    assert_eq!(&text[scan.model.unwrap()], "\"m\"");
    assert_eq!((scan.text.as_slice(), scan.max_index, scan.close), (["hi"].as_slice(), 0, text.len() - 2));
    assert!(scan.output && scan.finished && !scan.error && !scan.choices_empty);
    let usage = scan.usage.unwrap().1;
    assert_eq!(usage.total_tokens, 3);
    assert_eq!(usage.prompt_tokens_details.unwrap().cached_tokens, 1);
    assert_eq!(usage.completion_tokens_details.unwrap().reasoning_tokens, 1);
}

#[test]
fn completions_are_judged_member_by_member() {
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let without = |pointer: &str| {
        let mut call = call.clone();
        *call.pointer_mut(pointer).unwrap() = Value::Null;
        call
    };
    for (pointer, value, shape) in [
        ("/id", json!(""), Irregular),
        ("/object", json!("chat.completion.chunk"), Irregular),
        ("/created", json!(1.5), Irregular),
        ("/model", Value::Null, Irregular),
        ("/choices", json!([]), Irregular),
        ("/choices", Value::Null, Irregular),
        ("/choices", json!([1]), Irregular),
        ("/usage", Value::Null, Conformant),
        ("/usage", json!({"prompt_tokens": 1}), Irregular),
        ("/error", json!("x"), Irregular),
        ("/extra", json!({"x": [1]}), Conformant),
        ("/choices/0/index", json!("0"), Irregular),
        ("/choices/0/finish_reason", Value::Null, Irregular),
        ("/choices/0/finish_reason", json!("eos"), Irregular),
        ("/choices/0/finish_reason", json!("length"), Conformant),
        ("/choices/0/message", Value::Null, Irregular),
        ("/choices/0/message/role", json!("model"), Irregular),
        ("/choices/0/message/content", Value::Null, Conformant),
        ("/choices/0/message/content", json!([]), Irregular),
        ("/choices/0/message/refusal", json!("no"), Irregular),
        ("/choices/0/message/reasoning_content", json!("r"), Conformant),
        ("/choices/0/message/reasoning", json!("r"), Irregular),
        ("/choices/0/message/other", json!(1), Irregular),
        ("/choices/0/message/function_call", Value::Null, Conformant),
        ("/choices/0/message/annotations", json!("x"), Irregular),
        ("/choices/0/message/tool_calls", json!([]), Conformant),
        ("/choices/0/message/tool_calls", json!({}), Irregular),
        ("/choices/0/message/tool_calls", json!([call, call]), Conformant),
        ("/choices/0/message/tool_calls", json!([call, 1]), Irregular),
        ("/choices/0/message/tool_calls", json!([without("/id")]), Irregular),
        ("/choices/0/message/tool_calls", json!([without("/type")]), Irregular),
        ("/choices/0/message/tool_calls", json!([without("/function")]), Irregular),
        ("/choices/0/message/tool_calls", json!([without("/function/name")]), Irregular),
        ("/choices/0/message/tool_calls", json!([without("/function/arguments")]), Irregular),
    ] {
        assert_eq!(completion_shape(pointer, value.clone()), shape, "{pointer} {value}");
    }
    let twice = completion().to_string().replace("\"index\":0", "\"index\":0,\"index\":0");
    assert_eq!(CompletionScan::scan(twice.as_bytes()).unwrap().shape, Irregular);
}

/// Chunks written from few parts, so that heads repeat, with members in many orders, some irregular, some broken.
fn some_chunk() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        r#""id":"a""#,
        r#""id":"b""#,
        r#""object":"chat.completion.chunk""#,
        r#""created":1"#,
        r#""created":12"#,
        r#""model":"m""#,
        r#""usage":null"#,
        r#""usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#,
        r#""error":null"#,
        r#""error":{}"#,
        r#""x":"y""#,
        r#""choices":null"#,
        r#""choices":[]"#,
        r#""choices":[{"index":0,"delta":{"role":"assistant","content":"é"}}]"#,
        r#""choices":[{"index":1,"delta":{"tool_calls":[1]},"finish_reason":"stop"},]"#,
    ]);
    let usual = prop::sample::select(vec![
        "",
        r#"{"id":"a","object":"chat.completion.chunk","created":1,"model":"m","#,
    ]);
    (usual, prop::collection::vec(part, 0..7)).prop_map(|(head, parts)| {
        let open = if head.is_empty() { "{" } else { head };
        format!("{open}{}}}", parts.join(","))
    })
}

proptest! {
    #[test]
    fn a_scanner_that_remembers_gives_what_a_plain_scan_gives(chunks in prop::collection::vec(some_chunk(), 1..8)) {
        let mut scanner = ChunkScanner::new();
        for text in &chunks {
            prop_assert_eq!(scanner.scan(text.as_bytes()), ChunkScan::scan(text.as_bytes()), "{}", text);
        }
    }

    #[test]
    fn what_is_scanned_is_json(text in some_chunk(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let is_object = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes).is_ok();
        prop_assert_eq!(ChunkScan::scan(&bytes).is_ok(), is_object);
        prop_assert_eq!(CompletionScan::scan(&bytes).is_ok(), is_object);
        // A damaged frame must not be taken for the one before.
        let mut scanner = ChunkScanner::new();
        prop_assert_eq!(scanner.scan(text.as_bytes()).is_ok(), serde_json::from_str::<Value>(&text).is_ok());
        prop_assert_eq!(scanner.scan(&bytes), ChunkScan::scan(&bytes));
    }

    #[test]
    fn facts_are_those_of_the_parsed_chunk(text in some_chunk()) {
        if let (Ok(scan), Ok(value)) = (ChunkScan::scan(text.as_bytes()), serde_json::from_str::<Value>(&text))
            && scan.shape == Conformant
        {
            prop_assert_eq!(&serde_json::from_str::<Value>(&text[scan.model.unwrap()]).unwrap(), &value["model"]);
            prop_assert_eq!(scan.usage.is_some(), value["usage"].is_object());
            prop_assert_eq!(scan.choices_empty, value["choices"] == json!([]));
            let longer = format!("{},\"usage\":7}}", &text[..scan.close]);
            prop_assert_eq!(&serde_json::from_str::<Value>(&longer).unwrap()["usage"], &json!(7));
        }
    }
}
