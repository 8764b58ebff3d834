//! An upstream's list of models.

use serde::Deserialize;

use super::{ParseError, list, number, or_absent, parse};

/// Answer of `GET /models`.
#[derive(Debug, Deserialize)]
pub struct UpstreamModels {
    #[serde(deserialize_with = "list")]
    pub data: Vec<UpstreamModel>,
}

#[derive(Debug, Deserialize)]
pub struct UpstreamModel {
    pub id: String,
    /// Unix seconds.
    #[serde(default, deserialize_with = "number")]
    pub created: Option<u64>,
    #[serde(default, deserialize_with = "or_absent")]
    pub owned_by: Option<String>,
}

impl UpstreamModels {
    pub fn parse(json: &[u8]) -> Result<Self, ParseError> {
        parse(json)
    }
}
