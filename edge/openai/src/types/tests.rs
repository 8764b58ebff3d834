use super::*;

#[test]
fn null_wrong_and_missing_members_are_absent() {
    let chunk =
        ChatChunk::parse(br#"{"id":7,"created":"1700000000","choices":null,"usage":null,"other":[1]}"#)
            .unwrap();
    assert_eq!(
        (chunk.id, chunk.created, chunk.choices.len(), chunk.usage),
        (None, Some(1_700_000_000), 0, None)
    );
    let call = br#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":null}]}}]}"#;
    assert!(ChatChunk::parse(call).is_ok());
    assert!(ChatChunk::parse(b"[1]").is_err());
    assert!(ChatChunk::parse(b"not json").is_err());
}

#[test]
fn numbers_are_taken_however_they_are_written() {
    let chunk = ChatChunk::parse(
        br#"{"choices":[{"index":1.0,"delta":{"tool_calls":[{"index":"2","id":null,"function":{"name":"f","arguments":{"a":1}}}]}}],
            "usage":{"prompt_tokens":3.0,"completion_tokens":"4"}}"#,
    )
    .unwrap();
    let choice = &chunk.choices[0];
    let call = &choice.delta.as_ref().unwrap().tool_calls[0];
    assert_eq!((choice.index, call.index, call.id.as_deref()), (1, Some(2), None));
    assert_eq!(call.function.arguments.as_deref(), Some(r#"{"a":1}"#));
    assert_eq!(chunk.usage, Some(Usage::new(3, 4)));
}

#[test]
fn content_parts_are_joined() {
    let chunk = ChatChunk::parse(
        br#"{"choices":[{"delta":{"content":[{"type":"text","text":"a"},{"type":"x"},{"text":"b"}]}}]}"#,
    )
    .unwrap();
    assert_eq!(chunk.choices[0].delta.as_ref().unwrap().content.as_deref(), Some("ab"));
}

#[test]
fn every_shape_of_error_is_understood() {
    let parse = |json: &str| UpstreamErrorBody::parse(json.as_bytes());
    let whole = parse(r#"{"error":{"message":"m","type":"t","param":"p","code":429}}"#).unwrap();
    assert_eq!(
        (whole.message.as_deref(), whole.kind.as_deref(), whole.param.as_deref(), whole.code.as_deref()),
        (Some("m"), Some("t"), Some("p"), Some("429"))
    );
    for json in [
        r#"{"error":"m"}"#,
        r#"{"detail":"m"}"#,
        r#"{"detail":[{"loc":["body"],"msg":"m"}]}"#,
        r#"{"message":"m"}"#,
        r#"[{"error":{"message":"m"}}]"#,
        r#"{"error":{"message":"m","code":null}}"#,
    ] {
        assert_eq!(parse(json).unwrap().message.as_deref(), Some("m"), "{json}");
    }
    for json in ["", "<html>", "{}", "[]", "null", r#"{"id":1}"#, r#"{"error":null}"#] {
        assert_eq!(parse(json), None, "{json}");
    }
}

#[test]
fn our_errors_have_all_four_members() {
    let json = ErrorBody { message: "say \"what\"", kind: "t", param: None, code: None }.to_json();
    assert_eq!(json, r#"{"error":{"message":"say \"what\"","type":"t","param":null,"code":null}}"#);
}

#[test]
fn finish_reasons_of_other_vendors_are_mapped() {
    for (word, reason) in [
        ("stop", FinishReason::Stop),
        ("STOP", FinishReason::Stop),
        ("end_turn", FinishReason::Stop),
        ("MAX_TOKENS", FinishReason::Length),
        ("tool_use", FinishReason::ToolCalls),
        ("SAFETY", FinishReason::ContentFilter),
        ("something_new", FinishReason::Stop),
    ] {
        assert_eq!(FinishReason::from_upstream(word), reason, "{word}");
    }
}
