//! The ports in memory: for tests, and where nothing needs to last.
/// See module.
pub struct MemoryStore;
