//! A tree from its top to its leaves: one open directory for each level, no link followed.

use alloc::{borrow::ToOwned, ffi::CString, vec::Vec};
use core::ffi::CStr;

use podkit_agent::archive::MAX_PATH_BYTES;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat, fstat, fstatfs, openat, statat},
    io::Errno,
};

use super::{channel::Stop, entries::is_dots};

/// Bytes of entries that are asked for at once.
const BATCH_BYTES: usize = 32 * 1024;

/// Deepest directory that is entered.
const MAX_DEPTH: usize = 512;

/// File systems that show the kernel, and have no end: proc, sysfs, cgroup, cgroup2.
const VIRTUAL: [u64; 4] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270];

/// What is done with what a walk meets. Paths begin at the top, which is empty itself.
pub(super) trait Visitor {
    /// A directory, before anything in it.
    fn directory(&mut self, path: &[u8], fd: BorrowedFd<'_>, stat: &Stat) -> Result<(), Stop>;

    /// Anything else: its name in a directory.
    fn entry(
        &mut self,
        path: &[u8],
        at: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> Result<(), Stop>;

    /// What cannot be looked at; the walk goes on.
    fn failed(&mut self, path: &[u8], errno: Errno) -> Result<(), Stop>;
}

/// A directory that is being walked.
struct Level {
    fd: OwnedFd,
    device: u64,
    /// Bytes of its path.
    length: usize,
    /// Directories in it that are still to be entered.
    below: Vec<CString>,
}

/// How directories are opened that are found on the way.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Walks what is below `top`, whose own path is `path`.
pub(super) fn walk(top: OwnedFd, mut path: Vec<u8>, visitor: &mut dyn Visitor) -> Result<(), Stop> {
    let mut levels = Vec::new();
    enter(top, &mut path, &mut levels, visitor)?;
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.below.pop() else {
            levels.pop();
            continue;
        };
        path.truncate(level.length);
        push(&mut path, name.as_bytes());
        match openat(&level.fd, &name, DIRECTORY, Mode::empty()) {
            Ok(fd) => enter(fd, &mut path, &mut levels, visitor)?,
            Err(Errno::NOENT) => {}
            Err(errno) => visitor.failed(&path, errno)?,
        }
    }
    Ok(())
}

fn enter(
    fd: OwnedFd,
    path: &mut Vec<u8>,
    levels: &mut Vec<Level>,
    visitor: &mut dyn Visitor,
) -> Result<(), Stop> {
    let stat = match fstat(&fd) {
        Ok(stat) => stat,
        Err(errno) => return visitor.failed(path, errno),
    };
    visitor.directory(path, fd.as_fd(), &stat)?;
    let device = stat.st_dev;
    let foreign = levels.last().is_some_and(|level| level.device != device);
    if foreign && is_virtual(&fd) {
        return Ok(());
    }
    if levels.len() >= MAX_DEPTH || path.len() > MAX_PATH_BYTES {
        return visitor.failed(path, Errno::NAMETOOLONG);
    }
    let length = path.len();
    let below = match entries(&fd, path, visitor)? {
        Ok(below) => below,
        Err(errno) => {
            path.truncate(length);
            return visitor.failed(path, errno);
        }
    };
    levels.push(Level {
        fd,
        device,
        length,
        below,
    });
    Ok(())
}

/// Tells of what is in a directory, and gives the directories back.
fn entries(
    fd: &OwnedFd,
    path: &mut Vec<u8>,
    visitor: &mut dyn Visitor,
) -> Result<Result<Vec<CString>, Errno>, Stop> {
    let length = path.len();
    let mut below = Vec::new();
    let mut buffer = Vec::with_capacity(BATCH_BYTES);
    let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(errno) => return Ok(Err(errno)),
        };
        let name = entry.file_name();
        if is_dots(name) {
            continue;
        }
        path.truncate(length);
        push(path, name.to_bytes());
        match statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                below.push(name.to_owned());
            }
            Ok(stat) => visitor.entry(path, fd.as_fd(), name, &stat)?,
            Err(Errno::NOENT) => {}
            Err(errno) => visitor.failed(path, errno)?,
        }
    }
    path.truncate(length);
    Ok(Ok(below))
}

/// Adds a name to a path.
pub(super) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn is_virtual(fd: &OwnedFd) -> bool {
    let kind = fstatfs(fd).map(|stat| u64::try_from(stat.f_type).unwrap_or(0));
    kind.is_ok_and(|kind| VIRTUAL.contains(&kind))
}
