//! What a container uses.

use std::time::{Duration, SystemTime};

/// What a running container used and uses, with its agent. `None` where the engine does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerStats {
    /// When this was read.
    pub at: SystemTime,
    /// Processor time since the container was started.
    pub cpu_time: Option<Duration>,
    /// Bytes of memory in use, without cached files that can be dropped at once.
    pub memory_bytes: Option<u64>,
    /// Most bytes of memory that its commands may use.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Most processes and threads that its commands may have.
    pub pids_limit: Option<u64>,
    /// Bytes received by its networks.
    pub network_rx_bytes: Option<u64>,
    /// Bytes sent by its networks.
    pub network_tx_bytes: Option<u64>,
    /// Bytes read from disks.
    pub disk_read_bytes: Option<u64>,
    /// Bytes written to disks.
    pub disk_written_bytes: Option<u64>,
}

impl ContainerStats {
    /// Stats that say nothing yet.
    #[must_use]
    pub const fn new(at: SystemTime) -> Self {
        Self {
            at,
            cpu_time: None,
            memory_bytes: None,
            memory_limit_bytes: None,
            pids: None,
            pids_limit: None,
            network_rx_bytes: None,
            network_tx_bytes: None,
            disk_read_bytes: None,
            disk_written_bytes: None,
        }
    }

    /// Cores in use on average since `earlier`, which was read from the same life of the container;
    /// `None` when that cannot be told.
    #[must_use]
    pub fn cpus_since(&self, earlier: &Self) -> Option<f64> {
        let wall = self.at.duration_since(earlier.at).ok()?;
        let used = self.cpu_time?.checked_sub(earlier.cpu_time?)?;
        (!wall.is_zero()).then(|| used.as_secs_f64() / wall.as_secs_f64())
    }
}
