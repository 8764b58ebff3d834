//! The gateway itself: one pipeline from request to response.
//!
//! `authenticate → admit → resolve → adapter → normalize → stream → settle`: [`Gateway::handle`], in `pipeline.rs` and,
//! for chats and embeddings, `chat.rs`, calls the stages in this order. The crate is host-free: it reads no clock, spawns
//! nothing and opens no socket but through [`Host`], so the same code serves natively and on WASM edges.

mod adapter;
mod admit;
mod attempt;
mod authenticate;
mod body;
mod body_memory;
mod changes;
mod chat;
mod classify;
mod config;
mod cors;
mod credentials;
mod embeddings;
mod encode;
mod error;
mod estimate;
mod event;
mod explain;
mod freshness;
mod health;
mod host;
mod metrics;
mod models;
mod nodes;
mod normalize;
mod pipeline;
mod probe;
mod providers;
mod reader;
mod relay;
mod route;
mod routes;
mod run_events;
mod runners;
mod settings;
mod settle;
mod status;
mod stream;
mod timer;
mod usage;

pub use catalog::{HostList, Reach, UpstreamHosts};
pub use event::ChatEvent;
pub use host::{Body, BoxError, BoxFuture, CallError, CallTrace, Host, Origin, full};
pub use metrics::GatewayMetrics;
pub use models::ServedModel;
pub use pipeline::{Gateway, GatewayParts};
pub use providers::{Discovered, ProviderCheck};
pub use route::ROUTES;
pub use runners::RunnerNode;
pub use settings::{Cors, OnStoreFailure, Settings};
pub use status::Status;
