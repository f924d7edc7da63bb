//! What PID 1 gives up for good, for itself and every command.

use podkit_agent::plan::ContainerPlan;
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, set_no_new_privs},
};

use super::{Result, Step};
use crate::{capabilities, sys::container::load_filter};

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
    capabilities::bound(kept).step("bound capabilities")?;
    if plan.no_new_privileges {
        set_no_new_privs(true).step("forbid new privileges")?;
    }
    // Loading a filter takes `no_new_privs` or CAP_SYS_ADMIN, which may be given up here.
    if plan.no_new_privileges {
        capabilities::hold(kept).step("give up capabilities")?;
        return filter(plan);
    }
    filter(plan)?;
    capabilities::hold(kept).step("give up capabilities")
}

fn filter(plan: &ContainerPlan) -> Result<()> {
    if plan.filter.is_empty() {
        return Ok(());
    }
    load_filter(&plan.filter).step("load the system call filter")
}
