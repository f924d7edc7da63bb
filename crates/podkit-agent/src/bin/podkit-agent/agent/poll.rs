//! What the agent waits for.

use alloc::vec::Vec;

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    fd::{AsFd, OwnedFd},
    io::{Errno, Result},
};

/// Events that are taken at once.
const EVENTS: usize = 64;

/// Longest wait; more than the kernel can count would be an error.
const LONGEST_MS: u64 = 24 * 3600 * 1000;

/// What an event is about, with the number of what it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Listener,
    Signals,
    Connection(u32),
    Stdin(u32),
    Stdout(u32),
    Stderr(u32),
    Report(u32),
    Supervisor(u32),
    FromFile(u32),
    ToFile(u32),
    Dial,
    Log,
    Logger(u32),
    Port(u32),
}

impl Source {
    fn encode(self) -> u64 {
        let (tag, id) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Connection(id) => (2, id),
            Self::Stdin(id) => (3, id),
            Self::Stdout(id) => (4, id),
            Self::Stderr(id) => (5, id),
            Self::Report(id) => (6, id),
            Self::Supervisor(id) => (7, id),
            Self::FromFile(id) => (8, id),
            Self::ToFile(id) => (9, id),
            Self::Dial => (10, 0),
            Self::Log => (11, 0),
            Self::Logger(id) => (12, id),
            Self::Port(place) => (13, place),
        };
        tag << 32 | u64::from(id)
    }

    fn decode(data: u64) -> Option<Self> {
        let id = u32::try_from(data & u64::from(u32::MAX)).ok()?;
        Some(match data >> 32 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Connection(id),
            3 => Self::Stdin(id),
            4 => Self::Stdout(id),
            5 => Self::Stderr(id),
            6 => Self::Report(id),
            7 => Self::Supervisor(id),
            8 => Self::FromFile(id),
            9 => Self::ToFile(id),
            10 => Self::Dial,
            11 => Self::Log,
            12 => Self::Logger(id),
            13 => Self::Port(id),
            _ => return None,
        })
    }
}

/// What of a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    Read,
    Write,
    Both,
    /// Only that the other side is gone.
    End,
}

/// What of a descriptor is ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) read: bool,
    pub(super) write: bool,
    /// Whether the other side is gone.
    pub(super) ended: bool,
}

/// The kernel's list of what is waited for. A descriptor that is not wanted for a time is taken off
/// it, since its end would be told again and again otherwise.
pub(super) struct Poll(OwnedFd);

impl Poll {
    pub(super) fn new() -> Result<Self> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(Self)
    }

    pub(super) fn add(&self, fd: impl AsFd, source: Source, wants: Wants) -> Result<()> {
        let data = epoll::EventData::new_u64(source.encode());
        epoll::add(&self.0, fd, data, flags(wants))
    }

    pub(super) fn change(&self, fd: impl AsFd, source: Source, wants: Wants) -> Result<()> {
        let data = epoll::EventData::new_u64(source.encode());
        epoll::modify(&self.0, fd, data, flags(wants))
    }

    pub(super) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.0, fd);
    }

    /// Waits for events, at most so many milliseconds.
    pub(super) fn wait(&self, timeout_ms: Option<u64>) -> Vec<(Source, Ready)> {
        let timeout = timeout_ms.map(|ms| ms.min(LONGEST_MS)).map(|ms| Timespec {
            tv_sec: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
        });
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.0, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Vec::new(),
        }
        let ended = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        let told = events.iter().filter_map(|event: &epoll::Event| {
            let (data, flags) = (event.data, event.flags);
            let ready = Ready {
                read: flags.intersects(epoll::EventFlags::IN | ended),
                write: flags.intersects(epoll::EventFlags::OUT | ended),
                ended: flags.intersects(ended),
            };
            Some((Source::decode(data.u64())?, ready))
        });
        told.collect()
    }
}

fn flags(wants: Wants) -> epoll::EventFlags {
    match wants {
        Wants::Read => epoll::EventFlags::IN,
        Wants::Write => epoll::EventFlags::OUT,
        Wants::End => epoll::EventFlags::empty(),
        Wants::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
    }
}
