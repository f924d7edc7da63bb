//! Clients that wait on sockets of the host's: the agent dials out to them.
//!
//! They are in a directory that this container sees read-only, so that nothing inside can put
//! something else in their place.

use alloc::{ffi::CString, vec::Vec};
use core::mem::MaybeUninit;

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Dir, Mode, OFlags, inotify, openat},
    io::{Errno, Result},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

use super::{Agent, poll::Source, poll::Wants};
use crate::sys::serve;

/// Bytes of events that are read at once.
const EVENTS: usize = 4096;

/// Most names that are remembered.
const MOST_NAMES: usize = 4096;

/// The directory of the clients' sockets, and what tells of new ones.
pub(crate) struct Dial {
    path: Vec<u8>,
    directory: OwnedFd,
    news: News,
}

/// What tells of new sockets.
enum News {
    /// Their names, one by one.
    Names(OwnedFd),
    /// A signal that says no more than that there may be some; these were there at the last look.
    /// A user may have few descriptors that tell names, 128 in all of its containers, but any number
    /// of these.
    Signal(Vec<CString>),
}

impl News {
    fn of(directory: &OwnedFd, path: &[u8]) -> Result<Self> {
        match Self::names(path) {
            Err(Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::NOMEM) => {
                serve::notify_of_names(directory.as_fd())?;
                Ok(Self::Signal(Vec::new()))
            }
            news => news,
        }
    }

    fn names(path: &[u8]) -> Result<Self> {
        let news = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let watch = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&news, path, watch)?;
        Ok(Self::Names(news))
    }
}

impl Dial {
    /// Watches a directory.
    pub(super) fn new(path: &[u8]) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty())?;
        let news = News::of(&directory, path)?;
        Ok(Self {
            path: path.to_vec(),
            directory,
            news,
        })
    }

    /// Names that have appeared; all that are there when some may have been missed.
    fn new_names(&mut self) -> Vec<CString> {
        match &mut self.news {
            News::Names(news) => told(news, &self.directory),
            News::Signal(seen) => {
                let now = names_in(&self.directory);
                let new = now.iter().filter(|name| !seen.contains(name));
                let new = new.cloned().collect();
                *seen = now;
                new
            }
        }
    }

    /// Connects to one that waits outside of this container.
    fn call(&self, name: &CString) -> Result<OwnedFd> {
        let path = [self.path.as_slice(), b"/", name.as_bytes()].concat();
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)?;
        match serve::peer(socket.as_fd()) {
            Ok(peer) if peer.pid == 0 => Ok(socket),
            _ => Err(Errno::PERM),
        }
    }
}

/// Names that the kernel tells; all that are there when some may have been missed.
fn told(news: &OwnedFd, directory: &OwnedFd) -> Vec<CString> {
    let mut names = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); EVENTS];
    let mut reader = inotify::Reader::new(news.as_fd(), &mut buffer);
    loop {
        match reader.next() {
            Ok(event) if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) => {
                return names_in(directory);
            }
            Ok(event) => names.extend(
                event
                    .file_name()
                    .filter(|name| is_ready(name))
                    .map(CString::from),
            ),
            Err(Errno::INTR) => {}
            Err(_) => return names,
        }
    }
}

/// Names of what is there; those that begin with a dot are not ready yet.
fn names_in(directory: &OwnedFd) -> Vec<CString> {
    let Ok(entries) = Dir::read_from(directory) else {
        return Vec::new();
    };
    let entries = entries.filter_map(core::result::Result::ok);
    entries
        .map(|entry| CString::from(entry.file_name()))
        .filter(|name| is_ready(name))
        .take(MOST_NAMES)
        .collect()
}

fn is_ready(name: &core::ffi::CStr) -> bool {
    !name.to_bytes().starts_with(b".")
}

impl Agent {
    /// Begins to look for clients, and finds those that wait already.
    pub(super) fn start_dialling(&mut self) {
        let Some(dial) = &mut self.config.dial else {
            return;
        };
        if let News::Names(news) = &dial.news
            && self.poll.add(news, Source::Dial, Wants::Read).is_err()
        {
            self.config.dial = None;
            return;
        }
        let names = names_in(&dial.directory);
        if let News::Signal(seen) = &mut dial.news {
            seen.clone_from(&names);
        }
        for name in names {
            self.dial_out(&name);
        }
    }

    /// Clients have appeared.
    pub(super) fn hear_of_clients(&mut self) {
        let names = self.config.dial.as_mut().map(Dial::new_names);
        for name in names.unwrap_or_default() {
            self.dial_out(&name);
        }
    }

    /// Connects to a client; one that does not wait any more is none.
    fn dial_out(&mut self, name: &CString) {
        let called = self.config.dial.as_ref().map(|dial| dial.call(name));
        if let Some(Ok(socket)) = called {
            self.let_in(socket, 0);
        }
    }
}
