//! What is shown in a container beside its root file system.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Something of the host's, or a fresh file system, at a path of the container's.
///
/// Always `nosuid` and `nodev`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute path in the container; made when missing.
    pub target: PathBuf,
    /// Whether nothing can be written through it.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MountSource {
    /// An existing file or directory of the host. A missing one is an error, never made silently.
    Bind(PathBuf),
    /// A named volume of the engine.
    Volume(String),
    /// Memory, up to so many bytes; all tmpfs together get at most half the container's memory.
    Tmpfs {
        /// Size limit in bytes; a quarter of the container's memory without.
        size_bytes: Option<u64>,
    },
}

impl Mount {
    /// Mounts the host's `source` at `target`.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self {
            source: MountSource::Bind(source.into()),
            target: target.into(),
            read_only: false,
        }
    }

    /// Mounts a named volume at `target`.
    pub fn volume(name: impl Into<String>, target: impl Into<PathBuf>) -> Self {
        Self {
            source: MountSource::Volume(name.into()),
            target: target.into(),
            read_only: false,
        }
    }

    /// Mounts memory at `target`.
    pub fn tmpfs(target: impl Into<PathBuf>, size_bytes: Option<u64>) -> Self {
        Self {
            source: MountSource::Tmpfs { size_bytes },
            target: target.into(),
            read_only: false,
        }
    }

    /// Makes it read-only.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Parses `SOURCE:TARGET[:ro|:rw]`; a source without a slash is a volume's name.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid_input(format!("{text:?} is not a mount"))
                .with_hint("write `SOURCE:TARGET` or `SOURCE:TARGET:ro`")
        };
        let mut parts = text.split(':');
        let (source, target) = (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
        let read_only = match (parts.next(), parts.next()) {
            (None | Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => return Err(bad()),
        };
        if source.is_empty() || !target.starts_with('/') {
            return Err(bad());
        }
        let mount = if source.contains('/') || source.starts_with('.') {
            Self::bind(source, target)
        } else {
            Self::volume(source, target)
        };
        Ok(Self { read_only, ..mount })
    }
}
