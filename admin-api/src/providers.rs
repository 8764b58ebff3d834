//! `/admin/providers`.

mod parse;
mod wire;
