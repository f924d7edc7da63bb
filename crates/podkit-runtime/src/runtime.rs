//! The engine.

use std::{
    collections::BTreeMap,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    error::Result,
    facts::{Check, Facts},
    info::{ContainerInfo, SweepReport},
    machine::Machine,
    options::RuntimeOptions,
    spec::ContainerSpec,
    store::Store,
};

/// The embedded engine: makes, starts, stops and removes containers of one state directory.
///
/// Any number of processes may work on one state directory at once. All methods but `create` are
/// idempotent.
#[derive(Debug)]
pub struct Runtime {
    pub(crate) options: RuntimeOptions,
    pub(crate) store: Store,
    machine: Mutex<Option<Arc<Machine>>>,
}

impl Runtime {
    /// Opens the engine, makes its directories when they are missing, and removes what crashed
    /// callers left half made.
    ///
    /// # Errors
    /// The directories cannot be made: `PermissionDenied`, `LimitExceeded` (full), `Unavailable`
    /// (read-only).
    pub fn open(options: RuntimeOptions) -> Result<Self> {
        let store = Store::open(&options)?;
        let runtime = Self {
            options,
            store,
            machine: Mutex::new(None),
        };
        runtime.sweep_lightly();
        Ok(runtime)
    }

    /// Makes a container that does not run yet. Of several callers with one name exactly one
    /// succeeds.
    ///
    /// # Errors
    /// - `InvalidInput`: something in the order cannot be.
    /// - `AlreadyExists`: the name is taken.
    /// - `Unsupported`: this machine cannot do what was asked.
    /// - `LimitExceeded`: the disk is full, or all ranges of user ids are in use.
    pub fn create(&self, spec: &ContainerSpec) -> Result<()> {
        self.make(spec)
    }

    /// Starts a container; succeeds when it runs already.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container.
    /// - `InvalidInput`: a mount's source is gone.
    /// - `LimitExceeded`: its lifetime is over, or something bounded ran out.
    /// - `Unsupported`, `PermissionDenied`: the kernel refuses, with the cause and what helps.
    pub fn start(&self, name: &str) -> Result<()> {
        self.bring_up(name)
    }

    /// Asks a container to stop, and kills it once `grace` has passed. Succeeds when it does not
    /// run.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container.
    /// - `TimedOut`: it was killed but does not end.
    pub fn stop(&self, name: &str, grace: Duration) -> Result<()> {
        self.bring_down(name, grace)
    }

    /// Freezes every process of a running container.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container, or it does not run.
    /// - `Unsupported`: there is no control group for that here.
    pub fn pause(&self, name: &str) -> Result<()> {
        self.freeze(name, true)
    }

    /// Thaws a paused container; succeeds when it is not paused.
    ///
    /// # Errors
    /// As [`Runtime::pause`].
    pub fn resume(&self, name: &str) -> Result<()> {
        self.freeze(name, false)
    }

    /// Kills a container and deletes it with all its files. Succeeds when there is none.
    ///
    /// # Errors
    /// - `InvalidInput`: this is no name.
    /// - `TimedOut`: it was killed but does not end.
    /// - Anything that keeps its files from being deleted; its name is free all the same, and a
    ///   sweep tries again.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.take_away(name)
    }

    /// Looks one container up.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container.
    pub fn inspect(&self, name: &str) -> Result<ContainerInfo> {
        self.look_at(name)
    }

    /// Lists the containers that carry all of `labels`, in any state, in the order of their names.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerInfo>> {
        self.look_at_all(labels)
    }

    /// Opens a byte stream to the agent of a running container.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container, or it does not run.
    /// - `Unavailable`: it does not take callers at the moment.
    pub fn connect(&self, name: &str) -> Result<UnixStream> {
        self.reach(name)
    }

    /// The last bytes that the container's own program wrote, at most `tail_bytes`.
    ///
    /// # Errors
    /// - `NotFound`: there is no such container.
    pub fn logs(&self, name: &str, tail_bytes: u64) -> Result<Vec<u8>> {
        self.tail(name, tail_bytes)
    }

    /// Removes what crashed callers left: half-made containers older than `min_age`, files of
    /// removed ones, control groups, sockets, ranges of ids. Never touches a container that has
    /// a name, nor anything that a living process works on.
    ///
    /// # Errors
    /// The state directory cannot be read. What cannot be removed is in the report.
    pub fn sweep(&self, min_age: Duration) -> Result<SweepReport> {
        self.clean(min_age)
    }

    /// What holds on this machine. Tried on first use, and remembered until the machine restarts.
    ///
    /// # Errors
    /// Containers cannot work here at all: the cause, and what helps.
    pub fn facts(&self) -> Result<Facts> {
        self.machine().map(|machine| machine.facts.clone())
    }

    /// Tries everything that containers need, now, and says what works and what does not.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        self.try_everything()
    }

    /// How the engine was opened.
    #[must_use]
    pub const fn options(&self) -> &RuntimeOptions {
        &self.options
    }

    /// What was found out about this machine; a failure is not remembered.
    pub(crate) fn machine(&self) -> Result<Arc<Machine>> {
        let mut known = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(machine) = &*known {
            return Ok(Arc::clone(machine));
        }
        let machine = Arc::new(Machine::of(self)?);
        *known = Some(Arc::clone(&machine));
        Ok(machine)
    }
}
