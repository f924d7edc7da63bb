//! What happens to sessions, told as it happens: a typed stream, handlers, and a record of commands.
//!
//! Telling never holds anybody up, and what a listener does wrong changes nothing: a stream that is
//! read too slowly misses events and is told how many; a handler has a thread of its own, and its
//! panics end there.

mod audit;
mod bus;
mod time;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

pub(crate) use self::bus::EventBus;
pub use self::{
    audit::AuditLog,
    bus::{EventHandler, EventStream},
    time::rfc3339,
};
use crate::{
    backend::StopCause,
    error::{Error, ErrorKind},
    exec::{Outcome, Usage},
    id::{ContainerId, SessionKey},
    session::Opened,
};

/// Something that happened to a session. Each fact is told once by the `Podkit` that did it or saw
/// it, in order for each session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// Whose session; none where events were missed.
    pub key: Option<SessionKey>,
    /// Name of its container.
    pub container: Option<ContainerId>,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A container was made.
    ContainerCreated,
    /// A container could not be made.
    ContainerCreationFailed(Reason),
    /// A container was started.
    ContainerStarted,
    /// A container could not be started, or did not stay up.
    ContainerStartFailed(Reason),
    /// A paused container goes on.
    ContainerResumed,
    /// A container was paused.
    ContainerPaused,
    /// A container was stopped, or was found to have stopped.
    ContainerStopped(Option<StopCause>),
    /// A container could not be stopped.
    ContainerStopFailed(Reason),
    /// A container was removed.
    ContainerRemoved,
    /// A container could not be removed.
    ContainerRemovalFailed(Reason),
    /// A session is open; how it came to be.
    SessionOpened(Opened),
    /// A session could not be opened.
    SessionOpenFailed(Reason),
    /// A session is being closed.
    SessionClosing,
    /// A session was closed.
    SessionClosed,
    /// A session was not used for long, and will expire at this time.
    SessionExpiring(SystemTime),
    /// A session expired: its container is being removed.
    SessionExpired,
    /// A container that no session used for so long is being removed, by
    /// [`gc`](crate::Podkit::gc) or the orphan cleaner.
    OrphanRemoved(Duration),
    /// A container is not well, and is about to be recovered.
    HealthCheckFailed(Illness),
    /// A container that was not well is well again; what it took.
    Recovered(Opened),
    /// A container could not be recovered. It is tried again, less and less often; the session's
    /// next use tries as well.
    RecoveryFailed(Reason),
    /// A command was begun.
    ExecStarted(CommandInfo),
    /// A command has ended.
    ExecEnded(CommandInfo, CommandEnd),
    /// A background process was begun: id and name.
    ProcessStarted(ProcessRef),
    /// A background process has ended, and is not begun again.
    ProcessEnded(ProcessRef, Outcome),
    /// So many events were not told to this listener, which was too slow.
    Missed(u64),
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reason {
    /// What a program can decide on.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// Exit code of the container's own program, where it ended.
    pub exit_code: Option<i32>,
    /// The last lines that the container's own program wrote. Anything may stand in them.
    pub log: Vec<String>,
}

impl Reason {
    /// The reason that an error is.
    #[must_use]
    pub fn new(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            message: error.message().to_owned(),
            exit_code: None,
            log: Vec::new(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a health check found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Illness {
    /// What is wrong.
    pub symptom: Symptom,
    /// Exit code of the container's own program, where it ended.
    pub exit_code: Option<i32>,
    /// The last lines that the container's own program wrote. Anything may stand in them.
    pub log: Vec<String>,
}

/// What is wrong with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Symptom {
    /// It was killed, or its program failed.
    Died,
    /// Somebody paused it.
    Frozen,
    /// It runs, and its agent does not answer.
    Silent,
    /// Somebody removed it.
    Removed,
    /// Only removal helps.
    Broken,
}

impl Symptom {
    /// Stable lower-case name: `silent`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Died => "died",
            Self::Frozen => "frozen",
            Self::Silent => "silent",
            Self::Removed => "removed",
            Self::Broken => "broken",
        }
    }
}

/// A command, as far as events tell. Never its environment or its input.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandInfo {
    /// The same in both events of one command, and of no other of this process.
    pub number: u64,
    /// Program and arguments, cut after 4 KiB.
    pub argv: Vec<String>,
    /// User, when one was named.
    pub user: Option<String>,
    /// Working directory, when one was named.
    pub cwd: Option<String>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CommandEnd {
    /// As it does.
    Ended(Outcome, Usage),
    /// It could not be begun, or the connection broke.
    Failed(Reason),
    /// Its caller let it go, or gave it up, which kills it unless it is detached.
    LetGo,
}

/// A background process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessRef {
    /// Its id.
    pub id: String,
    /// Its name, if it has one.
    pub name: String,
    /// Program and arguments, cut after 4 KiB.
    pub argv: Vec<String>,
}

impl EventKind {
    /// Stable lower-case name: `container_created`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ContainerCreated => "container_created",
            Self::ContainerCreationFailed(_) => "container_creation_failed",
            Self::ContainerStarted => "container_started",
            Self::ContainerStartFailed(_) => "container_start_failed",
            Self::ContainerResumed => "container_resumed",
            Self::ContainerPaused => "container_paused",
            Self::ContainerStopped(_) => "container_stopped",
            Self::ContainerStopFailed(_) => "container_stop_failed",
            Self::ContainerRemoved => "container_removed",
            Self::ContainerRemovalFailed(_) => "container_removal_failed",
            Self::SessionOpened(_) => "session_opened",
            Self::SessionOpenFailed(_) => "session_open_failed",
            Self::SessionClosing => "session_closing",
            Self::SessionClosed => "session_closed",
            Self::SessionExpiring(_) => "session_expiring",
            Self::SessionExpired => "session_expired",
            Self::OrphanRemoved(_) => "orphan_removed",
            Self::HealthCheckFailed(_) => "health_check_failed",
            Self::Recovered(_) => "recovered",
            Self::RecoveryFailed(_) => "recovery_failed",
            Self::ExecStarted(_) => "exec_started",
            Self::ExecEnded(..) => "exec_ended",
            Self::ProcessStarted(_) => "process_started",
            Self::ProcessEnded(..) => "process_ended",
            Self::Missed(_) => "missed",
        }
    }
}

/// As much of a command line as is told.
pub(crate) fn told_words(argv: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<String> {
    let mut left = 4096_usize;
    let mut words = Vec::new();
    for word in argv {
        let word = word.as_ref();
        let kept = word.get(..word.len().min(left)).unwrap_or_default();
        words.push(String::from_utf8_lossy(kept).into_owned());
        left = left.saturating_sub(word.len());
        if left == 0 {
            break;
        }
    }
    words
}
