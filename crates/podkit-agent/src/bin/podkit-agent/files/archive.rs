//! A tree as one stream: what cannot be read is left out and told of.

use alloc::vec::Vec;
use core::ffi::CStr;

use podkit_agent::{
    FailureKind, MAX_DATA_BYTES, Output,
    archive::{ARCHIVE_END, Member, MemberKind, padding},
};
use rustix::{
    fd::{BorrowedFd, OwnedFd},
    fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat},
    io::{Errno, read},
};

use super::{
    channel::{Answers, Stop},
    error::{failure, refused},
    place::split,
    walk::{DIRECTORY, Visitor, walk},
};

/// How files are opened: nothing blocks, nothing becomes a terminal, no link is followed.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Sends a file, or a directory with all below it; a link at the end of the path is followed.
pub(super) fn archive(path: &[u8], answers: &mut Answers<'_>) -> Result<(), Stop> {
    let failed = |errno| refused(path, errno);
    let follow = FILE.difference(OFlags::NOFOLLOW);
    let top = openat(CWD, path, follow, Mode::empty()).map_err(failed)?;
    let stat = fstat(&top).map_err(failed)?;
    let mut packer = Packer {
        out: Vec::with_capacity(MAX_DATA_BYTES),
        answers,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let top = openat(&top, c".", DIRECTORY, Mode::empty()).map_err(failed)?;
            walk(top, Vec::new(), &mut packer)?;
        }
        FileType::RegularFile => {
            let (_, name) = split(path);
            packer.file(name, &top, &stat)?;
        }
        _ => {
            let why = "it is neither a file nor a directory";
            return Err(failure(path, FailureKind::InvalidInput, 0, why).into());
        }
    }
    packer.push(&ARCHIVE_END)?;
    packer.flush()
}

struct Packer<'a, 'b> {
    /// What is to be sent: less than a frame holds.
    out: Vec<u8>,
    answers: &'a mut Answers<'b>,
}

impl Packer<'_, '_> {
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let room = MAX_DATA_BYTES - self.out.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.out.extend_from_slice(now);
            bytes = later;
            if self.out.len() == MAX_DATA_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut out = self.answers.data(core::mem::take(&mut self.out))?;
        out.clear();
        self.out = out;
        Ok(())
    }

    fn member(
        &mut self,
        path: &[u8],
        stat: &Stat,
        kind: MemberKind,
        target: Vec<u8>,
    ) -> Result<(), Stop> {
        let size = match kind {
            MemberKind::File => u64::try_from(stat.st_size).unwrap_or(0),
            _ => 0,
        };
        let mut header = Vec::new();
        Member {
            path: path.to_vec(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size,
            modified_s: stat.st_mtime,
            target,
        }
        .encode(&mut header);
        self.push(&header)
    }

    /// Sends a file with as many bytes as it had at first: what has gone meanwhile is zeros.
    fn file(&mut self, path: &[u8], file: &OwnedFd, stat: &Stat) -> Result<(), Stop> {
        self.member(path, stat, MemberKind::File, Vec::new())?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut left = size;
        while left > 0 {
            let begin = self.out.len();
            let want = usize::try_from(left).unwrap_or(usize::MAX);
            self.out.resize(begin + want.min(MAX_DATA_BYTES - begin), 0);
            let rest = self.out.get_mut(begin..).unwrap_or_default();
            let count = match read(file, rest) {
                Ok(0) => {
                    self.out.truncate(begin);
                    let why = "it became shorter while it was read";
                    self.answers.failure(
                        Output::Stderr,
                        failure(path, FailureKind::Unexpected, 0, why),
                    )?;
                    return self.zeros(left + padding(size));
                }
                Ok(count) => count,
                Err(Errno::INTR) => 0,
                Err(errno) => {
                    self.out.truncate(begin);
                    self.answers.failure(Output::Stderr, refused(path, errno))?;
                    return self.zeros(left + padding(size));
                }
            };
            self.out.truncate(begin + count);
            left = left.saturating_sub(count as u64);
            if self.out.len() == MAX_DATA_BYTES {
                self.flush()?;
            }
        }
        self.zeros(padding(size))
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), Stop> {
        let zeros = [0; 512];
        while count > 0 {
            let now = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(zeros.len());
            self.push(zeros.get(..now).unwrap_or_default())?;
            count -= now as u64;
        }
        Ok(())
    }

    fn try_entry(
        &mut self,
        path: &[u8],
        at: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> Result<Result<(), Errno>, Stop> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = match openat(at, name, FILE, Mode::empty()) {
                    Ok(file) => file,
                    Err(errno) => return Ok(Err(errno)),
                };
                // It may have become something else since.
                match fstat(&file) {
                    Ok(now) if FileType::from_raw_mode(now.st_mode) == FileType::RegularFile => {
                        self.file(path, &file, &now)?;
                    }
                    Ok(_) => return Ok(Err(Errno::AGAIN)),
                    Err(errno) => return Ok(Err(errno)),
                }
            }
            FileType::Symlink => match readlinkat(at, name, Vec::new()) {
                Ok(target) => {
                    self.member(path, stat, MemberKind::Symlink, target.into_bytes())?;
                }
                Err(errno) => return Ok(Err(errno)),
            },
            _ => {
                let why = "it is neither a file, a directory nor a link";
                self.answers.failure(
                    Output::Stderr,
                    failure(path, FailureKind::Unsupported, 0, why),
                )?;
            }
        }
        Ok(Ok(()))
    }
}

impl Visitor for Packer<'_, '_> {
    fn directory(&mut self, path: &[u8], _: BorrowedFd<'_>, stat: &Stat) -> Result<(), Stop> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        self.member(path, stat, MemberKind::Directory, Vec::new())
    }

    fn entry(
        &mut self,
        path: &[u8],
        at: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> Result<(), Stop> {
        match self.try_entry(path, at, name, stat)? {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => self.failed(path, errno),
        }
    }

    fn failed(&mut self, path: &[u8], errno: Errno) -> Result<(), Stop> {
        self.answers.failure(Output::Stderr, refused(path, errno))
    }
}
