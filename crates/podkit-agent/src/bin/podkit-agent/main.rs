//! The agent binary; see docs/architecture.md.
fn main() {}
