//! Schemas that several routes have.

use std::ops::RangeInclusive;

use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};

/// As the catalog checks text: no control characters, and no white space at the ends.
pub(crate) fn text(length: RangeInclusive<usize>) -> ObjectBuilder {
    const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";
    const SPACE: &str = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";
    let whole = format!("[^{CONTROL}{SPACE}]([^{CONTROL}]*[^{CONTROL}{SPACE}])?");
    let pattern = if *length.start() == 0 { format!("^({whole})?$") } else { format!("^{whole}$") };
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(*length.start()).filter(|min| *min > 0))
        .max_length(Some(*length.end()))
        .pattern(Some(pattern))
}

/// The same string, or null.
pub(crate) fn nullable(string: ObjectBuilder) -> ObjectBuilder {
    string.schema_type(SchemaType::from_iter([Type::String, Type::Null]))
}
