//! Where root file systems come from.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where a container's root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Image {
    /// The host's own programs, read-only, with a generated `/etc`; embedded engine only.
    Host {
        /// Further host directories to show read-only.
        paths: Vec<PathBuf>,
    },
    /// An image by name, as `python:3.12`.
    Reference(String),
    /// A directory on the host, used as a read-only layer; embedded engine only.
    Directory(PathBuf),
    /// A tar archive on the host, imported once; embedded engine only.
    Tar(PathBuf),
}

impl Image {
    /// The host's own programs.
    #[must_use]
    pub const fn host() -> Self {
        Self::Host { paths: Vec::new() }
    }

    /// Parses `host`, `dir:/path`, `tar:/path`, or an image reference.
    ///
    /// # Errors
    /// `InvalidInput` for an empty name, white space or control characters.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "host" {
            return Ok(Self::host());
        }
        if let Some(path) = text.strip_prefix("dir:") {
            return Ok(Self::Directory(PathBuf::from(path)));
        }
        if let Some(path) = text.strip_prefix("tar:") {
            return Ok(Self::Tar(PathBuf::from(path)));
        }
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::invalid_input(format!(
                "{text:?} is not an image name"
            )));
        }
        Ok(Self::Reference(text.to_owned()))
    }
}

/// As [`Image::parse`] reads it.
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { .. } => f.write_str("host"),
            Self::Reference(name) => f.write_str(name),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::Tar(path) => write!(f, "tar:{}", path.display()),
        }
    }
}

/// When an image is fetched from its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PullPolicy {
    /// When the engine does not have it.
    #[default]
    Missing,
    /// Before every container that is made.
    Always,
    /// Never: an image that the engine does not have is an error.
    Never,
}

impl PullPolicy {
    /// Parses `missing`, `always` or `never`.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "missing" => Ok(Self::Missing),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(
                Error::invalid_input(format!("{text:?} is not a pull policy"))
                    .with_hint("write `missing`, `always` or `never`"),
            ),
        }
    }
}
