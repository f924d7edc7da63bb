//! What the container's own program writes.

use alloc::vec::Vec;

use podkit_agent::Output;
use rustix::{
    fd::OwnedFd,
    fs::{fstat, ftruncate},
    io::{Errno, ioctl_fionbio, pread, pwrite, write},
};

use super::{
    Agent,
    poll::{Source, Wants},
};

/// Where it goes.
#[derive(Default)]
pub(crate) enum Written {
    /// Nowhere.
    #[default]
    Dropped,
    /// Into a file of the engine's, of which the end is kept.
    File(OwnedFd),
    /// To whoever reads this, as fast as it is read.
    Stream(OwnedFd),
}

/// Where it goes, and how far that is.
pub(super) enum Log {
    Dropped,
    File(Kept),
    Stream(Stream),
}

/// What is written on to somebody who may not read for a while.
pub(super) struct Stream {
    fd: OwnedFd,
    waiting: Vec<u8>,
}

/// Bytes of the log; beyond it the older half is dropped.
const MOST: u64 = 1024 * 1024;

/// Bytes of it that stay then.
const KEPT: u64 = MOST / 2;

/// The last 512 KiB to 1 MiB in a file.
pub(super) struct Kept {
    file: OwnedFd,
    length: u64,
}

impl Kept {
    /// Goes on after what earlier lives of the container have written.
    fn new(file: OwnedFd) -> Self {
        let length = fstat(&file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        Self { file, length }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.length + bytes.len() as u64 > MOST {
            self.drop_older_half();
        }
        // A full disk costs the log, never the program.
        if let Ok(count) = pwrite(&self.file, bytes, self.length) {
            self.length += count as u64;
        }
    }

    fn drop_older_half(&mut self) {
        let from = self.length.saturating_sub(KEPT);
        let mut buffer = alloc::vec![0_u8; 64 * 1024];
        let mut moved = 0;
        while from + moved < self.length {
            let count = match pread(&self.file, buffer.as_mut_slice(), from + moved) {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            if pwrite(&self.file, bytes, moved) != Ok(count) {
                break;
            }
            moved += count as u64;
        }
        let _ = ftruncate(&self.file, moved);
        self.length = moved;
    }
}

impl Log {
    pub(super) fn new(written: Written) -> Self {
        match written {
            Written::Dropped => Self::Dropped,
            Written::File(file) => Self::File(Kept::new(file)),
            Written::Stream(fd) => match ioctl_fionbio(&fd, true) {
                Ok(()) => Self::Stream(Stream {
                    fd,
                    waiting: Vec::new(),
                }),
                // What may block is not written to.
                Err(_) => Self::Dropped,
            },
        }
    }

    /// Whether it takes more.
    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Dropped | Self::File(_) => true,
            Self::Stream(stream) => stream.waiting.is_empty(),
        }
    }
}

impl Stream {
    /// Writes what waits: whether that is still worth it.
    fn flush(&mut self) -> bool {
        let mut sent = 0;
        let alive = loop {
            let rest = self.waiting.get(sent..).unwrap_or_default();
            if rest.is_empty() {
                break true;
            }
            match write(&self.fd, rest) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break true,
                Err(_) => break false,
            }
        };
        self.waiting.drain(..sent);
        alive
    }
}

impl Agent {
    /// Takes what the container's own program has written.
    pub(super) fn log(&mut self, bytes: &[u8]) {
        match &mut self.log {
            Log::Dropped => {}
            Log::File(file) => file.write(bytes),
            Log::Stream(stream) => {
                stream.waiting.extend_from_slice(bytes);
                let alive = stream.flush();
                if !alive {
                    self.log = Log::Dropped;
                } else if !stream.waiting.is_empty() {
                    // A file always takes all, and cannot be waited for.
                    let waited = self.poll.add(&stream.fd, Source::Log, Wants::Write);
                    if waited.is_err() {
                        self.log = Log::Dropped;
                    }
                }
            }
        }
    }

    /// Somebody reads again.
    pub(super) fn go_on_logging(&mut self) {
        let Log::Stream(stream) = &mut self.log else {
            return;
        };
        let alive = stream.flush();
        if alive && !stream.waiting.is_empty() {
            return;
        }
        self.poll.remove(&stream.fd);
        if !alive {
            self.log = Log::Dropped;
        }
        if let Some(main) = self.main {
            self.relay(main, Output::Stdout);
        }
    }

    /// Writes what waits, at most until `until`.
    pub(super) fn end_log(&mut self, until: u64) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        while let Log::Stream(stream) = &mut self.log {
            let left = until.saturating_sub(super::clocks::now_ms());
            if !stream.flush() || stream.waiting.is_empty() || left == 0 {
                return;
            }
            let mut fds = [PollFd::new(&stream.fd, PollFlags::OUT)];
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: i64::try_from(left.min(100) * 1_000_000).unwrap_or(0),
            };
            let _ = poll(&mut fds, Some(&timeout));
        }
    }
}
