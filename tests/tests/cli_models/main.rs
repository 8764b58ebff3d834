//! Real CLIs, end to end: openai-python, the gateway, mTLS, the runner, a sandbox, the CLI from npm, and its vendor as a
//! fake at the HTTP boundary. One test per CLI, because each starts its own images and sandboxes; the scenes are the same.

mod echo;
mod scenes;
