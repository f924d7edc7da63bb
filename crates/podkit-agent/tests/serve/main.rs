//! `podkit-agent init` as PID 1 of new namespaces, without cgroups: commands are held together by
//! supervisors. Clients come by `podkit-agent connect`, as they do under a foreign engine.
//!
//! Tests with several users need root.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic"
)]

mod client;
mod clocks;
mod container;
mod dial;
mod engine;
mod exec;
mod files;
mod flow;
mod hostile;
mod input;
mod log;
mod main_command;
mod memory;
mod options;
mod peers;
mod processes;
mod trees;
