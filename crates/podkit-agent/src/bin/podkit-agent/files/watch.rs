//! What happens to files, as the kernel tells of it.

use alloc::vec::Vec;
use core::{ffi::CStr, mem::MaybeUninit};

use podkit_agent::{FailureKind, FileChange, FileChangeKind, Output};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{
        CWD, Mode, OFlags, Stat, Timespec,
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

/// How long a directory that went away is waited for at its new place.
const MOVING_NS: i64 = 10_000_000;

/// Bytes of a path that the kernel takes at once.
const PATH_BYTES: usize = 4000;

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
    let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
    let mut watching = Watching {
        inotify: inotify::init(flags).map_err(|errno| match errno {
            Errno::MFILE => {
                let why = "more watches are open than the kernel allows one user \
                           (fs.inotify.max_user_instances)";
                failure(path, FailureKind::LimitExceeded, 0, why)
            }
            errno => refused(path, errno),
        })?,
        watched: Vec::new(),
        top: path,
        recursive,
        out: Vec::new(),
        found: None,
        is_news: false,
        answers,
    };
    // It is not kept open: the kernel tells of the end of nothing that somebody holds.
    watching.add(Vec::new(), open_directory(path)?)?;
    let top = watching.watched.first().map_or(-1, |top| top.number);
    watching.tell(FileChangeKind::Watching, true, Vec::new())?;
    watching.send()?;
    while watching.wait(to_parent)? {
        if !watching.take(top)? {
            watching.tell(FileChangeKind::Removed, true, Vec::new())?;
            return watching.send();
        }
    }
    Err(Stop::CutOff)
}

/// A directory that is watched.
struct Watched {
    /// The kernel's number.
    number: i32,
    path: Vec<u8>,
    /// The kernel's number of the renaming that it went away by, until it is known where to.
    left: Option<u32>,
}

/// What the kernel tells.
struct Happened {
    number: i32,
    events: ReadFlags,
    cookie: u32,
    name: Vec<u8>,
}

struct Watching<'a, 'b> {
    inotify: OwnedFd,
    /// In the order of their numbers.
    watched: Vec<Watched>,
    /// Path of the first directory.
    top: &'a [u8],
    recursive: bool,
    out: Vec<u8>,
    /// The directory that is looked through because it has come: what is in it is news.
    found: Option<Vec<u8>>,
    /// Whether what is in the directory that is looked at was not known.
    is_news: bool,
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
                let found = self.find(number);
                self.is_news = found.is_err();
                let path = path.to_vec();
                let left = None;
                let watched = Watched { number, path, left };
                match found {
                    // The same directory has the same number, wherever it is found.
                    Ok(at) => {
                        if let Some(known) = self.watched.get_mut(at) {
                            *known = watched;
                        }
                    }
                    Err(at) => self.watched.insert(at, watched),
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

    /// Where a directory is in `watched`, or would be.
    fn find(&self, number: i32) -> Result<usize, usize> {
        self.watched
            .binary_search_by_key(&number, |watched| watched.number)
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

    /// Tells of what has happened; `false` when the first directory, of that number, is gone.
    fn take(&mut self, top: i32) -> Result<bool, Stop> {
        let mut events = Vec::new();
        self.read(&mut events);
        // Where something went comes right after that it went away.
        if let Some(last) = events.last()
            && last.events.contains(ReadFlags::MOVED_FROM)
            && self.has_more()
        {
            self.read(&mut events);
        }
        for event in events {
            let Happened { number, events, .. } = event;
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.tell(FileChangeKind::Missed, false, Vec::new())?;
                if !self.look_again(top)? {
                    return Ok(false);
                }
                continue;
            }
            let at = self.find(number).unwrap_or(usize::MAX);
            let Some(watched) = self.watched.get(at) else {
                continue;
            };
            let mut path = watched.path.clone();
            let left = watched.left.is_some();
            let gone = events.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF);
            if gone && number == top {
                return Ok(false);
            }
            if events.contains(ReadFlags::IGNORED) {
                self.watched.remove(at);
                continue;
            }
            if gone || left {
                continue;
            }
            let about_itself = event.name.is_empty();
            if !about_itself {
                push(&mut path, &event.name);
            } else if !path.is_empty() {
                // The directory above tells of it too.
                continue;
            }
            let directory = about_itself || events.contains(ReadFlags::ISDIR);
            self.happened(events, event.cookie, directory, path)?;
        }
        self.forget();
        self.send()?;
        Ok(true)
    }

    /// Reads what the kernel has to tell.
    fn read(&self, into: &mut Vec<Happened>) {
        let mut buffer = [const { MaybeUninit::uninit() }; BATCH_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => into.push(Happened {
                    number: event.wd(),
                    events: event.events(),
                    cookie: event.cookie(),
                    name: event.file_name().map_or(&b""[..], CStr::to_bytes).to_vec(),
                }),
                Err(Errno::INTR) => continue,
                Err(_) => return,
            }
            if reader.is_buffer_empty() {
                return;
            }
        }
    }

    /// Whether the kernel has more to tell at once.
    fn has_more(&self) -> bool {
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
        let limit = Timespec {
            tv_sec: 0,
            tv_nsec: MOVING_NS,
        };
        poll(&mut fds, Some(&limit)).is_ok_and(|count| count > 0)
    }

    /// Watches what there is now, after changes have been missed; `false` when the first directory is
    /// gone.
    fn look_again(&mut self, top: i32) -> Result<bool, Stop> {
        for watched in &mut self.watched {
            watched.left = Some(0);
        }
        let Ok(fd) = openat(
            CWD,
            self.top,
            DIRECTORY.difference(OFlags::NOFOLLOW),
            Mode::empty(),
        ) else {
            return Ok(false);
        };
        self.add(Vec::new(), fd)?;
        let first = self.find(top).ok().and_then(|at| self.watched.get(at));
        Ok(first.is_some_and(|first| first.left.is_none()))
    }

    fn happened(
        &mut self,
        events: ReadFlags,
        cookie: u32,
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
            self.leave(&path, cookie);
        }
        if events.contains(ReadFlags::MOVED_TO) {
            self.arrive(&path, cookie);
        }
        if events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO)
            // What has gone again is no failure.
            && let Ok(fd) = open_below(&[self.top, b"/", &path].concat())
        {
            self.found = Some(path.clone());
            let added = self.add(path, fd);
            self.found = None;
            added?;
        }
        Ok(())
    }

    /// Remembers that a directory, with what is below it, went away by a renaming.
    fn leave(&mut self, path: &[u8], cookie: u32) {
        for watched in &mut self.watched {
            if watched.left.is_none() && below(&watched.path, path).is_some() {
                watched.left = Some(cookie);
                // From here on from there.
                watched.path.drain(..path.len());
            }
        }
    }

    /// Gives what went away by that renaming its path.
    fn arrive(&mut self, path: &[u8], cookie: u32) {
        for watched in &mut self.watched {
            if watched.left == Some(cookie) {
                watched.left = None;
                watched.path.splice(..0, path.iter().copied());
            }
        }
    }

    /// Watches what has left no more.
    fn forget(&mut self) {
        let inotify = &self.inotify;
        self.watched.retain(|watched| {
            let stays = watched.left.is_none();
            if !stays {
                // The kernel has dropped it already, at worst.
                let _ = inotify::remove_watch(inotify, watched.number);
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
        self.is_news = false;
        self.watch_one(path, &fd)?;
        self.is_news &= self.found.is_some();
        if self.is_news && self.found.as_ref().is_some_and(|found| found != path) {
            self.tell(FileChangeKind::Created, true, path.to_vec())?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], _: BorrowedFd<'_>, _: &CStr, _: &Stat) -> Result<(), Stop> {
        if self.is_news {
            self.tell(FileChangeKind::Created, false, path.to_vec())?;
        }
        Ok(())
    }

    /// What cannot be read cannot be watched.
    fn failed(&mut self, _: &[u8], _: Errno) -> Result<(), Stop> {
        Ok(())
    }
}

/// What of a path is below another, itself too.
fn below<'p>(path: &'p [u8], above: &[u8]) -> Option<&'p [u8]> {
    let rest = path.strip_prefix(above)?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

/// Opens a directory, however long its path is.
fn open_below(mut path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut at = None;
    loop {
        let from = at.as_ref().map_or(CWD, AsFd::as_fd);
        if path.len() <= PATH_BYTES {
            return openat(from, path, DIRECTORY, Mode::empty());
        }
        let first = path.get(..PATH_BYTES).unwrap_or_default();
        let end = first.iter().rposition(|byte| *byte == b'/');
        let (first, rest) = path.split_at(end.unwrap_or(0) + 1);
        at = Some(openat(from, first, DIRECTORY, Mode::empty())?);
        path = rest;
    }
}
