//! What PID 1 gives up for good, for itself and every command.

use podkit_agent::plan::ContainerPlan;
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    },
};

use super::{Result, Step};
use crate::sys::container::load_filter;

/// Highest capability that may exist; the kernel refuses those that do not.
const CAPABILITIES: u32 = 63;

/// Limits, capabilities, and last the filter, which may forbid everything before it.
pub(super) fn apply(plan: &ContainerPlan) -> Result<()> {
    if let Some(processes_max) = plan.processes_max {
        let limit = Rlimit {
            current: Some(processes_max),
            maximum: Some(processes_max),
        };
        setrlimit(Resource::Nproc, limit).step("limit processes")?;
    }
    let kept = CapabilitySet::from_bits_retain(plan.capabilities);
    for number in 0..=CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // The kernel does not have this one, so it has none above it.
            Err(rustix::io::Errno::INVAL) => break,
            other => other.step("bound capabilities")?,
        }
    }
    let _ = clear_ambient_capability_set();
    if plan.no_new_privileges {
        set_no_new_privs(true).step("forbid new privileges")?;
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    // Loading a filter takes `no_new_privs` or CAP_SYS_ADMIN, which may be given up here.
    if plan.no_new_privileges {
        set_capabilities(None, sets).step("give up capabilities")?;
        return filter(plan);
    }
    filter(plan)?;
    set_capabilities(None, sets).step("give up capabilities")
}

fn filter(plan: &ContainerPlan) -> Result<()> {
    if plan.filter.is_empty() {
        return Ok(());
    }
    load_filter(&plan.filter).step("load the system call filter")
}
