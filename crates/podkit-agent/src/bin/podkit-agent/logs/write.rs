//! Writes what a process says to its log, for as long as somebody can say something.

use alloc::{vec, vec::Vec};

use podkit_agent::{Failure, Output, Reply};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, Dir, Mode, OFlags, fstat, mkdirat, openat, renameat, statat, unlinkat},
    io::{Errno, read, write},
    process::geteuid,
};

use super::{CHUNK, DIRECTORIES, PARTS, Part, Record, become_owner, name};
use crate::{agent::clocks::unix_ms, files, sys::container::exit_group};

/// Bits of the log's files.
const FILE_MODE: u32 = 0o644;

/// Bits of a directory that is made for logs.
const DIRECTORY_MODE: u32 = 0o755;

/// Bits of a directory in which others than its owner may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What a logger needs.
pub(crate) struct Job<'a> {
    pub(crate) id: &'a [u8],
    /// Absolute; empty for one that the agent chooses.
    pub(crate) directory: &'a [u8],
    /// A name of this life of the container's, for the directory that the agent chooses.
    pub(crate) life: &'a [u8],
    pub(crate) limit_bytes: u64,
    /// Whose rights it has; the agent's own without.
    pub(crate) user: Option<&'a [u8]>,
    /// What the process writes.
    pub(crate) pipes: [Option<BorrowedFd<'a>>; 2],
    /// Says that it is ready, and where the log is.
    pub(crate) to_parent: BorrowedFd<'a>,
}

/// Opens the log, says so, and writes it until nobody has the pipes open any more.
pub(crate) fn serve(job: &Job<'_>) -> ! {
    let mut frames = Vec::new();
    let opened = open(job);
    match &opened {
        Ok((_, directory)) => {
            Reply::encode_data(0, Output::Stdout, directory, &mut frames);
            Reply::Done.encode(0, &mut frames);
        }
        Err(failure) => Reply::Failed(failure.clone()).encode(0, &mut frames),
    }
    let _ = files::write_all(job.to_parent, &frames);
    if let Ok((mut log, _)) = opened {
        log.keep(job.pipes);
    }
    exit_group(0)
}

fn open<'a>(job: &Job<'a>) -> Result<(Log<'a>, Vec<u8>), Failure> {
    become_owner(job.user)?;
    let (directory, path) = if job.directory.is_empty() {
        choose(job.life)?
    } else {
        files::make_directories(job.directory)?;
        let directory = files::open_directory(job.directory)?;
        (directory, job.directory.to_vec())
    };
    let mut log = Log {
        id: job.id,
        limit_bytes: job.limit_bytes,
        directory,
        files: None,
        bytes: 0,
    };
    log.begin().map_err(|errno| files::refused(&path, errno))?;
    Ok((log, path))
}

/// A directory of this life in the first place that can be had, and that nobody but the agent's user
/// has a hand in.
fn choose(life: &[u8]) -> Result<(OwnedFd, Vec<u8>), Failure> {
    let mut worst = files::refused(DIRECTORIES[0], Errno::NOENT);
    for path in DIRECTORIES {
        match own_directory(path).and_then(|place| of_life(&place, path, life)) {
            Ok(directory) => return Ok((directory, [path, b"/", life].concat())),
            Err(errno) => worst = files::refused(path, errno),
        }
    }
    Err(worst)
}

/// The directory of this life. Whoever makes it removes those of earlier ones: logs last as long as
/// the processes that they are of can be asked for.
fn of_life(place: &OwnedFd, path: &[u8], life: &[u8]) -> Result<OwnedFd, Errno> {
    match mkdirat(place, life, Mode::from_raw_mode(DIRECTORY_MODE)) {
        Ok(()) => {
            for entry in Dir::read_from(place)?.filter_map(Result::ok) {
                let name = entry.file_name().to_bytes();
                if name != life && !matches!(name, b"." | b"..") {
                    // What cannot be removed is no reason to have no log.
                    let _ = files::remove(&[path, b"/", name].concat(), true);
                }
            }
        }
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(place, life, flags, Mode::empty())
}

fn own_directory(path: &[u8]) -> Result<OwnedFd, Errno> {
    let parent = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    // Of the ones above only the last may be missing.
    let _ = mkdirat(
        CWD,
        path.get(..parent).unwrap_or_default(),
        Mode::from_raw_mode(DIRECTORY_MODE),
    );
    match mkdirat(CWD, path, Mode::from_raw_mode(DIRECTORY_MODE)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty())?;
    let stat = fstat(&directory)?;
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Errno::PERM);
    }
    Ok(directory)
}

struct Log<'a> {
    id: &'a [u8],
    limit_bytes: u64,
    directory: OwnedFd,
    files: Option<[OwnedFd; 3]>,
    /// Bytes of all files.
    bytes: u64,
}

impl Log<'_> {
    /// Begins new files; the index last.
    fn begin(&mut self) -> Result<(), Errno> {
        self.files = None;
        self.bytes = 0;
        let open = |part: Part| {
            let name = name(self.id, part, false);
            // Something else of that name is not written to.
            let _ = unlinkat(&self.directory, &name, AtFlags::empty());
            let flags = OFlags::WRONLY
                | OFlags::APPEND
                | OFlags::CREATE
                | OFlags::EXCL
                | OFlags::NOFOLLOW
                | OFlags::CLOEXEC;
            openat(
                &self.directory,
                &name,
                flags,
                Mode::from_raw_mode(FILE_MODE),
            )
        };
        self.files = Some([open(Part::Stdout)?, open(Part::Stderr)?, open(Part::Index)?]);
        Ok(())
    }

    /// Puts the files aside, the index first, and begins new ones.
    fn rotate(&mut self) -> Result<(), Errno> {
        for part in [Part::Index, Part::Stdout, Part::Stderr] {
            let (from, to) = (name(self.id, part, false), name(self.id, part, true));
            match renameat(&self.directory, &from, &self.directory, &to) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.begin()
    }

    /// Writes until all pipes have ended. What cannot be written is dropped, so that a full disk
    /// does not hold the process up.
    fn keep(&mut self, mut pipes: [Option<BorrowedFd<'_>>; 2]) {
        let mut buffer = vec![0; CHUNK];
        while pipes.iter().any(Option::is_some) {
            let mut fds: Vec<PollFd<'_>> = pipes
                .iter()
                .flatten()
                .map(|pipe| PollFd::from_borrowed_fd(*pipe, PollFlags::IN))
                .collect();
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            let mut ready = ready.into_iter();
            for (slot, output) in pipes.iter_mut().zip([Output::Stdout, Output::Stderr]) {
                let Some(pipe) = slot else {
                    continue;
                };
                if ready.next() != Some(true) {
                    continue;
                }
                match read(*pipe, &mut *buffer) {
                    Ok(0) => *slot = None,
                    Ok(count) => self.add(output, buffer.get(..count).unwrap_or_default()),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(_) => *slot = None,
                }
            }
        }
    }

    fn add(&mut self, output: Output, bytes: &[u8]) {
        if self.bytes >= self.limit_bytes || self.files.is_none() {
            // When new files cannot be had, the next bytes are another try.
            if self.rotate().is_err() {
                return;
            }
        }
        let Some([stdout, stderr, index]) = &self.files else {
            return;
        };
        let file = match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        };
        let written = write_most(file.as_fd(), bytes);
        let Ok(count) = u32::try_from(written) else {
            return;
        };
        if count == 0 {
            return;
        }
        let record = Record {
            unix_ms: unix_ms(),
            output,
            count,
        };
        if files::write_all(index.as_fd(), &record.encode()).is_err() {
            // The files do not fit together any more.
            self.bytes = self.limit_bytes;
            return;
        }
        self.bytes += written as u64 + super::RECORD as u64;
    }
}

/// Writes as much as can be.
fn write_most(file: BorrowedFd<'_>, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match write(file, rest) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    written
}

/// Removes the files of a log; what is not there is gone already.
pub(crate) fn remove(directory: &[u8], id: &[u8], user: Option<&[u8]>) -> Result<(), Failure> {
    become_owner(user)?;
    let Ok(directory) = files::open_directory(directory) else {
        return Ok(());
    };
    for part in PARTS {
        for old in [false, true] {
            let name = name(id, part, old);
            if statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                let removed = unlinkat(&directory, &name, AtFlags::empty());
                removed.map_err(|errno| files::refused(name.to_bytes(), errno))?;
            }
        }
    }
    Ok(())
}
