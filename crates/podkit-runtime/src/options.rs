//! Where an engine keeps what it has.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::error::Result;

/// Where an engine keeps what it has.
#[derive(Clone)]
#[non_exhaustive]
pub struct RuntimeOptions {
    /// Containers and images; on a disk.
    pub state_dir: PathBuf,
    /// Sockets; gone after a reboot.
    pub run_dir: PathBuf,
    /// Who has which range of ids, for the whole host; used by root only.
    pub uid_range_dir: PathBuf,
    /// Called with the name of each step, for tests of what a crash there leaves. An error is
    /// returned to the caller as if the step had failed.
    pub fault: Option<Fault>,
}

/// Called before each named step.
pub type Fault = Arc<dyn Fn(&str) -> Result<()> + Send + Sync>;

/// Ranges of ids for the whole host.
const UID_RANGE_DIR: &str = "/var/lib/podkit/uid-ranges";

impl RuntimeOptions {
    /// Everything below these directories.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            run_dir: run_dir.into(),
            uid_range_dir: PathBuf::from(UID_RANGE_DIR),
            fault: None,
        }
    }

    /// Root: `/var/lib/podkit` and `/run/podkit`. Others: `podkit` below the XDG data directory
    /// (or `~/.local/share`), sockets below the XDG runtime directory (or next to the state).
    /// `None` when a user has neither home nor data directory.
    #[must_use]
    pub fn for_user(
        home: Option<&Path>,
        xdg_data: Option<&Path>,
        xdg_runtime: Option<&Path>,
    ) -> Option<Self> {
        if rustix::process::geteuid().is_root() {
            return Some(Self::new("/var/lib/podkit", "/run/podkit"));
        }
        let data = match (xdg_data, home) {
            (Some(data), _) if data.is_absolute() => data.to_owned(),
            (_, Some(home)) => home.join(".local/share"),
            _ => return None,
        };
        let state_dir = data.join("podkit");
        let run_dir = xdg_runtime
            .filter(|runtime| runtime.is_dir())
            .map_or_else(|| state_dir.join("run"), |runtime| runtime.join("podkit"));
        Some(Self::new(state_dir, run_dir))
    }

    pub(crate) fn step(&self, name: &str) -> Result<()> {
        match &self.fault {
            Some(fault) => fault(name),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for RuntimeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeOptions")
            .field("state_dir", &self.state_dir)
            .field("run_dir", &self.run_dir)
            .field("uid_range_dir", &self.uid_range_dir)
            .finish_non_exhaustive()
    }
}
