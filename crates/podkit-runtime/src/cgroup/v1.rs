//! Version 1: one hierarchy for each controller, entered by writing `0` to `tasks`.
//!
//! The write is the thread's own, which costs nothing; a pid written to `cgroup.procs` by another
//! process may wait 7–20 ms for the whole machine.

use std::{
    fs::{self, File},
    path::Path,
};

use super::{Groups, Layout, cpu_quota, make_group, write};
use crate::{
    error::{Context, Result},
    spec::ContainerSpec,
};

/// Page cache above which a group is emptied before it goes; otherwise it lingers, nameless, until
/// its last page is reclaimed.
const WORTH_EMPTYING: u64 = 16 * 1024 * 1024;

/// The container's group is the agent's, and `work` below it has the limits.
pub(super) fn make(
    layout: &Layout,
    directory: &str,
    spec: &ContainerSpec,
    groups: &mut Groups,
) -> Result<()> {
    for base in [&layout.memory, &layout.cpu, &layout.pids]
        .into_iter()
        .flatten()
    {
        let group = base.join(directory);
        let work = group.join("work");
        make_group(&group)?;
        make_group(&work)?;
        groups.agent_tasks.push(tasks(&group)?.into());
        groups.work_tasks.push(tasks(&work)?.into());
    }
    if let Some(base) = &layout.memory {
        let oom = base.join(directory).join("work/memory.oom_control");
        let file = File::open(&oom).context(|| format!("open `{}`", oom.display()))?;
        groups.oom = Some(file.into());
    }
    limit(layout, directory, spec)
}

/// Sets the limits; those of a container that runs may be set anew.
pub(super) fn limit(layout: &Layout, directory: &str, spec: &ContainerSpec) -> Result<()> {
    let work = |base: &Path| base.join(directory).join("work");
    if let (Some(base), Some(bytes)) = (&layout.memory, spec.memory_bytes) {
        limit_memory(&work(base), bytes, spec.swap_bytes.filter(|_| layout.swap))?;
    }
    if let (Some(base), Some(millis)) = (&layout.cpu, spec.cpu_millis) {
        let (quota, period) = cpu_quota(millis);
        write(
            &work(base).join("cpu.cfs_period_us"),
            text(period).as_bytes(),
        )?;
        write(&work(base).join("cpu.cfs_quota_us"), text(quota).as_bytes())?;
    }
    if let (Some(base), Some(max)) = (&layout.pids, spec.pids_max) {
        write(&work(base).join("pids.max"), text(max.into()).as_bytes())?;
    }
    Ok(())
}

/// The limit with swap is never below the one without: which of them goes first depends on whether
/// they rise or fall.
fn limit_memory(work: &Path, bytes: u64, swap: Option<u64>) -> Result<()> {
    let memory = || write(&work.join("memory.limit_in_bytes"), text(bytes).as_bytes());
    let Some(swap) = swap else {
        return memory();
    };
    let both = text(bytes.saturating_add(swap));
    let both = || write(&work.join("memory.memsw.limit_in_bytes"), both.as_bytes());
    if memory().is_ok() {
        return both();
    }
    both()?;
    memory()
}

fn tasks(group: &Path) -> Result<File> {
    let path = group.join("tasks");
    File::options()
        .write(true)
        .open(&path)
        .context(|| format!("open `{}`", path.display()))
}

fn text(number: u64) -> String {
    number.to_string()
}

/// Lets a large page cache of a dead group go.
pub(super) fn empty(work: &Path) {
    let usage = fs::read_to_string(work.join("memory.usage_in_bytes"));
    let bytes = usage.ok().and_then(|text| text.trim().parse::<u64>().ok());
    if bytes.is_some_and(|bytes| bytes > WORTH_EMPTYING) {
        // Whatever stays is only slower to go.
        let _ = write(&work.join("memory.force_empty"), b"0");
    }
}
