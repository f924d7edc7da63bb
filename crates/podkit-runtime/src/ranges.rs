//! Ranges of user and group ids: which container has which, for the whole host.
//!
//! One file per range, which gets its name once: of two takers one gets it. Its content names the state
//! directory and the container's token, so that a sweep can tell whether the owner is gone. A range
//! is free again only when no file of its ids is left.

use std::{
    fs::{self, File},
    io::{ErrorKind as IoErrorKind, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, linkat, openat},
    io::Errno,
};

use crate::{
    error::{Context, Error, ErrorKind, Result},
    store,
};

/// Ids of one range.
pub(crate) const RANGE_IDS: u32 = 65_536;

/// First id that podkit gives out: above what distributions give to users and sub-ids.
pub(crate) const FIRST_ID: u32 = 0x7000_0000;

/// Ids on disk of the other users of writable binds, the same in every container. Just below
/// what containers get, so that no process ever has one of them.
pub(crate) const BIND_IDS: u32 = FIRST_ID - RANGE_IDS;

/// A file that was made so long ago and is empty has no taker that is still writing it.
const TAKING: Duration = Duration::from_secs(60);

/// Who has which range.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    directory: PathBuf,
    first: u32,
    count: u32,
    /// Ids that others use: first and one past the last.
    taken: Vec<(u32, u32)>,
}

impl Ranges {
    /// The ranges above [`FIRST_ID`] that neither sub-ids nor accounts use.
    pub(crate) fn of_host(directory: &Path) -> Self {
        let mut taken = Vec::new();
        for (path, is_range) in [
            ("/etc/subuid", true),
            ("/etc/subgid", true),
            ("/etc/passwd", false),
            ("/etc/group", false),
        ] {
            let text = fs::read_to_string(path).unwrap_or_default();
            taken.extend(text.lines().filter_map(|line| {
                let mut fields = line.split(':');
                let number: u32 = if is_range {
                    fields.nth(1)?.parse().ok()?
                } else {
                    fields.nth(2)?.parse().ok()?
                };
                let count = if is_range {
                    fields.next()?.parse().ok()?
                } else {
                    1
                };
                Some((number, number.saturating_add(count)))
            }));
        }
        taken.retain(|(_, end)| *end > FIRST_ID);
        Self {
            directory: directory.to_owned(),
            first: FIRST_ID,
            // The last ids mean "none" and "overflow" in many interfaces.
            count: (0xffff_0000 - FIRST_ID) / RANGE_IDS,
            taken,
        }
    }

    /// The ranges within one user's sub-ids.
    pub(crate) fn within(directory: &Path, first: u32, ids: u32) -> Self {
        Self {
            directory: directory.to_owned(),
            first,
            count: ids / RANGE_IDS,
            taken: Vec::new(),
        }
    }

    /// Takes a free range for the container with this token; returns its first id.
    pub(crate) fn take(&self, state_dir: &Path, token: &str) -> Result<u32> {
        // A random start, so that takers do not all meet at the first free one.
        let start = u32::from_ne_bytes(first_chunk(store::random()?)) % self.count.max(1);
        for step in 0..self.count {
            let index = (start + step) % self.count;
            let first = self.first + index * RANGE_IDS;
            let end = first.saturating_add(RANGE_IDS);
            if self
                .taken
                .iter()
                .any(|(from, to)| *from < end && first < *to)
            {
                continue;
            }
            match self.claim(first, state_dir, token) {
                Ok(()) => return Ok(first),
                Err(error) if error.kind() == IoErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == IoErrorKind::NotFound && step == 0 => {
                    fs::create_dir_all(&self.directory)
                        .context(|| format!("make `{}`", self.directory.display()))?;
                    return self.take(state_dir, token);
                }
                Err(error) => {
                    return Err(error).context(|| {
                        format!("take a range of ids in `{}`", self.directory.display())
                    });
                }
            }
        }
        Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("all {} ranges of user ids are in use", self.count),
        )
        .with_hint("remove containers, or sweep"))
    }

    fn claim(&self, first: u32, state_dir: &Path, token: &str) -> std::io::Result<()> {
        let path = self.path(first);
        let content = format!("{token}\n{}\n", state_dir.display());
        // It gets its name with its content, so that nobody who is killed leaves a range whose
        // owner is not known.
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(CWD, &self.directory, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => {
                File::from(file.try_clone()?).write_all(content.as_bytes())?;
                let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
                return Ok(linkat(CWD, unnamed, CWD, &path, AtFlags::SYMLINK_FOLLOW)?);
            }
            // A file system without unnamed files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(content.as_bytes()).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })
    }

    fn path(&self, first: u32) -> PathBuf {
        self.directory.join(first.to_string())
    }

    /// Gives a range back, if this container still has it.
    pub(crate) fn free(&self, first: u32, token: &str) -> Result<()> {
        let owner = fs::read_to_string(self.path(first)).unwrap_or_default();
        if owner.split('\n').next() == Some(token) {
            self.forget(first)
        } else {
            Ok(())
        }
    }

    fn forget(&self, first: u32) -> Result<()> {
        match fs::remove_file(self.path(first)) {
            Err(error) if error.kind() != IoErrorKind::NotFound => {
                Err(error).context(|| format!("free the range of ids at {first}"))
            }
            _ => Ok(()),
        }
    }

    /// Frees the ranges of this state directory whose container `lives` says is gone. Returns their
    /// first ids.
    pub(crate) fn sweep(&self, state_dir: &Path, lives: impl Fn(&str) -> bool) -> Result<Vec<u32>> {
        let mut freed = Vec::new();
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(freed),
            Err(error) => {
                return Err(error).context(|| format!("read `{}`", self.directory.display()));
            }
        };
        for entry in entries.flatten() {
            let Some(first) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let Ok(content) = fs::read_to_string(entry.path()) else {
                continue;
            };
            let orphan = match content.split_once('\n') {
                Some((token, owner)) => {
                    Path::new(owner.trim_end_matches('\n')) == state_dir && !lives(token)
                }
                None => entry
                    .metadata()
                    .and_then(|metadata| metadata.modified())
                    .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > TAKING)),
            };
            if orphan {
                self.forget(first)?;
                freed.push(first);
            }
        }
        Ok(freed)
    }
}

fn first_chunk(bytes: [u8; 16]) -> [u8; 4] {
    let [a, b, c, d, ..] = bytes;
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takers_get_different_ranges_and_give_them_back() {
        let place = tempfile::tempdir().unwrap();
        let ranges = Ranges::within(&place.path().join("new"), 100_000, 3 * RANGE_IDS);
        let state = Path::new("/state");
        let mut taken: Vec<u32> = ["a", "b", "c"]
            .iter()
            .map(|token| ranges.take(state, token).unwrap())
            .collect();
        taken.sort_unstable();
        let expected = [0, 1, 2].map(|index| 100_000 + index * RANGE_IDS);
        assert_eq!(taken, expected);
        let full = ranges.take(state, "d").unwrap_err();
        assert_eq!(full.kind(), ErrorKind::LimitExceeded);
        let swept = ranges.sweep(state, |token| token != "b").unwrap();
        assert_eq!(swept.len(), 1);
        assert_eq!(ranges.take(state, "d").unwrap(), swept[0]);
    }

    #[test]
    fn free_leaves_what_another_one_has_taken() {
        let place = tempfile::tempdir().unwrap();
        let ranges = Ranges::within(place.path(), 100_000, RANGE_IDS);
        let first = ranges.take(Path::new("/state"), "a").unwrap();
        ranges.free(first, "b").unwrap();
        assert!(ranges.take(Path::new("/state"), "c").is_err());
        ranges.free(first, "a").unwrap();
        ranges.take(Path::new("/state"), "c").unwrap();
    }

    #[test]
    fn sweep_leaves_ranges_of_other_engines() {
        let place = tempfile::tempdir().unwrap();
        let ranges = Ranges::within(place.path(), 100_000, RANGE_IDS);
        ranges.take(Path::new("/other"), "a").unwrap();
        assert!(
            ranges
                .sweep(Path::new("/state"), |_| false)
                .unwrap()
                .is_empty()
        );
    }
}
