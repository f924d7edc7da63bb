//! What holds on this machine, for this user.

use serde::{Deserialize, Serialize};

use crate::spec::Isolation;

/// What holds on this machine, for this user; each was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Facts {
    /// Best isolation of user ids.
    pub isolation: Isolation,
    /// Which control groups can be used.
    pub cgroups: Cgroups,
    /// Whether memory can be limited.
    pub memory_limit: bool,
    /// Whether swap can be limited.
    pub swap_limit: bool,
    /// Whether processor time can be limited.
    pub cpu_limit: bool,
    /// Whether the number of processes can be limited.
    pub pids_limit: bool,
    /// Whether containers can be paused.
    pub pause: bool,
    /// Whether the kernel kills trees of processes at once.
    pub kernel_tree_kill: bool,
    /// Whether the state directory can hold what containers write; otherwise it is kept in memory
    /// and lost when a container stops.
    pub lasting_root: bool,
    /// Whether directories of the host can be shown with the container's ids.
    pub idmapped_binds: bool,
    /// Whether the agent runs from memory; otherwise from a file in the state directory.
    pub memory_exec: bool,
    /// Whether containers live on when the service that this process belongs to is stopped.
    pub outlives_client: bool,
    /// What holds only partly, for people: one sentence each.
    pub limitations: Vec<String>,
}

/// Which control groups can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cgroups {
    /// None.
    None,
    /// Version 1 only.
    V1,
    /// Limits by version 1, killing and freezing by version 2.
    Hybrid,
    /// Version 2 only.
    V2,
}

impl Cgroups {
    /// Stable name: `hybrid`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        }
    }
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// What, as `user namespaces`.
    pub name: &'static str,
    /// Whether nothing works without it.
    pub essential: bool,
    /// Whether it works.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What the user can do where it does not work.
    pub fix: Option<String>,
}
