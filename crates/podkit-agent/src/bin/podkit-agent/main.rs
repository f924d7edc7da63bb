//! PID 1 of every container; see docs/architecture.md.
//!
//! `setup` is the helper that makes a container of the embedded engine and goes on as its agent,
//! `init` the agent under another engine, `connect` the way to that one.
#![no_std]
#![no_main]

extern crate alloc;

mod agent;
mod capabilities;
mod files;
mod logs;
mod ports;
mod setup;
mod sys;
mod users;

use sys::{container::exit_group, start::Start};

fn main(start: Start) -> ! {
    match start.argument(1).map(core::ffi::CStr::to_bytes) {
        Some(b"setup") => setup::run(),
        Some(b"init") => agent::init::run(start),
        Some(b"connect") => agent::connect::run(),
        _ => usage(),
    }
}

/// Says how the program is called, and ends.
fn usage() -> ! {
    complain(
        b"usage: podkit-agent init [--auto-stop MS] [--max-lifetime MS] [--born MS] [--user USER]\n\
          \x20                         [--cwd DIR] [--main-user USER] [--main-cwd DIR]\n\
          \x20                         [--capabilities HEX] [--filter | --filter-but-set-ids]\n\
          \x20                         [--dial DIR] [-- PROGRAM [ARGUMENT...]]\n\
          \x20      podkit-agent connect\n       podkit-agent setup\n",
    );
    exit_group(2)
}

/// Says something on standard error.
fn complain(text: &[u8]) {
    let _ = rustix::io::write(sys::serve::standard(2), text);
}
