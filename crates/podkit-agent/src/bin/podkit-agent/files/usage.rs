//! What a tree takes on the disk.

use alloc::vec::Vec;
use core::ffi::CStr;

use podkit_agent::{FileUsage, Output};
use rustix::{
    fd::BorrowedFd,
    fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat},
    io::Errno,
};

use super::{
    channel::{Answers, Stop},
    error::refused,
    walk::{DIRECTORY, Visitor, walk},
};

/// Bytes of the blocks that the kernel counts in.
const COUNTED_BYTES: u64 = 512;

/// Sends what a file, or a directory with all below it, takes.
pub(super) fn usage(path: &[u8], answers: &mut Answers<'_>) -> Result<(), Stop> {
    let failed = |errno| refused(path, errno);
    let mut count = Count(FileUsage::default());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
    let stat = fstat(&top).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let top = openat(&top, c".", DIRECTORY, Mode::empty()).map_err(failed)?;
        walk(top, Vec::new(), &mut count)?;
    } else {
        count.add(&stat);
    }
    let mut frame = Vec::new();
    count.0.encode(&mut frame);
    answers.data_of(Output::Stdout, frame)
}

struct Count(FileUsage);

impl Count {
    /// A file of several names counts for each of them with its part.
    fn add(&mut self, stat: &Stat) {
        let number = |value| u64::try_from(value).unwrap_or(0);
        let names = stat.st_nlink.max(1);
        let usage = &mut self.0;
        let disk = number(stat.st_blocks).saturating_mul(COUNTED_BYTES) / names;
        usage.files += 1;
        usage.disk_bytes = usage.disk_bytes.saturating_add(disk);
        // A few files of nothing but a hole are more than a number holds.
        let size = number(stat.st_size) / names;
        usage.size_bytes = usage.size_bytes.saturating_add(size);
    }
}

impl Visitor for Count {
    fn directory(&mut self, _: &[u8], _: BorrowedFd<'_>, stat: &Stat) -> Result<(), Stop> {
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        self.0.directories += 1;
        self.0.disk_bytes += blocks.saturating_mul(COUNTED_BYTES);
        Ok(())
    }

    fn entry(&mut self, _: &[u8], _: BorrowedFd<'_>, _: &CStr, stat: &Stat) -> Result<(), Stop> {
        self.add(stat);
        Ok(())
    }

    fn failed(&mut self, _: &[u8], _: Errno) -> Result<(), Stop> {
        self.0.unread += 1;
        Ok(())
    }
}
