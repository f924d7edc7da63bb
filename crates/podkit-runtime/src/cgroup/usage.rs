//! What a container uses, as its groups count it.

use std::{fs, path::Path};

use super::{Layout, directory};

/// What a container uses, its agent included. `None` where nothing counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Microseconds of processor time since the container was started.
    pub cpu_us: Option<u64>,
    /// Bytes of memory, without cached files that can be dropped at once.
    pub memory_bytes: Option<u64>,
    /// Most bytes of memory that its commands may use.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Most processes and threads that its commands may have.
    pub pids_limit: Option<u32>,
}

impl Layout {
    /// What a container uses now.
    pub(crate) fn usage(&self, key: &str) -> Usage {
        let directory = directory(key);
        let mut usage = Usage::default();
        if let Some(unified) = &self.unified {
            let group = unified.base.join(&directory);
            // Counted without the controller, too.
            usage.cpu_us = field(&group.join("cpu.stat"), "usage_usec");
            let current = number(&group.join("memory.current"));
            usage.memory_bytes = without_cache(current, &group, "inactive_file");
            usage.pids = number(&group.join("pids.current"));
        }
        if let Some(base) = &self.memory {
            let group = base.join(&directory);
            let current = number(&group.join("memory.usage_in_bytes"));
            usage.memory_bytes = without_cache(current, &group, "total_inactive_file");
        }
        if let (Some(base), None) = (&self.cpu, usage.cpu_us) {
            let nanoseconds = number(&base.join(&directory).join("cpuacct.usage"));
            usage.cpu_us = nanoseconds.map(|nanoseconds| nanoseconds / 1000);
        }
        if let Some(base) = &self.pids {
            usage.pids = number(&base.join(&directory).join("pids.current"));
        }
        usage
    }
}

fn without_cache(current: Option<u64>, group: &Path, name: &str) -> Option<u64> {
    let cached = field(&group.join("memory.stat"), name).unwrap_or(0);
    current.map(|current| current.saturating_sub(cached))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A line `name value`.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(found, _)| *found == name)
        .and_then(|(_, value)| value.trim().parse().ok())
}
