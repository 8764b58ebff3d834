//! The wire contract, line by line, driven by the client libraries people use. A test is named
//! after its line; `tests/README.md` has the table.

mod endpoints;
mod errors;
mod requests;
mod routing;
mod streaming;
mod tool_calls;
