//! Background processes: plain data.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use podkit_agent::MAX_PROCESS_NAME_BYTES;

use crate::{
    error::{Error, Result},
    exec::{ExecRequest, Outcome, Usage},
};

/// Bytes of a process's log that are kept at least when nothing else is said: 10 MiB. At most twice
/// as many are on disk.
pub const DEFAULT_LOG_LIMIT_BYTES: u64 = 10 << 20;

/// Most bytes of a path.
const PATH_BYTES: usize = 4096;

/// When a process that has ended is begun again: after 100 ms at first, twice as late each time up to
/// 10 s, and as at first once it has run for 10 s. One that was stopped is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RestartPolicy {
    /// Never.
    #[default]
    Never,
    /// When it failed; at most so many times, without end for `None`.
    OnFailure {
        /// How many times.
        max_restarts: Option<u32>,
    },
    /// Whenever it has ended by itself.
    Always,
}

/// Input of one start of a process.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SpawnRequest {
    /// What runs. Its `stdin`, `output_limit_bytes` and `detached` mean nothing here; with a
    /// `terminal`, that is kept and can be attached to, and there is no log.
    pub exec: ExecRequest,
    /// Name; no other process that runs in this container has it.
    pub name: Option<String>,
    /// When it is begun again.
    pub restart: RestartPolicy,
    /// Whether it keeps the container from stopping by itself.
    pub keep_alive: bool,
    /// Directory of the logs in the container, relative to `/workspace`: made as the process's user
    /// when missing, and never removed. Without, the agent chooses one, below the first of
    /// `/var/log/podkit`, `/run/podkit` and `/tmp/podkit` that can be written; what is in it goes when
    /// the process is forgotten, or when the next life of the container begins its first log.
    pub log_directory: Option<String>,
    /// Bytes of the log that are kept; [`DEFAULT_LOG_LIMIT_BYTES`] without.
    pub log_limit_bytes: Option<u64>,
}

impl SpawnRequest {
    /// Runs what `exec` says.
    #[must_use]
    pub fn new(exec: ExecRequest) -> Self {
        Self {
            exec,
            ..Self::default()
        }
    }

    /// Checks what can be checked without a container.
    ///
    /// # Errors
    /// As [`ExecRequest::check`]; `InvalidInput` for a name that is empty, longer than 128 bytes,
    /// or has control characters or a `/` or `#`.
    pub fn check(&self) -> Result<()> {
        self.exec.check()?;
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        let bad = |path: &str| path.is_empty() || path.len() > PATH_BYTES || path.contains('\0');
        if self.log_directory.as_deref().is_some_and(bad) {
            return Err(Error::invalid_input(format!(
                "the directory of the log is empty, longer than {PATH_BYTES} bytes, or contains a NUL \
                 byte"
            )));
        }
        Ok(())
    }
}

/// Checks a process's name, or the id of one.
///
/// # Errors
/// `InvalidInput`.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let bad = |character: char| character.is_control() || matches!(character, '/' | '#');
    if name.is_empty() || name.len() > MAX_PROCESS_NAME_BYTES || name.contains(bad) {
        return Err(Error::invalid_input(format!(
            "{name:?} is not a name of a process: 1 to {MAX_PROCESS_NAME_BYTES} bytes, no control \
             characters, `/` or `#`"
        )));
    }
    Ok(())
}

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It has ended, and is begun again soon.
    Restarting,
    /// It has ended.
    Ended(Outcome),
}

impl ProcessState {
    /// Whether it runs, or will without being asked to.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        !matches!(self, Self::Ended(_))
    }

    /// Stable lower-case name: `running`, `restarting` or `ended`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Ended(_) => "ended",
        }
    }
}

/// What is known of a process. What its agent says is the container's word.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Id: unique in the life of the container.
    pub id: String,
    /// Name.
    pub name: Option<String>,
    /// Program and arguments, as far as they are less than 4 KiB.
    pub argv: Vec<String>,
    /// Directory of its logs in the container, `<id>.out.log` and `<id>.err.log`; none for one with
    /// a terminal.
    pub log_directory: Option<String>,
    /// Its pid in the container, while it runs.
    pub pid: Option<u32>,
    /// How it is.
    pub state: ProcessState,
    /// How often it was begun again.
    pub restarts: u32,
    /// When it was begun last.
    pub started_at: SystemTime,
    /// When it ended last.
    pub ended_at: Option<SystemTime>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether it keeps the container from stopping by itself.
    pub keep_alive: bool,
    /// What it has used since it was begun last.
    pub usage: Usage,
}

/// What of a log is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOptions {
    /// One of the streams only.
    pub only: Option<LogStream>,
    /// So many lines from the end.
    pub tail_lines: Option<u64>,
    /// Nothing from before.
    pub since: Option<SystemTime>,
    /// Whether what is written from now on is read as well, until the process has ended.
    pub follow: bool,
}

/// Which of a process's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// Standard output; also both, when they are merged.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Bytes of a log. They need not end with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogChunk {
    /// Where they were written.
    pub stream: LogStream,
    /// The bytes.
    pub bytes: Bytes,
}

impl LogOptions {
    pub(crate) fn to_wire(self) -> podkit_agent::LogQuery {
        let since = self.since.map(|at| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH);
            millis(since.unwrap_or_default())
        });
        podkit_agent::LogQuery {
            only: self.only.map(|stream| match stream {
                LogStream::Stdout => podkit_agent::Output::Stdout,
                LogStream::Stderr => podkit_agent::Output::Stderr,
            }),
            tail_lines: self.tail_lines,
            since_unix_ms: since,
            follow: self.follow,
        }
    }
}

impl RestartPolicy {
    pub(crate) const fn to_wire(self) -> podkit_agent::RestartPolicy {
        match self {
            Self::Never => podkit_agent::RestartPolicy::Never,
            Self::OnFailure { max_restarts } => {
                podkit_agent::RestartPolicy::OnFailure(max_restarts)
            }
            Self::Always => podkit_agent::RestartPolicy::Always,
        }
    }
}

/// Whole milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
