//! Bodies and frames of upstreams' responses: one pass tells what the gateway must know, and whether the bytes may go
//! to the client as they are.
//!
//! Scans never fail on valid JSON objects: what is not as OpenAI's schema has it makes the shape
//! [`Irregular`](Shape::Irregular), and the other facts are then what could be read. Source: OpenAI's API reference,
//! "The chat completion chunk object", "The chat completion object".

mod chunk;
mod completion;
mod scan;

pub use self::{
    chunk::{ChunkScan, ChunkScanner},
    completion::CompletionScan,
};

/// Whether a response is exactly what clients expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All that clients rely on is there and of the right type: the bytes can pass through.
    Conformant,
    /// It has to be read as a typed value, put in order and written anew.
    Irregular,
}

#[cfg(test)]
mod tests;
