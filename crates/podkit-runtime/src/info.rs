//! What an engine knows of a container, and what a sweep did.

use std::{collections::BTreeMap, fmt, time::SystemTime};

use crate::spec::{Isolation, Port};

/// State of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContainerState {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended; it can be started again.
    Exited,
    /// Its files cannot be read; only removal helps.
    Dead,
}

/// Why a container does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopCause {
    /// Somebody asked.
    Requested,
    /// The `auto_stop` clock.
    AutoStop,
    /// The `max_lifetime` clock.
    MaxLifetime,
    /// Its own program ended.
    MainExited,
    /// It was killed, or the machine went down.
    Killed,
}

/// What an engine knows of a container.
#[derive(Clone)]
#[non_exhaustive]
pub struct ContainerInfo {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Environment of every command, as ordered.
    pub env: Vec<(String, String)>,
    /// State.
    pub state: ContainerState,
    /// Why it does not run, after it ran.
    pub stop_cause: Option<StopCause>,
    /// Exit code of its own program.
    pub exit_code: Option<i32>,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it was last started.
    pub started_at: Option<SystemTime>,
    /// When it stopped, where it could still say so.
    pub finished_at: Option<SystemTime>,
    /// Last activity before it stopped, where it could still say so; the agent knows while it runs.
    pub last_active_at: Option<SystemTime>,
    /// Pid of its PID 1 on the host, while it runs.
    pub pid: Option<u32>,
    /// Ports that the host offers, while it runs.
    pub ports: Vec<Port>,
    /// How its user ids are kept apart from others'; unknown for a dead one.
    pub isolation: Option<Isolation>,
    /// Whether what it wrote to its root is lost when it stops: no file system here can hold it.
    pub volatile_root: bool,
}

/// Shows names, never environment values.
impl fmt::Debug for ContainerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerInfo")
            .field("name", &self.name)
            .field("state", &self.state)
            .field("stop_cause", &self.stop_cause)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// One line each, for people.
    pub removed: Vec<String>,
    /// What could not be removed, and why.
    pub failed: Vec<String>,
}
