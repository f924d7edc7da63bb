//! Devices, graphics processors, and limits of single processes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A device of the host's that the container may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Device {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Absolute path in the container.
    pub container: PathBuf,
    /// Some of `r`, `w` and `m`: read, write, make.
    pub permissions: String,
}

impl Device {
    /// The device at `path`, at the same path of the container's, to be read and written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let host = path.into();
        Self {
            container: host.clone(),
            host,
            permissions: "rw".to_owned(),
        }
    }

    /// Parses `HOST[:CONTAINER[:PERMISSIONS]]`.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let device = match parts[..] {
            [host] => Self::new(host),
            [host, container] => Self {
                container: container.into(),
                ..Self::new(host)
            },
            [host, container, permissions] => Self {
                container: container.into(),
                permissions: permissions.to_owned(),
                ..Self::new(host)
            },
            _ => return Err(bad(text)),
        };
        device.check()?;
        Ok(device)
    }

    /// Whether it can be meant at all.
    pub(crate) fn check(&self) -> Result<()> {
        let letters = &self.permissions;
        let known = !letters.is_empty() && letters.chars().all(|c| "rwm".contains(c));
        if self.host.is_absolute() && self.container.is_absolute() && known {
            return Ok(());
        }
        Err(bad(&format!(
            "{}:{}:{letters}",
            self.host.display(),
            self.container.display()
        )))
    }
}

fn bad(text: &str) -> Error {
    Error::invalid_input(format!("{text:?} is not a device"))
        .with_hint("write `/dev/x`, `/dev/x:/dev/y` or `/dev/x:/dev/y:rw`")
}

/// Which graphics processors the container may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Gpus {
    /// All of them.
    All,
    /// So many.
    Count(u16),
    /// These, by the engine's names.
    Ids(Vec<String>),
}

impl Gpus {
    /// Parses `all`, a number, or names separated by commas.
    ///
    /// # Errors
    /// `InvalidInput` for an empty name, or no processor.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid_input(format!("{text:?} names no graphics processor"))
                .with_hint("write `all`, a number, or names separated by commas")
        };
        if text == "all" {
            return Ok(Self::All);
        }
        if let Ok(count) = text.parse() {
            return if count == 0 {
                Err(bad())
            } else {
                Ok(Self::Count(count))
            };
        }
        let ids: Vec<String> = text.split(',').map(str::to_owned).collect();
        if ids.iter().any(String::is_empty) {
            return Err(bad());
        }
        Ok(Self::Ids(ids))
    }
}

/// A limit of each process, see getrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ulimit {
    /// What holds until the process raises it.
    pub soft: u64,
    /// How far it can be raised.
    pub hard: u64,
}

/// The limits that Linux knows, as getrlimit(2) names them, in small letters.
pub(crate) const ULIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

impl Ulimit {
    /// A limit with both values.
    #[must_use]
    pub const fn new(soft: u64, hard: u64) -> Self {
        Self { soft, hard }
    }

    /// Parses `NAME=SOFT[:HARD]`, and gives the name and the limit.
    ///
    /// # Errors
    /// `InvalidInput` for a name that Linux does not know, or a soft value above the hard one.
    pub fn parse(text: &str) -> Result<(String, Self)> {
        let bad = || {
            Error::invalid_input(format!("{text:?} is not a limit"))
                .with_hint("write `nofile=1024` or `nofile=1024:4096`")
        };
        let (name, values) = text.split_once('=').ok_or_else(bad)?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
        let limit = Self::new(number(soft)?, number(hard)?);
        limit.check(name)?;
        Ok((name.to_owned(), limit))
    }

    /// Whether it can be meant at all.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        if !ULIMITS.contains(&name) {
            return Err(
                Error::invalid_input(format!("{name:?} is not the name of a limit"))
                    .with_hint(format!("name one of these: {}", ULIMITS.join(", "))),
            );
        }
        if self.soft > self.hard {
            return Err(Error::invalid_input(format!(
                "the limit `{name}` of {} exceeds its own highest value of {}",
                self.soft, self.hard
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_forms_are_read_and_checked() {
        let device = Device::parse("/dev/a:/dev/b:r").unwrap();
        assert_eq!(device.permissions, "r");
        assert_eq!(
            Device::parse("/dev/fuse").unwrap(),
            Device::new("/dev/fuse")
        );
        for bad in [
            "",
            "fuse",
            "/dev/a:b",
            "/dev/a:/dev/b:x",
            "/a:/b:r:s",
            "/dev/a:/dev/b:",
        ] {
            assert!(Device::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn gpus_are_all_a_number_or_names() {
        assert_eq!(Gpus::parse("all").unwrap(), Gpus::All);
        assert_eq!(Gpus::parse("2").unwrap(), Gpus::Count(2));
        let ids = Gpus::Ids(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(Gpus::parse("a,b").unwrap(), ids);
        assert!(Gpus::parse("0").is_err() && Gpus::parse("a,,b").is_err());
    }

    #[test]
    fn ulimits_are_known_and_in_order() {
        let limit = ("nofile".to_owned(), Ulimit::new(1, 2));
        assert_eq!(Ulimit::parse("nofile=1:2").unwrap(), limit);
        for bad in [
            "nofile",
            "files=1",
            "nofile=2:1",
            "nofile=x",
            "=1",
            "nofile=-1",
        ] {
            assert!(Ulimit::parse(bad).is_err(), "{bad}");
        }
    }
}
