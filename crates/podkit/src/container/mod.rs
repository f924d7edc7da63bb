//! Containers: from a wish to a complete order, one container's life, the connection to its agent.
//!
//! Invariant: nothing else calls a [`Backend`](crate::backend::Backend).

mod deadlines;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod images;
mod inherit;
mod links;
mod manager;
mod mounts;
mod paths;
mod resolve;
mod running;
mod security;
mod watch;
mod workspace;

pub use self::{
    deadlines::Deadlines,
    manager::ContainerManager,
    mounts::{MountContext, MountStrategy, VolumeWorkspaces, WorkspaceMounts},
    resolve::{ContainerRequest, check, resolve},
};
pub(crate) use self::{
    images::PullObserver,
    manager::jittered,
    mounts::prepare_mounts,
    paths::inside_workspace,
    resolve::{auto_stop, change_limits, cpu_millis, memory_bytes},
};
pub(crate) use crate::backend::events::{ContainerEventKind, Watched};
pub use crate::backend::{
    BackendRef, Capabilities, ContainerInfo, ContainerSpec, ContainerState, StopCause, SweepReport,
    images::{ImageInfo, PullProgress, PullRequest},
    parent::ParentInfo,
    stats::ContainerStats,
};
