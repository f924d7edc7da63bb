//! The embedded container engine of podkit: makes hardened containers without a daemon.
//!
//! Synchronous, without a background thread; every call may come from any thread. What an engine
//! has is on disk, so a call may come from another process than the one before.
//!
//! ```no_run
//! use podkit_runtime::{ContainerSpec, Runtime, RuntimeOptions};
//!
//! # fn main() -> podkit_runtime::Result<()> {
//! let runtime = Runtime::open(RuntimeOptions::new("/var/lib/podkit", "/run/podkit"))?;
//! runtime.create(&ContainerSpec::new("first"))?;
//! runtime.start("first")?;
//! let agent = runtime.connect("first")?; // speaks the protocol of `podkit_agent`
//! # drop(agent);
//! runtime.remove("first")
//! # }
//! ```
#![deny(unsafe_code)]

mod cgroup;
mod checks;
mod create;
mod error;
mod facts;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod helper;
mod identity;
mod image;
mod info;
mod inspect;
mod launch;
mod machine;
mod options;
mod plan;
mod ports;
mod ranges;
mod resources;
mod runtime;
mod spec;
mod start;
mod stop;
mod store;
mod surroundings;
mod sweep;
mod sys;
mod tree;
mod validate;

pub use cgroup::Usage;
pub use error::{Error, ErrorKind, Result};
pub use facts::{Cgroups, Check, Facts};
pub use info::{ContainerInfo, ContainerState, StopCause, SweepReport};
pub use options::{Fault, RuntimeOptions};
pub use resources::LimitChange;
pub use runtime::Runtime;
pub use spec::{
    ContainerSpec, DEFAULT_CAPABILITIES, DEFAULT_SHM_BYTES, Isolation, Mount, Network, Port,
    Rootfs, Seccomp,
};

/// Names of the steps at which [`RuntimeOptions::fault`] is called, in the order in which making,
/// starting and removing a container come by them.
pub const STEPS: &[&str] = &[
    "create.begin",
    "create.draft",
    "create.range",
    "create.files",
    "create.publish",
    "start.begin",
    "start.socket",
    "start.cgroup",
    "start.helper",
    "start.ready",
    "start.record",
    "start.commit",
    "stop.begin",
    "stop.ask",
    "stop.kill",
    "remove.begin",
    "remove.kill",
    "remove.cgroup",
    "remove.socket",
    "remove.trash",
    "remove.files",
    "remove.range",
    "remove.end",
];
