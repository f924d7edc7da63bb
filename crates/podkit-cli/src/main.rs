//! The podkit command line.
fn main() {}
