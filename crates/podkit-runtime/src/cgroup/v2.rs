//! Version 2: one tree, entered at birth (`CLONE_INTO_CGROUP`).

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::chown},
    path::Path,
};

use super::{Groups, Unified, cpu_quota, make_group, write};
use crate::{
    error::{Context, Result},
    spec::ContainerSpec,
};

/// Files of a group whose owner may move processes and make groups in it, but not change its
/// limits.
const DELEGATED: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// The container's group has `agent` and `work` below it and becomes the root of its cgroup
/// namespace. The agent, which has the container's ids, makes a group below `work` for each
/// command; moving a process takes the right to write the common parent's `cgroup.procs`.
///
/// Where this hierarchy limits nothing, a group that has others below it may have members. Then the
/// container's group is the agent's, as in version 1, and the agent can make the namespace itself:
/// otherwise that takes a process which is born in the group and ends.
pub(super) fn make(
    unified: &Unified,
    directory: &str,
    (uid, gid): (u32, u32),
    groups: &mut Groups,
) -> Result<()> {
    let group = unified.base.join(directory);
    let work = group.join("work");
    make_group(&group)?;
    make_group(&work)?;
    let give = |path: &Path| {
        chown(path, Some(uid), Some(gid)).context(|| format!("give `{}` away", path.display()))
    };
    if (uid, gid) != (crate::sys::uid(), crate::sys::gid()) && crate::sys::uid() == 0 {
        give(&group.join("cgroup.procs"))?;
        give(&work)?;
        for file in DELEGATED {
            give(&work.join(file))?;
        }
    }
    groups.work = Some(open(&work)?);
    if unified.limits() {
        let agent = group.join("agent");
        make_group(&agent)?;
        groups.agent = Some(open(&agent)?);
        groups.namespace = Some(open(&group)?);
    } else {
        groups.agent = Some(open(&group)?);
    }
    if unified.memory && groups.oom.is_none() {
        // The group's own file counts what happens below it, and is there before `work` has one.
        groups.oom = Some(open(&group.join("memory.events"))?);
    }
    Ok(())
}

/// Controllers come to the parts only now: a group that hands controllers down can have no members
/// itself, and the one that becomes the namespace's root had one for a moment.
pub(super) fn limit(unified: &Unified, directory: &str, spec: &ContainerSpec) -> Result<()> {
    let group = unified.base.join(directory);
    let mut controllers = Vec::new();
    let memory = spec.memory_bytes.filter(|_| unified.memory);
    let cpu = spec.cpu_millis.filter(|_| unified.cpu);
    let pids = spec.pids_max.filter(|_| unified.pids);
    // Memory is always counted, so that commands can say what they used.
    for (wanted, name) in [
        (unified.memory, "+memory"),
        (cpu.is_some(), "+cpu"),
        (pids.is_some(), "+pids"),
    ] {
        if wanted {
            controllers.push(name);
        }
    }
    if controllers.is_empty() {
        return Ok(());
    }
    let wanted = controllers.join(" ");
    write(&group.join("cgroup.subtree_control"), wanted.as_bytes())?;
    let work = group.join("work");
    if let Some(bytes) = memory {
        write(&work.join("memory.max"), bytes.to_string().as_bytes())?;
        if let (Some(swap), true) = (spec.swap_bytes, unified.swap) {
            write(&work.join("memory.swap.max"), swap.to_string().as_bytes())?;
        }
    }
    if let Some(millis) = cpu {
        let (quota, period) = cpu_quota(millis);
        write(
            &work.join("cpu.max"),
            format!("{quota} {period}").as_bytes(),
        )?;
    }
    if let Some(max) = pids {
        write(&work.join("pids.max"), max.to_string().as_bytes())?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<OwnedFd> {
    File::open(path)
        .map(OwnedFd::from)
        .context(|| format!("open `{}`", path.display()))
}
