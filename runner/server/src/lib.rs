//! The node that runs AI CLIs in sandboxes.
