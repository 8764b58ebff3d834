//! The document of `OpenAPI` 3.1, made from the handlers. What all routes have in common (the errors, the token, idempotency
//! keys) is put to every route that it holds for. `openapi/common.json` describes it, and the gateway's own routes, which
//! are not served here.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;
use utoipa::openapi::OpenApi;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa_axum::router::UtoipaMethodRouter;

use crate::actor::Role;

/// The role that an operation needs, in the document.
const ROLE: &str = "x-role";

/// The document, as it is served.
#[derive(Clone)]
pub(crate) struct Document(Bytes);

/// Notes the role that the routes need.
pub(crate) fn note_role<S>(routes: &mut UtoipaMethodRouter<S>, role: Role) {
    for item in routes.1.paths.values_mut() {
        let all = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in all.into_iter().flatten() {
            operation.extensions = Some(ExtensionsBuilder::new().add(ROLE, role.as_str()).build());
        }
    }
}

impl Document {
    /// `routes` is what the router has.
    pub(crate) fn new(routes: &OpenApi) -> Self {
        let mut document = serde_json::to_value(routes).expect("it has string keys and finite numbers alone");
        for path in members(&mut document["paths"]).values_mut() {
            for (method, operation) in members(path) {
                complete(method, operation);
            }
        }
        let common = serde_json::from_str(include_str!("openapi/common.json"));
        let mut common: Value = common.expect("it is part of the program, and every test reads it");
        common["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
        document["info"] = common["info"].take();
        document["tags"] = common["tags"].take();
        members(&mut document["paths"]).append(members(&mut common["paths"]));
        for (part, more) in members(&mut common["components"]) {
            let place = members(&mut document["components"][part]);
            for (name, component) in members(more) {
                let other = place.insert(name.clone(), component.take());
                debug_assert!(other.is_none(), "two {part} are called {name}");
            }
        }
        for path in members(&mut document["paths"]).values_mut() {
            for operation in members(path).values_mut().filter(|operation| operation.is_object()) {
                for (status, answer) in members(&mut operation["responses"]) {
                    let answer = members(answer);
                    if !answer.contains_key("$ref") && answer.get("description").is_none_or(|said| said == "")
                    {
                        answer.insert(
                            "description".to_owned(),
                            json!(format!("Answered with status {status}.")),
                        );
                    }
                }
            }
        }
        Self(document.to_string().into())
    }

    pub(crate) fn answer(&self) -> Response {
        let mut response = self.0.clone().into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// The members of what is an object, and is made one if it is nothing yet.
fn members(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it is one by now")
}

/// What an operation has because of what it is.
fn complete(method: &str, operation: &mut Value) {
    let changes = operation[ROLE] == Role::Admin.as_str();
    let mut parameters: Vec<Value> = operation["parameters"].as_array().cloned().unwrap_or_default();
    for schema in parameters.iter_mut().filter_map(|parameter| parameter.get_mut("schema")) {
        without_null(schema);
    }
    let contents = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut);
    for schema in
        contents.into_iter().flat_map(Map::values_mut).filter_map(|content| content.get_mut("schema"))
    {
        without_null(schema);
    }
    let has = |place: &str| parameters.iter().any(|parameter| parameter["in"] == place);
    let mut errors = vec![
        ("400", "Invalid"),
        ("401", "NoToken"),
        ("403", "NotAllowed"),
        ("500", "Internal"),
        ("503", "Unavailable"),
    ];
    if has("path") {
        errors.push(("404", "NotFound"));
    }
    if operation["requestBody"].is_object() {
        errors.extend([("413", "TooLong"), ("415", "NotJson")]);
    }
    if changes {
        errors.push(("409", "Conflict"));
    }
    if has("header") {
        errors.push(("412", "Changed"));
    }
    if changes && method == "post" {
        parameters.push(json!({"$ref": "#/components/parameters/IdempotencyKey"}));
    }
    operation["parameters"] = Value::from(parameters);
    let responses = members(&mut operation["responses"]);
    for (status, name) in errors {
        let error = json!({"$ref": format!("#/components/responses/{name}")});
        responses.entry(status).or_insert(error);
    }
    operation["security"] = json!([{"adminToken": []}]);
}

/// What may be left out is an `Option` in the code, which is not to say that it may be null: a parameter never is, nor is
/// a body.
fn without_null(schema: &mut Value) {
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_mut_slice() {
            schema["type"] = only.take();
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("oneOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [only] = choices.as_mut_slice() {
            *schema = only.take();
        }
    }
}

/// Which part of a list is wanted.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the schema of what `Query::page` reads")]
pub(crate) struct PageParams {
    /// How many at most
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<u32>,
    /// `nextCursor` of the page before
    cursor: Option<String>,
}

/// Which API key is meant.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "the schema of what `Named` reads")]
pub(crate) struct KeyIdParam {
    /// The key's id
    #[param(pattern = "^[0-9A-Za-z]{12}$", example = "4fGh8kLm2pQr")]
    id: String,
}

/// Which version a change is meant for.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the schema of what `IfMatch` reads")]
pub(crate) struct IfMatchParam {
    /// The `ETag` that was read, or `*`: the change is refused with 412 if somebody else was quicker
    #[param(rename = "if-match", pattern = r#"^(\*|"[0-9]{1,19}")$"#, example = "*")]
    if_match: Option<String>,
}

#[cfg(test)]
mod tests;
