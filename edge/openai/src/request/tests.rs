use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json, value::RawValue};

use super::{
    EncodingFormat::{Base64, Float},
    MaxTokensField::{MaxCompletionTokens, MaxTokens},
    *,
};

fn refusal(body: &str) -> (String, Option<String>) {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let error = ChatScan::scan(&body).expect_err(std::str::from_utf8(&body).unwrap());
    (error.message, error.param)
}

/// The refusal of a body that is right but for `members`.
fn refused_member(members: &str) -> (String, Option<String>) {
    refusal(&format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],{members}}}"#))
}

fn refused_message(message: &str) -> (String, Option<String>) {
    refusal(&format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}},{message}]}}"#))
}

fn joined(pieces: &[Bytes]) -> String {
    String::from_utf8(pieces.concat()).unwrap()
}

fn rewritten(body: &str, rewrite: &Rewrite<'_>) -> String {
    let body = Bytes::copy_from_slice(body.as_bytes());
    joined(&ChatScan::scan(&body).unwrap().rewrite(rewrite))
}

#[test]
fn a_body_tells_what_matters() {
    let body = Bytes::from_static(
        br#" {"stream":true,"mod\u0065l":"a\/b","n":2,"max_tokens":-1,"max_completion_tokens":7,
        "stream_options":{"x":1,"include_usage":true},"reasoning_effort":"medium","unknown":[{}],"temperature":null,
        "messages":[{"role":"system"},{"role":"user","content":[{"type":"text","text":"x"},{"image_url":{},"type":"image_url"},
        {"type":"file"}]},{"role":"assistant","content":"","reasoning_content":"r","tool_calls":[{"id":"c","function":{}}]}]} "#,
    );
    let scan = ChatScan::scan(&body).unwrap();
    assert_eq!(scan.model, "a/b");
    assert!(scan.stream && scan.include_usage);
    assert_eq!((scan.n, scan.max_tokens, scan.max_completion_tokens), (2, Some(-1), Some(7)));
    assert_eq!(scan.reasoning_effort.as_deref(), Some("medium"));
    let path = "messages[1].content[1]".to_owned();
    assert_eq!(scan.first_media, Some(MediaPart { kind: MediaKind::Image, path }));
}

#[test]
fn the_body_as_a_whole_is_checked() {
    for (body, message) in [
        (
            "",
            "the request body is not valid JSON: the text ends where a value is expected at line 1 column 1",
        ),
        ("hello", "the request body is not valid JSON: expected a JSON value at line 1 column 1"),
        (
            "{\n\"model\":\"m\"\n\"messages\":[]}",
            "the request body is not valid JSON: expected `,` or `}` at line 3 column 1",
        ),
        ("[]", "the request body must be a JSON object"),
        ("null", "the request body must be a JSON object"),
    ] {
        assert_eq!(refusal(body), (message.to_owned(), None), "{body:?}");
    }
    let deep = format!(r#"{{"model":"m","x":{}"#, "[".repeat(10_000));
    assert!(refusal(&deep).0.contains("nested too deeply"));
    let many: Vec<String> = (0..300).map(|index| format!("\"x{index}\":0")).collect();
    assert_eq!(refused_member(&many.join(",")).0, "the request body has more than 256 members");
    let utf8 = Bytes::from_static(b"{\"model\":\"\xff\"}");
    assert!(ChatScan::scan(&utf8).unwrap_err().message.contains("invalid UTF-8 at line 1 column 11"));
}

#[test]
fn required_members_are_required() {
    for (body, param) in [
        ("{}", "model"),
        (r#"{"messages":[{"role":"user"}]}"#, "model"),
        (r#"{"model":null,"messages":[{"role":"user"}]}"#, "model"),
        (r#"{"model":"m"}"#, "messages"),
        (r#"{"model":"m","messages":null}"#, "messages"),
    ] {
        assert_eq!(refusal(body), (format!("{param} is required"), Some(param.to_owned())));
    }
    let (message, param) = refused_message(r#"{"content":"x"}"#);
    assert_eq!(
        (message.as_str(), param.as_deref()),
        ("messages[1].role is required", Some("messages[1].role"))
    );
    let (message, param) = refusal(r#"{"model":"m","messages":[]}"#);
    assert_eq!((message.as_str(), param.as_deref()), ("messages must not be empty", Some("messages")));
}

#[test]
fn duplicate_members_are_refused_however_they_are_spelt() {
    for (members, name) in [
        (r#""model":"n""#, "model"),
        (r#""mod\u0065l":"n""#, "model"),
        (r#""model":null"#, "model"),
        (r#""\u006dessages":[{"role":"user"}]"#, "messages"),
        (r#""x":1,"\u0078":1"#, "x"),
    ] {
        assert_eq!(refused_member(members), (format!("{name} is given twice"), Some(name.to_owned())));
    }
}

#[test]
fn model_names_are_checked() {
    for (model, rule) in [
        ("\"\"".to_owned(), "must not be empty"),
        (r#""a\nb""#.to_owned(), "must not contain control characters"),
        ("\"\u{85}\"".to_owned(), "must not contain control characters"),
        (format!("\"{}\"", "ä".repeat(257)), "must not be longer than 256 characters"),
        ("7".to_owned(), "must be a string"),
    ] {
        assert_eq!(
            refusal(&format!("{{\"model\":{model}}}")),
            (format!("model {rule}"), Some("model".to_owned()))
        );
    }
    let longest = Bytes::from(json!({"model": "ä".repeat(256), "messages": [{"role": "user"}]}).to_string());
    assert!(ChatScan::scan(&longest).is_ok());
}

#[test]
fn members_of_the_wrong_type_are_named() {
    for (param, expected, values) in [
        ("stream", "a boolean", &["1", "\"true\"", "[]"][..]),
        ("stream_options", "an object", &["true", "[]"]),
        ("max_tokens", "an integer", &["1.5", "\"7\"", "1e3", "99999999999999999999"]),
        ("max_completion_tokens", "an integer", &["{}", "true"]),
        ("temperature", "a number", &["\"1\"", "{}"]),
        ("top_p", "a number", &["true"]),
        ("presence_penalty", "a number", &["[]"]),
        ("frequency_penalty", "a number", &["[]"]),
        ("n", "an integer", &["\"1\"", "1.0"]),
        ("stop", "a string or an array of strings", &["1", "[1]", "{}", "[null]"]),
        ("seed", "an integer", &["\"1\"", "0.5"]),
        ("tools", "an array of objects", &["{}", "[1]", "[[]]"]),
        ("tool_choice", "a string or an object", &["1", "[]"]),
        ("response_format", "an object", &["\"json\""]),
        ("reasoning_effort", "a string", &["1", "{}"]),
        ("user", "a string", &["1"]),
        ("logprobs", "a boolean", &["1"]),
        ("top_logprobs", "an integer", &["true"]),
        ("parallel_tool_calls", "a boolean", &["\"yes\""]),
        ("logit_bias", "an object", &["[]"]),
        ("metadata", "an object", &["\"x\""]),
        ("modalities", "an array of strings", &["\"text\"", "[1]"]),
        ("model", "a string", &["7", "[]"]),
        ("messages", "an array of objects", &["7", "{}", "\"hi\""]),
    ] {
        for value in values {
            let body = format!("{{\"{param}\":{value}}}");
            assert_eq!(
                refusal(&body),
                (format!("{param} must be {expected}"), Some(param.to_owned())),
                "{body}"
            );
        }
        if !["model", "messages"].contains(&param) {
            let nulled = format!(r#"{{"{param}":null,"model":"m","messages":[{{"role":"user"}}]}}"#);
            assert!(ChatScan::scan(&Bytes::from(nulled)).is_ok(), "null {param} counts as absent");
        }
    }
    let (message, param) = refused_member(r#""stream_options":{"include_usage":1}"#);
    assert_eq!(message, "stream_options.include_usage must be a boolean");
    assert_eq!(param.as_deref(), Some("stream_options.include_usage"));
    for n in [0, 129, -1] {
        assert_eq!(refused_member(&format!("\"n\":{n}")).0, "n must be between 1 and 128");
    }
}

#[test]
fn messages_are_checked() {
    for (message, refused) in [
        ("1", "messages[1] must be an object"),
        (r#"{"role":1}"#, "messages[1].role must be a string"),
        (r#"{"role":null}"#, "messages[1].role must be a string"),
        (r#"{"role":"user","content":1}"#, "messages[1].content must be a string or an array of objects"),
        (r#"{"role":"user","content":{}}"#, "messages[1].content must be a string or an array of objects"),
        (r#"{"role":"user","content":["x"]}"#, "messages[1].content[0] must be an object"),
        (r#"{"role":"user","content":[{"type":"text"},{}]}"#, "messages[1].content[1].type is required"),
        (r#"{"role":"user","content":[{"type":1}]}"#, "messages[1].content[0].type must be a string"),
        (r#"{"role":"user","tool_calls":{}}"#, "messages[1].tool_calls must be an array of objects"),
        (r#"{"role":"user","tool_calls":[{},1]}"#, "messages[1].tool_calls[1] must be an object"),
    ] {
        let (message_text, param) = refused_message(message);
        assert_eq!(message_text, refused);
        assert_eq!(param.as_deref(), refused.split(' ').next());
    }
    for message in [
        r#"{"role":"assistant","content":null,"tool_calls":null}"#,
        r#"{"role":"assistant","content":"","tool_calls":[]}"#,
        r#"{"role":"user","content":[]}"#,
    ] {
        let body = format!(r#"{{"model":"m","messages":[{message}]}}"#);
        assert!(ChatScan::scan(&Bytes::from(body)).is_ok(), "{message}");
    }
}

#[test]
fn a_rewrite_touches_only_what_it_names() {
    let messages = r#""messages" : [ {"role":"user","content":"\u00e4 \/"} ]"#;
    let body = format!("{{ \"model\":\"m\" , {messages},\"temperature\": 1.0e0,\"stream\":true }}\n");
    assert_eq!(rewritten(&body, &Rewrite::default()), body);
    assert_eq!(
        rewritten(&body, &Rewrite { model: Some("a\"b\n"), include_usage: true, ..Rewrite::default() }),
        format!(
            "{{\"stream_options\":{{\"include_usage\":true}}, \"model\":\"a\\\"b\\n\" , {messages},\"temperature\": 1.0e0,\"stream\":true }}\n"
        )
    );
}

#[test]
fn usage_is_asked_for_whatever_was_there() {
    let with = |options: &str, stream: bool| {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"u"}}],"stream":{stream}{options}}}"#);
        let pieces = rewritten(&body, &Rewrite { include_usage: true, ..Rewrite::default() });
        serde_json::from_str::<Value>(&pieces).unwrap()["stream_options"].take()
    };
    let asked = json!({"include_usage": true});
    assert_eq!(with("", true), asked);
    assert_eq!(with(r#","stream_options":null"#, true), asked);
    assert_eq!(with(r#","stream_options":{ }"#, true), asked);
    assert_eq!(with(r#","stream_options":{"include_usage":false}"#, true), asked);
    assert_eq!(with(r#","stream_options":{"include_usage":null}"#, true), asked);
    assert_eq!(with(r#","stream_options":{"include_usage":true,"include\u005fusage":false}"#, true), asked);
    assert_eq!(with(r#","stream_options":{"a":[1]}"#, true), json!({"include_usage": true, "a": [1]}));
    assert_eq!(with("", false), Value::Null);
}

#[test]
fn only_one_limit_is_sent() {
    let with = |members: &str, field| {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"u"}}],{members}}}"#);
        let body = rewritten(&body, &Rewrite { max_tokens_field: Some(field), ..Rewrite::default() });
        let rest = body.strip_prefix(r#"{"model":"m","messages":[{"role":"u"}]"#).unwrap();
        rest.strip_suffix('}').unwrap().to_owned()
    };
    assert_eq!(with(r#""max_tokens":1"#, MaxTokens), r#","max_tokens":1"#);
    assert_eq!(with(r#""max_tokens":1"#, MaxCompletionTokens), r#","max_completion_tokens":1"#);
    assert_eq!(with(r#""max_completion_tokens":1"#, MaxTokens), r#","max_tokens":1"#);
    assert_eq!(with(r#""max_tokens":1,"max_completion_tokens":2"#, MaxTokens), r#","max_tokens":1"#);
    assert_eq!(
        with(r#""max_tokens":1,"max_completion_tokens":2"#, MaxCompletionTokens),
        r#","max_completion_tokens":2"#
    );
    assert_eq!(with(r#""max_tokens":null,"max_completion_tokens":2"#, MaxTokens), r#","max_tokens":2"#);
    assert_eq!(with(r#""max_tokens":1,"max_completion_tokens":null"#, MaxTokens), r#","max_tokens":1"#);
    assert_eq!(with(r#""max_completion_tokens":null"#, MaxTokens), "");
}

#[test]
fn arguments_encoded_twice_are_decoded_once() {
    let arguments = |arguments: &str| {
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"assistant","tool_calls":[{{"function":{{"arguments":{arguments}}}}}]}}]}}"#
        );
        let body: Value = serde_json::from_str(&rewritten(&body, &Rewrite::default())).unwrap();
        body["messages"][0]["tool_calls"][0]["function"]["arguments"].clone()
    };
    assert_eq!(arguments(r#""\"{\\\"a\\\":1}\"""#), json!(r#"{"a":1}"#));
    assert_eq!(arguments(r#""\n \u0022{\\\"a\\\":\\\"\\\\\\\"\\\"}\" ""#), json!(r#"{"a":"\""}"#));
    for untouched in
        [r#""{\"a\":1}""#, r#""\"no JSON\"""#, r#""\"{}\" and more""#, r#""""#, r#"{"a":1}"#, r#""\"\"""#]
    {
        assert_eq!(arguments(untouched), serde_json::from_str::<Value>(untouched).unwrap());
    }
}

#[test]
fn embeddings_bodies_are_checked() {
    let scan = |members: &str| {
        let body = Bytes::from(format!(r#"{{"model":"m",{members}}}"#));
        EmbeddingsScan::scan(&body)
            .map(|scan| (scan.inputs, scan.encoding_format, scan.dimensions))
            .map_err(|error| error.message)
    };
    assert_eq!(scan(r#""input":"x""#), Ok((1, Float, None)));
    assert_eq!(
        scan(r#""input":["x","y"],"encoding_format":"base64","dimensions":8"#),
        Ok((2, Base64, Some(8)))
    );
    assert_eq!(scan(r#""input":[1,2,3],"encoding_format":"float","user":"u""#), Ok((1, Float, None)));
    assert_eq!(scan(r#""input":[[1,2],[3]]"#), Ok((2, Float, None)));
    let types = "input must be a string, or a non-empty array of strings, of integers (tokens) or of arrays of integers";
    for (members, message) in [
        (r#""input":null"#, "input is required"),
        (r#""input":[]"#, "input must not be empty"),
        (r#""input":[[1],[]]"#, "input must not contain an empty array"),
        (r#""input":[1,"x"]"#, types),
        (r#""input":["x",[1]]"#, types),
        (r#""input":[["x"]]"#, types),
        (r#""input":[null]"#, types),
        (r#""input":{}"#, types),
        (r#""input":"x","encoding_format":"int8""#, "encoding_format must be float or base64"),
        (r#""input":"x","encoding_format":1"#, "encoding_format must be a string"),
        (r#""input":"x","dimensions":0"#, "dimensions must be at least 1"),
        (r#""input":"x","user":1"#, "user must be a string"),
        (r#""input":"x","input":"y""#, "input is given twice"),
        (r#""input":"x""y""#, "the request body is not valid JSON: expected `,` or `}` at line 1 column 25"),
    ] {
        assert_eq!(scan(members), Err(message.to_owned()), "{members}");
    }
    let body = Bytes::from_static(br#"{"input":"x", "model" : "m"}"#);
    assert_eq!(joined(&EmbeddingsScan::scan(&body).unwrap().rewrite("n")), r#"{"input":"x", "model" : "n"}"#);
}

/// One member of a generated body: name, and value as text.
type Written = (&'static str, String);

fn member(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = Option<Written>> {
    prop::option::of(prop::sample::select(values).prop_map(move |value| (name, value.to_owned())))
}

/// Valid bodies: members in any order, written with any white space and some escapes.
fn chat_body() -> impl Strategy<Value = String> {
    let messages = prop::sample::select(vec![
        r#"[{"role":"user","content":"a\u00e4\n"}]"#,
        r#"[{"role":"user","role":"x","content":[{"type":"image_url","x":{"model":"no"}}]}]"#,
        r#"[{"role":"assistant","tool_calls":[{"function":{"arguments":"\"{\\\"a\\\":[1]}\""}},{"function":{"arguments":"{}"}}]}]"#,
    ]);
    let extra = crate::json::tests::json_value().prop_map(|value| Some(("extra", value.to_string())));
    let optional = (
        member("stream", &["true", "false", "null"]),
        member(
            "stream_options",
            &[
                "null",
                "{}",
                "{ \"x\":[1] }",
                "{\"include_usage\":false,\"y\":{}}",
                "{\"include_usage\":null,\"include_usage\":true}",
            ],
        ),
        member("reasoning_effort", &["null", "\"low\""]),
        member("max_tokens", &["null", "1"]),
        member("max_completion_tokens", &["null", "2"]),
        member("temperature", &["0.10", "1E0", "null"]),
        extra,
    );
    let space = prop::sample::select(vec!["", " ", "\n\t"]);
    (messages, optional, space, any::<bool>())
        .prop_flat_map(|(messages, (a, b, c, d, e, f, g), space, escape)| {
            let required = [Some(("model", "\"m\"".to_owned())), Some(("messages", messages.to_owned()))];
            let members: Vec<Written> = required.into_iter().chain([a, b, c, d, e, f, g]).flatten().collect();
            (Just(members).prop_shuffle(), Just(space), Just(escape))
        })
        .prop_map(|(members, space, escape)| {
            let members: Vec<String> = members
                .into_iter()
                .map(|(name, value)| {
                    let name = if escape { name.replace('e', "\\u0065") } else { name.to_owned() };
                    format!("\"{name}\"{space}:{space}{value}")
                })
                .collect();
            format!("{space}{{{space}{}{space}}}{space}", members.join(&format!("{space},{space}")))
        })
}

fn any_rewrite() -> impl Strategy<Value = Rewrite<'static>> {
    let field = prop::sample::select(vec![MaxTokens, MaxCompletionTokens]);
    let model = prop::option::of(prop::sample::select(vec!["n", "a/\"b\"\\", "ä"]));
    (model, any::<bool>(), any::<bool>(), any::<bool>(), prop::option::of(field)).prop_map(
        |(model, include_usage, drop_stream_options, drop_reasoning_effort, max_tokens_field)| Rewrite {
            model,
            include_usage,
            drop_stream_options,
            drop_reasoning_effort,
            max_tokens_field,
        },
    )
}

type RawMembers<'a> = BTreeMap<String, &'a RawValue>;

/// What the rewrite means, on parsed bodies. Numbers and spelling are kept by comparing raw values elsewhere.
fn expected(body: &str, rewrite: &Rewrite<'_>) -> Value {
    let mut body: Value = serde_json::from_str(body).unwrap();
    let members = body.as_object_mut().unwrap();
    if let Some(model) = rewrite.model {
        members.insert("model".to_owned(), model.into());
    }
    if rewrite.include_usage && members.get("stream") == Some(&Value::Bool(true)) {
        let options = members.entry("stream_options").or_insert(Value::Null);
        if options.is_null() {
            *options = json!({});
        }
        options["include_usage"] = true.into();
    }
    if rewrite.drop_stream_options {
        members.remove("stream_options");
    }
    if rewrite.drop_reasoning_effort {
        members.remove("reasoning_effort");
    }
    if let Some(field) = rewrite.max_tokens_field {
        let (wanted, other) = match field {
            MaxTokens => ("max_tokens", "max_completion_tokens"),
            MaxCompletionTokens => ("max_completion_tokens", "max_tokens"),
        };
        if let Some(sent) = members.remove(other)
            && !sent.is_null()
            && members.get(wanted).is_none_or(Value::is_null)
        {
            members.insert(wanted.to_owned(), sent);
        }
    }
    if let Some(arguments) = members["messages"].pointer_mut("/0/tool_calls/0/function/arguments") {
        *arguments = json!(r#"{"a":[1]}"#);
    }
    body
}

proptest! {
    #[test]
    fn rewritten_bodies_mean_what_was_asked_for(body in chat_body(), rewrite in any_rewrite()) {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let scan = ChatScan::scan(&bytes).map_err(|error| TestCaseError::fail(format!("{error}: {body}")))?;
        let pieces = scan.rewrite(&rewrite);
        prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
        let copied: usize =
            pieces.iter().filter(|piece| !bytes.as_ptr_range().contains(&piece.as_ptr())).map(Bytes::len).sum();
        prop_assert!(copied < 120, "{copied} bytes copied");
        let text = joined(&pieces);
        prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected(&body, &rewrite), "{}", text);
        // Not even members that were equal may have come twice.
        prop_assert!(ChatScan::scan(&Bytes::from(text.clone())).is_ok());
        let (before, after): (RawMembers<'_>, RawMembers<'_>) =
            (serde_json::from_str(&body).unwrap(), serde_json::from_str(&text).unwrap());
        for name in ["stream", "temperature", "extra"] {
            prop_assert_eq!(before.get(name).map(|raw| raw.get()), after.get(name).map(|raw| raw.get()));
        }
    }

    #[test]
    fn nothing_panics(mut body in chat_body().prop_map(String::into_bytes), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let at = at.index(body.len());
        body[at] = byte;
        let body = Bytes::from(body);
        if let Ok(scan) = ChatScan::scan(&body) {
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok());
            let pieces = scan.rewrite(&Rewrite { model: Some("n"), include_usage: true, ..Rewrite::default() });
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&pieces.concat()).is_ok());
        }
        let _ = EmbeddingsScan::scan(&body);
    }
}
