//! The OpenAPI 3.1 document, made from the handlers. What all routes have in common (the errors, the token, idempotency
//! keys) is said here once, and put to every route that it holds for. The routes of the gateway itself are described in
//! `openapi/v1.json`.

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
        for operation in [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete] {
            if let Some(operation) = operation {
                operation.extensions = Some(ExtensionsBuilder::new().add(ROLE, role.as_str()).build());
            }
        }
    }
}

impl Document {
    /// `routes` is what the router has.
    pub(crate) fn new(routes: &OpenApi) -> Self {
        let mut document = serde_json::to_value(routes).expect("it has string keys and finite numbers alone");
        let gateway: Value = serde_json::from_str(include_str!("openapi/v1.json")).expect("a test reads it");
        for path in members(&mut document["paths"]).values_mut() {
            for (method, operation) in members(path) {
                complete(method, operation);
            }
        }
        for part in ["/paths", "/components/schemas", "/components/responses", "/components/parameters"] {
            let pointer: Vec<&str> = part.split('/').skip(1).collect();
            let mut place = &mut document;
            for name in pointer {
                place = &mut place[name];
            }
            if place.is_null() {
                *place = json!({});
            }
            let more = gateway.pointer(part).and_then(Value::as_object).cloned().unwrap_or_default();
            members(place).extend(more);
        }
        document["openapi"] = json!("3.1.0");
        document["info"] = gateway["info"].clone();
        document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
        document["tags"] = gateway["tags"].clone();
        document["components"]["securitySchemes"] = gateway["components"]["securitySchemes"].clone();
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
    let parameters: Vec<Value> = operation["parameters"].as_array().cloned().unwrap_or_default();
    let has = |place: &str| parameters.iter().any(|parameter| parameter["in"] == place);
    let mut errors =
        vec![("400", "Invalid"), ("401", "NoToken"), ("403", "NotAllowed"), ("503", "Unavailable")];
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
        let mut parameters = parameters;
        parameters.push(json!({"$ref": "#/components/parameters/IdempotencyKey"}));
        operation["parameters"] = Value::from(parameters);
    }
    let responses = members(&mut operation["responses"]);
    for (status, name) in errors {
        let error = json!({"$ref": format!("#/components/responses/{name}")});
        responses.entry(status).or_insert(error);
    }
    operation["security"] = json!([{"adminToken": []}]);
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
