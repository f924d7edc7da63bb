//! What is done with a container that runs, and what it says of itself.

use super::manager::{ContainerManager, Repeat};
use crate::{
    backend::{Limits, stats::ContainerStats},
    error::Result,
    id::ContainerId,
};

impl ContainerManager {
    /// Freezes every process of a running container.
    ///
    /// # Errors
    /// `Unsupported` where the engine cannot, `NotFound`.
    pub async fn pause(&self, id: &ContainerId) -> Result<()> {
        let inner = &self.0;
        let (deadline, once) = (inner.deadlines.start, || inner.backend.pause(id));
        self.call(
            "pause container",
            Some(id),
            deadline,
            Repeat::Idempotent,
            once,
        )
        .await
    }

    /// Thaws a paused container.
    ///
    /// # Errors
    /// `Unsupported` where the engine cannot, `NotFound`.
    pub async fn resume(&self, id: &ContainerId) -> Result<()> {
        let inner = &self.0;
        let (deadline, once) = (inner.deadlines.start, || inner.backend.resume(id));
        self.call(
            "resume container",
            Some(id),
            deadline,
            Repeat::Idempotent,
            once,
        )
        .await
    }

    /// Changes the limits that are set here; the others stay.
    ///
    /// # Errors
    /// `Unsupported` where the engine cannot, `NotFound`; `LimitExceeded` when the container uses
    /// more memory than that.
    pub async fn set_limits(&self, id: &ContainerId, limits: Limits) -> Result<()> {
        let inner = &self.0;
        let once = || inner.backend.set_limits(id, limits);
        let deadline = inner.deadlines.start;
        self.call("set limits", Some(id), deadline, Repeat::Idempotent, once)
            .await
    }

    /// What a running container uses.
    ///
    /// # Errors
    /// `Unsupported` where the engine cannot say, `NotFound`, `ContainerGone` when it does not run.
    pub async fn stats(&self, id: &ContainerId) -> Result<ContainerStats> {
        let inner = &self.0;
        let (deadline, once) = (inner.deadlines.inspect, || inner.backend.stats(id));
        self.call("read stats", Some(id), deadline, Repeat::Idempotent, once)
            .await
    }

    /// The last bytes that the container's own program wrote, at most `tail_bytes`.
    ///
    /// # Errors
    /// `NotFound`, or whatever keeps the engine from reading them.
    pub async fn logs(&self, id: &ContainerId, tail_bytes: u64) -> Result<Vec<u8>> {
        let inner = &self.0;
        let (deadline, once) = (inner.deadlines.logs, || inner.backend.logs(id, tail_bytes));
        self.call("read the log", Some(id), deadline, Repeat::Idempotent, once)
            .await
    }
}
