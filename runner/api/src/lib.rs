//! What the edge and a runner say to each other, over HTTP/2 with client certificates.
//!
//! The edge posts a [`RunRequest`] to [`RUNS_PATH`]; the runner refuses it with a status and a [`Refusal`], or answers
//! 200 and a stream of [`RunEvent`]s, one JSON object a line ([`frame`]). Closing the stream cancels the run. The last
//! event is [`RunEvent::Finished`] or [`RunEvent::Error`]; a stream that ends without either was cut off.
//!
//! **Versions.** Both sides send [`VERSION_HEADER`]. The same major version understands each other: unknown members and
//! unknown events are passed over. Another major version is refused ([`RefusalCode::Version`]).
//!
//! No I/O.

pub mod event;
pub mod frame;
pub mod node;
pub mod refusal;
pub mod request;

pub use event::{ErrorClass, FinishReason, RunEvent, RunUsage};
pub use node::{
    Capacity, CliInfo, Isolation, NodeList, NodeRecord, Registry, RegistryError, UnreadableNode, is_node_url,
};
pub use refusal::{Refusal, RefusalCode};
pub use request::{Message, Part, Role, RunRequest};

/// `MAJOR.MINOR` of what this crate speaks.
pub const VERSION: &str = "1.0";
pub const VERSION_HEADER: &str = "dyad-runner-version";
pub const CONTENT_TYPE: &str = "application/x-ndjson";

/// `POST`: starts a run. `DELETE {RUNS_PATH}/{id}`: ends one.
pub const RUNS_PATH: &str = "/v1/runs";
/// `GET`: a list of [`CliInfo`] under `clis`.
pub const CLIS_PATH: &str = "/v1/clis";
/// `GET`: [`Capacity`].
pub const CAPACITY_PATH: &str = "/v1/capacity";
/// `POST`: accept no more runs, finish what runs.
pub const DRAIN_PATH: &str = "/v1/drain";

/// Whether a peer that says it speaks `version` can be understood: the major versions are the same.
pub fn understands(version: &str) -> bool {
    let major = |version: &str| version.split_once('.').map(|(major, _)| major.to_owned());
    major(version).is_some() && major(version) == major(VERSION)
}
