//! Limits that change while a container runs.

use super::Bytes;

/// Limits to change; what is not set stays as it is.
///
/// # Examples
/// ```
/// use podkit::LimitChange;
///
/// let change = LimitChange::new().memory("2g").cpus(1.5).pids_max(1000);
/// assert_eq!(change.cpus, Some(1.5));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LimitChange {
    /// Processor cores, at least 0.01.
    pub cpus: Option<f64>,
    /// Memory, at least 6 MiB.
    pub memory: Option<Bytes>,
    /// Swap on top of the memory.
    pub swap: Option<Bytes>,
    /// Processes and threads.
    pub pids_max: Option<u32>,
}

impl LimitChange {
    /// A change of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`cpus`](Self::cpus).
    #[must_use]
    pub const fn cpus(mut self, cpus: f64) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// Sets [`memory`](Self::memory), as `"1g"` or a number of bytes.
    #[must_use]
    pub fn memory(mut self, memory: impl Into<Bytes>) -> Self {
        self.memory = Some(memory.into());
        self
    }

    /// Sets [`swap`](Self::swap).
    #[must_use]
    pub fn swap(mut self, swap: impl Into<Bytes>) -> Self {
        self.swap = Some(swap.into());
        self
    }

    /// Sets [`pids_max`](Self::pids_max).
    #[must_use]
    pub const fn pids_max(mut self, pids: u32) -> Self {
        self.pids_max = Some(pids);
        self
    }
}
