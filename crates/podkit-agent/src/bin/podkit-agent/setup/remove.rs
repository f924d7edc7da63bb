//! Removes trees that hostile code has made: of any depth and width, with little memory and few
//! descriptors.

use alloc::{format, vec::Vec};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{
        AtFlags, Mode, OFlags, RawDir, RenameFlags, SeekFrom, chmodat, fchmod, openat,
        renameat_with, seek, unlinkat,
    },
    io::Errno,
};

/// Levels below the top that are walked; what is deeper is first moved up to the top.
const MAX_DEPTH: u32 = 32;

/// Entries that are held in memory for each level.
const BATCH: usize = 256;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

type Result<T> = core::result::Result<T, Errno>;

/// Removes what `name` is, and all that is in it; succeeds when there is nothing.
pub(super) fn tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    if unlink(parent, name)? {
        return Ok(());
    }
    let top = open(parent, name)?;
    let mut moved = Moved { top, count: 0 };
    let top = rustix::io::fcntl_dupfd_cloexec(&moved.top, 3)?;
    empty(&top, &mut moved, 0)?;
    drop((top, moved));
    remove_directory(parent, name)
}

/// Where directories go that are too deep.
struct Moved {
    top: OwnedFd,
    count: u64,
}

impl Moved {
    fn take(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        // Moving a directory takes the right to write it.
        drop(open(parent, name)?);
        loop {
            let place = format!(".podkit-{}", self.count);
            self.count += 1;
            match renameat_with(parent, name, &self.top, place, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
        }
    }
}

/// Removes everything in a directory.
fn empty(directory: &OwnedFd, moved: &mut Moved, depth: u32) -> Result<()> {
    loop {
        let names = some_entries(directory)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if unlink(directory.as_fd(), &name)? {
                continue;
            }
            if depth == MAX_DEPTH {
                moved.take(directory.as_fd(), &name)?;
                continue;
            }
            let below = open(directory.as_fd(), &name)?;
            empty(&below, moved, depth + 1)?;
            drop(below);
            remove_directory(directory.as_fd(), &name)?;
        }
    }
}

/// The first names in a directory.
fn some_entries(directory: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    seek(directory, SeekFrom::Start(0))?;
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(8192);
    let mut raw = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = raw.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}

/// Removes anything but a directory: `false` for one.
fn unlink(parent: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let directory = match openat(parent, name, DIRECTORY, Mode::empty()) {
        // The owner took its own rights away.
        Err(Errno::ACCESS) => {
            chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(parent, name, DIRECTORY, Mode::empty())?
        }
        other => other?,
    };
    let _ = fchmod(&directory, Mode::RWXU);
    Ok(directory)
}

fn remove_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
