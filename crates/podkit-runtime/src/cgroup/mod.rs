//! Control groups of containers: limits, killing, freezing.
//!
//! Version 1 limits with one hierarchy per controller; version 2 kills and freezes, and limits
//! where it has the controllers. On a hybrid machine each does what it can. In all of them a
//! container has one group with two parts, so that a workload out of memory does not take the
//! agent: the agent's, and `work` with the limits.

mod find;
mod usage;
mod v1;
mod v2;

pub use usage::Usage;

use std::{
    fs::{self, File},
    io::{ErrorKind as IoErrorKind, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    facts::Cgroups,
    spec::ContainerSpec,
};

/// How long a group of a dead container may stay busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Directories below which this process may make groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layout {
    /// Version 1 hierarchies.
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    pids: Option<PathBuf>,
    /// Whether version 1 limits swap.
    swap: bool,
    unified: Option<Unified>,
}

/// The version 2 hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unified {
    base: PathBuf,
    memory: bool,
    swap: bool,
    cpu: bool,
    pids: bool,
    kill: bool,
    freeze: bool,
}

impl Unified {
    /// Whether this hierarchy has any of the controllers that limit.
    const fn limits(&self) -> bool {
        self.memory || self.cpu || self.pids
    }
}

/// Open files of one container's groups, for the agent.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    pub(crate) agent_tasks: Vec<OwnedFd>,
    pub(crate) work_tasks: Vec<OwnedFd>,
    pub(crate) agent: Option<OwnedFd>,
    pub(crate) work: Option<OwnedFd>,
    pub(crate) namespace: Option<OwnedFd>,
    pub(crate) oom: Option<OwnedFd>,
}

impl Layout {
    /// Looks for it, and tries it.
    pub(crate) fn find() -> Self {
        find::find()
    }

    /// Leaves version 2 out; whether it was there. Only root may give groups to other ids.
    pub(crate) fn drop_unified(&mut self) -> bool {
        self.unified.take().is_some()
    }

    pub(crate) const fn kind(&self) -> Cgroups {
        let v1 = self.memory.is_some() || self.cpu.is_some() || self.pids.is_some();
        match (v1, self.unified.is_some()) {
            (false, false) => Cgroups::None,
            (true, false) => Cgroups::V1,
            (true, true) => Cgroups::Hybrid,
            (false, true) => Cgroups::V2,
        }
    }

    pub(crate) fn limits_memory(&self) -> bool {
        self.memory.is_some() || self.unified.as_ref().is_some_and(|unified| unified.memory)
    }

    pub(crate) fn limits_swap(&self) -> bool {
        self.swap || self.unified.as_ref().is_some_and(|unified| unified.swap)
    }

    pub(crate) fn limits_cpu(&self) -> bool {
        self.cpu.is_some() || self.unified.as_ref().is_some_and(|unified| unified.cpu)
    }

    pub(crate) fn limits_pids(&self) -> bool {
        self.pids.is_some() || self.unified.as_ref().is_some_and(|unified| unified.pids)
    }

    pub(crate) fn kills(&self) -> bool {
        self.unified.as_ref().is_some_and(|unified| unified.kill)
    }

    pub(crate) fn freezes(&self) -> bool {
        self.unified.as_ref().is_some_and(|unified| unified.freeze)
    }

    /// Whether groups of containers are outside the group that this process is in.
    pub(crate) fn outside_own_group(&self) -> bool {
        find::outlives(self.unified.as_ref().map(|unified| unified.base.as_path()))
    }

    fn hierarchies(&self) -> impl Iterator<Item = &Path> {
        [&self.memory, &self.cpu, &self.pids]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .chain(self.unified.as_ref().map(|unified| unified.base.as_path()))
    }

    /// Makes the groups of one container. What a failure leaves, [`Layout::remove`] removes.
    pub(crate) fn make(
        &self,
        key: &str,
        spec: &ContainerSpec,
        owner: (u32, u32),
    ) -> Result<Groups> {
        // Left by a start that was killed.
        self.remove(key)?;
        let mut groups = Groups::default();
        v1::make(self, &directory(key), spec, &mut groups)?;
        if let Some(unified) = &self.unified {
            v2::make(unified, &directory(key), owner, &mut groups)?;
        }
        Ok(groups)
    }

    /// Sets the limits that must wait until the container is in its groups.
    pub(crate) fn finish(&self, key: &str, spec: &ContainerSpec) -> Result<()> {
        match &self.unified {
            Some(unified) => v2::limit(unified, &directory(key), spec),
            None => Ok(()),
        }
    }

    /// Sets other limits for a container that runs.
    pub(crate) fn set_limits(&self, key: &str, spec: &ContainerSpec) -> Result<()> {
        let (directory, used) = (directory(key), self.usage(key).memory_bytes);
        if let (Some(limit), Some(used)) = (spec.memory_bytes, used)
            && used > limit
        {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("the container uses {used} bytes of memory, more than {limit}"),
            ));
        }
        v1::limit(self, &directory, spec)?;
        self.finish(key, spec)
    }

    /// Kills every process of a container at once: `false` when there is no group for that.
    pub(crate) fn kill(&self, key: &str) -> bool {
        let Some(unified) = &self.unified else {
            return false;
        };
        let group = unified.base.join(directory(key));
        unified.kill && write(&group.join("cgroup.kill"), b"1").is_ok()
    }

    /// Freezes or thaws a container.
    pub(crate) fn freeze(&self, key: &str, frozen: bool) -> Result<()> {
        let Some(unified) = self.unified.as_ref().filter(|unified| unified.freeze) else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "containers cannot be paused here: there is no version 2 control group",
            ));
        };
        let path = unified.base.join(directory(key)).join("cgroup.freeze");
        write(&path, if frozen { b"1" } else { b"0" })
    }

    /// Whether a container is frozen.
    pub(crate) fn is_frozen(&self, key: &str) -> bool {
        self.unified.as_ref().is_some_and(|unified| {
            let path = unified.base.join(directory(key)).join("cgroup.freeze");
            fs::read(path).is_ok_and(|text| text.first() == Some(&b'1'))
        })
    }

    /// Whether every process of a container has come to rest.
    pub(crate) fn has_frozen(&self, key: &str) -> bool {
        self.unified.as_ref().is_some_and(|unified| {
            let path = unified.base.join(directory(key)).join("cgroup.events");
            fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line == "frozen 1"))
        })
    }

    /// Removes the groups of a container whose processes are dead.
    pub(crate) fn remove(&self, key: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for base in self.hierarchies() {
            let group = base.join(directory(key));
            v1::empty(&group.join("work"));
            remove_group(&group, deadline)?;
        }
        Ok(())
    }

    /// Keys of the groups that exist and begin like this.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let prefix = directory(prefix);
        let mut keys: Vec<String> = self
            .hierarchies()
            .filter_map(|base| fs::read_dir(base).ok())
            .flat_map(|entries| entries.flatten())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(&prefix))
            .filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

const PREFIX: &str = "podkit-";

/// Name of a container's group.
fn directory(key: &str) -> String {
    format!("{PREFIX}{key}")
}

/// Removes a group with those below it; waits while processes in it are ending.
fn remove_group(group: &Path, deadline: Instant) -> Result<()> {
    loop {
        let removed = fs::remove_dir(group);
        let Err(error) = removed else {
            return Ok(());
        };
        if error.kind() == IoErrorKind::NotFound {
            return Ok(());
        }
        let busy = error.raw_os_error().map(Errno::from_raw_os_error) == Some(Errno::BUSY);
        if !busy || Instant::now() > deadline {
            return Err(error)
                .context(|| format!("remove the control group `{}`", group.display()));
        }
        let mut below = false;
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                below = true;
                remove_group(&entry.path(), deadline)?;
            }
        }
        if !below {
            crate::sys::pause(Duration::from_micros(500));
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .context(|| format!("write `{}`", path.display()))
}

fn make_group(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == IoErrorKind::AlreadyExists => Ok(()),
        other => other.context(|| format!("make the control group `{}`", path.display())),
    }
}

/// Microseconds of processor time in each period: quota and period. Short periods are smooth; the
/// kernel takes no quota below 1 ms.
fn cpu_quota(cpu_millis: u32) -> (u64, u64) {
    let period = if cpu_millis < 10 { 1_000_000 } else { 100_000 };
    (u64::from(cpu_millis) * period / 1000, period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_quota_is_never_below_what_the_kernel_takes() {
        assert_eq!(cpu_quota(1), (1000, 1_000_000));
        assert_eq!(cpu_quota(10), (1000, 100_000));
        assert_eq!(cpu_quota(1500), (150_000, 100_000));
    }
}
