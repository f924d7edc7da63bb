//! The only `unsafe` code of the agent: its start, its memory, and system calls that no safe crate
//! offers.
#![expect(unsafe_code, reason = "this is the module for it")]

pub(crate) mod container;
mod heap;
pub(crate) mod serve;
pub(crate) mod start;
