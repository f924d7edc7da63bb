//! Entries of directories: list, stat, make, rename.

use alloc::vec::Vec;
use core::ffi::CStr;

use podkit_agent::{Failure, FailureKind, FileKind, FileStat};
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, chmodat, mkdirat, openat, readlinkat,
        renameat, statat,
    },
    io::Errno,
};

use super::{
    channel::{Answers, Stop},
    error::{failure, refused},
    place::make_parents,
};

/// Bytes of entries that are asked for at once.
const BATCH_BYTES: usize = 32 * 1024;

/// Permission bits of a directory that is made without any being asked for.
const DIRECTORY_MODE: u32 = 0o755;

/// Sends the entries of a directory.
pub(super) fn list(path: &[u8], answers: &mut Answers<'_>) -> Result<(), Stop> {
    let failed = |errno| refused(path, errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
    let mut buffer = Vec::with_capacity(BATCH_BYTES);
    let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if is_dots(name) {
            continue;
        }
        match facts(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => answers.entry(name.to_bytes(), stat)?,
            // It has gone away since.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno).into()),
        }
    }
    Ok(())
}

/// Sends the facts about one file.
pub(super) fn stat(path: &[u8], follow: bool, answers: &mut Answers<'_>) -> Result<(), Stop> {
    let flags = if follow {
        AtFlags::empty()
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    let stat = facts(CWD, path, flags).map_err(|errno| refused(path, errno))?;
    answers.entry(b"", stat)
}

/// Makes a directory.
pub(super) fn make_dir(path: &[u8], mode: Option<u32>, parents: bool) -> Result<(), Failure> {
    let bits = mode.unwrap_or(DIRECTORY_MODE) & 0o7777;
    let raw = Mode::from_raw_mode(bits);
    let made = match mkdirat(CWD, path, raw) {
        Err(Errno::NOENT) if parents => {
            make_parents(path)?;
            mkdirat(CWD, path, raw)
        }
        made => made,
    };
    match made {
        Err(Errno::EXIST) if parents && is_directory(path) => return Ok(()),
        made => made.map_err(|errno| refused(path, errno))?,
    }
    if bits & 0o6000 != 0 {
        // The kernel leaves the set-id bits out above.
        chmodat(CWD, path, raw, AtFlags::empty()).map_err(|errno| refused(path, errno))?;
    }
    Ok(())
}

/// Renames a file or directory.
pub(super) fn rename(path: &[u8], to: &[u8]) -> Result<(), Failure> {
    renameat(CWD, path, CWD, to).map_err(|errno| match errno {
        Errno::NOTEMPTY => {
            let why = "a directory that is not empty is there";
            failure(to, FailureKind::AlreadyExists, errno.raw_os_error(), why)
        }
        Errno::EXIST | Errno::ISDIR => refused(to, errno),
        Errno::NOENT if statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok() => refused(to, errno),
        _ => refused(path, errno),
    })
}

/// Whether an entry is the directory itself or the one above.
pub(super) fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn is_directory(path: &[u8]) -> bool {
    let stat = statat(CWD, path, AtFlags::empty());
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn facts<P: rustix::path::Arg + Copy>(
    directory: BorrowedFd<'_>,
    path: P,
    flags: AtFlags,
) -> Result<FileStat, Errno> {
    let stat = statat(directory, path, flags)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let link_target = if kind == FileKind::Symlink {
        match readlinkat(directory, path, Vec::new()) {
            Ok(target) => target.into_bytes(),
            // It has become something else since.
            Err(Errno::INVAL) => return Err(Errno::NOENT),
            Err(errno) => return Err(errno),
        }
    } else {
        Vec::new()
    };
    Ok(FileStat {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        modified_ns: modified_ns(&stat),
        link_target,
    })
}

fn modified_ns(stat: &Stat) -> i64 {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}
