//! The document against the router.

use std::collections::BTreeSet;

use http::Method;
use serde_json::Value;

use crate::testing::{TestApp, request, with_header};

async fn document() -> Value {
    TestApp::new().get("/openapi.json").await.body
}

/// Every `$ref` of the document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                found.insert(reference.clone());
            }
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn it_is_whole() {
    let document = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    for reference in &used {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for part in ["responses", "parameters"] {
        for name in document["components"][part].as_object().unwrap().keys() {
            assert!(used.contains(&format!("#/components/{part}/{name}")), "nobody uses {part}/{name}");
        }
    }
    let tags: Vec<&str> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(
                operation["summary"].as_str().is_some_and(|text| !text.is_empty()),
                "{name} has no summary"
            );
            assert!(
                tags.contains(&operation["tags"][0].as_str().unwrap()),
                "{name} has no tag that is described"
            );
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{name} has the id of another");
            let has_id =
                operation["parameters"].as_array().into_iter().flatten().any(|one| one["in"] == "path");
            assert_eq!(has_id, path.contains('{'), "{name}");
            if path.starts_with("/admin") {
                assert_eq!(operation["security"][0]["adminToken"], serde_json::json!([]), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn parameters_are_never_null() {
    let document = document().await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let schema = &parameter["schema"];
                assert!(
                    parameter["$ref"].is_string() || schema["type"].is_string() || schema["$ref"].is_string(),
                    "{path}: {parameter}"
                );
            }
        }
    }
}

/// What is read has no members but those that are known.
#[tokio::test]
async fn bodies_are_closed() {
    let document = document().await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            let contents = operation.pointer("/requestBody/content").and_then(Value::as_object);
            for content in contents.into_iter().flat_map(|contents| contents.values()) {
                if path.starts_with("/admin") {
                    assert!(is_closed(&content["schema"], &document), "{path}: {}", content["schema"]);
                }
            }
        }
    }
}

fn is_closed(schema: &Value, document: &Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        return is_closed(document.pointer(&reference[1..]).unwrap(), document);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return choices.iter().all(|choice| choice["type"] == "null" || is_closed(choice, document));
    }
    schema["type"] != "object" || schema["additionalProperties"] == false
}

#[tokio::test]
async fn a_method_that_is_not_there_is_refused_with_those_that_are() {
    let app = TestApp::new();
    let document = document().await;
    let all = ["GET", "PUT", "POST", "PATCH", "DELETE"];
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/admin") && path != "/openapi.json" {
            continue;
        }
        let known: Vec<String> =
            item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        let path = path.replace("{id}", "4fGh8kLm2pQr");
        for method in all.into_iter().filter(|method| !known.contains(&(*method).to_owned())) {
            let refused =
                app.send(request(Method::from_bytes(method.as_bytes()).unwrap(), &path, Value::Null)).await;
            assert_eq!(
                (refused.status.as_u16(), refused.code()),
                (405, "method_not_allowed"),
                "{method} {path}"
            );
            let mut allowed: Vec<&str> = refused.header("allow").split(',').map(str::trim).collect();
            allowed.retain(|method| *method != "HEAD");
            allowed.sort_unstable();
            let mut known = known.clone();
            known.sort();
            assert_eq!(allowed, known, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_unknown() {
    let app = TestApp::new();
    for path in [
        "/admin",
        "/admin/",
        "/admin/x",
        "/admin/keys/",
        "/admin/keys/a/b/c",
        "/admin/%ff",
        "/x",
        "/",
        "/ADMIN/keys",
    ] {
        let refused = app.get(path).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (404, "unknown_route"), "{path}");
        assert_eq!(refused.header("content-type"), "application/json");
    }
}

#[tokio::test]
async fn answers_have_an_id_and_stay_where_they_are() {
    let app = TestApp::new();
    for path in ["/admin/whoami", "/admin/keys", "/admin/nothing", "/openapi.json", "/nothing"] {
        let reply = app.get(path).await;
        assert!(reply.header("x-request-id").starts_with("req_"), "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    let id = |id: &str| with_header(request(Method::GET, "/admin/whoami", Value::Null), "x-request-id", id);
    assert_eq!(app.send(id("mine-7")).await.header("x-request-id"), "mine-7");
    for odd in ["", "a b", &"x".repeat(129)] {
        assert!(app.send(id(odd)).await.header("x-request-id").starts_with("req_"));
    }
}

/// The console makes its forms from these.
#[tokio::test]
async fn the_types_of_providers_are_told_apart_by_their_names() {
    let document = document().await;
    let mapping =
        document["components"]["schemas"]["ProviderInput"]["discriminator"]["mapping"].as_object().unwrap();
    let names: Vec<&str> = mapping.keys().map(String::as_str).collect();
    assert_eq!(names, ["local", "proxy", "spawn-cli"]);
    for (name, reference) in mapping {
        let schema = document.pointer(&reference.as_str().unwrap()[1..]).unwrap();
        let kind = document.pointer(&schema["properties"]["type"]["$ref"].as_str().unwrap()[1..]).unwrap();
        assert_eq!(kind["enum"], serde_json::json!([name]), "{reference}");
    }
}
