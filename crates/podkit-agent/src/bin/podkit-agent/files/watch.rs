//! What happens to files, as the kernel tells of it.

use alloc::vec::Vec;
use core::{ffi::CStr, mem::MaybeUninit};

use podkit_agent::{FailureKind, FileChange, FileChangeKind, Output};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsRawFd, BorrowedFd, OwnedFd},
    fs::{
        CWD, Mode, Stat,
        inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
        openat,
    },
    io::Errno,
};

use super::{
    channel::{Answers, Stop},
    content::own_path,
    error::{failure, refused},
    place::open_directory,
    walk::{DIRECTORY, Visitor, push, walk},
};

/// Bytes of changes that are taken at once.
const BATCH_BYTES: usize = 16 * 1024;

/// Bytes of changes that are sent at once.
const SENT_BYTES: usize = 32 * 1024;

const WANTED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Sends changes until nobody listens any more, or the directory is gone.
pub(super) fn watch(
    path: &[u8],
    recursive: bool,
    to_parent: BorrowedFd<'_>,
    answers: &mut Answers<'_>,
) -> Result<(), Stop> {
    let failed = |errno| refused(path, errno);
    let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
    let mut watching = Watching {
        inotify: inotify::init(flags).map_err(failed)?,
        paths: Vec::new(),
        recursive,
        out: Vec::new(),
        found: None,
        answers,
    };
    // It is not kept open: the kernel tells of the end of nothing that somebody holds.
    watching.add(Vec::new(), open_directory(path)?)?;
    watching.tell(FileChangeKind::Watching, true, Vec::new())?;
    watching.send()?;
    while watching.wait(to_parent)? {
        if !watching.take(path)? {
            watching.tell(FileChangeKind::Removed, true, Vec::new())?;
            return watching.send();
        }
    }
    Err(Stop::CutOff)
}

struct Watching<'a, 'b> {
    inotify: OwnedFd,
    /// The directories that are watched, in the order of the kernel's numbers.
    paths: Vec<(i32, Vec<u8>)>,
    recursive: bool,
    out: Vec<u8>,
    /// The new directory that is looked through: what is in it is news.
    found: Option<Vec<u8>>,
    answers: &'a mut Answers<'b>,
}

impl Watching<'_, '_> {
    /// Watches a directory, and with all below it where that is wanted.
    fn add(&mut self, path: Vec<u8>, directory: OwnedFd) -> Result<(), Stop> {
        if self.recursive {
            return walk(directory, path, self);
        }
        self.watch_one(&path, &directory)
    }

    fn watch_one(&mut self, path: &[u8], directory: &impl AsRawFd) -> Result<(), Stop> {
        match inotify::add_watch(&self.inotify, own_path(directory), WANTED) {
            Ok(number) => {
                let path = path.to_vec();
                match self.find(number) {
                    // The same directory has the same number, wherever it is found.
                    Ok(at) => {
                        if let Some(known) = self.paths.get_mut(at) {
                            known.1 = path;
                        }
                    }
                    Err(at) => self.paths.insert(at, (number, path)),
                }
                Ok(())
            }
            Err(Errno::NOSPC) => {
                let why = "more directories are watched than the kernel allows \
                           (fs.inotify.max_user_watches)";
                Err(failure(path, FailureKind::LimitExceeded, 0, why).into())
            }
            // It has gone away since; or cannot be read, and then neither can what is in it.
            Err(Errno::NOENT | Errno::ACCESS) if !path.is_empty() => Ok(()),
            Err(errno) => Err(refused(path, errno).into()),
        }
    }

    /// Where a directory is in `paths`, or would be.
    fn find(&self, number: i32) -> Result<usize, usize> {
        self.paths
            .binary_search_by_key(&number, |(number, _)| *number)
    }

    /// Waits for changes; `false` when nobody listens any more.
    fn wait(&self, to_parent: BorrowedFd<'_>) -> Result<bool, Stop> {
        loop {
            let mut fds = [
                PollFd::new(&self.inotify, PollFlags::IN),
                PollFd::from_borrowed_fd(to_parent, PollFlags::empty()),
            ];
            match poll(&mut fds, None) {
                Ok(_) if !fds[1].revents().is_empty() => return Ok(false),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(refused(b"", errno).into()),
            }
        }
    }

    /// Tells of what has happened; `false` when the first directory is gone.
    fn take(&mut self, top: &[u8]) -> Result<bool, Stop> {
        let mut events = Vec::new();
        let mut buffer = [const { MaybeUninit::uninit() }; BATCH_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map_or(&b""[..], CStr::to_bytes);
                    events.push((event.wd(), event.events(), name.to_vec()));
                }
                Err(Errno::INTR) => continue,
                Err(_) => break,
            }
            if reader.is_buffer_empty() {
                break;
            }
        }
        for (number, events, name) in events {
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.tell(FileChangeKind::Missed, false, Vec::new())?;
                continue;
            }
            let at = self.find(number).unwrap_or(usize::MAX);
            let Some((_, path)) = self.paths.get(at) else {
                continue;
            };
            let mut path = path.clone();
            let gone = events.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF);
            if gone && path.is_empty() {
                return Ok(false);
            }
            if events.contains(ReadFlags::IGNORED) {
                self.paths.remove(at);
                continue;
            }
            if gone {
                continue;
            }
            let about_itself = name.is_empty();
            if !about_itself {
                push(&mut path, &name);
            } else if !path.is_empty() {
                // The directory above tells of it too.
                continue;
            }
            let directory = about_itself || events.contains(ReadFlags::ISDIR);
            self.happened(top, events, directory, path)?;
        }
        self.send()?;
        Ok(true)
    }

    fn happened(
        &mut self,
        top: &[u8],
        events: ReadFlags,
        directory: bool,
        path: Vec<u8>,
    ) -> Result<(), Stop> {
        let kinds = [
            (ReadFlags::CREATE, FileChangeKind::Created),
            (ReadFlags::MODIFY, FileChangeKind::Modified),
            (ReadFlags::ATTRIB, FileChangeKind::Attributes),
            (ReadFlags::DELETE, FileChangeKind::Removed),
            (ReadFlags::MOVED_FROM, FileChangeKind::MovedFrom),
            (ReadFlags::MOVED_TO, FileChangeKind::MovedTo),
        ];
        for (flag, kind) in kinds {
            if events.contains(flag) {
                self.tell(kind, directory, path.clone())?;
            }
        }
        if !self.recursive || !directory {
            return Ok(());
        }
        if events.contains(ReadFlags::MOVED_FROM) {
            self.forget(&path);
        }
        if events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO)
            // What has gone again is no failure.
            && let Ok(fd) = openat(CWD, [top, b"/", &path].concat(), DIRECTORY, Mode::empty())
        {
            self.found = events.contains(ReadFlags::CREATE).then(|| path.clone());
            let added = self.add(path, fd);
            self.found = None;
            added?;
        }
        Ok(())
    }

    /// Watches a directory, and what is below it, no more.
    fn forget(&mut self, path: &[u8]) {
        let below = |other: &[u8]| {
            other
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let inotify = &self.inotify;
        self.paths.retain(|(number, other)| {
            let stays = !below(other);
            if !stays {
                // The kernel has dropped it already, at worst.
                let _ = inotify::remove_watch(inotify, *number);
            }
            stays
        });
    }

    fn tell(&mut self, kind: FileChangeKind, directory: bool, path: Vec<u8>) -> Result<(), Stop> {
        FileChange {
            kind,
            directory,
            path,
        }
        .encode(&mut self.out);
        if self.out.len() >= SENT_BYTES {
            return self.send();
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Stop> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.answers
            .data_of(Output::Stdout, core::mem::take(&mut self.out))?;
        self.answers.flush()
    }
}

impl Visitor for Watching<'_, '_> {
    fn directory(&mut self, path: &[u8], fd: BorrowedFd<'_>, _: &Stat) -> Result<(), Stop> {
        self.watch_one(path, &fd)?;
        if self.found.as_ref().is_some_and(|found| found != path) {
            self.tell(FileChangeKind::Created, true, path.to_vec())?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], _: BorrowedFd<'_>, _: &CStr, _: &Stat) -> Result<(), Stop> {
        if self.found.is_some() {
            self.tell(FileChangeKind::Created, false, path.to_vec())?;
        }
        Ok(())
    }

    /// What cannot be read cannot be watched.
    fn failed(&mut self, _: &[u8], _: Errno) -> Result<(), Stop> {
        Ok(())
    }
}
