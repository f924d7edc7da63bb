//! The bytes of files: read, replace, append.

use alloc::{ffi::CString, format, vec};

use podkit_agent::{Failure, MAX_DATA_BYTES};
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, Stat, fchmod, fchown, fstat, linkat, openat,
        renameat, statat, unlinkat,
    },
    io::{Errno, pread},
    process::{Gid, Uid},
};

use super::{
    channel::{Answers, Input, Stop, write_all},
    error::{invalid, refused},
    place::{Place, follow, make_parents, passing_name},
};

/// Permission bits of a file that is made without any being asked for.
const FILE_MODE: u32 = 0o644;

/// How files are opened whose kind is not known yet: nothing blocks, nothing becomes a terminal.
const CAREFULLY: OFlags = OFlags::CLOEXEC
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Sends the bytes of a file.
pub(super) fn send(
    path: &[u8],
    mut offset: u64,
    limit: Option<u64>,
    answers: &mut Answers<'_>,
) -> Result<(), Stop> {
    let failed = |errno| refused(path, errno);
    let file = openat(CWD, path, OFlags::RDONLY | CAREFULLY, Mode::empty()).map_err(failed)?;
    regular(path, &fstat(&file).map_err(failed)?)?;
    let mut left = limit.unwrap_or(u64::MAX);
    let mut buffer = vec![];
    loop {
        let want = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(MAX_DATA_BYTES);
        buffer.resize(want, 0);
        let count = match pread(&file, &mut buffer, offset) {
            _ if want == 0 => return Ok(()),
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(failed(errno).into()),
        };
        buffer.truncate(count);
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        offset = offset.saturating_add(count);
        left = left.saturating_sub(count);
        buffer = answers.data(buffer)?;
    }
}

/// Adds what comes to the end of a file.
pub(super) fn append(
    path: &[u8],
    mode: Option<u32>,
    parents: bool,
    input: &mut Input<'_>,
) -> Result<(), Stop> {
    let failed = |errno| refused(path, errno);
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | CAREFULLY;
    let mode = Mode::from_raw_mode(mode.unwrap_or(FILE_MODE) & 0o7777);
    let file = match openat(CWD, path, flags, mode) {
        Err(Errno::NOENT) if parents => {
            make_parents(path)?;
            openat(CWD, path, flags, mode)
        }
        opened => opened,
    };
    let file = file.map_err(failed)?;
    regular(path, &fstat(&file).map_err(failed)?)?;
    while let Some(data) = input.next()? {
        write_all(file.as_fd(), data).map_err(failed)?;
    }
    Ok(())
}

/// Puts what comes in the place of a file, all of it or nothing.
pub(super) fn replace(
    path: &[u8],
    mode: Option<u32>,
    parents: bool,
    input: &mut Input<'_>,
) -> Result<(), Stop> {
    if path.ends_with(b"/") {
        return Err(refused(path, Errno::ISDIR).into());
    }
    let failed = |errno| refused(path, errno);
    let place = follow(path, parents)?;
    let old = match statat(&place.directory, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Some(stat),
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(failed(errno).into()),
    };
    if let Some(old) = &old {
        regular(path, old)?;
    }
    let mut fresh = Fresh::make(&place).map_err(failed)?;
    while let Some(data) = input.next()? {
        write_all(fresh.file.as_fd(), data).map_err(failed)?;
    }
    fresh.look_like(old.as_ref(), mode).map_err(failed)?;
    fresh.put(&place.name).map_err(failed)?;
    Ok(())
}

/// Fails for everything that is no regular file.
fn regular(path: &[u8], stat: &Stat) -> Result<(), Failure> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(refused(path, Errno::ISDIR)),
        FileType::Fifo => Err(invalid(path, "it is a FIFO")),
        FileType::Socket => Err(invalid(path, "it is a socket")),
        _ => Err(invalid(path, "it is not a regular file")),
    }
}

/// A file that nobody sees yet; it goes away again unless it is put in its place.
pub(super) struct Fresh<'a> {
    place: &'a Place,
    pub(super) file: OwnedFd,
    /// Its name, where the file system has no files without one.
    name: Option<CString>,
}

impl<'a> Fresh<'a> {
    pub(super) fn make(place: &'a Place) -> Result<Self, Errno> {
        // A file without a name cannot be left behind, even by a process that is killed.
        let mode = Mode::from_raw_mode(0o600);
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        if let Ok(file) = openat(&place.directory, c".", flags, mode)
            && can_be_named(&file)
        {
            let name = None;
            return Ok(Self { place, file, name });
        }
        let name = passing_name()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(&place.directory, &name, flags | OFlags::CLOEXEC, mode)?;
        let name = Some(name);
        Ok(Self { place, file, name })
    }

    /// Takes over the owner and the permission bits of what it replaces.
    pub(super) fn look_like(&self, old: Option<&Stat>, mode: Option<u32>) -> Result<(), Errno> {
        let own = fstat(&self.file)?;
        if let Some(old) = old
            && (old.st_uid, old.st_gid) != (own.st_uid, own.st_gid)
        {
            let (uid, gid) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
            match fchown(&self.file, Some(uid), Some(gid)) {
                // Whoever may replace a file of somebody else's may not always give it away. Then
                // the new one is the caller's.
                Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        // Set-id bits are for the old bytes, as with a write in place.
        let old = old.map(|old| old.st_mode & 0o1777);
        let bits = mode.map(|mode| mode & 0o7777).or(old).unwrap_or(FILE_MODE);
        fchmod(&self.file, Mode::from_raw_mode(bits))
    }

    pub(super) fn put(&mut self, to: &CString) -> Result<(), Errno> {
        let directory = &self.place.directory;
        if self.name.is_none() {
            let name = passing_name()?;
            let own = own_path(&self.file);
            linkat(CWD, own, directory, &name, AtFlags::SYMLINK_FOLLOW)?;
            self.name = Some(name);
        }
        if let Some(name) = &self.name {
            renameat(directory, name, directory, to)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Nothing is left to do when even this is refused.
            let _ = unlinkat(&self.place.directory, name, AtFlags::empty());
        }
    }
}

/// A path to what a descriptor of this process is open on.
pub(super) fn own_path(file: &impl AsRawFd) -> alloc::string::String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Whether a file without a name can get one here, for which the kernel wants `/proc`.
fn can_be_named(file: &OwnedFd) -> bool {
    let (Ok(own), Ok(seen)) = (fstat(file), statat(CWD, own_path(file), AtFlags::empty())) else {
        return false;
    };
    (own.st_dev, own.st_ino) == (seen.st_dev, seen.st_ino)
}
