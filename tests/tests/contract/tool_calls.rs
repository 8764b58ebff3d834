//! Lines 26 to 28: tool calls. (29, thought signatures, comes with the Gemini adapter.)

use std::collections::HashSet;

use serde_json::{Value, json};
use system_tests::dyad;
use system_tests::fixture::{Fixture, MODEL};
use system_tests::sse::EventStream;
use system_tests::turn::Turn;

/// A call of one whole chunk, as some servers send it.
fn whole_call(call: &Value) -> Turn {
    Turn::new().delta(json!({"tool_calls": [call]})).finish("tool_calls")
}

fn pieces(deltas: &[Value]) -> Turn {
    let turn = deltas.iter().fold(Turn::new(), |turn, delta| turn.delta(json!({"tool_calls": [delta]})));
    turn.finish("tool_calls")
}

/// Checks the deltas of lines 26 and 27, and gives each call's name and arguments.
fn calls(stream: &EventStream) -> Vec<(String, String)> {
    let mut calls: Vec<(String, String)> = Vec::new();
    let mut ids = HashSet::new();
    for delta in stream.tool_call_deltas() {
        let index: usize = delta["index"]
            .as_u64()
            .and_then(|index| index.try_into().ok())
            .unwrap_or_else(|| panic!("index: {delta}"));
        let arguments =
            delta["function"]["arguments"].as_str().unwrap_or_else(|| panic!("arguments: {delta}"));
        if index == calls.len() {
            let id =
                delta["id"].as_str().filter(|id| !id.is_empty()).unwrap_or_else(|| panic!("id: {delta}"));
            assert!(ids.insert(id), "ids are unique: {delta}");
            assert_eq!(delta["type"], "function", "{delta}");
            let name = delta["function"]["name"].as_str().filter(|name| !name.is_empty());
            assert_eq!(arguments, "", "the first delta has no arguments yet: {delta}");
            calls.push((name.unwrap_or_else(|| panic!("name: {delta}")).to_owned(), String::new()));
        } else {
            assert!(index < calls.len(), "indexes follow from 0: {delta}");
            assert!(
                delta.get("id").is_none() && delta["function"].get("name").is_none(),
                "later deltas: {delta}"
            );
            calls[index].1 += arguments;
        }
    }
    calls
}

/// Every client sees one call, and the stream itself is as the contract has it.
async fn assert_one_call(fixture: &Fixture, what: &str, arguments: &str) {
    let stream = fixture.raw_stream(json!({"tools": dyad::tools()})).await.ok(MODEL);
    assert_eq!(calls(&stream), [("tool_00".to_owned(), arguments.to_owned())], "{what}");
    assert_eq!(stream.finish_reason(), Some("tool_calls"), "{what}");
    for (client, answer) in fixture.stream(json!({"tools": dyad::tools()})).await {
        let [call] = &answer.ok().tool_calls[..] else {
            panic!("{what}: {client:?}: {:?}", answer.tool_calls)
        };
        assert_eq!(call.name, "tool_00", "{what}: {client:?}");
        let parsed: Value =
            serde_json::from_str(&call.arguments).unwrap_or_else(|_| panic!("{what}: {client:?}: {call:?}"));
        assert_eq!(
            parsed,
            serde_json::from_str::<Value>(arguments).expect("the test gives JSON"),
            "{what}: {client:?}"
        );
        assert!(call.id.as_ref().is_some_and(|id| !id.is_empty()), "{what}: {client:?}");
        assert_eq!(answer.finish_reason.as_deref(), Some("tool_calls"), "{what}: {client:?}");
    }
}

const ARGUMENTS: &str = r#"{"path":"src/Näme 🦀.tsx"}"#;

#[tokio::test]
async fn contract_26_the_deltas_of_a_call_are_as_openais() {
    let fixture = Fixture::start().await;
    let whole = json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "tool_00", "arguments": ARGUMENTS}});
    let without = |members: &[&str]| {
        let mut call = whole.clone();
        for member in members {
            call.as_object_mut().unwrap().remove(*member);
        }
        call
    };
    for (what, turn) in [
        ("OpenAI's own", Turn::new().tool_call("call_1", "tool_00", ARGUMENTS)),
        ("in one chunk", whole_call(&whole)),
        ("without index", whole_call(&without(&["index"]))),
        ("without type", whole_call(&without(&["type"]))),
        ("without index and type", whole_call(&without(&["index", "type"]))),
        ("without id", whole_call(&without(&["id"]))),
        ("with finish_reason stop", whole_call(&whole).finish("stop")),
        (
            "name and id repeated",
            pieces(&[
                json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "tool_00", "arguments": ARGUMENTS[..9]}}),
                json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "tool_00", "arguments": ARGUMENTS[9..]}}),
            ]),
        ),
        (
            "empty id and null name later",
            pieces(&[
                json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "tool_00", "arguments": null}}),
                json!({"index": 0, "id": "", "function": {"name": null, "arguments": ARGUMENTS}}),
            ]),
        ),
        (
            "arguments as an object",
            whole_call(&json!({"index": 0, "id": "call_1", "type": "function",
            "function": {"name": "tool_00", "arguments": {"path": "src/Näme 🦀.tsx"}}})),
        ),
    ] {
        fixture.upstream_answers(turn);
        assert_one_call(&fixture, what, ARGUMENTS).await;
    }
}

#[tokio::test]
async fn contract_27_empty_arguments_are_an_object_and_never_a_prefix() {
    let fixture = Fixture::start().await;
    let head = |arguments: &str| json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "tool_00", "arguments": arguments}});
    let more = |arguments: &str| json!({"index": 0, "function": {"arguments": arguments}});
    for (what, turn, arguments) in [
        ("none", pieces(&[head("")]), "{}"),
        ("an object at once", pieces(&[head("{}")]), "{}"),
        ("an object later", pieces(&[head(""), more("{}")]), "{}"),
        ("an object first, then the real ones", pieces(&[head("{}"), more(ARGUMENTS)]), ARGUMENTS),
        ("an object later, then the real ones", pieces(&[head(""), more("{}"), more(ARGUMENTS)]), ARGUMENTS),
        ("braces that belong to them", pieces(&[head("{"), more("}")]), "{}"),
    ] {
        fixture.upstream_answers(turn);
        assert_one_call(&fixture, what, arguments).await;
    }
}

#[tokio::test]
async fn contract_28_parallel_calls_are_told_apart() {
    let fixture = Fixture::start().await;
    let call = |index: Option<u64>, id: Option<&str>, name: &str| {
        let mut call = json!({"type": "function", "function": {"name": name, "arguments": ARGUMENTS}});
        if let Some(index) = index {
            call["index"] = index.into();
        }
        if let Some(id) = id {
            call["id"] = id.into();
        }
        call
    };
    for (what, turn) in [
        ("OpenAI's own", Turn::new().tool_call("call_1", "tool_00", ARGUMENTS).tool_call("call_2", "tool_01", ARGUMENTS)),
        ("without index", pieces(&[call(None, Some("call_1"), "tool_00"), call(None, Some("call_2"), "tool_01")])),
        ("one index for both", pieces(&[call(Some(0), Some("call_1"), "tool_00"), call(Some(0), Some("call_2"), "tool_01")])),
        ("indexes from 1", pieces(&[call(Some(1), Some("call_1"), "tool_00"), call(Some(2), Some("call_2"), "tool_01")])),
        ("one id for both", pieces(&[call(Some(0), Some("call"), "tool_00"), call(Some(1), Some("call"), "tool_01")])),
        ("neither index nor id", pieces(&[call(None, None, "tool_00"), call(None, None, "tool_01")])),
        (
            "both in one delta",
            Turn::new()
                .delta(json!({"tool_calls": [call(Some(0), Some("call_1"), "tool_00"), call(Some(1), Some("call_2"), "tool_01")]}))
                .finish("tool_calls"),
        ),
        ("with text before", Turn::says("I look. ").tool_call("call_1", "tool_00", ARGUMENTS).tool_call("call_2", "tool_01", ARGUMENTS)),
    ] {
        fixture.upstream_answers(turn);
        let stream = fixture.raw_stream(json!({"tools": dyad::tools()})).await.ok(MODEL);
        let expected = ["tool_00", "tool_01"].map(|name| (name.to_owned(), ARGUMENTS.to_owned()));
        assert_eq!(calls(&stream), expected, "{what}");
        assert_eq!(stream.finish_reason(), Some("tool_calls"), "{what}");
        for (client, answer) in fixture.stream(json!({"tools": dyad::tools()})).await {
            let names: Vec<_> = answer.ok().tool_calls.iter().map(|call| call.name.as_str()).collect();
            assert_eq!(names, ["tool_00", "tool_01"], "{what}: {client:?}");
            let ids: HashSet<_> = answer.tool_calls.iter().map(|call| call.id.as_deref()).collect();
            assert_eq!(ids.len(), 2, "{what}: {client:?}");
            assert_eq!(answer.finish_reason.as_deref(), Some("tool_calls"), "{what}: {client:?}");
        }
    }
}

#[tokio::test]
async fn contract_28_calls_of_a_whole_answer() {
    let fixture = Fixture::start().await;
    fixture.upstream_answers(
        Turn::new().tool_call("call_1", "tool_00", ARGUMENTS).tool_call("call_2", "tool_01", "{}"),
    );
    for (client, answer) in fixture.complete(json!({"tools": dyad::tools()})).await {
        let calls: Vec<_> =
            answer.ok().tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(calls, [("tool_00", ARGUMENTS), ("tool_01", "{}")], "{client:?}");
        assert_eq!(answer.finish_reason.as_deref(), Some("tool_calls"), "{client:?}");
    }
}
