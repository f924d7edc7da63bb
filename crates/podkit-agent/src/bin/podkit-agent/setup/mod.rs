//! `podkit-agent setup`: the helper that the embedded engine starts; see [`podkit_agent::plan`].
//!
//! The helper takes the plan, puts itself into a clean state, clones PID 1 of the container with
//! all its namespaces, gives it its ids and (where it is privileged) its mounts, and ends. PID 1
//! goes on from there without another exec: it puts the root in place, gives up its privileges,
//! waits for the engine's commit and becomes the agent.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use podkit_agent::plan::{Plan, Report};
use rustix::io::Errno;

mod channel;
mod harden;
mod init;
mod layers;
mod maps;
mod overlay;
mod process;
mod remove;
mod root;
mod tree;

use crate::sys::container::exit_group;
use channel::Channel;

/// What could not be done, and the kernel's answer.
pub(crate) struct Failed {
    step: String,
    errno: i32,
}

type Result<T> = core::result::Result<T, Failed>;

/// Names the step at which a call failed.
trait Step<T> {
    fn step(self, step: impl fmt::Display) -> Result<T>;
}

impl<T> Step<T> for core::result::Result<T, Errno> {
    fn step(self, step: impl fmt::Display) -> Result<T> {
        self.map_err(|errno| Failed {
            step: format!("{step}"),
            errno: errno.raw_os_error(),
        })
    }
}

/// What a child that tried something writes to a pipe: nothing at all would be a child that died.
fn answer(result: Result<()>) -> Vec<u8> {
    let mut message = Vec::new();
    match result {
        Ok(()) => message.extend_from_slice(&0_i32.to_le_bytes()),
        Err(failed) => {
            message.extend_from_slice(&failed.errno.to_le_bytes());
            message.extend_from_slice(failed.step.as_bytes());
        }
    }
    message
}

/// The other end of [`answer`].
fn take_answer(message: &[u8]) -> Result<()> {
    match message.split_first_chunk() {
        Some((_, [])) => Ok(()),
        Some((errno, step)) => Err(Failed {
            step: text(step),
            errno: i32::from_le_bytes(*errno),
        }),
        None => Err(Errno::PIPE).step("hear from the helper's child"),
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Does what the engine asks on standard input, and ends; a container's PID 1 goes on as agent.
pub(crate) fn run() -> ! {
    // Executed from a descriptor its name would be a number.
    let _ = rustix::thread::set_name(c"podkit-agent");
    let mut channel = Channel::new();
    let result = channel
        .receive()
        .and_then(|(plan, descriptors)| match plan {
            Plan::Container(plan) => process::make(*plan, descriptors, &mut channel),
            Plan::Tree(plan) => tree::work(&plan),
            Plan::Probe(plan) => process::probe(&plan),
        });
    finish(&mut channel, result)
}

fn finish(channel: &mut Channel, result: Result<()>) -> ! {
    match result {
        Ok(()) => channel.send(&Report::Done),
        Err(failed) => channel.fail(failed),
    }
    exit_group(0)
}
