//! The bounds of a provider's members, for the API's document.

use serde_json::json;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};

use crate::schemas::{nullable, text};

pub(super) fn name() -> Schema {
    text(1..=100).description(Some("What people call it")).examples(["Vendor (EU)"]).into()
}

pub(super) fn description() -> Schema {
    nullable(text(0..=1_000)).description(Some("For people")).default(Some(json!(""))).into()
}

pub(super) fn dyad_model_id() -> Schema {
    text(1..=256).description(Some("What clients call it")).examples(["gpt-4o"]).into()
}

pub(super) fn adapter_model_id() -> Schema {
    nullable(text(1..=256))
        .description(Some("What the upstream calls it; the same if it is not given"))
        .examples(["gpt-4o-2024-11-20"])
        .into()
}

pub(super) fn owned_by() -> Schema {
    nullable(text(1..=256)).description(Some("For `owned_by` of the model list")).into()
}

/// A credential, or where it is.
pub(super) fn api_key() -> Schema {
    api_key_string().into()
}

pub(super) fn api_key_or_null() -> Schema {
    nullable(api_key_string()).into()
}

fn api_key_string() -> ObjectBuilder {
    const VARIABLE: &str = "env:[A-Za-z_][A-Za-z0-9_]*";
    const FILE: &str = r"file:[^\u0000-\u001f\u007f-\u009f]+";
    const KEY: &str = r"[\u0021-\u007e]([\u0020-\u007e]*[\u0021-\u007e])?";
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)))
        .write_only(true)
        .min_length(Some(1))
        .max_length(Some(8_192))
        .pattern(Some(format!("^({VARIABLE}|{FILE}|{KEY})$")))
        .description(Some(
            "The upstream's API key, which is sealed before it is stored; or where the gateway finds it: `env:NAME` for \
             an environment variable, `file:PATH` for a file",
        ))
        .examples(["env:OPENAI_API_KEY"])
}

pub(super) fn forward_headers() -> Schema {
    let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[!#$%&'*+.^_`|~0-9a-z-]+$"));
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(name)
        .max_items(Some(32))
        .unique_items(true)
        .description(Some(
            "Further request headers of clients that are passed on, in lower case; none that carry credentials or belong \
             to the connection",
        ))
        .examples([json!(["x-title"])])
        .into()
}

pub(super) fn parameters() -> Schema {
    let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[a-z][a-z0-9_]{0,31}$"));
    let value = ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .min_length(Some(1))
        .max_length(Some(256))
        .pattern(Some(r"^[^-\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .property_names(Some(name))
        .additional_properties(Some(AdditionalProperties::RefOr(value.build().into())))
        .max_properties(Some(32))
        .description(Some("Values for further parameters of the CLI, the same for every request"))
        .examples([json!({"effort": "low"})])
        .into()
}
