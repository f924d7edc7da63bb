//! Where a path leads: a directory that is held, and a name in it.
//!
//! The kernel follows what is in the middle of a path, as for every process of the container, so
//! nothing leads out of its root. What is at the end is this module's affair.

use alloc::{ffi::CString, format, vec::Vec};

use podkit_agent::Failure;
use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, mkdirat, openat, readlinkat},
    io::Errno,
};

use super::error::{invalid, refused};

/// Most links at the end of a path, as the kernel has it.
const MAX_LINKS: usize = 40;

/// Bits of directories that are made on the way.
const PARENT_MODE: u32 = 0o755;

/// A directory and a name in it.
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: CString,
}

/// `path`, made absolute.
pub(super) fn absolute(cwd: &[u8], path: &[u8]) -> Result<Vec<u8>, Failure> {
    if path.is_empty() {
        return Err(invalid(path, "the path is empty"));
    }
    if path.contains(&0) || cwd.contains(&0) {
        return Err(invalid(path, "the path has a NUL byte"));
    }
    if path.starts_with(b"/") {
        return Ok(path.to_vec());
    }
    let end = cwd
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |last| last + 1);
    let cwd = cwd.get(..end).unwrap_or_default();
    let before: &[u8] = if cwd.is_empty() || cwd.starts_with(b"/") {
        b""
    } else {
        b"/"
    };
    Ok([before, cwd, b"/", path].concat())
}

/// The path of the directory that holds what `path` names, and the name; slashes at the end do not
/// count. The name may be `.` or `..`, and is empty for the root; the directory is empty for the
/// root and for a single relative name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |last| last + 1);
    let path = path.get(..end).unwrap_or_default();
    let start = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1);
    path.split_at(start)
}

/// Opens the directory that holds what `path` names, without following what is at its end.
pub(super) fn open(path: &[u8], parents: bool) -> Result<Place, Failure> {
    let (directory, name) = split(path);
    if name.is_empty() || name == b"." || name == b".." {
        return Err(invalid(path, "the path does not end with a name"));
    }
    let name = CString::new(name).map_err(|_| invalid(path, "the path has a NUL byte"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = match openat(CWD, directory, flags, Mode::empty()) {
        Err(Errno::NOENT) if parents => {
            make_parents(path)?;
            openat(CWD, directory, flags, Mode::empty())
        }
        opened => opened,
    };
    let directory = opened.map_err(|errno| refused(path, errno))?;
    Ok(Place { directory, name })
}

/// As [`open`], but follows links at the end to where they lead, even if nothing is there yet.
pub(super) fn follow(path: &[u8], parents: bool) -> Result<Place, Failure> {
    let mut place = open(path, parents)?;
    for _ in 0..MAX_LINKS {
        match readlinkat(&place.directory, &place.name, Vec::new()) {
            Ok(target) => place = beyond(place, target.as_bytes(), path)?,
            Err(Errno::INVAL | Errno::NOENT) => return Ok(place),
            Err(errno) => return Err(refused(path, errno)),
        }
    }
    Err(refused(path, Errno::LOOP))
}

/// The place that a link at `place` names.
fn beyond(place: Place, target: &[u8], path: &[u8]) -> Result<Place, Failure> {
    if target.starts_with(b"/") {
        // The caller's wish for parents is about the path that it named.
        return open(target, false);
    }
    let (directory, name) = split(target);
    if name.is_empty() || name == b"." || name == b".." {
        return Err(refused(path, Errno::ISDIR));
    }
    let name = CString::new(name).map_err(|_| refused(path, Errno::INVAL))?;
    if directory.is_empty() {
        return Ok(Place { name, ..place });
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(&place.directory, directory, flags, Mode::empty())
        .map_err(|errno| refused(path, errno))?;
    Ok(Place { directory, name })
}

/// Makes the directories above what `path` names, as far as they are missing.
pub(super) fn make_parents(path: &[u8]) -> Result<(), Failure> {
    let (directory, _) = split(path);
    let ends = directory
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/');
    for (end, _) in ends.skip(1) {
        let part = directory.get(..end).unwrap_or_default();
        match mkdirat(CWD, part, Mode::from_raw_mode(PARENT_MODE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(refused(part, errno)),
        }
    }
    Ok(())
}

/// A name for a file that is about to get its real one.
pub(super) fn passing_name() -> Result<CString, Errno> {
    let mut random = [0_u8; 8];
    let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    if filled != random.len() {
        return Err(Errno::AGAIN);
    }
    let name = format!(".podkit-{:016x}.tmp", u64::from_ne_bytes(random));
    CString::new(name).map_err(|_| Errno::INVAL)
}

/// Makes a directory with all that is missing above it; one may be there.
pub(crate) fn make_directories(path: &[u8]) -> Result<(), Failure> {
    make_parents(path)?;
    match mkdirat(CWD, path, Mode::from_raw_mode(PARENT_MODE)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(refused(path, errno)),
    }
}

/// Holds a directory.
pub(crate) fn open_directory(path: &[u8]) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|errno| refused(path, errno))
}
