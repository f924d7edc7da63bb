//! What a container uses, and limits that change while it runs.

use std::fs;

use crate::{
    cgroup::Usage,
    error::Result,
    runtime::Runtime,
    spec::ContainerSpec,
    start::not_running,
    store::{Config, Directory},
    validate,
};

/// Limits that are to change; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitChange {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Swap in bytes on top of the memory.
    pub swap_bytes: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids_max: Option<u32>,
}

impl LimitChange {
    fn apply(self, spec: &mut ContainerSpec) {
        spec.memory_bytes = self.memory_bytes.or(spec.memory_bytes);
        spec.swap_bytes = self.swap_bytes.or(spec.swap_bytes);
        spec.cpu_millis = self.cpu_millis.or(spec.cpu_millis);
        spec.pids_max = self.pids_max.or(spec.pids_max);
    }
}

impl Runtime {
    /// Changes limits of a container, of its present life and all that follow.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container.
    /// - `InvalidInput`: its mounts in memory do not fit the new limit, or a limit cannot be.
    /// - `Unsupported`: this machine cannot set that limit.
    /// - `LimitExceeded`: it uses more memory than that now. Nothing has changed then.
    pub fn set_limits(&self, name: &str, change: LimitChange) -> Result<()> {
        validate::name(name)?;
        let directory = self.store.container(name);
        let _lock = directory.lock()?;
        let record = directory.record()?;
        let was = directory.config()?;
        let mut config = was.clone();
        change.apply(&mut config.spec);
        validate::order(&config.spec)?;
        let lives = record.lives();
        let layout = if lives {
            record.cgroups
        } else {
            self.machine()?.layout.clone()
        };
        validate::enforceable(&config.spec, &layout)?;
        directory.replace_config(&config)?;
        if !lives {
            return Ok(());
        }
        let key = self.store.key(name);
        let set = layout.set_limits(&key, &config.spec);
        if set.is_err() {
            take_back(&directory, &was);
            // As they were: what cannot be set again was not changed.
            let _ = layout.set_limits(&key, &was.spec);
        }
        set
    }

    /// What a running container uses, its agent included.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container, or it does not run.
    pub fn usage(&self, name: &str) -> Result<Usage> {
        validate::name(name)?;
        let directory = self.store.container(name);
        let record = directory.record()?;
        if !record.lives() {
            return Err(not_running(name));
        }
        let spec = directory.config()?.spec;
        let mut usage = record.cgroups.usage(&self.store.key(name));
        usage.memory_limit_bytes = spec.memory_bytes;
        usage.pids_limit = spec.pids_max;
        Ok(usage)
    }
}

fn take_back(directory: &Directory, was: &Config) {
    if directory.replace_config(was).is_err() {
        // The disk is full, say: the change stays on record, and holds from the next start on.
        let _ = fs::remove_file(directory.new_config());
    }
}
