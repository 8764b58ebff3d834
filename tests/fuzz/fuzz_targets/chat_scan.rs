//! What is accepted as a request is JSON that serde_json reads alike, and every rewrite of it is JSON with the values
//! that were asked for. The first byte of the input says what to rewrite.

#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use openai_wire::request::{ChatScan, EmbeddingsScan, MaxTokensField, Rewrite};
use serde_json::{Value, value::RawValue};

/// Top-level members. Raw, because serde_json refuses numbers out of range and lone surrogates when it reads values.
fn members(json: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_slice(json).expect("an object")
}

fn is_set(members: &BTreeMap<String, Box<RawValue>>, name: &str) -> bool {
    members.get(name).is_some_and(|value| value.get() != "null")
}

fuzz_target!(|input: &[u8]| {
    let [choice, body @ ..] = input else { return };
    let body = Bytes::copy_from_slice(body);
    if let Ok(scan) = EmbeddingsScan::scan(&body) {
        serde_json::from_slice::<serde::de::IgnoredAny>(&scan.rewrite("n").concat()).expect("JSON");
    }
    let Ok(scan) = ChatScan::scan(&body) else { return };
    serde_json::from_slice::<serde::de::IgnoredAny>(&body).expect("JSON");
    // A lone surrogate in any name of a member is beyond what serde_json reads.
    let Ok(before) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(&body) else { return };
    if let Ok(model) = serde_json::from_str::<String>(before["model"].get()) {
        assert_eq!(model, scan.model);
    }

    let has = |bit: u8| choice & bit != 0;
    let rewrite = Rewrite {
        model: has(1).then_some("up\"stream"),
        include_usage: has(2),
        drop_stream_options: has(4),
        drop_reasoning_effort: has(8),
        max_tokens_field: match choice >> 4 & 3 {
            1 => Some(MaxTokensField::MaxTokens),
            2 => Some(MaxTokensField::MaxCompletionTokens),
            _ => None,
        },
    };
    let rewritten = Bytes::from(scan.rewrite(&rewrite).concat());
    // Also refuses members that come twice.
    let again = ChatScan::scan(&rewritten).expect("a valid request");
    let after = members(&rewritten);
    assert_eq!(again.model, rewrite.model.unwrap_or(&scan.model));
    if rewrite.drop_stream_options {
        assert!(!after.contains_key("stream_options"));
    } else if rewrite.include_usage && scan.stream {
        assert!(again.include_usage);
    }
    assert!(!(rewrite.drop_reasoning_effort && after.contains_key("reasoning_effort")));
    if let Some(field) = rewrite.max_tokens_field {
        let (wanted, other) = match field {
            MaxTokensField::MaxTokens => ("max_tokens", "max_completion_tokens"),
            MaxTokensField::MaxCompletionTokens => ("max_completion_tokens", "max_tokens"),
        };
        assert!(!after.contains_key(other));
        assert_eq!(is_set(&after, wanted), is_set(&before, wanted) || is_set(&before, other));
    }
    for (name, value) in &before {
        let may_change = [
            "model",
            "messages",
            "stream_options",
            "reasoning_effort",
            "max_tokens",
            "max_completion_tokens",
        ];
        if !may_change.contains(&name.as_str()) {
            assert_eq!(Some(value.get()), after.get(name).map(|after| after.get()));
        }
    }
    // Decoding what was encoded twice is done once; the next pass may peel one more layer, so only roles are compared.
    let roles = |messages: &RawValue| {
        let messages: Value = serde_json::from_str(messages.get()).ok()?;
        Some(messages.as_array()?.iter().map(|message| message["role"].clone()).collect::<Vec<_>>())
    };
    if let Some(before) = roles(&before["messages"]) {
        assert_eq!(Some(before), roles(&after["messages"]));
    }
});
