//! Taking files and trees away.
//!
//! A tree is walked with one open directory at a time and a list on the heap, so neither its depth
//! nor its width is a limit. No link is followed. The way back up is checked: whoever moves a
//! directory about meanwhile cannot lead the walk out of the tree.

use alloc::{borrow::ToOwned, ffi::CString, vec::Vec};

use podkit_agent::Failure;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Mode, OFlags, RawDir, fstat, openat, unlinkat},
    io::Errno,
};

use super::{
    entries::is_dots,
    error::{failure, refused},
    place,
};

/// Bytes of entries that are asked for at once; each level holds at most that many names.
const BATCH_BYTES: usize = 8 * 1024;

/// A directory on the way down.
struct Level {
    /// Its name in the directory above.
    name: CString,
    /// Device and number of the directory above.
    above: (u64, u64),
    /// Directories in it that are still to be emptied.
    below: Vec<CString>,
}

/// Removes a file, a link, an empty directory, or with `recursive` a tree.
pub(crate) fn remove(path: &[u8], recursive: bool) -> Result<(), Failure> {
    let place = place::open(path, false)?;
    let failed = |errno| refused(path, errno);
    match unlinkat(&place.directory, &place.name, AtFlags::empty()) {
        // The kernel says one or the other of a directory.
        Err(first @ (Errno::ISDIR | Errno::PERM)) => {
            match unlinkat(&place.directory, &place.name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTDIR) => Err(failed(first)),
                Err(Errno::NOTEMPTY | Errno::EXIST) if recursive => {
                    remove_tree(path, place.directory, place.name)
                }
                Err(Errno::EXIST) => Err(failed(Errno::NOTEMPTY)),
                removed => removed.map_err(failed),
            }
        }
        removed => removed.map_err(failed),
    }
}

fn remove_tree(path: &[u8], top: OwnedFd, name: CString) -> Result<(), Failure> {
    let failed = |errno| refused(path, errno);
    let mut above = top;
    let mut levels: Vec<Level> = Vec::new();
    // What `above` is to be left through, if not upwards.
    let mut next = Some(name);
    loop {
        if let Some(name) = next.take() {
            match go_down(&above, name) {
                Ok((level, directory)) => {
                    levels.push(level);
                    above = directory;
                }
                // Somebody else has taken it away.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        let Some(level) = levels.last_mut() else {
            return Ok(());
        };
        if level.below.is_empty() {
            level.below = sweep(above.as_fd()).map_err(failed)?;
        }
        next = level.below.pop();
        if next.is_none()
            && let Some(level) = levels.pop()
        {
            above = go_up(path, &above, &level)?;
            match unlinkat(&above, &level.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
            if levels.is_empty() {
                return Ok(());
            }
        }
    }
}

fn go_down(above: &OwnedFd, name: CString) -> Result<(Level, OwnedFd), Errno> {
    let directory = open_directory(above, &name)?;
    let level = Level {
        name,
        above: identity(above)?,
        below: Vec::new(),
    };
    Ok((level, directory))
}

fn go_up(path: &[u8], from: &OwnedFd, level: &Level) -> Result<OwnedFd, Failure> {
    // Entering is enough: the directory at the very top need not be readable.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |errno| refused(path, errno);
    let above = openat(from, c"..", flags, Mode::empty()).map_err(failed)?;
    if identity(&above).map_err(failed)? == level.above {
        return Ok(above);
    }
    let why = "the tree was moved about while it was being removed";
    Err(failure(path, podkit_agent::FailureKind::Unexpected, 0, why))
}

fn open_directory<P: rustix::path::Arg>(at: &OwnedFd, name: P) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags | OFlags::NONBLOCK, Mode::empty())
}

fn identity(directory: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Removes what is no directory, and gives some of the directories; none when all is empty.
fn sweep(directory: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    // A descriptor of its own begins at the first entry, and can be read where `directory` was only
    // entered.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let reading = openat(directory, c".", flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(BATCH_BYTES);
    let mut entries = RawDir::new(&reading, buffer.spare_capacity_mut());
    let mut below = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if is_dots(name) {
            continue;
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(first @ (Errno::ISDIR | Errno::PERM)) => {
                match unlinkat(directory, name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::NOTEMPTY | Errno::EXIST) => below.push(name.to_owned()),
                    Err(Errno::NOTDIR) => return Err(first),
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        }
        if entries.is_buffer_empty() && !below.is_empty() {
            break;
        }
    }
    Ok(below)
}
