//! PID 1 of every container; see docs/architecture.md.
//!
//! `setup` is the helper that makes a container of the embedded engine and goes on as its agent,
//! `init` the agent under another engine, `connect` the way to that one.
#![no_std]
#![no_main]

extern crate alloc;

mod agent;
mod setup;
mod sys;

use sys::start::Start;

fn main(start: Start) -> ! {
    match start.argument(1).map(core::ffi::CStr::to_bytes) {
        Some(b"setup") => setup::run(),
        _ => sys::container::exit_group(2),
    }
}
