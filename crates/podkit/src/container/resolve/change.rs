//! A change of limits.

use super::{cpu_millis, limits};
use crate::{
    backend::{Capabilities, Limits},
    config::{LimitChange, SessionSpec},
    error::{Error, Result},
};

/// Turns a change into an order for the engine.
///
/// # Errors
/// - `InvalidInput`: a limit that cannot be, or none at all.
/// - `Unsupported`: the engine does not limit that, or not while a container runs.
pub(crate) fn change_limits(change: &LimitChange, capabilities: &Capabilities) -> Result<Limits> {
    if *change == LimitChange::new() {
        return Err(Error::invalid_input("no limit is to change"));
    }
    if !capabilities.live_limits {
        return Err(Error::unsupported(
            "this engine does not change limits of a container that is made",
        )
        .with_hint("make its container anew with other limits"));
    }
    let spec = SessionSpec {
        cpus: change.cpus,
        memory: change.memory.clone(),
        swap: change.swap.clone(),
        pids_max: change.pids_max,
        ..SessionSpec::new()
    };
    let all = limits(&spec, capabilities)?;
    // What was not named has a default there.
    Ok(Limits {
        memory_bytes: all.memory_bytes.filter(|_| change.memory.is_some()),
        swap_bytes: all.swap_bytes.filter(|_| change.swap.is_some()),
        cpu_millis: change.cpus.map(|_| cpu_millis(&spec)).transpose()?,
        pids_max: change.pids_max,
    })
}
